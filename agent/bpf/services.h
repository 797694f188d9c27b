// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// What the programs, and the agent that fills their maps, say of services.

#pragma once

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// For whom an address leads to its endpoints: the node's own sockets, those of
// pods included, or packets that arrive at the node from elsewhere. Not all
// endpoints are for both.
enum scope { INSIDE, OUTSIDE };

// A service's address, as an application names it. Protocol is TCP or UDP.
struct frontend {
	__be32 addr;
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

// Eight bytes, so that it can be read, written and compared at once.
struct address {
	__be32 addr;
	__be16 port;
	__u16 zero;
};

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
	__be32 addr;
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
};

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
	__u64 client; // the cookie of a network namespace, or an address and OUTSIDER
	struct frontend frontend;
};

struct affinity {
	__u64 last_used; // nanoseconds since boot
	struct choice choice;
};
