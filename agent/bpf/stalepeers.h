// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// An iterator over the sockets that are connected to a service by UDP. Such a
// socket keeps its endpoint; when that is removed, the application must be notified.
// The agent reads which sockets are connected to which endpoints, and does that.

#pragma once

#include "services.h"

#include <bpf/bpf_core_read.h>

// The kernel's, as far as they matter: loading looks for the members' places.
struct ns_common {
	unsigned int inum;
} __attribute__((preserve_access_index));

struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} __attribute__((preserve_access_index));

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	possible_net_t skc_net;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	struct peer *value;
} __attribute__((preserve_access_index));

// A socket that is connected through a service.
struct connected_peer {
	struct peer peer;
	struct address local;
	struct address remote;
	__u64 cookie;
	__u32 netns;
	__u32 zero;
};

// For its type.
const volatile struct connected_peer connected_peer_type = {};

SEC("iter/bpf_sk_storage_map")
int connected_peers(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct connected_peer found = {};
	struct sock *sk = ctx->sk;
	struct peer *peer = ctx->value;

	if (!sk || !peer)
		return 0;
	found.peer = *peer;
#ifdef IPV6
	found.local.addr[0] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0];
	found.local.addr[1] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1];
	found.local.addr[2] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2];
	found.local.addr[3] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3];
	found.remote.addr[0] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0];
	found.remote.addr[1] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1];
	found.remote.addr[2] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2];
	found.remote.addr[3] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
#else
	found.local.addr[0] = sk->__sk_common.skc_rcv_saddr;
	found.remote.addr[0] = sk->__sk_common.skc_daddr;
#endif
	found.local.port = bpf_htons(sk->__sk_common.skc_num);
	found.remote.port = sk->__sk_common.skc_dport;
	found.cookie = bpf_get_socket_cookie(sk);
	found.netns = sk->__sk_common.skc_net.net->ns.inum;
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

// Reading the kernel's structures is reserved to GPL programs.
char programs_license[] SEC("license") = "GPL";
