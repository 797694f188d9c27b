// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Addresses of load balancers that this node announces on its network: it answers
// requests for their hardware address with that of the uplink, and it answers
// pings.
//
// The including file defines for its address family: ADDRESSES_AT, PING_REQUEST
// and PING_REPLY.

#pragma once

#include "services.h"

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

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
	__uint(key_size, sizeof(__u32[WORDS]));
	__type(value, struct announcement);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(announced) SEC(".maps");

// announcement_of returns what the node answers with for an address, 0 if it does not.
static __always_inline struct announcement *announcement_of(const __u32 *addr)
{
	struct announcement *a = bpf_map_lookup_elem(&NAMED(announced), addr);

	return a && bpf_ktime_get_ns() < a->until ? a : 0;
}

// answer_echo sends a ping back to where it came from. That its addresses change
// places makes no difference to a checksum.
static __always_inline int answer_echo(struct __sk_buff *skb, __u32 l4)
{
	__u32 addrs[2 * WORDS], swapped[2 * WORDS];
	__u8 type = PING_REPLY;
	struct ethhdr eth;
	__u8 mac[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 || bpf_skb_load_bytes(skb, ADDRESSES_AT, addrs, sizeof(addrs)) < 0)
		return TC_ACT_SHOT;
	__builtin_memcpy(mac, eth.h_source, ETH_ALEN);
	__builtin_memcpy(eth.h_source, eth.h_dest, ETH_ALEN);
	__builtin_memcpy(eth.h_dest, mac, ETH_ALEN);
	copy_ip(swapped, addrs + WORDS);
	copy_ip(swapped + WORDS, addrs);
	if (bpf_l4_csum_replace(skb, l4 + 2, bpf_htons(PING_REQUEST << 8), bpf_htons(PING_REPLY << 8), 2) < 0 ||
	    bpf_skb_store_bytes(skb, l4, &type, sizeof(type), 0) < 0 ||
	    bpf_skb_store_bytes(skb, ADDRESSES_AT, swapped, sizeof(swapped), 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
