// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// What the programs count, for the agent's metrics. Counters are of both families
// together.

#pragma once

#include "services.h"

// Places in the array of counters. The agent knows them by the same order.
enum counter {
	REFUSED, // a socket asked for a service that has no endpoint
	DROP_NO_ENDPOINT, // as did a packet from outside
	DROP_SOURCE_RANGE, // the client is in none of the ranges that the service is for
	DROP_NO_SERVICE, // to a load balancer's address, where no service has the port
	DROP_NO_ROUTE, // the node does not know the way to the endpoint
	DROP_NO_PORT, // no source port was free
	DROP_TABLE_FULL, // the table of flows took no more
	DROP_BROKEN, // the packet is too short for its headers
	DROP_ENCAPSULATED, // it is of the overlay, and not from another node
	FLOWS_ENTERED, // entries that the table of flows took
	FLOWS_REMOVED, // entries that the agent removed from it; the programs do not count these
};

// With room for more, so that the map stays what it is when some are added.
#define COUNTERS 32

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counts SEC(".maps");

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &what);

	if (n)
		(*n)++;
}

// Where traffic goes: from an address of a service to one of its endpoints.
struct path {
	struct frontend frontend;
	struct address backend;
};

// Packets are those that pass the uplink, both ways.
struct traffic {
	__u64 connections;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct path);
	__type(value, struct traffic);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(traffic) SEC(".maps");

static __always_inline void count_traffic(const struct path *path, __u32 connections, __u32 packets)
{
	struct traffic *t = bpf_map_lookup_elem(&NAMED(traffic), path);
	struct traffic first = { .connections = connections, .packets = packets };

	if (t) {
		t->connections += connections;
		t->packets += packets;
	} else {
		bpf_map_update_elem(&NAMED(traffic), path, &first, BPF_NOEXIST);
	}
}
