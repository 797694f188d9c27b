// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Flows that the uplink translates.
//
// A flow has two entries in one table, each by the packet that it is for: the
// way there and the way back. Entries age by use; the table drops what was used
// least recently when it is full.

#pragma once

#include "endpoints.h"
#include "overlay.h"
#include "policy.h"

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

// The node's address, and the network of its pods. Set when loading.
volatile const __u32 node_addr[WORDS] = {};
volatile const __u32 pod_net[WORDS] = {};
volatile const __u32 pod_mask[WORDS] = {};
// The node's address in the overlay, 0 where there is none. Programs are at the
// overlay's interface as well, for the answers.
volatile const __u32 overlay_addr[WORDS] = {};

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

// A packet's addresses and ports. Of a ping, both ports are its identifier.
struct tuple {
	__u32 saddr[WORDS];
	__u32 daddr[WORDS];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 zero[3];
} PAIRS;

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
} NAMED(flows) SEC(".maps");

// A packet of which the first fragment was seen. The others lack the ports.
struct fragment {
	__u32 saddr[WORDS];
	__u32 daddr[WORDS];
	__u32 id;
	__u8 protocol;
	__u8 zero[3];
};

struct ports {
	__be16 sport;
	__be16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, struct fragment);
	__type(value, struct ports);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(fragments) SEC(".maps");

struct network {
	__u32 bits;
	__u32 addr[WORDS];
};

// Where pods are known by their own addresses: the cluster's pods and nodes.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, struct network);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(cluster_networks) SEC(".maps");

struct packet {
	struct tuple tuple;
	__u32 l4; // offset
	__u32 id; // of a packet in fragments
	__u8 first; // of several fragments
	__u8 later; // fragment, without the ports
	__u8 opens; // the first of a TCP connection
	__u8 closes;
	__u8 echo; // a ping
	__u8 zero[3];
};

// A packet that an ICMP error is about, and the error's own addresses.
struct quote {
	struct tuple packet;
	__u32 addrs[2 * WORDS];
	__u32 icmp, inner, ports; // offsets
};

// What a packet needs room for: the stack has too little. No other packet is
// looked at on this CPU meanwhile.
struct room {
	struct packet packet;
	struct quote quote;
	struct fragment fragment;
	struct flow forth, back;
	struct tuple becomes, key;
	struct frontend frontend;
	struct choice chosen, earlier;
	struct path path;
	struct network network;
	struct bpf_fib_lookup fib;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct room));
} room SEC(".maps");

static __always_inline struct room *enter_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&room, &zero);
}

static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_ns() / 1000000000ULL;
}

// answers writes the tuple of the packets that answer to what the tuple is of.
static __always_inline void answers(struct tuple *to, const struct tuple *t)
{
	copy_ip(to->saddr, t->daddr);
	copy_ip(to->daddr, t->saddr);
	to->sport = t->dport;
	to->dport = t->sport;
	to->protocol = t->protocol;
	to->zero[0] = to->zero[1] = to->zero[2] = 0;
}

// count_packet counts a packet of a flow, or its first, for the service that it is of.
static __always_inline void count_packet(struct room *r, const struct flow *f, __u32 connections)
{
	const struct tuple *there = &r->packet.tuple, *then = &f->becomes;
	struct path *path = &r->path;

	__builtin_memset(path, 0, sizeof(*path));
	path->frontend.protocol = there->protocol;
	path->frontend.scope = OUTSIDE;
	switch (f->way) {
	case TO_BACKEND:
		copy_ip(path->frontend.addr, there->daddr);
		path->frontend.port = there->dport;
		copy_ip(path->backend.addr, then->daddr);
		path->backend.port = then->dport;
		break;
	case TO_CLIENT:
		copy_ip(path->frontend.addr, then->saddr);
		path->frontend.port = then->sport;
		copy_ip(path->backend.addr, there->saddr);
		path->backend.port = there->sport;
		break;
	default:
		return;
	}
	count_traffic(path, connections, 1);
}

// follow takes note of a packet of a flow.
static __always_inline void follow(struct room *r, struct flow *f)
{
	__u32 now = seconds();

	count_packet(r, f, 0);
	if (f->unanswered)
		f->unanswered = 0;
	if (f->seen != now)
		f->seen = now;
	if (r->packet.closes && !f->closed) {
		struct flow *other;

		answers(&r->key, &f->becomes);
		other = bpf_map_lookup_elem(&NAMED(flows), &r->key);
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
	if (bpf_map_update_elem(&NAMED(flows), key, f, BPF_NOEXIST) == 0) {
		count(FLOWS_ENTERED);
		return 0;
	}
	return bpf_map_update_elem(&NAMED(flows), key, f, BPF_ANY);
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

// begin enters the flow of the packet, both ways, and tells why it did not. The
// packet becomes forth.becomes, of which the source port may still change: no two
// flows may have the same way back.
static __always_inline int begin(struct room *r)
{
	const struct packet *p = &r->packet;
	__be16 port = r->forth.becomes.sport;
	int i;

	r->forth.seen = r->back.seen = seconds();
	r->back.unanswered = 1;
	answers(&r->back.becomes, &p->tuple);
	if (bpf_ntohs(port) < FIRST_PORT || bpf_ntohs(port) >= FIRST_PORT + PORTS)
		port = bpf_htons(FIRST_PORT + bpf_get_prandom_u32() % PORTS);
	for (i = 0; i < PORT_ATTEMPTS; i++) {
		struct flow *other;

		r->forth.becomes.sport = port;
		if (!has_ports(p->tuple.protocol))
			r->forth.becomes.dport = port;
		answers(&r->key, &r->forth.becomes);
		other = bpf_map_lookup_elem(&NAMED(flows), &r->key);
		if (!other || has_ended(other, p->tuple.protocol, i < PORT_ATTEMPTS / 2 ? CLOSED_IDLE : CLOSED_IDLE_MIN) ||
		    same(&other->becomes, &r->back.becomes)) {
			if (bpf_map_update_elem(&NAMED(flows), &r->key, &r->back, other ? BPF_ANY : BPF_NOEXIST) == 0) {
				if (!other)
					count(FLOWS_ENTERED);
				return enter(&p->tuple, &r->forth) ? DROP_TABLE_FULL : 0;
			}
		}
		port = bpf_htons(FIRST_PORT + bpf_get_prandom_u32() % PORTS);
	}
	return DROP_NO_PORT;
}

// drop tells of the packet's end.
static __always_inline int drop(const struct packet *p, __u8 why)
{
	tell_dropped(why, p->tuple.protocol, p->tuple.saddr, p->tuple.sport, p->tuple.daddr, p->tuple.dport);
	return TC_ACT_SHOT;
}
