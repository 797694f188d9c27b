//go:build ignore

// SPDX-License-Identifier: Apache-2.0

// The hooks of sockets that talk IPv4, by addresses of either family.

#include "sockets.h"

static __always_inline struct address address4(const struct bpf_sock_addr *ctx)
{
	struct address a = { .addr = { ctx->user_ip4 }, .port = (__be16)ctx->user_port };

	return a;
}

static __always_inline void set_address4(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip4 = a->addr[0];
	ctx->user_port = a->port;
}

// An AF_INET6 socket reaches an IPv4 address as ::ffff:a.b.c.d.
static __always_inline int is_mapped(const struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

static __always_inline struct address address6(const struct bpf_sock_addr *ctx)
{
	struct address a = { .addr = { ctx->user_ip6[3] }, .port = (__be16)ctx->user_port };

	return a;
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip6[3] = a->addr[0];
	ctx->user_port = a->port;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct address to = address4(ctx);
	enum verdict verdict = on_connect(ctx, &to);

	if (verdict == REFUSE)
		return refuse(&to, transport(ctx));
	if (verdict == REWRITE)
		set_address4(ctx, &to);
	return ALLOW;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct address to;
	enum verdict verdict;

	if (!is_mapped(ctx))
		return ALLOW;
	to = address6(ctx);
	verdict = on_connect(ctx, &to);
	if (verdict == REFUSE)
		return refuse(&to, transport(ctx));
	if (verdict == REWRITE)
		set_address6(ctx, &to);
	return ALLOW;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct address to = address4(ctx);
	enum verdict verdict = on_send(ctx, &to);

	if (verdict == REFUSE)
		return refuse(&to, IPPROTO_UDP);
	if (verdict == REWRITE)
		set_address4(ctx, &to);
	return ALLOW;
}

// The kernel hands datagrams to mapped addresses to sendmsg4, whatever the
// socket's family; this is for the day that it does not.
SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct address to;
	enum verdict verdict;

	if (!is_mapped(ctx))
		return ALLOW;
	to = address6(ctx);
	verdict = on_send(ctx, &to);
	if (verdict == REFUSE)
		return refuse(&to, IPPROTO_UDP);
	if (verdict == REWRITE)
		set_address6(ctx, &to);
	return ALLOW;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address from = address4(ctx);

	if (received_from(ctx, &from))
		set_address4(ctx, &from);
	return ALLOW;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address from;

	if (!is_mapped(ctx))
		return ALLOW;
	from = address6(ctx);
	if (received_from(ctx, &from))
		set_address6(ctx, &from);
	return ALLOW;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct address peer = address4(ctx);

	if (connected_to(ctx, &peer))
		set_address4(ctx, &peer);
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct address peer;

	if (!is_mapped(ctx))
		return ALLOW;
	peer = address6(ctx);
	if (connected_to(ctx, &peer))
		set_address6(ctx, &peer);
	return ALLOW;
}

// No helper used here is reserved to GPL programs.
char programs_license[] SEC("license") = "Apache-2.0";
