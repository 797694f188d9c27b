// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// The maps of services and their endpoints, and how an endpoint is chosen.
//
// Endpoint sets swap atomically. The agent writes a new set under an identifier
// never used before, then replaces the service's value, which names the set and
// its size in one word, then removes the old set. A program that read the old
// value and finds the old set gone reads the value again.
//
// Hash map elements are recycled without waiting for the programs that still
// hold a pointer to them. Each value therefore begins with its key, which is
// written first and read last: a value whose key is another's has been recycled.

#pragma once

#include "counters.h"
#include "drops.h"
#include "services.h"

// How often a choice is repeated when the endpoint set changed meanwhile.
#define ATTEMPTS 3

// Set in the identity of a client that is known by its address.
#define OUTSIDER (1ULL << 63)

// An odd number whose products spread over all bits: 2^64 by the golden ratio.
#define SPREAD 0x9e3779b97f4a7c15ULL

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct frontend);
	__type(value, struct service);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(services) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 19);
	__type(key, struct backend_key);
	__type(value, struct backend);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(backends) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(affinities) SEC(".maps");

// Which clients outside a restricted set is for.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct source_range);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(source_ranges) SEC(".maps");

// By set, for those that have a table.
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct maglev_table));
	});
} NAMED(maglev) SEC(".maps");

enum verdict { PASS, REWRITE, REFUSE, FORBID };

static __always_inline int read_backend(const struct backend_key *key, struct address *to)
{
	struct backend *b = bpf_map_lookup_elem(&NAMED(backends), key);

	if (!b)
		return 0;
	copy(to, &b->address);
	return same(&b->key, key);
}

static __always_inline int still_holds(__u32 set, __u32 count, const struct choice *c)
{
	struct backend_key key = { .set = set, .slot = c->slot };
	struct address now = {};

	return key.slot < count && read_backend(&key, &now) && same(&now, &c->backend);
}

// A client of packets from outside, by its address. None: it is a socket.
struct client {
	const __u32 *addr;
	__u64 flow; // stands for the packets that are to have the same endpoint
};

// identity stands for a client outside among those that keep an endpoint. Two
// IPv6 addresses may have the same, and an endpoint in common then.
static __always_inline __u64 identity(const struct client *c)
{
	__u64 all = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		all = all * SPREAD ^ c->addr[i];
	return all | OUTSIDER;
}

static __always_inline int admits(__u32 set, const struct client *c)
{
	struct source_range key = { .bits = 32 + 32 * WORDS, .set = set };

	copy_ip(key.addr, c->addr);
	return bpf_map_lookup_elem(&NAMED(source_ranges), &key) != 0;
}

// mix spreads a number over 32 bits: the finalizer of MurmurHash3.
static __always_inline __u32 mix(__u64 h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 33;
	return h >> 32;
}

// slot_for returns the slot in the set's table that belongs to the flow, or a slot
// at random when there is no table.
static __always_inline __u32 slot_for(__u32 set, __u32 count, __u64 flow)
{
	__u32 zero = 0, at = ((__u64)mix(flow) * MAGLEV_SIZE) >> 32;
	struct maglev_table *table;
	void *inner = bpf_map_lookup_elem(&NAMED(maglev), &set);

	if (inner) {
		table = bpf_map_lookup_elem(inner, &zero);
		if (table && at < MAGLEV_SIZE)
			return table->slots[at];
	}
	return ((__u64)bpf_get_prandom_u32() * count) >> 32;
}

// choose picks an endpoint for the frontend. The earlier choice, if there is one,
// is kept as long as it holds. A socket is identified by its network namespace,
// a client outside of the node by its address.
static __always_inline enum verdict choose(void *ctx, const struct client *client, const struct frontend *frontend,
					   const struct choice *earlier, struct choice *chosen)
{
	__u32 forbidding = 0;
	int i;

#pragma unroll
	for (i = 0; i < ATTEMPTS; i++) {
		struct service *s = bpf_map_lookup_elem(&NAMED(services), frontend);
		struct affinity_key akey = { .frontend = *frontend };
		struct affinity renewed = {};
		struct backend_key key = {};
		__u64 set_and_count, affinity_and_flags;
		__u32 count, affinity_seconds, flags;

		if (!s)
			return PASS;
		set_and_count = word(&s->set);
		affinity_and_flags = word(&s->affinity_seconds);
		if (!same(&s->frontend, frontend))
			continue;
		key.set = (__u32)set_and_count;
		count = set_and_count >> 32;
		affinity_seconds = (__u32)affinity_and_flags;
		flags = affinity_and_flags >> 32;
		if (count == 0)
			return REFUSE;
		if (client && flags & SERVICE_RESTRICTED && !admits(key.set, client)) {
			// The ranges of a set that was replaced meanwhile are gone as well.
			if (forbidding == key.set)
				return FORBID;
			forbidding = key.set;
			continue;
		}

		if (earlier && still_holds(key.set, count, earlier)) {
			*chosen = *earlier;
			return REWRITE;
		}
		if (affinity_seconds) {
			struct affinity *a;

			akey.client = client ? identity(client) : bpf_get_netns_cookie(ctx);
			renewed.last_used = bpf_ktime_get_ns();
			a = bpf_map_lookup_elem(&NAMED(affinities), &akey);
			if (a && renewed.last_used - a->last_used < affinity_seconds * 1000000000ULL) {
				renewed.choice = a->choice;
				if (still_holds(key.set, count, &renewed.choice)) {
					a->last_used = renewed.last_used;
					*chosen = renewed.choice;
					return REWRITE;
				}
			}
		}

		if (client && flags & SERVICE_MAGLEV)
			key.slot = slot_for(key.set, count, affinity_seconds ? identity(client) : client->flow);
		else
			key.slot = ((__u64)bpf_get_prandom_u32() * count) >> 32;
		if (!read_backend(&key, &chosen->backend))
			continue;
		chosen->slot = key.slot;
		if (affinity_seconds) {
			renewed.choice = *chosen;
			bpf_map_update_elem(&NAMED(affinities), &akey, &renewed, BPF_ANY);
		}
		return REWRITE;
	}
	return forbidding ? FORBID : REFUSE;
}
