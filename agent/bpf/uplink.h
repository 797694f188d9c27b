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
// Who includes this has said, of its family of addresses: headers, rewrite_header,
// rewrite_ping, find_way, answer_neighbour, quoted and rewrite_error.

#pragma once

#include "flows.h"

// parse tells whether the packet is one that may be translated. Of a packet in
// fragments, the first says what ports the others belong to.
static __always_inline int parse(struct __sk_buff *skb, struct room *r)
{
	struct packet *p = &r->packet;
	struct fragment *f = &r->fragment;
	struct ports *seen, ports;
	__u8 flags, type;

	__builtin_memset(p, 0, sizeof(*p));
	if (!headers(skb, p))
		return 0;
	if (p->first || p->later) {
		__builtin_memset(f, 0, sizeof(*f));
		copy_ip(f->saddr, p->tuple.saddr);
		copy_ip(f->daddr, p->tuple.daddr);
		f->id = p->id;
		f->protocol = p->tuple.protocol;
	}
	if (p->later) {
		seen = bpf_map_lookup_elem(&NAMED(fragments), f);
		if (!seen)
			return 0;
		p->tuple.sport = seen->sport;
		p->tuple.dport = seen->dport;
		return 1;
	}
	switch (p->tuple.protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, p->l4 + 13, &flags, 1) < 0)
			return 0;
		p->opens = (flags & 0x12) == 0x02; // SYN without ACK
		p->closes = (flags & 0x05) != 0; // FIN or RST
		// fall through
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, p->l4, &p->tuple.sport, 4) < 0)
			return 0;
		break;
	case PING:
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1) < 0 || (type != PING_REQUEST && type != PING_REPLY) ||
		    bpf_skb_load_bytes(skb, p->l4 + 4, &p->tuple.sport, 2) < 0)
			return 0;
		p->tuple.dport = p->tuple.sport;
		p->echo = type == PING_REQUEST;
		break;
	default:
		return 0;
	}
	if (p->first) {
		ports.sport = p->tuple.sport;
		ports.dport = p->tuple.dport;
		bpf_map_update_elem(&NAMED(fragments), f, &ports, BPF_ANY);
	}
	return 1;
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
static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p, struct tuple *to)
{
	__u64 flags = p->tuple.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0; // none stays none
	__u32 checksum = p->l4 + (p->tuple.protocol == IPPROTO_TCP ? 16 : 6);
	__s64 diff = bpf_csum_diff(p->tuple.saddr, 8 * WORDS, to->saddr, 8 * WORDS, 0);

	if (p->later) {
		// The checksum is in the first fragment, and holds for all.
	} else if (p->tuple.protocol == PING) {
		if (rewrite_ping(skb, p, to, diff))
			return -1;
	} else if (bpf_l4_csum_replace(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR | flags) < 0 ||
		   rewrite_port(skb, p->l4, checksum, p->tuple.sport, to->sport, flags) ||
		   rewrite_port(skb, p->l4 + 2, checksum, p->tuple.dport, to->dport, flags)) {
		return -1;
	}
	return rewrite_header(skb, to->saddr, diff);
}

static __always_inline int is_node(const __u32 *addr)
{
	__u32 differ = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		differ |= addr[i] ^ node_addr[i];
	return differ == 0;
}

static __always_inline int is_overlay(const __u32 *addr)
{
	__u32 differ = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		differ |= addr[i] ^ overlay_addr[i];
	return overlay_addr[0] && differ == 0;
}

// is_pod tells whether an address is one of the node's pods.
static __always_inline int is_pod(const __u32 *addr)
{
	__u32 differ = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		differ |= (addr[i] & pod_mask[i]) ^ pod_net[i];
	return pod_mask[0] && differ == 0;
}

static __always_inline int in_cluster(struct room *r, const __u32 *addr)
{
	r->network.bits = 32 * WORDS;
	copy_ip(r->network.addr, addr);
	return bpf_map_lookup_elem(&NAMED(cluster_networks), &r->network) != 0;
}

// refused tells whether policies keep a packet from a pod. What goes into a pod
// straight never passes the pod's interface on the node, where that is asked else.
static __always_inline int refused(__u32 link, const struct packet *p, const struct tuple *to)
{
	struct policy_scratch *scratch;

	if (!policy_selects(link) || !(scratch = policy_scratch()))
		return 0;
	map_ip(scratch->packet.peer, to->saddr);
	scratch->packet.pod_port = to->dport;
	scratch->packet.peer_port = to->sport;
	scratch->packet.protocol = to->protocol;
	scratch->packet.opens = p->opens;
	scratch->packet.closes = p->closes;
	return policy_refuses(scratch, link, POLICY_INGRESS);
}

static __always_inline int goes_out(const struct __sk_buff *skb, const struct flow *f)
{
	return f->link == skb->ifindex || f->way == TO_CLIENT || is_overlay(f->becomes.saddr);
}

// send passes a packet of a flow on from the uplink's ingress, or the overlay's:
// into a pod, or out, when it is to another node or comes back from there.
static __always_inline int send(struct __sk_buff *skb, struct room *r, const struct flow *f)
{
	int out = goes_out(skb, f);
	__u32 link = f->link;

	copy(&r->becomes, &f->becomes);
	if (rewrite(skb, &r->packet, &r->becomes))
		return drop(&r->packet, DROP_BROKEN);
	if (link == 0)
		return TC_ACT_UNSPEC;
	if (out)
		return bpf_redirect_neigh(link, 0, 0, 0);
	if (refused(link, &r->packet, &r->becomes))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(link, 0);
}

// flow_of stands for a flow, the same on every node.
static __always_inline __u64 flow_of(const struct tuple *t)
{
	__u64 ports = ((__u64)t->sport << 32) | ((__u64)t->dport << 16) | t->protocol, all = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		all = all * SPREAD ^ (((__u64)t->saddr[i] << 32) | t->daddr[i]);
	return all ^ (ports * SPREAD);
}

// to_service sends a packet to one of the service's endpoints, if it is for a
// service. Known is the packet's flow, if it has one.
static __always_inline int to_service(struct __sk_buff *skb, struct room *r, struct flow *known)
{
	struct packet *p = &r->packet;
	struct client client = { .addr = p->tuple.saddr, .flow = flow_of(&p->tuple) };
	int why;

	__builtin_memset(&r->frontend, 0, sizeof(r->frontend));
	copy_ip(r->frontend.addr, p->tuple.daddr);
	r->frontend.port = p->tuple.dport;
	r->frontend.protocol = p->tuple.protocol;
	r->frontend.scope = OUTSIDE;
	if (known) {
		__builtin_memset(&r->earlier, 0, sizeof(r->earlier));
		copy_ip(r->earlier.backend.addr, known->becomes.daddr);
		r->earlier.backend.port = known->becomes.dport;
		r->earlier.slot = known->slot;
	}
	switch (choose(skb, &client, &r->frontend, known ? &r->earlier : 0, &r->chosen)) {
	case PASS:
		return TC_ACT_UNSPEC;
	case FORBID:
		return drop(p, DROP_SOURCE_RANGE);
	case REFUSE:
		drop(p, DROP_NO_ENDPOINT);
		// The node itself answers that no process listens.
		return is_node(p->tuple.daddr) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	case REWRITE:
		break;
	}
#ifndef IPV6
	// A service must not make a packet from elsewhere one of this node's to the overlay.
	if (is_encapsulated(p->tuple.protocol, r->chosen.backend.port))
		return drop(p, DROP_ENCAPSULATED);
#endif
	if (known && same_ip(known->becomes.daddr, r->chosen.backend.addr) && known->becomes.dport == r->chosen.backend.port && !known->closed) {
		follow(r, known);
		return send(skb, r, known);
	}

	__builtin_memset(&r->forth, 0, sizeof(r->forth));
	__builtin_memset(&r->back, 0, sizeof(r->back));
	r->forth.way = TO_BACKEND;
	r->back.way = TO_CLIENT;
	r->back.link = skb->ifindex;
	copy(&r->forth.becomes, &p->tuple);
	copy_ip(r->forth.becomes.daddr, r->chosen.backend.addr);
	r->forth.becomes.dport = r->chosen.backend.port;
	r->forth.slot = r->chosen.slot;
	switch (find_way(skb, r)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED: // the overlay's own packets are fragmented then
		r->forth.link = r->fib.ifindex;
		if (r->forth.link == skb->ifindex)
			copy_ip(r->forth.becomes.saddr, node_addr);
		else if (overlay_addr[0] && !is_pod(r->chosen.backend.addr))
			copy_ip(r->forth.becomes.saddr, overlay_addr);
		break;
	case BPF_FIB_LKUP_RET_NOT_FWDED: // the endpoint is the node itself
		break;
	default:
		return drop(p, DROP_NO_ROUTE);
	}
	why = begin(r);
	if (why)
		return drop(p, why);
	count_packet(r, &r->forth, 1);
	return send(skb, r, &r->forth);
}

// to_sender passes an ICMP error on to who sent the packet that it is about, which was
// translated on its way out: the packet quoted in it becomes what its sender sent. The
// quoted packet's own checksum is left: who gets the error does not look at it, and it is
// not always quoted.
static __attribute__((noinline)) int to_sender(struct __sk_buff *skb)
{
	struct room *r = enter_room();
	struct quote *q;
	__u32 link;
	struct flow *f;
	int out;

	if (!r)
		return TC_ACT_UNSPEC; // which it never is
	q = &r->quote;
	__builtin_memset(q, 0, sizeof(*q));
	if (!quoted(skb, q))
		return TC_ACT_UNSPEC;
	answers(&r->key, &q->packet);
	f = bpf_map_lookup_elem(&NAMED(flows), &r->key);
	if (!f || f->way == INBOUND)
		return TC_ACT_UNSPEC;
	answers(&r->becomes, &f->becomes); // what the sender sent
	link = f->link;
	out = goes_out(skb, f);
	if (rewrite_error(skb, q, &r->becomes)) {
		count(DROP_BROKEN);
		return TC_ACT_SHOT;
	}
	if (link == 0)
		return TC_ACT_UNSPEC;
	return out ? bpf_redirect_neigh(link, 0, 0, 0) : bpf_redirect_peer(link, 0);
}

// to_announced is for what comes to the address of a load balancer, and to no service there.
static __always_inline int to_announced(struct __sk_buff *skb, const struct packet *p)
{
	if (!announcement_of(p->tuple.daddr))
		return TC_ACT_UNSPEC;
	return p->echo && !p->first ? answer_echo(skb, p->l4) : drop(p, DROP_NO_SERVICE);
}

// arrive is for what comes in by the uplink, or by the overlay.
static __always_inline int arrive(struct __sk_buff *skb)
{
	struct room *r = enter_room();
	struct packet *p;
	struct flow *f;
	int verdict;

	if (!r)
		return TC_ACT_UNSPEC; // which it never is
	p = &r->packet;
	if (!parse(skb, r)) {
		verdict = answer_neighbour(skb);
		return verdict == TC_ACT_UNSPEC ? to_sender(skb) : verdict;
	}
#ifndef IPV6
	// The overlay's packets are for the node, whatever services it has at the port.
	if (is_encapsulated(p->tuple.protocol, p->tuple.dport))
		return is_other_node(p->tuple.saddr[0]) ? TC_ACT_UNSPEC : drop(p, DROP_ENCAPSULATED);
#endif
	f = bpf_map_lookup_elem(&NAMED(flows), &p->tuple);
	if (f && (f->way == TO_CLIENT || f->way == TO_POD)) {
		follow(r, f);
		return send(skb, r, f);
	}
	if (f && f->way != TO_BACKEND)
		f = 0;
	// A connection stays with its endpoint until it ends, a service's datagrams
	// only as long as the endpoint is the service's, and a datagram's parts together.
	if (f && (p->later || (p->tuple.protocol == IPPROTO_TCP && !p->opens))) {
		follow(r, f);
		return send(skb, r, f);
	}
	if (p->tuple.protocol != PING && !p->later) {
		verdict = to_service(skb, r, f);
		if (verdict != TC_ACT_UNSPEC || f)
			return verdict;
	}
	verdict = to_announced(skb, p);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	// Who reaches a pod from outside by its own address gets answers from there.
	if (is_pod(p->tuple.daddr) && !in_cluster(r, p->tuple.saddr)) {
		answers(&r->key, &p->tuple);
		f = bpf_map_lookup_elem(&NAMED(flows), &r->key);
		if (!f || has_ended(f, p->tuple.protocol, CLOSED_IDLE_MIN)) {
			__builtin_memset(&r->forth, 0, sizeof(r->forth));
			r->forth.way = INBOUND;
			copy(&r->forth.becomes, &r->key);
			r->forth.seen = seconds();
			enter(&r->key, &r->forth);
		} else if (f->way == INBOUND) {
			follow(r, f);
		}
	}
	return TC_ACT_UNSPEC;
}

static __always_inline int leave_as(struct __sk_buff *skb, struct room *r, const struct tuple *to)
{
	copy(&r->becomes, to);
	return rewrite(skb, &r->packet, &r->becomes) ? drop(&r->packet, DROP_BROKEN) : TC_ACT_UNSPEC;
}

// leave is for what goes out by the uplink.
static __always_inline int leave(struct __sk_buff *skb)
{
	struct room *r = enter_room();
	struct packet *p;
	struct flow *f;
	int why;

	if (!r || !parse(skb, r))
		return TC_ACT_UNSPEC;
	p = &r->packet;
	f = bpf_map_lookup_elem(&NAMED(flows), &p->tuple);
	if (f && (f->way == TO_CLIENT || f->way == TO_WORLD)) {
		follow(r, f);
		return leave_as(skb, r, &f->becomes);
	}
	if (f && f->way == INBOUND) {
		follow(r, f);
		return TC_ACT_UNSPEC;
	}
	if (!is_pod(p->tuple.saddr) || in_cluster(r, p->tuple.daddr))
		return TC_ACT_UNSPEC;
	__builtin_memset(&r->forth, 0, sizeof(r->forth));
	__builtin_memset(&r->back, 0, sizeof(r->back));
	r->forth.way = TO_WORLD;
	r->back.way = TO_POD;
	copy(&r->forth.becomes, &p->tuple);
	copy_ip(r->forth.becomes.saddr, node_addr);
	why = begin(r);
	if (why)
		return drop(p, why);
	return leave_as(skb, r, &r->forth.becomes);
}
