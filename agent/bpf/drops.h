// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Reports to the agent of packets that the programs drop, and of connections that
// they refuse: all are counted, and a bounded number of them is reported.

#pragma once

#include "counters.h"
#include "services.h"

// The number of reports per second, on each CPU.
#define DROPS_TOLD 100

// Addresses are of IPv6, or mapped into it. A socket that was refused has no source.
struct dropped {
	__u64 time; // nanoseconds since boot
	__u8 saddr[16];
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 reason; // of enum counter
	__u16 zero;
	__u32 skipped; // on this CPU before this one, that were only counted
	__u32 fill;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 17);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops SEC(".maps");

struct telling {
	__u64 second;
	__u32 told;
	__u32 skipped;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct telling);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops_telling SEC(".maps");

// tell_dropped counts a drop and tells of it. Without a source it is a socket's.
static __always_inline void tell_dropped(__u8 reason, __u8 protocol, const __u32 *saddr, __be16 sport, const __u32 *daddr, __be16 dport)
{
	__u64 now = bpf_ktime_get_ns();
	struct telling *told;
	struct dropped *d;
	__u32 zero = 0;

	count(reason);
	told = bpf_map_lookup_elem(&drops_telling, &zero);
	if (!told)
		return;
	if (told->second != now / 1000000000ULL) {
		told->second = now / 1000000000ULL;
		told->told = 0;
	}
	if (told->told >= DROPS_TOLD || !(d = bpf_ringbuf_reserve(&drops, sizeof(*d), 0))) {
		told->skipped++;
		return;
	}
	told->told++;
	__builtin_memset(d, 0, sizeof(*d));
	d->time = now;
	if (saddr)
		map_ip(d->saddr, saddr);
	map_ip(d->daddr, daddr);
	d->sport = sport;
	d->dport = dport;
	d->protocol = protocol;
	d->reason = reason;
	d->skipped = told->skipped;
	told->skipped = 0;
	bpf_ringbuf_submit(d, 0);
}
