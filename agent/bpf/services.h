// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// What the programs, and the agent that fills their maps, say of services.
//
// Programs and maps exist once for each family of addresses. What is in headers is
// compiled for either: for IPv6 where IPV6 is defined, and the names of maps end
// in 6 then.

#pragma once

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// An address is WORDS words in network order. What begins with one is made up to
// whole pairs of words, so that it is read, compared and hashed without gaps.
#ifdef IPV6
#define WORDS 4
#define NAMED(name) name##6
#define MAKE_UP __u32 fill;
#else
#define WORDS 1
#define NAMED(name) name
#define MAKE_UP
#endif

#define PAIRS __attribute__((aligned(8)))

// The clients for which an address leads to its endpoints: the node's own sockets,
// those of pods included, or packets that arrive at the node from outside. Not all
// endpoints are for both.
enum scope { INSIDE, OUTSIDE };

// A service's address, as an application names it. Protocol is TCP or UDP.
struct frontend {
	__u32 addr[WORDS];
	__be16 port;
	__u8 protocol;
	__u8 scope;
	MAKE_UP
} PAIRS;

struct address {
	__u32 addr[WORDS];
	__be16 port;
	__u16 zero;
	MAKE_UP
} PAIRS;

struct service {
	struct frontend frontend;
	__u32 set;
	__u32 count;
	__u32 affinity_seconds; // 0: none
	__u32 flags;
};

// Of a service for clients outside: only those in source_ranges are served.
#define SERVICE_RESTRICTED 1
// The endpoint of a packet from outside is looked up in the set's table.
#define SERVICE_MAGLEV 2

// Clients of a set of endpoints that is restricted.
struct source_range {
	__u32 bits; // those of the set included
	__u32 set;
	__u32 addr[WORDS];
};

// A prime. It is many times the number of endpoints that services commonly have.
#define MAGLEV_SIZE 4093

// The slots of a set's endpoints, each as often as any other, give or take one.
struct maglev_table {
	__u16 slots[MAGLEV_SIZE];
	__u16 zero;
};

struct backend_key {
	__u32 set;
	__u32 slot;
} PAIRS;

struct backend {
	struct backend_key key;
	struct address address;
};

// The service that a connected UDP socket believes to be talking to.
struct peer {
	struct address frontend;
	struct address backend;
};

// A choice once made. It holds as long as the slot still has that address.
struct choice {
	struct address backend;
	__u32 slot;
	__u32 zero;
};

struct affinity_key {
	__u64 client; // the cookie of a network namespace, or what stands for an address, and OUTSIDER
	struct frontend frontend;
};

struct affinity {
	__u64 last_used; // nanoseconds since boot
	struct choice choice;
};

static __always_inline __u64 word(const void *eight_bytes)
{
	return *(const volatile __u64 *)eight_bytes;
}

// same and copy are for what is made of pairs of words, which are each read once.
static __always_inline int same_pairs(const void *a, const void *b, int n)
{
	__u64 differ = 0;
	int i;

	for (i = 0; i < n; i++)
		differ |= word((const __u64 *)a + i) ^ word((const __u64 *)b + i);
	return differ == 0;
}

static __always_inline void copy_pairs(void *to, const void *from, int n)
{
	int i;

	for (i = 0; i < n; i++)
		((__u64 *)to)[i] = word((const __u64 *)from + i);
}

#define same(a, b) same_pairs(a, b, sizeof(*(a)) / 8)
#define copy(to, from) copy_pairs(to, from, sizeof(*(to)) / 8)

static __always_inline int same_ip(const __u32 *a, const __u32 *b)
{
	__u32 differ = 0;
	int i;

	for (i = 0; i < WORDS; i++)
		differ |= a[i] ^ b[i];
	return differ == 0;
}

static __always_inline void copy_ip(__u32 *to, const volatile __u32 *from)
{
	int i;

	for (i = 0; i < WORDS; i++)
		to[i] = from[i];
}

// map_ip writes the address as sixteen bytes, IPv4 as ::ffff:a.b.c.d.
static __always_inline void map_ip(__u8 *to, const __u32 *from)
{
	__u32 *words = (__u32 *)to;

#ifdef IPV6
	copy_ip(words, from);
#else
	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = *from;
#endif
}
