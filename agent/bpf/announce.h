// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Addresses of load balancers that this node answers for on its wire: whoever asks
// whose they are is told the uplink's hardware address, and whoever pings them is
// answered.

#pragma once

#include "services.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8
#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

// The agent renews what it answers for. When it has died, the node falls silent
// about the time that others find it lost, and one of them takes over.
struct announcement {
	__u64 until; // nanoseconds since boot
	__u8 mac[ETH_ALEN];
	__u8 zero[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 12);
	__type(key, __be32);
	__type(value, struct announcement);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} announced SEC(".maps");

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

static __always_inline int is_announced(__be32 addr)
{
	struct announcement *a = bpf_map_lookup_elem(&announced, &addr);

	return a && bpf_ktime_get_ns() < a->until;
}

// answer_arp tells who asks for an address that is announced.
static __always_inline int answer_arp(struct __sk_buff *skb)
{
	struct announcement *a;
	struct arp_packet arp;
	struct ethhdr eth;
	__be32 addr;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 || bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return TC_ACT_UNSPEC;
	if (arp.hardware != bpf_htons(ARPHRD_ETHER) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.operation != bpf_htons(ARPOP_REQUEST))
		return TC_ACT_UNSPEC;
	addr = arp.target;
	a = bpf_map_lookup_elem(&announced, &addr);
	if (!a || bpf_ktime_get_ns() >= a->until || arp.sender == addr)
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

// answer_echo sends a ping back to where it came from.
static __always_inline int answer_echo(struct __sk_buff *skb, __u32 l4)
{
	__u8 type = ICMP_ECHOREPLY;
	struct ethhdr eth;
	__u8 mac[ETH_ALEN];
	__be32 addrs[2], swapped[2];

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), addrs, sizeof(addrs)) < 0)
		return TC_ACT_SHOT;
	__builtin_memcpy(mac, eth.h_source, ETH_ALEN);
	__builtin_memcpy(eth.h_source, eth.h_dest, ETH_ALEN);
	__builtin_memcpy(eth.h_dest, mac, ETH_ALEN);
	swapped[0] = addrs[1];
	swapped[1] = addrs[0];
	if (bpf_l4_csum_replace(skb, l4 + 2, bpf_htons(ICMP_ECHO << 8), bpf_htons(ICMP_ECHOREPLY << 8), 2) < 0 ||
	    bpf_skb_store_bytes(skb, l4, &type, sizeof(type), 0) < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), swapped, sizeof(swapped), 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
