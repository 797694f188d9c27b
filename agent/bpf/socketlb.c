//go:build ignore

// SPDX-License-Identifier: Apache-2.0

// Socket load balancing: a socket that is about to talk to a service's address
// is pointed at one of the service's endpoints instead, once, when it connects
// (or, for unconnected UDP, as each datagram is sent). Nothing is done per
// packet afterwards, and no packet ever carries a service address.

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
} peers SEC(".maps");

// Unconnected UDP, the way out: socket and service address to endpoint.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct choice);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_flows SEC(".maps");

// Unconnected UDP, the way back: socket and endpoint to service address.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow_key);
	__type(value, struct address);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_replies SEC(".maps");

// Whether the kernel lets a program choose the error that the caller sees (5.18
// on). Where it does not, a service without endpoints gives EPERM.
volatile const __u8 can_set_retval = 0;

// The node's own network namespace. Only there do loopback addresses lead to
// services: a pod's loopback is the pod's. 0: the kernel does not tell.
volatile const __u64 host_netns = 0;

static __always_inline int refuse(void)
{
	count(REFUSED);
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

// is_other_loopback tells whether the address is one that a service has on the
// node's loopback, and the socket is not the node's.
static __always_inline int is_other_loopback(struct bpf_sock_addr *ctx, const struct address *to)
{
	return (to->addr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) &&
	       (!host_netns || bpf_get_netns_cookie(ctx) != host_netns);
}

// on_connect replaces a service's address by an endpoint's.
static __always_inline enum verdict on_connect(struct bpf_sock_addr *ctx, struct address *to)
{
	struct frontend frontend = { .addr = to->addr, .port = to->port, .protocol = transport(ctx) };
	struct choice chosen = {};
	struct peer peer = {};
	struct bpf_sock *sk;
	struct path path = {};
	enum verdict verdict;

	if (!frontend.protocol || is_other_loopback(ctx, to))
		return PASS;
	verdict = choose(ctx, 0, 0, &frontend, 0, &chosen);
	if (verdict != REWRITE)
		return verdict;
	path.frontend = frontend;
	path.backend = chosen.backend;
	count_traffic(&path, 1, 0);

	// A TCP application does not look at who answers, and remembering would cost
	// each connection a twentieth of its time. It does matter for datagrams: a
	// reply from elsewhere than the address asked is dropped.
	sk = ctx->sk;
	if (sk && frontend.protocol == IPPROTO_UDP) {
		struct peer *kept;

		peer.frontend = *to;
		peer.backend = chosen.backend;
		kept = bpf_sk_storage_get(&peers, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
		if (kept)
			*kept = peer; // the socket may have been connected before
	}
	*to = chosen.backend;
	return REWRITE;
}

// on_send is on_connect for a datagram sent by a socket that is not connected.
// Datagrams of one socket to one service keep to one endpoint while it lasts.
static __always_inline enum verdict on_send(struct bpf_sock_addr *ctx, struct address *to)
{
	struct frontend frontend = { .addr = to->addr, .port = to->port, .protocol = IPPROTO_UDP };
	struct flow_key out = { .address = *to }, back = {};
	struct choice chosen = {}, copy = {};
	struct choice *earlier;
	enum verdict verdict;
	__u64 *reply;

	if (transport(ctx) != IPPROTO_UDP || is_other_loopback(ctx, to))
		return PASS;
	out.cookie = bpf_get_socket_cookie(ctx);
	earlier = bpf_map_lookup_elem(&udp_flows, &out);
	if (earlier)
		copy = *earlier;
	verdict = choose(ctx, 0, 0, &frontend, earlier ? &copy : 0, &chosen);
	if (verdict != REWRITE)
		return verdict;

	if (!earlier || word(&copy.backend) != word(&chosen.backend) || copy.slot != chosen.slot) {
		struct path path = { .frontend = frontend, .backend = chosen.backend };

		bpf_map_update_elem(&udp_flows, &out, &chosen, BPF_ANY);
		count_traffic(&path, 1, 0);
	}
	back.cookie = out.cookie;
	back.address = chosen.backend;
	reply = bpf_map_lookup_elem(&udp_replies, &back);
	if (!reply || *reply != word(to))
		bpf_map_update_elem(&udp_replies, &back, to, BPF_ANY);
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
	peer = bpf_sk_storage_get(&peers, sk, 0, 0);
	if (!peer || word(&peer->backend) != word(from))
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
	frontend = bpf_map_lookup_elem(&udp_replies, &back);
	if (!frontend)
		return 0;
	*from = *frontend;
	return 1;
}

static __always_inline struct address address4(const struct bpf_sock_addr *ctx)
{
	struct address a = { .addr = ctx->user_ip4, .port = (__be16)ctx->user_port };

	return a;
}

static __always_inline void set_address4(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip4 = a->addr;
	ctx->user_port = a->port;
}

// An AF_INET6 socket reaches an IPv4 address as ::ffff:a.b.c.d.
static __always_inline int is_mapped(const struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == 0 && ctx->user_ip6[1] == 0 && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

static __always_inline struct address address6(const struct bpf_sock_addr *ctx)
{
	struct address a = { .addr = ctx->user_ip6[3], .port = (__be16)ctx->user_port };

	return a;
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct address *a)
{
	ctx->user_ip6[3] = a->addr;
	ctx->user_port = a->port;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct address to = address4(ctx);
	enum verdict verdict = on_connect(ctx, &to);

	if (verdict == REFUSE)
		return refuse();
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
		return refuse();
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
		return refuse();
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
		return refuse();
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
