//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Network policies, on the node's end of each pod's veth pair: what leaves the
// pod arrives there, and what goes to the pod leaves there. The node itself is
// never kept from its pods, nor they from it.

#include "policy.h"

#include <linux/icmpv6.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define NEIGHBOURS_FIRST 133 // types of ICMPv6
#define NEIGHBOURS_LAST 137

#define FRAGMENT_OFFSET 0x1fff
#define MORE_FRAGMENTS 0x2000

// Seconds in which the rest of a packet has to follow its first fragment.
#define FRAGMENTS_TIME 30

// What is known of a packet besides what is judged.
struct parsed {
	struct policy_fragment fragment; // IPv4 only
	__u8 first; // of several fragments
	__u8 later; // fragment, without the ports
	__u8 error; // an ICMP error: the packet is the one that it is about
};

enum outcome { PASSES, IS_JUDGED, IS_BROKEN };

// ports reads the ports of a packet that begins at an offset. Swapped are those
// of a packet to the pod.
static __always_inline int ports(struct __sk_buff *skb, __u32 at, int to_pod, struct policy_packet *p)
{
	__be16 both[2];

	if (bpf_skb_load_bytes(skb, at, both, sizeof(both)) < 0)
		return -1;
	p->pod_port = both[to_pod ? 1 : 0];
	p->peer_port = both[to_pod ? 0 : 1];
	return 0;
}

// transport reads what follows the addresses.
static __always_inline int transport(struct __sk_buff *skb, __u32 at, int to_pod, struct policy_packet *p)
{
	__u8 flags;

	switch (p->protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, at + 13, &flags, 1) < 0)
			return -1;
		p->opens = (flags & 0x12) == 0x02; // SYN without ACK
		p->closes = (flags & 0x05) != 0; // FIN or RST
		return ports(skb, at, to_pod, p);
	case IPPROTO_UDP:
		return ports(skb, at, to_pod, p);
	}
	return 0;
}

// echo reads the identifier of an ICMP echo.
static __always_inline int echo(struct __sk_buff *skb, __u32 at, struct policy_packet *p)
{
	if (bpf_skb_load_bytes(skb, at + 4, &p->pod_port, sizeof(p->pod_port)) < 0)
		return -1;
	p->peer_port = p->pod_port;
	return 0;
}

// inner reads the packet that an ICMP error is about, which went the other way.
static __always_inline int inner(struct __sk_buff *skb, __u32 at, int to_pod, struct policy_packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) < 0 || ip.ihl < 5)
		return -1;
	policy_map_address(p->peer, to_pod ? ip.daddr : ip.saddr);
	p->protocol = ip.protocol;
	at += ip.ihl * 4;
	switch (ip.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return ports(skb, at, !to_pod, p);
	case IPPROTO_ICMP:
		return echo(skb, at, p);
	}
	return 0;
}

static __always_inline int inner6(struct __sk_buff *skb, __u32 at, int to_pod, struct policy_packet *p)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) < 0)
		return -1;
	__builtin_memcpy(p->peer, to_pod ? &ip.daddr : &ip.saddr, sizeof(p->peer));
	p->protocol = ip.nexthdr;
	at += sizeof(ip);
	switch (ip.nexthdr) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return ports(skb, at, !to_pod, p);
	case IPPROTO_ICMPV6:
		return echo(skb, at, p);
	}
	return 0;
}

static __always_inline enum outcome parse4(struct __sk_buff *skb, int to_pod, struct policy_packet *p, struct parsed *to)
{
	struct iphdr ip;
	__u32 at;
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 || ip.ihl < 5)
		return IS_BROKEN;
	at = ETH_HLEN + ip.ihl * 4;
	policy_map_address(p->peer, to_pod ? ip.saddr : ip.daddr);
	p->protocol = ip.protocol;
	to->later = (ip.frag_off & bpf_htons(FRAGMENT_OFFSET)) != 0;
	to->first = !to->later && (ip.frag_off & bpf_htons(MORE_FRAGMENTS)) != 0;
	to->fragment.peer = to_pod ? ip.saddr : ip.daddr;
	to->fragment.id = ip.id;
	to->fragment.protocol = ip.protocol;
	if (to->later)
		return IS_JUDGED;
	if (ip.protocol != IPPROTO_ICMP)
		return transport(skb, at, to_pod, p) ? IS_BROKEN : IS_JUDGED;
	if (bpf_skb_load_bytes(skb, at, &type, 1) < 0)
		return IS_BROKEN;
	switch (type) {
	case ICMP_ECHO:
	case ICMP_ECHOREPLY:
		return echo(skb, at, p) ? IS_BROKEN : IS_JUDGED;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		to->error = 1;
		return inner(skb, at + 8, to_pod, p) ? IS_BROKEN : IS_JUDGED;
	}
	return IS_JUDGED;
}

static __always_inline enum outcome parse6(struct __sk_buff *skb, int to_pod, struct policy_packet *p, struct parsed *to)
{
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return IS_BROKEN;
	__builtin_memcpy(p->peer, to_pod ? &ip.saddr : &ip.daddr, sizeof(p->peer));
	p->protocol = ip.nexthdr;
	// Neighbours, and what never leaves the link between the pod and its node.
	if ((p->peer[0] == 0xfe && (p->peer[1] & 0xc0) == 0x80) || (p->peer[0] == 0xff && (p->peer[1] & 0x0f) <= 2))
		return PASSES;
	if (ip.nexthdr != IPPROTO_ICMPV6)
		return transport(skb, at, to_pod, p) ? IS_BROKEN : IS_JUDGED;
	if (bpf_skb_load_bytes(skb, at, &type, 1) < 0)
		return IS_BROKEN;
	switch (type) {
	case ICMPV6_ECHO_REQUEST:
	case ICMPV6_ECHO_REPLY:
		return echo(skb, at, p) ? IS_BROKEN : IS_JUDGED;
	case ICMPV6_DEST_UNREACH:
	case ICMPV6_PKT_TOOBIG:
	case ICMPV6_TIME_EXCEED:
	case ICMPV6_PARAMPROB:
		to->error = 1;
		return inner6(skb, at + 8, to_pod, p) ? IS_BROKEN : IS_JUDGED;
	case NEIGHBOURS_FIRST ... NEIGHBOURS_LAST:
		return PASSES;
	}
	return IS_JUDGED;
}

static __always_inline enum outcome parse(struct __sk_buff *skb, int to_pod, struct policy_packet *p, struct parsed *to)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return parse4(skb, to_pod, p, to);
	case bpf_htons(ETH_P_IPV6):
		return parse6(skb, to_pod, p, to);
	default:
		return PASSES;
	}
}

// belongs tells whether an ICMP error is about a packet of a flow that is allowed.
static __always_inline int belongs(__u32 ifindex, const struct policy_packet *p)
{
	struct policy_flow_key key = { .ifindex = ifindex, .pod_port = p->pod_port, .peer_port = p->peer_port, .protocol = p->protocol };
	struct policy_flow *f;

	__builtin_memcpy(key.peer, p->peer, sizeof(key.peer));
	f = bpf_map_lookup_elem(&policy_flows, &key);
	return f && f->allowed;
}

// follows tells whether the first fragment of the packet has passed.
static __always_inline int follows(const struct policy_fragment *f)
{
	__u32 *seen = bpf_map_lookup_elem(&policy_fragments, f);

	return seen && (__u32)(bpf_ktime_get_ns() / 1000000000ULL) - *seen <= FRAGMENTS_TIME;
}

static __always_inline int judge(struct __sk_buff *skb, __u8 direction)
{
	struct policy_scratch *room = policy_scratch();
	__u32 ifindex = skb->ifindex, now;
	struct policy_packet *p;
	struct parsed to = {};
	int reason;

	if (!room || !policy_selects(ifindex)) // there is always room
		return TC_ACT_UNSPEC;
	p = &room->packet;
	__builtin_memset(p, 0, sizeof(*p));
	switch (parse(skb, direction == POLICY_INGRESS, p, &to)) {
	case PASSES:
		return TC_ACT_UNSPEC;
	case IS_BROKEN:
		return TC_ACT_SHOT;
	case IS_JUDGED:
		break;
	}
	to.fragment.ifindex = ifindex;
	to.fragment.direction = direction;
	if (to.later)
		reason = follows(&to.fragment) ? POLICY_REASON_NONE : POLICY_FRAGMENT;
	else if (to.error)
		reason = belongs(ifindex, p) ? POLICY_REASON_NONE : POLICY_NOT_ALLOWED;
	else
		reason = policy_decide(ifindex, direction);
	if (reason) {
		policy_count(ifindex, direction, reason, p);
		return TC_ACT_SHOT;
	}
	if (to.first) {
		now = bpf_ktime_get_ns() / 1000000000ULL;
		bpf_map_update_elem(&policy_fragments, &to.fragment, &now, BPF_ANY);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	return judge(skb, POLICY_EGRESS);
}

// What a process on the node sends has come in by no interface.
SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	if (skb->ingress_ifindex == 0)
		return TC_ACT_UNSPEC;
	return judge(skb, POLICY_INGRESS);
}

// Types that no map has are exported to Go only when a variable has them.
const struct policy_drop *policy_drop_type __attribute__((unused));
enum policy_direction policy_direction_type __attribute__((unused));
enum policy_reason policy_reason_type __attribute__((unused));

char programs_license[] SEC("license") = "GPL";
