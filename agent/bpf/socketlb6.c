//go:build ignore

// SPDX-License-Identifier: Apache-2.0

// Socket load balancing for IPv6: what socketlb.c does for IPv4, with maps of its
// own, on nodes whose pods have addresses of both families. The programs run
// beside those, which see to IPv4 addresses on IPv6 sockets.
//
// An address does not fit a word. Values therefore begin with their key and end
// with what matters, and readers take them from behind: who finds the right key
// after having read the rest has read what belongs to it, since an element that
// is recycled meanwhile is written from the front.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DENY 0
#define ALLOW 1

// How often a choice is begun anew when the endpoint set changed meanwhile.
#define ATTEMPTS 3

struct address6 {
	__u32 addr[4]; // in network order
	__be16 port;
	__u16 zero;
};

// A service's address, as an application names it. Protocol is TCP or UDP.
struct frontend6 {
	__u32 addr[4];
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

struct service6 {
	struct frontend6 frontend;
	__u32 affinity_seconds; // 0: none
	__u32 set;
	__u32 count;
};

struct backend_key6 {
	__u32 set;
	__u32 slot;
};

struct backend6 {
	struct backend_key6 key;
	struct address6 address;
	__u32 zero;
};

// The service that a connected UDP socket believes to be talking to.
struct peer6 {
	struct address6 frontend;
	struct address6 backend;
};

// A choice once made. It holds as long as the slot still has that address.
struct choice6 {
	struct address6 backend;
	__u32 slot;
};

struct affinity_key6 {
	__u64 netns; // the cookie of the client's network namespace
	struct frontend6 frontend;
	__u32 zero;
};

struct affinity6 {
	__u64 last_used; // nanoseconds since boot
	struct choice6 choice;
};

// An unconnected UDP socket and an address it sends to or receives from.
struct flow_key6 {
	__u64 cookie;
	struct address6 address;
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct frontend6);
	__type(value, struct service6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} services6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 19);
	__type(key, struct backend_key6);
	__type(value, struct backend6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} backends6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct affinity_key6);
	__type(value, struct affinity6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} affinities6 SEC(".maps");

// Connected UDP sockets. The kernel frees an entry with its socket.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} peers6 SEC(".maps");

// Unconnected UDP, the way out: socket and service address to endpoint.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct flow_key6);
	__type(value, struct choice6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_flows6 SEC(".maps");

// Unconnected UDP, the way back: socket and endpoint to service address.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, struct flow_key6);
	__type(value, struct address6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_replies6 SEC(".maps");

enum verdict { PASS, REWRITE, REFUSE };

// Whether the kernel lets a program choose the error that the caller sees (5.18
// on). Where it does not, a service without endpoints gives EPERM.
volatile const __u8 can_set_retval6 = 0;

static __always_inline int refuse(void)
{
	if (can_set_retval6)
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

static __always_inline int same_words(const void *a, const void *b, int n)
{
	const volatile __u32 *x = a;
	const __u32 *y = b;
	int i;

#pragma unroll
	for (i = 0; i < n; i++) {
		if (x[i] != y[i])
			return 0;
	}
	return 1;
}

static __always_inline int same_address(const struct address6 *a, const struct address6 *b)
{
	return same_words(a, b, sizeof(*a) / 4);
}

static __always_inline void read_words(void *to, const void *from, int n)
{
	const volatile __u32 *x = from;
	__u32 *y = to;
	int i;

#pragma unroll
	for (i = 0; i < n; i++)
		y[i] = x[i];
}

static __always_inline struct frontend6 frontend_of(const struct address6 *a, __u8 protocol)
{
	struct frontend6 f = { .port = a->port, .protocol = protocol };

	read_words(f.addr, a->addr, 4);
	return f;
}

static __always_inline int read_backend(const struct backend_key6 *key, struct address6 *to)
{
	struct backend6 *b = bpf_map_lookup_elem(&backends6, key);

	if (!b)
		return 0;
	read_words(to, &b->address, sizeof(*to) / 4);
	return same_words(&b->key, key, sizeof(*key) / 4);
}

static __always_inline int still_holds(__u32 set, __u32 count, const struct choice6 *c)
{
	struct backend_key6 key = { .set = set, .slot = c->slot };
	struct address6 now = {};

	return key.slot < count && read_backend(&key, &now) && same_address(&now, &c->backend);
}

// choose picks an endpoint for the frontend. The earlier choice, if there is
// one, is kept as long as it holds.
static __always_inline enum verdict choose(void *ctx, const struct frontend6 *frontend, const struct choice6 *earlier,
					   struct choice6 *chosen)
{
	int i;

#pragma unroll
	for (i = 0; i < ATTEMPTS; i++) {
		struct service6 *s = bpf_map_lookup_elem(&services6, frontend);
		struct affinity_key6 akey = { .frontend = *frontend };
		struct affinity6 renewed = {};
		struct backend_key6 key = {};
		__u32 count, affinity_seconds;
		__u64 set_and_count;

		if (!s)
			return PASS;
		set_and_count = *(const volatile __u64 *)&s->set;
		affinity_seconds = *(const volatile __u32 *)&s->affinity_seconds;
		if (!same_words(&s->frontend, frontend, sizeof(*frontend) / 4))
			continue;
		key.set = (__u32)set_and_count;
		count = set_and_count >> 32;
		if (count == 0)
			return REFUSE;
		if (earlier && still_holds(key.set, count, earlier)) {
			*chosen = *earlier;
			return REWRITE;
		}
		if (affinity_seconds) {
			struct affinity6 *a;

			akey.netns = bpf_get_netns_cookie(ctx);
			renewed.last_used = bpf_ktime_get_ns();
			a = bpf_map_lookup_elem(&affinities6, &akey);
			if (a && renewed.last_used - a->last_used < affinity_seconds * 1000000000ULL) {
				renewed.choice = a->choice;
				if (still_holds(key.set, count, &renewed.choice)) {
					a->last_used = renewed.last_used;
					*chosen = renewed.choice;
					return REWRITE;
				}
			}
		}
		key.slot = ((__u64)bpf_get_prandom_u32() * count) >> 32;
		if (!read_backend(&key, &chosen->backend))
			continue;
		chosen->slot = key.slot;
		if (affinity_seconds) {
			renewed.choice = *chosen;
			bpf_map_update_elem(&affinities6, &akey, &renewed, BPF_ANY);
		}
		return REWRITE;
	}
	return REFUSE;
}

// address_of reads the address that the hook is about. It fails for IPv4 ones,
// ::ffff:a.b.c.d.
static __always_inline int address_of(const struct bpf_sock_addr *ctx, struct address6 *a)
{
	a->addr[0] = ctx->user_ip6[0];
	a->addr[1] = ctx->user_ip6[1];
	a->addr[2] = ctx->user_ip6[2];
	a->addr[3] = ctx->user_ip6[3];
	a->port = (__be16)ctx->user_port;
	return !(a->addr[0] == 0 && a->addr[1] == 0 && a->addr[2] == bpf_htonl(0xffff));
}

static __always_inline void set_address(struct bpf_sock_addr *ctx, const struct address6 *a)
{
	ctx->user_ip6[0] = a->addr[0];
	ctx->user_ip6[1] = a->addr[1];
	ctx->user_ip6[2] = a->addr[2];
	ctx->user_ip6[3] = a->addr[3];
	ctx->user_port = a->port;
}

static __always_inline int connected_to(struct bpf_sock_addr *ctx, struct address6 *from)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer6 *peer;

	if (!sk)
		return 0;
	peer = bpf_sk_storage_get(&peers6, sk, 0, 0);
	if (!peer || !same_address(&peer->backend, from))
		return 0;
	*from = peer->frontend;
	return 1;
}

SEC("cgroup/connect6")
int connect_ip6(struct bpf_sock_addr *ctx)
{
	struct choice6 chosen = {};
	struct frontend6 frontend;
	struct address6 to = {};
	struct bpf_sock *sk;

	if (!address_of(ctx, &to))
		return ALLOW;
	frontend = frontend_of(&to, transport(ctx));
	if (!frontend.protocol)
		return ALLOW;
	switch (choose(ctx, &frontend, 0, &chosen)) {
	case PASS:
		return ALLOW;
	case REFUSE:
		return refuse();
	case REWRITE:
		break;
	}
	sk = ctx->sk;
	if (sk && frontend.protocol == IPPROTO_UDP) {
		struct peer6 peer = { .frontend = to, .backend = chosen.backend };
		struct peer6 *kept = bpf_sk_storage_get(&peers6, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);

		if (kept)
			*kept = peer; // the socket may have been connected before
	}
	set_address(ctx, &chosen.backend);
	return ALLOW;
}

SEC("cgroup/sendmsg6")
int sendmsg_ip6(struct bpf_sock_addr *ctx)
{
	struct flow_key6 out = {}, back = {};
	struct choice6 chosen = {}, copy = {};
	struct address6 to = {};
	struct frontend6 frontend;
	struct choice6 *earlier;
	struct address6 *reply;

	if (!address_of(ctx, &to) || transport(ctx) != IPPROTO_UDP)
		return ALLOW;
	frontend = frontend_of(&to, IPPROTO_UDP);
	out.cookie = bpf_get_socket_cookie(ctx);
	out.address = to;
	earlier = bpf_map_lookup_elem(&udp_flows6, &out);
	if (earlier)
		copy = *earlier;
	switch (choose(ctx, &frontend, earlier ? &copy : 0, &chosen)) {
	case PASS:
		return ALLOW;
	case REFUSE:
		return refuse();
	case REWRITE:
		break;
	}
	if (!earlier || copy.slot != chosen.slot || !same_address(&copy.backend, &chosen.backend))
		bpf_map_update_elem(&udp_flows6, &out, &chosen, BPF_ANY);
	back.cookie = out.cookie;
	back.address = chosen.backend;
	reply = bpf_map_lookup_elem(&udp_replies6, &back);
	if (!reply || !same_address(reply, &to))
		bpf_map_update_elem(&udp_replies6, &back, &to, BPF_ANY);
	set_address(ctx, &chosen.backend);
	return ALLOW;
}

SEC("cgroup/recvmsg6")
int recvmsg_ip6(struct bpf_sock_addr *ctx)
{
	struct flow_key6 back = {};
	struct address6 from = {};
	struct address6 *frontend;

	if (!address_of(ctx, &from))
		return ALLOW;
	if (connected_to(ctx, &from)) {
		set_address(ctx, &from);
		return ALLOW;
	}
	back.cookie = bpf_get_socket_cookie(ctx);
	back.address = from;
	frontend = bpf_map_lookup_elem(&udp_replies6, &back);
	if (frontend)
		set_address(ctx, frontend);
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername_ip6(struct bpf_sock_addr *ctx)
{
	struct address6 peer = {};

	if (address_of(ctx, &peer) && connected_to(ctx, &peer))
		set_address(ctx, &peer);
	return ALLOW;
}

// No helper used here is reserved to GPL programs.
char programs_license[] SEC("license") = "Apache-2.0";
