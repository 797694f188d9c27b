//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// The uplink for IPv6, on nodes that have an IPv6 address and whose pods have them.
// Its programs run beside those of uplink.c.
//
// An IPv6 header has no checksum that would compensate its addresses. Code that
// writes them must update the kernel's own sum of the packet.

#define IPV6
#include "flows.h"

#include <linux/icmpv6.h>
#include <linux/ipv6.h>

#define AF_INET6 10
#define ADDRESSES_AT (ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr))

#define PING IPPROTO_ICMPV6
#define PING_REQUEST ICMPV6_ECHO_REQUEST
#define PING_REPLY ICMPV6_ECHO_REPLY

#include "announce.h"

#define SOLICITATION 135
#define ADVERTISEMENT 136
#define SOLICITED 0x40000000
#define OVERRIDE 0x20000000
#define TARGET_ADDRESS 2
#define NDP_HOPS 255

// Neighbour discovery (RFC 4861), without options.
struct neighbour {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u32 target[WORDS];
};

struct advertisement {
	struct neighbour n;
	__u8 option; // the target's hardware address, in a unit of 8 bytes
	__u8 units;
	__u8 mac[ETH_ALEN];
};

// answer_neighbour answers requests of neighbour discovery for an address that is
// announced. The answer replaces the request with all its options. A sender without
// a source is about to use the address; the answer to it goes to all nodes.
static __attribute__((noinline)) int answer_neighbour(struct __sk_buff *skb)
{
	struct advertisement answer = {};
	struct announcement *a;
	struct ipv6hdr ip;
	struct ethhdr eth;
	__s64 sum;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 ||
	    ip.nexthdr != IPPROTO_ICMPV6 || ip.hop_limit != NDP_HOPS ||
	    bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &answer.n, sizeof(answer.n)) < 0 ||
	    answer.n.type != SOLICITATION || answer.n.code != 0)
		return TC_ACT_UNSPEC;
	a = announcement_of(answer.n.target);
	if (!a)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(eth.h_dest, eth.h_source, ETH_ALEN);
	__builtin_memcpy(eth.h_source, a->mac, ETH_ALEN);
	__builtin_memcpy(answer.mac, a->mac, ETH_ALEN);
	answer.n.type = ADVERTISEMENT;
	answer.n.checksum = 0;
	answer.n.flags = bpf_htonl(SOLICITED | OVERRIDE);
	answer.option = TARGET_ADDRESS;
	answer.units = 1;
	ip.payload_len = bpf_htons(sizeof(answer));
	ip.daddr = ip.saddr;
	if (!(ip.saddr.s6_addr32[0] | ip.saddr.s6_addr32[1] | ip.saddr.s6_addr32[2] | ip.saddr.s6_addr32[3])) {
		const __u8 all[ETH_ALEN] = { 0x33, 0x33, 0, 0, 0, 1 };

		answer.n.flags = bpf_htonl(OVERRIDE);
		ip.daddr.s6_addr32[0] = bpf_htonl(0xff020000);
		ip.daddr.s6_addr32[3] = bpf_htonl(1);
		__builtin_memcpy(eth.h_dest, all, ETH_ALEN);
	}
	copy_ip(ip.saddr.s6_addr32, answer.n.target);
	sum = bpf_csum_diff(0, 0, (__be32 *)&ip.saddr, 32, bpf_htons(sizeof(answer) + IPPROTO_ICMPV6));
	sum = bpf_csum_diff(0, 0, (__be32 *)&answer, sizeof(answer), sum);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	answer.n.checksum = ~sum;
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(ip) + sizeof(answer), 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &answer, sizeof(answer), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

#define FRAGMENT_OFFSET 0xfff8
#define MORE_FRAGMENTS 0x0001

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 place;
	__u32 id;
};

// Of the headers that may follow IPv6's, only that of a fragment is looked behind.
static __always_inline int headers(struct __sk_buff *skb, struct packet *p)
{
	struct fragment_header f;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ADDRESSES_AT, p->tuple.saddr, 32) < 0 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr), &p->tuple.protocol, 1) < 0)
		return 0;
	p->l4 = ETH_HLEN + sizeof(struct ipv6hdr);
	if (p->tuple.protocol != IPPROTO_FRAGMENT)
		return 1;
	if (bpf_skb_load_bytes(skb, p->l4, &f, sizeof(f)) < 0)
		return 0;
	p->l4 += sizeof(f);
	p->tuple.protocol = f.next;
	p->id = f.id;
	p->later = (f.place & bpf_htons(FRAGMENT_OFFSET)) != 0;
	p->first = !p->later && (f.place & bpf_htons(MORE_FRAGMENTS)) != 0;
	return 1;
}

static __always_inline int rewrite_header(struct __sk_buff *skb, const __u32 *addrs, __s64 diff)
{
	return bpf_skb_store_bytes(skb, ADDRESSES_AT, addrs, 32, BPF_F_RECOMPUTE_CSUM) < 0;
}

static __always_inline int rewrite_port(struct __sk_buff *skb, __u32 at, __u32 checksum, __be16 from, __be16 to, __u64 flags);

static __always_inline int rewrite_ping(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, __s64 diff)
{
	return bpf_l4_csum_replace(skb, p->l4 + 2, 0, diff, BPF_F_PSEUDO_HDR) < 0 ||
	       rewrite_port(skb, p->l4 + 4, p->l4 + 2, p->tuple.sport, to->sport, 0);
}

static __always_inline long find_way(struct __sk_buff *skb, struct room *r)
{
	__builtin_memset(&r->fib, 0, sizeof(r->fib));
	r->fib.family = AF_INET6;
	r->fib.ifindex = skb->ifindex;
	copy_ip(r->fib.ipv6_src, r->packet.tuple.saddr);
	copy_ip(r->fib.ipv6_dst, r->forth.becomes.daddr);
	return bpf_fib_lookup(skb, &r->fib, sizeof(r->fib), 0);
}

static __always_inline int quoted(struct __sk_buff *skb, struct quote *q)
{
	__u8 next, type;

	q->icmp = ETH_HLEN + sizeof(struct ipv6hdr);
	q->inner = q->icmp + 8;
	q->ports = q->inner + sizeof(struct ipv6hdr);
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ADDRESSES_AT, q->addrs, 32) < 0 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, nexthdr), &next, 1) < 0 || next != IPPROTO_ICMPV6 ||
	    bpf_skb_load_bytes(skb, q->icmp, &type, 1) < 0 || type < ICMPV6_DEST_UNREACH || type > ICMPV6_PARAMPROB ||
	    bpf_skb_load_bytes(skb, q->inner + __builtin_offsetof(struct ipv6hdr, nexthdr), &q->packet.protocol, 1) < 0 || !has_ports(q->packet.protocol) ||
	    bpf_skb_load_bytes(skb, q->inner + __builtin_offsetof(struct ipv6hdr, saddr), q->packet.saddr, 32) < 0)
		return 0;
	return bpf_skb_load_bytes(skb, q->ports, &q->packet.sport, 4) == 0;
}

// rewrite_error makes the packet that is quoted what its sender sent, and addresses
// the error to that. The error's checksum is over all of these.
static __always_inline int rewrite_error(struct __sk_buff *skb, struct quote *q, struct tuple *sent)
{
	__u32 now[2 * WORDS];
	__s64 diff = bpf_csum_diff(q->packet.saddr, 32, sent->saddr, 32, 0);

	if (bpf_l4_csum_replace(skb, q->icmp + 2, 0, diff, 0) < 0 ||
	    bpf_skb_store_bytes(skb, q->inner + __builtin_offsetof(struct ipv6hdr, saddr), sent->saddr, 32, 0) < 0 ||
	    bpf_l4_csum_replace(skb, q->icmp + 2, *(__u32 *)&q->packet.sport, *(__u32 *)&sent->sport, sizeof(__u32)) < 0 ||
	    bpf_skb_store_bytes(skb, q->ports, &sent->sport, 4, 0) < 0)
		return -1;
	copy_ip(now, same_ip(q->addrs, q->packet.daddr) ? sent->daddr : q->addrs);
	copy_ip(now + WORDS, sent->saddr);
	diff = bpf_csum_diff(q->addrs, 32, now, 32, 0);
	return bpf_l4_csum_replace(skb, q->icmp + 2, 0, diff, BPF_F_PSEUDO_HDR) < 0 || rewrite_header(skb, now, diff);
}

#include "uplink.h"

SEC("tc")
int from_uplink6(struct __sk_buff *skb)
{
	return arrive(skb);
}

SEC("tc")
int to_uplink6(struct __sk_buff *skb)
{
	return leave(skb);
}

// Looking routes up is reserved to GPL programs.
char programs_license[] SEC("license") = "GPL";
