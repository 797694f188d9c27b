//go:build ignore

// SPDX-License-Identifier: Apache-2.0

// The hooks of sockets that talk IPv6, on nodes whose pods have addresses of both
// families. They run beside those of socketlb.c, which see to IPv4 addresses on
// IPv6 sockets.

#define IPV6
#include "sockets.h"

// address_of reads the address that the hook is about. It fails for IPv4 ones,
// ::ffff:a.b.c.d.
static __always_inline int address_of(const struct bpf_sock_addr *ctx, struct address *a)
{
	a->addr[0] = ctx->user_ip6[0];
	a->addr[1] = ctx->user_ip6[1];
	a->addr[2] = ctx->user_ip6[2];
	a->addr[3] = ctx->user_ip6[3];
	a->port = (__be16)ctx->user_port;
	return !(a->addr[0] == 0 && a->addr[1] == 0 && a->addr[2] == bpf_htonl(0xffff));
}

static __always_inline void set_address(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip6[0] = a->addr[0];
	ctx->user_ip6[1] = a->addr[1];
	ctx->user_ip6[2] = a->addr[2];
	ctx->user_ip6[3] = a->addr[3];
	ctx->user_port = a->port;
}

static __always_inline int follow(struct bpf_sock_addr *ctx, enum verdict verdict, const struct address *to)
{
	if (verdict == REFUSE)
		return refuse(to, transport(ctx));
	if (verdict == REWRITE)
		set_address(ctx, to);
	return ALLOW;
}

SEC("cgroup/connect6")
int connect_ip6(struct bpf_sock_addr *ctx)
{
	struct address to = {};

	return address_of(ctx, &to) ? follow(ctx, on_connect(ctx, &to), &to) : ALLOW;
}

SEC("cgroup/sendmsg6")
int sendmsg_ip6(struct bpf_sock_addr *ctx)
{
	struct address to = {};

	return address_of(ctx, &to) ? follow(ctx, on_send(ctx, &to), &to) : ALLOW;
}

SEC("cgroup/recvmsg6")
int recvmsg_ip6(struct bpf_sock_addr *ctx)
{
	struct address from = {};

	if (address_of(ctx, &from) && received_from(ctx, &from))
		set_address(ctx, &from);
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername_ip6(struct bpf_sock_addr *ctx)
{
	struct address peer = {};

	if (address_of(ctx, &peer) && connected_to(ctx, &peer))
		set_address(ctx, &peer);
	return ALLOW;
}

// No helper used here is reserved to GPL programs.
char programs_license[] SEC("license") = "Apache-2.0";
