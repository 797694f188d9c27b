//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// What passes the node's interface to the other nodes and to the outside.
//
// A packet from elsewhere to an address that a service has outside of the
// cluster (a node port, an external address) goes to one of the service's
// endpoints: to a pod on this node straight through its veth, with the client's
// address kept, and to one elsewhere with the node's own address as its source,
// so that the answers come back here. What pods send to the outside gets the
// node's address as well.
//
// A flow has two entries in one table, each by the packet that it is for: the
// way there and the way back. Entries age by use; the table drops what was used
// least recently when it is full.

#include "announce.h"
#include "endpoints.h"
#include "policy.h"

#define AF_INET 2

// The node's address, and the network of its pods. Set when loading.
volatile const __be32 node_addr = 0;
volatile const __be32 pod_net = 0;
volatile const __be32 pod_mask = 0;
// The node's address in the overlay, 0 where there is none. Programs are at the
// overlay's interface as well, for the answers.
volatile const __be32 overlay_addr = 0;

// Source ports of translated packets: below those that the node's own connections
// have, those that a client's direct connections to the same pod have, and those
// of node ports. One that a packet has is kept when it is among them.
#define FIRST_PORT 1024
#define PORTS 28976
#define PORT_ATTEMPTS 32

// After so many seconds without a packet, a port may be another flow's. Soon after
// a connection is closed an endpoint may still remember it: such a port is taken
// when others were not found.
#define TCP_IDLE (3 * 60 * 60)
#define UDP_IDLE 120
#define CLOSED_IDLE 60
#define CLOSED_IDLE_MIN 5

// A packet's addresses and ports. Of an ICMP echo, both ports are its identifier.
struct tuple {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 zero[3];
};

enum way {
	TO_BACKEND = 1, // from a client outside
	TO_CLIENT, // back to it
	TO_WORLD, // from a pod to the outside
	TO_POD, // back to it
	INBOUND, // from a pod, in answer to who reached it directly: left alone
};

struct flow {
	struct tuple becomes;
	__u32 seen; // seconds since boot
	__u32 slot; // of the endpoint
	__u32 link; // out by this interface; 0: up to the node itself
	__u8 way;
	__u8 closed; // a FIN or RST was seen
	__u8 unanswered; // of a way back: nothing has come this way yet
	__u8 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 17);
	__type(key, struct tuple);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} flows SEC(".maps");

struct network {
	__u32 bits;
	__be32 addr;
};

// Where pods are known by their own addresses: the cluster's pods and nodes.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, struct network);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cluster_networks SEC(".maps");

struct packet {
	struct tuple tuple;
	__u32 l4; // offset
	__u8 opens; // the first of a TCP connection
	__u8 closes;
	__u8 echo; // a ping
};

// parse tells whether the packet is one that may be translated. Fragments are
// not: all but the first lack the ports.
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;
	__u8 flags, type;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return 0;
	if (ip.frag_off & bpf_htons(0x3fff) || ip.ihl < 5)
		return 0;
	p->l4 = ETH_HLEN + ip.ihl * 4;
	p->tuple.saddr = ip.saddr;
	p->tuple.daddr = ip.daddr;
	p->tuple.protocol = ip.protocol;
	switch (ip.protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, p->l4 + 13, &flags, 1) < 0)
			return 0;
		p->opens = (flags & 0x12) == 0x02; // SYN without ACK
		p->closes = flags & 0x05; // FIN or RST
		return bpf_skb_load_bytes(skb, p->l4, &p->tuple.sport, 4) == 0;
	case IPPROTO_UDP:
		return bpf_skb_load_bytes(skb, p->l4, &p->tuple.sport, 4) == 0;
	case IPPROTO_ICMP:
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1) < 0 || (type != ICMP_ECHO && type != ICMP_ECHOREPLY) ||
		    bpf_skb_load_bytes(skb, p->l4 + 4, &p->tuple.sport, 2) < 0)
			return 0;
		p->tuple.dport = p->tuple.sport;
		p->echo = type == ICMP_ECHO;
		return 1;
	default:
		return 0;
	}
}

static __always_inline int rewrite_port(struct __sk_buff *skb, __u32 at, __u32 checksum, __be16 from, __be16 to, __u64 flags)
{
	if (from == to)
		return 0;
	return bpf_l4_csum_replace(skb, checksum, from, to, flags | sizeof(to)) < 0 ||
	       bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0) < 0;
}

// rewrite gives the packet other addresses and ports. It fails only for packets
// that are broken.
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *p, const struct tuple *to)
{
	__u32 checksum = p->l4 + (p->tuple.protocol == IPPROTO_TCP ? 16 : p->tuple.protocol == IPPROTO_UDP ? 6 : 2);
	__u64 flags = p->tuple.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0; // none stays none
	__be32 from[2] = { p->tuple.saddr, p->tuple.daddr }, now[2] = { to->saddr, to->daddr };
	__s64 diff = bpf_csum_diff(from, sizeof(from), now, sizeof(now), 0);

	if (p->tuple.protocol == IPPROTO_ICMP) {
		if (rewrite_port(skb, p->l4 + 4, checksum, p->tuple.sport, to->sport, 0))
			return -1;
	} else if (bpf_l4_csum_replace(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR | flags) < 0 ||
		   rewrite_port(skb, p->l4, checksum, p->tuple.sport, to->sport, flags) ||
		   rewrite_port(skb, p->l4 + 2, checksum, p->tuple.dport, to->dport, flags)) {
		return -1;
	}
	if (bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), 0, diff, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), now, sizeof(now), 0) < 0)
		return -1;
	return 0;
}

static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_ns() / 1000000000ULL;
}

// answers is the tuple of the packets that answer to what the tuple is of.
static __always_inline struct tuple answers(const struct tuple *t)
{
	struct tuple back = {
		.saddr = t->daddr, .daddr = t->saddr, .sport = t->dport, .dport = t->sport, .protocol = t->protocol,
	};

	return back;
}

// count_packet counts a packet of a flow, or its first, for the service that it is of.
static __always_inline void count_packet(const struct flow *f, const struct packet *p, __u32 connections)
{
	struct path path = { .frontend = { .protocol = p->tuple.protocol, .scope = OUTSIDE } };

	switch (f->way) {
	case TO_BACKEND:
		path.frontend.addr = p->tuple.daddr;
		path.frontend.port = p->tuple.dport;
		path.backend.addr = f->becomes.daddr;
		path.backend.port = f->becomes.dport;
		break;
	case TO_CLIENT:
		path.frontend.addr = f->becomes.saddr;
		path.frontend.port = f->becomes.sport;
		path.backend.addr = p->tuple.saddr;
		path.backend.port = p->tuple.sport;
		break;
	default:
		return;
	}
	count_traffic(&path, connections, 1);
}

// follow takes note of a packet of a flow.
static __always_inline void follow(struct flow *f, const struct packet *p)
{
	__u32 now = seconds();

	count_packet(f, p, 0);
	if (f->unanswered)
		f->unanswered = 0;
	if (f->seen != now)
		f->seen = now;
	if (p->closes && !f->closed) {
		struct tuple back = answers(&f->becomes);
		struct flow *other = bpf_map_lookup_elem(&flows, &back);

		f->closed = 1;
		if (other)
			other->closed = 1;
	}
}

static __always_inline int has_ended(const struct flow *f, __u8 protocol, __u32 closed_idle)
{
	__u32 idle = f->closed ? closed_idle : protocol == IPPROTO_TCP ? TCP_IDLE : UDP_IDLE;

	return seconds() - f->seen > idle;
}

// enter puts an entry into the table of flows, in the place of another if there is one.
static __always_inline int enter(const struct tuple *key, const struct flow *f)
{
	if (bpf_map_update_elem(&flows, key, f, BPF_NOEXIST) == 0) {
		count(FLOWS_ENTERED);
		return 0;
	}
	return bpf_map_update_elem(&flows, key, f, BPF_ANY);
}

// begin enters a flow, both ways. The packet becomes forth->becomes, of which
// the source port may still change: no two flows may have the same way back.
static __always_inline int begin(const struct packet *p, struct flow *forth, struct flow *back)
{
	__be16 port = forth->becomes.sport;
	struct tuple key;
	int i;

	forth->seen = back->seen = seconds();
	back->unanswered = 1;
	back->becomes = answers(&p->tuple);
	if (bpf_ntohs(port) < FIRST_PORT || bpf_ntohs(port) >= FIRST_PORT + PORTS)
		port = bpf_htons(FIRST_PORT + bpf_get_prandom_u32() % PORTS);
	for (i = 0; i < PORT_ATTEMPTS; i++) {
		struct flow *other;

		forth->becomes.sport = port;
		if (p->tuple.protocol == IPPROTO_ICMP)
			forth->becomes.dport = port;
		key = answers(&forth->becomes);
		other = bpf_map_lookup_elem(&flows, &key);
		if (!other || has_ended(other, p->tuple.protocol, i < PORT_ATTEMPTS / 2 ? CLOSED_IDLE : CLOSED_IDLE_MIN) ||
		    (other->becomes.saddr == back->becomes.saddr && other->becomes.daddr == back->becomes.daddr &&
		     other->becomes.sport == back->becomes.sport && other->becomes.dport == back->becomes.dport)) {
			if (bpf_map_update_elem(&flows, &key, back, other ? BPF_ANY : BPF_NOEXIST) == 0) {
				if (!other)
					count(FLOWS_ENTERED);
				return enter(&p->tuple, forth);
			}
		}
		port = bpf_htons(FIRST_PORT + bpf_get_prandom_u32() % PORTS);
	}
	return -1;
}

static __always_inline int drop(__u32 why)
{
	count(why);
	return TC_ACT_SHOT;
}

// refused tells whether policies keep a packet from a pod. What goes into a pod
// straight never passes the pod's interface on the node, where that is asked else.
static __always_inline int refused(__u32 link, const struct packet *p, const struct tuple *to)
{
	struct policy_scratch *room;

	if (!policy_selects(link) || !(room = policy_scratch()))
		return 0;
	policy_map_address(room->packet.peer, to->saddr);
	room->packet.pod_port = to->dport;
	room->packet.peer_port = to->sport;
	room->packet.protocol = to->protocol;
	room->packet.opens = p->opens;
	room->packet.closes = p->closes != 0;
	return policy_refuses(link, POLICY_INGRESS, &room->packet);
}

// send passes a packet of a flow on from the uplink's ingress, or the overlay's:
// into a pod, or out, when it is to another node or comes back from there.
static __always_inline int send(struct __sk_buff *skb, const struct packet *p, const struct flow *f)
{
	struct tuple to = f->becomes;
	__u32 link = f->link;
	int out = link == skb->ifindex || f->way == TO_CLIENT || (overlay_addr && to.saddr == overlay_addr);

	if (rewrite(skb, p, &to))
		return drop(DROP_BROKEN);
	if (link == 0)
		return TC_ACT_UNSPEC;
	if (out)
		return bpf_redirect_neigh(link, 0, 0, 0);
	if (refused(link, p, &to))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(link, 0);
}

// flow_of stands for a flow, the same on every node, and is not 0.
static __always_inline __u64 flow_of(const struct tuple *t)
{
	__u64 ports = ((__u64)t->sport << 32) | ((__u64)t->dport << 16) | t->protocol;

	return (((__u64)t->saddr << 32) | t->daddr) ^ (ports * 0x9e3779b97f4a7c15ULL) ?: 1;
}

// to_service sends a packet to one of the service's endpoints, if it is for a
// service. Known is the packet's flow, if it has one.
static __always_inline int to_service(struct __sk_buff *skb, const struct packet *p, struct flow *known)
{
	struct frontend frontend = {
		.addr = p->tuple.daddr, .port = p->tuple.dport, .protocol = p->tuple.protocol, .scope = OUTSIDE,
	};
	struct bpf_fib_lookup fib = {};
	struct choice chosen = {}, earlier = {};
	struct flow forth = { .way = TO_BACKEND }, back = { .way = TO_CLIENT, .link = skb->ifindex };

	if (known) {
		earlier.backend.addr = known->becomes.daddr;
		earlier.backend.port = known->becomes.dport;
		earlier.slot = known->slot;
	}
	switch (choose(skb, OUTSIDER | p->tuple.saddr, flow_of(&p->tuple), &frontend, known ? &earlier : 0, &chosen)) {
	case PASS:
		return TC_ACT_UNSPEC;
	case FORBID:
		return drop(DROP_SOURCE_RANGE);
	case REFUSE:
		count(DROP_NO_ENDPOINT);
		// The node itself answers that nobody listens.
		return p->tuple.daddr == node_addr ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	case REWRITE:
		break;
	}
	if (known && known->becomes.daddr == chosen.backend.addr && known->becomes.dport == chosen.backend.port && !known->closed) {
		follow(known, p);
		return send(skb, p, known);
	}

	forth.becomes = p->tuple;
	forth.becomes.daddr = chosen.backend.addr;
	forth.becomes.dport = chosen.backend.port;
	forth.slot = chosen.slot;
	fib.family = AF_INET;
	fib.ifindex = skb->ifindex;
	fib.ipv4_src = p->tuple.saddr;
	fib.ipv4_dst = chosen.backend.addr;
	switch (bpf_fib_lookup(skb, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED: // the overlay's own packets are fragmented then
		forth.link = fib.ifindex;
		if (forth.link == skb->ifindex)
			forth.becomes.saddr = node_addr;
		else if (overlay_addr && (chosen.backend.addr & pod_mask) != pod_net)
			forth.becomes.saddr = overlay_addr;
		break;
	case BPF_FIB_LKUP_RET_NOT_FWDED: // the endpoint is the node itself
		break;
	default:
		return drop(DROP_NO_ROUTE);
	}
	if (begin(p, &forth, &back))
		return drop(DROP_NO_PORT);
	count_packet(&forth, p, 1);
	return send(skb, p, &forth);
}

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

// to_sender passes an ICMP error on to who sent the packet that it is about, which was
// translated on its way out: the packet quoted in it becomes what its sender sent. The
// quoted packet's own checksum is left: who gets the error does not look at it, and it is
// not always quoted.
static __attribute__((noinline)) int to_sender(struct __sk_buff *skb)
{
	struct tuple key = {}, becomes;
	struct iphdr ip, quoted;
	__be32 addrs[2], sender[2];
	__u32 icmp, inner, ports_at, link;
	struct flow *f;
	__be16 ports[2], original[2];
	__u8 type;
	__s64 diff;
	int out;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 ||
	    ip.protocol != IPPROTO_ICMP || ip.frag_off & bpf_htons(0x3fff) || ip.ihl < 5)
		return TC_ACT_UNSPEC;
	icmp = ETH_HLEN + ip.ihl * 4;
	inner = icmp + 8;
	if (bpf_skb_load_bytes(skb, icmp, &type, 1) < 0 ||
	    (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM) ||
	    bpf_skb_load_bytes(skb, inner, &quoted, sizeof(quoted)) < 0 || quoted.ihl < 5 ||
	    (quoted.protocol != IPPROTO_TCP && quoted.protocol != IPPROTO_UDP))
		return TC_ACT_UNSPEC;
	ports_at = inner + quoted.ihl * 4;
	if (bpf_skb_load_bytes(skb, ports_at, ports, sizeof(ports)) < 0)
		return TC_ACT_UNSPEC;
	key.saddr = quoted.daddr;
	key.daddr = quoted.saddr;
	key.sport = ports[1];
	key.dport = ports[0];
	key.protocol = quoted.protocol;
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || f->way == INBOUND)
		return TC_ACT_UNSPEC;
	becomes = f->becomes;
	link = f->link;
	out = link == skb->ifindex || f->way == TO_CLIENT || (overlay_addr && becomes.saddr == overlay_addr);

	addrs[0] = quoted.saddr;
	addrs[1] = quoted.daddr;
	sender[0] = becomes.daddr;
	sender[1] = becomes.saddr;
	original[0] = becomes.dport;
	original[1] = becomes.sport;
	// The header's own checksum makes up for its addresses, so that the error's counts
	// the ports only.
	diff = bpf_csum_diff(addrs, sizeof(addrs), sender, sizeof(sender), 0);
	if (bpf_l3_csum_replace(skb, inner + __builtin_offsetof(struct iphdr, check), 0, diff, 0) < 0 ||
	    bpf_skb_store_bytes(skb, inner + __builtin_offsetof(struct iphdr, saddr), sender, sizeof(sender), 0) < 0 ||
	    bpf_l4_csum_replace(skb, icmp + 2, *(__u32 *)ports, *(__u32 *)original, sizeof(__u32)) < 0 ||
	    bpf_skb_store_bytes(skb, ports_at, original, sizeof(original), 0) < 0)
		return drop(DROP_BROKEN);

	addrs[0] = ip.saddr;
	addrs[1] = ip.daddr;
	sender[0] = ip.saddr == quoted.daddr ? becomes.saddr : ip.saddr;
	sender[1] = becomes.daddr;
	diff = bpf_csum_diff(addrs, sizeof(addrs), sender, sizeof(sender), 0);
	if (bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), 0, diff, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), sender, sizeof(sender), 0) < 0)
		return drop(DROP_BROKEN);
	if (link == 0)
		return TC_ACT_UNSPEC;
	return out ? bpf_redirect_neigh(link, 0, 0, 0) : bpf_redirect_peer(link, 0);
}

static __always_inline int in_cluster(__be32 addr)
{
	struct network key = { .bits = 32, .addr = addr };

	return bpf_map_lookup_elem(&cluster_networks, &key) != 0;
}

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow *f;
	int verdict;

	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return answer_arp(skb);
	if (!parse(skb, &p))
		return to_sender(skb);
	f = bpf_map_lookup_elem(&flows, &p.tuple);
	if (f && (f->way == TO_CLIENT || f->way == TO_POD)) {
		follow(f, &p);
		return send(skb, &p, f);
	}
	if (f && f->way != TO_BACKEND)
		f = 0;
	// A connection stays with its endpoint until it ends, a service's datagrams
	// only as long as the endpoint is the service's.
	if (f && p.tuple.protocol == IPPROTO_TCP && !p.opens) {
		follow(f, &p);
		return send(skb, &p, f);
	}
	if (p.tuple.protocol != IPPROTO_ICMP) {
		verdict = to_service(skb, &p, f);
		if (verdict != TC_ACT_UNSPEC || f)
			return verdict;
	}
	if (is_announced(p.tuple.daddr))
		return p.echo ? answer_echo(skb, p.l4) : drop(DROP_NO_SERVICE);
	// Who reaches a pod from outside by its own address gets answers from there.
	if ((p.tuple.daddr & pod_mask) == pod_net && pod_mask && !in_cluster(p.tuple.saddr)) {
		struct tuple back = answers(&p.tuple);
		struct flow inbound = { .way = INBOUND, .becomes = back };

		f = bpf_map_lookup_elem(&flows, &back);
		if (!f || has_ended(f, p.tuple.protocol, CLOSED_IDLE_MIN)) {
			inbound.seen = seconds();
			enter(&back, &inbound);
		} else if (f->way == INBOUND) {
			follow(f, &p);
		}
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int to_uplink(struct __sk_buff *skb)
{
	struct flow forth = { .way = TO_WORLD }, back = { .way = TO_POD };
	struct packet p = {};
	struct tuple to;
	struct flow *f;

	if (!parse(skb, &p))
		return TC_ACT_UNSPEC;
	f = bpf_map_lookup_elem(&flows, &p.tuple);
	if (f && (f->way == TO_CLIENT || f->way == TO_WORLD)) {
		follow(f, &p);
		to = f->becomes;
		return rewrite(skb, &p, &to) ? drop(DROP_BROKEN) : TC_ACT_UNSPEC;
	}
	if (f && f->way == INBOUND) {
		follow(f, &p);
		return TC_ACT_UNSPEC;
	}
	if ((p.tuple.saddr & pod_mask) != pod_net || !pod_mask || in_cluster(p.tuple.daddr))
		return TC_ACT_UNSPEC;
	forth.becomes = p.tuple;
	forth.becomes.saddr = node_addr;
	if (begin(&p, &forth, &back))
		return drop(DROP_NO_PORT);
	to = forth.becomes;
	return rewrite(skb, &p, &to) ? drop(DROP_BROKEN) : TC_ACT_UNSPEC;
}

// Looking routes up is reserved to GPL programs.
char programs_license[] SEC("license") = "GPL";
