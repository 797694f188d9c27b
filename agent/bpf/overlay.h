// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Which encapsulated packets nodes take. They have IPv4 outside, whatever is inside.

#pragma once

#include "drops.h"

// The UDP port of the overlay, 0 where there is none. Set when loading.
volatile const __be16 overlay_port = 0;

// The addresses of the cluster's other nodes.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, __u32);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} overlay_nodes SEC(".maps");

static __always_inline int is_encapsulated(__u8 protocol, __be16 port)
{
	return overlay_port && protocol == IPPROTO_UDP && port == overlay_port;
}

static __always_inline int is_other_node(__u32 addr)
{
	return bpf_map_lookup_elem(&overlay_nodes, &addr) != 0;
}
