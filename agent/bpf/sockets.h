// SPDX-License-Identifier: Apache-2.0

// Socket load balancing: a socket that is about to talk to a service's address
// is pointed at one of the service's endpoints instead, once, when it connects
// (or, for unconnected UDP, as each datagram is sent). Nothing is done per
// packet afterwards, and no packet ever carries a service address.

#pragma once

#include "endpoints.h"

#define DENY 0
#define ALLOW 1

// An unconnected UDP socket and an address it sends to or receives from.
struct flow_key {
	__u64 cookie;
	struct address address;
};

// Connected UDP sockets. The kernel frees an entry with its socket.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(peers) SEC(".maps");

// The same by the cookies of sockets, for an agent that the kernel lets not iterate
// over peers. It has room only where keep_connected is set.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, __u64);
	__type(value, struct peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(connected) SEC(".maps");

// Unconnected UDP, the way out: socket and service address to endpoint.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct choice);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(udp_flows) SEC(".maps");

// Unconnected UDP, the way back: socket and endpoint to service address.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct address);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} NAMED(udp_replies) SEC(".maps");

// Whether the kernel lets a program choose the error that the caller sees (5.18
// on). Where it does not, a service without endpoints gives EPERM.
volatile const __u8 can_set_retval = 0;

// Whether connected UDP sockets are noted by their cookies as well.
volatile const __u8 keep_connected = 0;

// The node's own network namespace. Only there do loopback addresses lead to
// services: a pod's loopback is the pod's. 0: the kernel does not tell.
volatile const __u64 host_netns = 0;

static __always_inline int refuse(const struct address *to, __u8 protocol)
{
	tell_dropped(REFUSED, protocol, 0, 0, to->addr, to->port);
	if (can_set_retval)
		bpf_set_retval(-ECONNREFUSED);
	return DENY;
}

static __always_inline __u8 transport(const struct bpf_sock_addr *ctx)
{
	switch (ctx->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
		return IPPROTO_TCP;
	case IPPROTO_UDP:
		return IPPROTO_UDP;
	default:
		return 0;
	}
}

static __always_inline int is_loopback(const struct address *a)
{
#ifdef IPV6
	return a->addr[0] == 0 && a->addr[1] == 0 && a->addr[2] == 0 && a->addr[3] == bpf_htonl(1);
#else
	return (a->addr[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
#endif
}

// is_other_loopback tells whether the address is one that a service has on the
// node's loopback, and the socket is not the node's.
static __always_inline int is_other_loopback(struct bpf_sock_addr *ctx, const struct address *to)
{
	return is_loopback(to) && (!host_netns || bpf_get_netns_cookie(ctx) != host_netns);
}

static __always_inline struct frontend frontend_of(const struct address *a, __u8 protocol)
{
	struct frontend f = { .port = a->port, .protocol = protocol };

	copy_ip(f.addr, a->addr);
	return f;
}

// on_connect replaces a service's address by an endpoint's.
static __always_inline enum verdict on_connect(struct bpf_sock_addr *ctx, struct address *to)
{
	struct path path = { .frontend = frontend_of(to, transport(ctx)) };
	struct choice chosen = {};
	struct bpf_sock *sk;
	enum verdict verdict;

	if (!path.frontend.protocol || is_other_loopback(ctx, to))
		return PASS;
	verdict = choose(ctx, 0, &path.frontend, 0, &chosen);
	if (verdict != REWRITE)
		return verdict;
	path.backend = chosen.backend;
	count_traffic(&path, 1, 0);

	// A TCP application does not look at who answers, and remembering would cost
	// each connection a twentieth of its time. It does matter for datagrams: a
	// reply from elsewhere than the address asked is dropped.
	sk = ctx->sk;
	if (sk && path.frontend.protocol == IPPROTO_UDP) {
		struct peer peer = { .frontend = *to, .backend = chosen.backend };
		struct peer *kept = bpf_sk_storage_get(&NAMED(peers), sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);

		if (kept)
			*kept = peer; // the socket may have been connected before
		if (keep_connected) {
			__u64 cookie = bpf_get_socket_cookie(ctx);

			bpf_map_update_elem(&NAMED(connected), &cookie, &peer, BPF_ANY);
		}
	}
	*to = chosen.backend;
	return REWRITE;
}

// on_send is on_connect for a datagram sent by a socket that is not connected.
// Datagrams of one socket to one service keep to one endpoint while it lasts.
static __always_inline enum verdict on_send(struct bpf_sock_addr *ctx, struct address *to)
{
	struct path path = { .frontend = frontend_of(to, IPPROTO_UDP) };
	struct flow_key out = { .address = *to }, back = {};
	struct choice chosen = {}, before = {};
	struct choice *earlier;
	enum verdict verdict;
	struct address *reply;

	if (transport(ctx) != IPPROTO_UDP || is_other_loopback(ctx, to))
		return PASS;
	out.cookie = bpf_get_socket_cookie(ctx);
	earlier = bpf_map_lookup_elem(&NAMED(udp_flows), &out);
	if (earlier)
		before = *earlier;
	verdict = choose(ctx, 0, &path.frontend, earlier ? &before : 0, &chosen);
	if (verdict != REWRITE)
		return verdict;

	if (!earlier || !same(&before, &chosen)) {
		path.backend = chosen.backend;
		bpf_map_update_elem(&NAMED(udp_flows), &out, &chosen, BPF_ANY);
		count_traffic(&path, 1, 0);
	}
	back.cookie = out.cookie;
	back.address = chosen.backend;
	reply = bpf_map_lookup_elem(&NAMED(udp_replies), &back);
	if (!reply || !same(reply, to))
		bpf_map_update_elem(&NAMED(udp_replies), &back, to, BPF_ANY);
	*to = chosen.backend;
	return REWRITE;
}

// connected_to tells whether the socket was connected through a service to the
// address, and replaces it by the service's.
static __always_inline int connected_to(struct bpf_sock_addr *ctx, struct address *from)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer *peer;

	if (!sk)
		return 0;
	peer = bpf_sk_storage_get(&NAMED(peers), sk, 0, 0);
	if (!peer || !same(&peer->backend, from))
		return 0;
	*from = peer->frontend;
	return 1;
}

static __always_inline int received_from(struct bpf_sock_addr *ctx, struct address *from)
{
	struct flow_key back = { .address = *from };
	struct address *frontend;

	if (connected_to(ctx, from))
		return 1;
	back.cookie = bpf_get_socket_cookie(ctx);
	frontend = bpf_map_lookup_elem(&NAMED(udp_replies), &back);
	if (!frontend)
		return 0;
	*from = *frontend;
	return 1;
}
