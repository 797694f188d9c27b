//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Guards of the overlay, beside the uplink's programs: nothing in an encapsulated packet
// says who sent it, so that only nodes may send any.

#include "overlay.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#define AF_INET 2
#define FRAGMENT_OFFSET 0x1fff

// pod_overlay is at the node's end of each pod's veth pair. The first fragment of a packet
// always has the ports, and the others are of no use without it.
SEC("tc")
int pod_overlay(struct __sk_buff *skb)
{
	struct iphdr ip;
	__be16 ports[2];

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 ||
	    ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(FRAGMENT_OFFSET) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, ports, sizeof(ports)) < 0 || !is_encapsulated(ip.protocol, ports[1]))
		return TC_ACT_UNSPEC;
	tell_dropped(DROP_ENCAPSULATED, ip.protocol, &ip.saddr, ports[0], &ip.daddr, ports[1]);
	return TC_ACT_SHOT;
}

// overlay_guard is for what reaches the node by any interface. A kernel that merges packets
// on receipt may ask for one of them twice.
SEC("sk_lookup")
int overlay_guard(struct bpf_sk_lookup *ctx)
{
	__u32 from, to;

	if (ctx->family != AF_INET || !is_encapsulated(ctx->protocol, bpf_htons(ctx->local_port)))
		return SK_PASS;
	from = ctx->remote_ip4;
	to = ctx->local_ip4;
	if (is_other_node(from))
		return SK_PASS;
	tell_dropped(DROP_ENCAPSULATED, ctx->protocol, &from, ctx->remote_port, &to, bpf_htons(ctx->local_port));
	return SK_DROP;
}

char programs_license[] SEC("license") = "GPL";
