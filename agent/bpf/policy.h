// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// What the pods of this node may receive and send, and how a packet is judged.
//
// A pod that policies select has a set for each direction in which they do. A set
// gives an address a class, by its longest prefix, and a class says which ports
// that is good for. Classes never change, and a set changes such that every
// address has its old class or its new one at any moment; the sets of a pod change
// with one word. A program that does not find a set or class has read an old word
// and reads it again.
//
// The initiator of a flow is stored together with the revision of the pod's policy
// that allowed it. Packets of a flow, both ways, pass without an evaluation as long
// as the pod has this revision; after that, the flow is evaluated again.

#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// How often an evaluation is repeated when sets were swapped meanwhile.
#define POLICY_ATTEMPTS 3

// Drops that are reported to the agent one by one, per CPU and second. All are counted.
#define POLICY_TOLD 200

// After so many seconds without a packet, a flow has ended.
#define POLICY_TCP_IDLE (3 * 60 * 60)
#define POLICY_UDP_IDLE 120
#define POLICY_CLOSED_IDLE 60

// The direction of a packet, and of the opening of a flow, as seen from the pod.
enum policy_direction { POLICY_NONE, POLICY_INGRESS, POLICY_EGRESS };

// Why a packet was dropped.
enum policy_reason {
	POLICY_REASON_NONE,
	POLICY_NOT_ALLOWED, // no rule allows it
	POLICY_REVOKED, // it is of a flow that the rules allow no longer
	POLICY_FRAGMENT, // the fragment that has the ports did not pass before it
};

// What a pod has, by the interface that leads to it. A set of 0 allows all. The
// value's key comes first, so that a recycled value is seen to be one: see
// policy_of.
struct policy_pod {
	__u32 ifindex;
	__u32 revision;
	__u32 ingress;
	__u32 egress;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, __u32);
	__type(value, struct policy_pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_pods SEC(".maps");

// An address in a set. IPv4 addresses are mapped into IPv6.
struct policy_peer {
	__u32 bits; // of what follows
	__u32 set;
	__u8 addr[16];
};

// The class of an address: 0 is of those that may nothing.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 19);
	__type(key, struct policy_peer);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_peers SEC(".maps");

// A port in a class. Ranges are made of prefixes. Protocols without ports have
// port 0.
struct policy_port {
	__u32 bits; // of what follows
	__u32 class;
	__u8 protocol;
	__u8 zero;
	__be16 port;
};

// Whether a class is good for a port. Every class has an entry for all ports.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct policy_port);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_ports SEC(".maps");

struct policy_address {
	__u8 addr[16];
};

// The node's own addresses.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, struct policy_address);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_node SEC(".maps");

// A flow of a pod that policies select. Of an ICMP echo, both ports are its
// identifier.
struct policy_flow_key {
	__u32 ifindex;
	__u8 peer[16];
	__be16 pod_port;
	__be16 peer_port;
	__u8 protocol;
	__u8 zero[3];
};

struct policy_flow {
	__u32 seen; // seconds since boot
	__u32 revision;
	__u8 opened; // the direction in which it was
	__u8 allowed;
	__u8 closed; // a FIN or RST was seen
	__u8 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 17);
	__type(key, struct policy_flow_key);
	__type(value, struct policy_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_flows SEC(".maps");

// An IPv4 packet of which the first fragment has passed.
struct policy_fragment {
	__u32 ifindex;
	__be32 peer;
	__be16 id;
	__u8 protocol;
	__u8 direction;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, struct policy_fragment);
	__type(value, __u32); // seconds since boot
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_fragments SEC(".maps");

struct policy_count_key {
	__u32 ifindex;
	__u8 direction;
	__u8 reason;
	__u16 zero;
};

// How many packets were dropped.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1 << 12);
	__type(key, struct policy_count_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_counts SEC(".maps");

// A packet that was dropped.
struct policy_drop {
	__u64 time; // nanoseconds since boot
	__u32 ifindex;
	__u8 direction;
	__u8 reason;
	__u8 protocol;
	__u8 zero;
	__u8 peer[16];
	__be16 pod_port;
	__be16 peer_port;
	__u32 skipped; // drops on this CPU before this one that were not reported
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_drops SEC(".maps");

struct policy_told {
	__u64 second;
	__u32 told;
	__u32 skipped;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct policy_told);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} policy_telling SEC(".maps");

// A packet from or to a pod.
struct policy_packet {
	__u8 peer[16];
	__be16 pod_port;
	__be16 peer_port;
	__u8 protocol;
	__u8 opens; // the first of a TCP connection
	__u8 closes;
	__u8 zero;
};

// What a judgement needs room for: the stack, which callers share, has too little.
struct policy_scratch {
	struct policy_packet packet;
	struct policy_flow_key key;
	struct policy_flow opened;
	struct policy_peer peer;
	struct policy_port port;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct policy_scratch));
} policy_room SEC(".maps");

static __always_inline struct policy_scratch *policy_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&policy_room, &zero);
}

static __always_inline void policy_map_address(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline __u64 policy_word(const void *eight_bytes)
{
	return *(const volatile __u64 *)eight_bytes;
}

// policy_of reads what the pod has: no sets when policies select it in no
// direction. A hash element may be recycled while it is read, its value being
// written from the front: one whose first word is the same before and after has
// not been.
static __always_inline int policy_of(__u32 ifindex, struct policy_pod *to)
{
	struct policy_pod *pod;
	__u64 first;
	int i;

#pragma unroll
	for (i = 0; i < POLICY_ATTEMPTS; i++) {
		pod = bpf_map_lookup_elem(&policy_pods, &ifindex);
		if (!pod)
			return 0;
		first = policy_word(&pod->ifindex);
		*(__u64 *)&to->ingress = policy_word(&pod->ingress);
		if (policy_word(&pod->ifindex) != first || (__u32)first != ifindex)
			continue;
		*(__u64 *)&to->ifindex = first;
		return to->ingress || to->egress;
	}
	return -1;
}

// policy_set_allows tells whether the set is good for the peer and port, -1 when
// the set is gone.
static __always_inline int policy_set_allows(struct policy_scratch *room, __u32 set, const struct policy_packet *p, __be16 port)
{
	__u32 *class, *allowed;

	if (set == 0)
		return 1;
	room->peer.bits = 160;
	room->peer.set = set;
	__builtin_memcpy(room->peer.addr, p->peer, sizeof(room->peer.addr));
	class = bpf_map_lookup_elem(&policy_peers, &room->peer);
	if (!class)
		return -1;
	if (*class == 0)
		return 0;
	room->port.bits = 64;
	room->port.class = *class;
	room->port.protocol = p->protocol;
	room->port.port = port;
	allowed = bpf_map_lookup_elem(&policy_ports, &room->port);
	if (!allowed)
		return -1;
	return *allowed != 0;
}

// policy_is_node tells whether the peer is the node itself, which a pod always
// reaches.
static __always_inline int policy_is_node(struct policy_scratch *room)
{
	return bpf_map_lookup_elem(&policy_node, room->key.peer) != 0;
}

// policy_judge judges the flow of room->key, which was opened in a direction.
static __always_inline int policy_judge(struct policy_scratch *room, struct policy_pod *pod, __u32 ifindex, __u8 opened, const struct policy_packet *p)
{
	__u32 port = p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP ? 0 : opened == POLICY_INGRESS ? p->pod_port : p->peer_port;
	int allowed = -1;
	int i;

	for (i = 0; i < POLICY_ATTEMPTS && allowed < 0; i++) {
		if (i > 0 && policy_of(ifindex, pod) <= 0)
			break;
		allowed = policy_set_allows(room, opened == POLICY_INGRESS ? pod->ingress : pod->egress, p, port);
	}
	if (allowed <= 0 && opened == POLICY_EGRESS)
		allowed = policy_is_node(room);
	return allowed > 0;
}

// policy_count counts a drop, and tells the agent of it unless there are many.
static __always_inline void policy_count(__u32 ifindex, __u8 direction, __u8 reason, const struct policy_packet *p)
{
	struct policy_count_key key = { .ifindex = ifindex, .direction = direction, .reason = reason };
	__u64 *count = bpf_map_lookup_elem(&policy_counts, &key), one = 1;
	__u64 now = bpf_ktime_get_ns();
	struct policy_told *told;
	struct policy_drop *drop;
	__u32 zero = 0;

	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&policy_counts, &key, &one, BPF_NOEXIST);
	told = bpf_map_lookup_elem(&policy_telling, &zero);
	if (!told)
		return;
	if (told->second != now / 1000000000ULL) {
		told->second = now / 1000000000ULL;
		told->told = 0;
	}
	if (told->told >= POLICY_TOLD || !(drop = bpf_ringbuf_reserve(&policy_drops, sizeof(*drop), 0))) {
		told->skipped++;
		return;
	}
	told->told++;
	drop->time = now;
	drop->ifindex = ifindex;
	drop->direction = direction;
	drop->reason = reason;
	drop->protocol = p->protocol;
	drop->zero = 0;
	__builtin_memcpy(drop->peer, p->peer, sizeof(drop->peer));
	drop->pod_port = p->pod_port;
	drop->peer_port = p->peer_port;
	drop->skipped = told->skipped;
	told->skipped = 0;
	bpf_ringbuf_submit(drop, 0);
}

static __always_inline int policy_ended(const struct policy_flow *f, __u8 protocol, __u32 now)
{
	return now - f->seen > (f->closed ? POLICY_CLOSED_IDLE : protocol == IPPROTO_TCP ? POLICY_TCP_IDLE : POLICY_UDP_IDLE);
}

// policy_decide returns why the packet in the scratch may not pass, 0 when it may. It is
// global so that it is verified only once, for all callers. It gets no pointer to the
// packet: kernels before 5.12 support none in global functions, and those before 6.2
// accept no key of a map from there.
__attribute__((noinline)) int policy_decide(__u32 ifindex, __u8 direction)
{
	struct policy_scratch *room = policy_scratch();
	__u32 now = bpf_ktime_get_ns() / 1000000000ULL;
	const struct policy_packet *p;
	struct policy_pod pod = {};
	struct policy_flow *f;
	int found;

	if (!room)
		return POLICY_NOT_ALLOWED; // which it never is
	p = &room->packet;
	found = policy_of(ifindex, &pod);
	if (found == 0)
		return POLICY_REASON_NONE;
	if (found < 0)
		return POLICY_NOT_ALLOWED;
	room->key.ifindex = ifindex;
	__builtin_memcpy(room->key.peer, p->peer, sizeof(room->key.peer));
	room->key.pod_port = p->pod_port;
	room->key.peer_port = p->peer_port;
	room->key.protocol = p->protocol;
	f = bpf_map_lookup_elem(&policy_flows, &room->key);
	// A connection that is opened the other way, on the ports of an earlier one, is another.
	if (f && !policy_ended(f, p->protocol, now) && !(p->opens && f->opened != direction)) {
		if (f->revision != pod.revision) {
			f->allowed = policy_judge(room, &pod, ifindex, f->opened, p);
			f->revision = pod.revision;
		}
		if (!f->allowed)
			return POLICY_REVOKED;
		if (f->seen != now)
			f->seen = now;
		if (p->closes)
			f->closed = 1;
		else if (p->opens)
			f->closed = 0;
		return POLICY_REASON_NONE;
	}
	if (!policy_judge(room, &pod, ifindex, direction, p))
		return POLICY_NOT_ALLOWED;
	room->opened.seen = now;
	room->opened.revision = pod.revision;
	room->opened.opened = direction;
	room->opened.allowed = 1;
	room->opened.closed = p->closes;
	bpf_map_update_elem(&policy_flows, &room->key, &room->opened, BPF_ANY);
	return POLICY_REASON_NONE;
}

// policy_selects tells whether any policy is about the pod.
static __always_inline int policy_selects(__u32 ifindex)
{
	struct policy_pod *pod = bpf_map_lookup_elem(&policy_pods, &ifindex);

	return pod && policy_word(&pod->ingress);
}

// policy_refuses tells whether the packet in the scratch may not pass, and counts it
// then. Programs that send a packet into a pod past its interface on the node have to
// ask.
static __always_inline int policy_refuses(const struct policy_scratch *room, __u32 ifindex, __u8 direction)
{
	int reason;

	reason = policy_decide(ifindex, direction);
	if (reason)
		policy_count(ifindex, direction, reason, &room->packet);
	return reason;
}
