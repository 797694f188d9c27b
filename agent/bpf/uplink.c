//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// The uplink for IPv4, and the addresses of load balancers.

#include "flows.h"

#include <linux/ip.h>

#define AF_INET 2
#define ADDRESSES_AT (ETH_HLEN + __builtin_offsetof(struct iphdr, saddr))
#define FRAGMENT_OFFSET 0x1fff
#define MORE_FRAGMENTS 0x2000

#define PING IPPROTO_ICMP
#define PING_REQUEST 8
#define PING_REPLY 0

#include "announce.h"

#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

// ARP for IPv4 on Ethernet.
struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

// answer_neighbour tells who asks by ARP for an address that is announced.
static __always_inline int answer_neighbour(struct __sk_buff *skb)
{
	struct announcement *a;
	struct arp_packet arp;
	struct ethhdr eth;
	__be32 addr;

	if (skb->protocol != bpf_htons(ETH_P_ARP) ||
	    bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 || bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return TC_ACT_UNSPEC;
	if (arp.hardware != bpf_htons(ARPHRD_ETHER) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.operation != bpf_htons(ARPOP_REQUEST))
		return TC_ACT_UNSPEC;
	addr = arp.target;
	a = announcement_of(&addr);
	if (!a || arp.sender == addr)
		return TC_ACT_UNSPEC;
	__builtin_memcpy(eth.h_dest, arp.sender_mac, ETH_ALEN);
	__builtin_memcpy(eth.h_source, a->mac, ETH_ALEN);
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	__builtin_memcpy(arp.sender_mac, a->mac, ETH_ALEN);
	arp.target = arp.sender;
	arp.sender = addr;
	arp.operation = bpf_htons(ARPOP_REPLY);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 || bpf_skb_store_bytes(skb, ETH_HLEN, &arp, sizeof(arp), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int headers(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 || ip.ihl < 5)
		return 0;
	p->tuple.saddr[0] = ip.saddr;
	p->tuple.daddr[0] = ip.daddr;
	p->tuple.protocol = ip.protocol;
	p->l4 = ETH_HLEN + ip.ihl * 4;
	p->id = ip.id;
	p->later = (ip.frag_off & bpf_htons(FRAGMENT_OFFSET)) != 0;
	p->first = !p->later && (ip.frag_off & bpf_htons(MORE_FRAGMENTS)) != 0;
	return 1;
}

static __always_inline int rewrite_header(struct __sk_buff *skb, const __u32 *addrs, __s64 diff)
{
	return bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check), 0, diff, 0) < 0 ||
	       bpf_skb_store_bytes(skb, ADDRESSES_AT, addrs, 8, 0) < 0;
}

static __always_inline int rewrite_port(struct __sk_buff *skb, __u32 at, __u32 checksum, __be16 from, __be16 to, __u64 flags);

// The checksum of a ping knows no addresses.
static __always_inline int rewrite_ping(struct __sk_buff *skb, const struct packet *p, const struct tuple *to, __s64 diff)
{
	return rewrite_port(skb, p->l4 + 4, p->l4 + 2, p->tuple.sport, to->sport, 0);
}

static __always_inline long find_way(struct __sk_buff *skb, struct room *r)
{
	__builtin_memset(&r->fib, 0, sizeof(r->fib));
	r->fib.family = AF_INET;
	r->fib.ifindex = skb->ifindex;
	r->fib.ipv4_src = r->packet.tuple.saddr[0];
	r->fib.ipv4_dst = r->forth.becomes.daddr[0];
	return bpf_fib_lookup(skb, &r->fib, sizeof(r->fib), 0);
}

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

static __always_inline int quoted(struct __sk_buff *skb, struct quote *q)
{
	struct iphdr ip;
	__u8 type;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 ||
	    ip.protocol != IPPROTO_ICMP || ip.frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS) || ip.ihl < 5)
		return 0;
	q->addrs[0] = ip.saddr;
	q->addrs[1] = ip.daddr;
	q->icmp = ETH_HLEN + ip.ihl * 4;
	q->inner = q->icmp + 8;
	if (bpf_skb_load_bytes(skb, q->icmp, &type, 1) < 0 ||
	    (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM) ||
	    bpf_skb_load_bytes(skb, q->inner, &ip, sizeof(ip)) < 0 || ip.ihl < 5 || !has_ports(ip.protocol))
		return 0;
	q->ports = q->inner + ip.ihl * 4;
	q->packet.saddr[0] = ip.saddr;
	q->packet.daddr[0] = ip.daddr;
	q->packet.protocol = ip.protocol;
	return bpf_skb_load_bytes(skb, q->ports, &q->packet.sport, 4) == 0;
}

// rewrite_error makes the packet that is quoted what its sender sent, and addresses
// the error to that.
static __always_inline int rewrite_error(struct __sk_buff *skb, struct quote *q, struct tuple *sent)
{
	__be32 now[2] = { q->addrs[0], sent->saddr[0] };
	__s64 diff;

	if (q->addrs[0] == q->packet.daddr[0])
		now[0] = sent->daddr[0];
	// The header's own checksum makes up for its addresses, so that the error's counts
	// the ports only.
	diff = bpf_csum_diff(q->packet.saddr, 8, sent->saddr, 8, 0);
	if (bpf_l3_csum_replace(skb, q->inner + __builtin_offsetof(struct iphdr, check), 0, diff, 0) < 0 ||
	    bpf_skb_store_bytes(skb, q->inner + __builtin_offsetof(struct iphdr, saddr), sent->saddr, 8, 0) < 0 ||
	    bpf_l4_csum_replace(skb, q->icmp + 2, *(__u32 *)&q->packet.sport, *(__u32 *)&sent->sport, sizeof(__u32)) < 0 ||
	    bpf_skb_store_bytes(skb, q->ports, &sent->sport, 4, 0) < 0)
		return -1;
	diff = bpf_csum_diff(q->addrs, sizeof(q->addrs), now, sizeof(now), 0);
	return rewrite_header(skb, now, diff);
}

#include "uplink.h"

SEC("tc")
int from_uplink(struct __sk_buff *skb)
{
	return arrive(skb);
}

SEC("tc")
int to_uplink(struct __sk_buff *skb)
{
	return leave(skb);
}

// Types that no map has are exported to Go only when a variable has them.
const struct dropped *dropped_type __attribute__((unused));

// Looking routes up is reserved to GPL programs.
char programs_license[] SEC("license") = "GPL";
