package auth

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/etcdtest"
	jwtoken "github.com/xebec-project/xebec/internal/token"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// fixture is an API in memory with one account and one pod of it, on node-1.
type fixture struct {
	t    *testing.T
	ctx  context.Context
	api  *client.Client
	etcd *clientv3.Client
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	server := grpc.NewServer()
	apiv1.RegisterResourceServiceServer(server, clienttest.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); <-served })
	f := &fixture{t: t, api: client.New(conn), etcd: etcdtest.New(t, 1).Client()}
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	f.create(&corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: "web", Namespace: "default"}})
	f.pod()
	return f
}

func (f *fixture) create(account *corev1.ServiceAccount) *corev1.ServiceAccount {
	f.t.Helper()
	made, err := client.Create(f.ctx, f.api, account)
	if err != nil {
		f.t.Fatal(err)
	}
	return made
}

func (f *fixture) pod() *corev1.Pod {
	f.t.Helper()
	made, err := client.Create(f.ctx, f.api, &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "web-1", Namespace: "default"},
		Spec: &corev1.PodSpec{NodeName: "node-1", ServiceAccountName: "web", Containers: []*corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []*corev1.Volume{{Name: "vault", VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []*corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "token"}}}}}}}}})
	if err != nil {
		f.t.Fatal(err)
	}
	return made
}

// start runs an instance.
func (f *fixture) start(cfg Config) *Service {
	f.t.Helper()
	s, err := New(cfg, Deps{Log: zaptest.NewLogger(f.t), Etcd: f.etcd, Client: f.api})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.t.Cleanup(func() { cancel(); <-done })
	select {
	case <-s.Ready():
	case <-f.ctx.Done():
		f.t.Fatal("not ready in time")
	}
	return s
}

func as(ctx context.Context, user string, groups ...string) context.Context {
	return edge.ContextWithIdentity(ctx, edge.Identity{User: user, Groups: groups})
}

func (f *fixture) admin() context.Context { return as(f.ctx, "ann", "system:masters") }

func (f *fixture) token(s *Service, req *authv1.CreateTokenRequest) string {
	f.t.Helper()
	resp, err := s.CreateToken(f.admin(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.GetToken()
}

func (f *fixture) review(s *Service, token string, audiences ...string) *authv1.ReviewTokenResponse {
	f.t.Helper()
	resp, err := s.ReviewToken(as(f.ctx, "xebec:gateway", "xebec:services"), &authv1.ReviewTokenRequest{Token: token, Audiences: audiences})
	if err != nil {
		f.t.Fatal(err)
	}
	return resp
}

func web() *authv1.CreateTokenRequest {
	return &authv1.CreateTokenRequest{Namespace: "default", ServiceAccount: "web"}
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	one, two := f.start(DefaultConfig()), f.start(DefaultConfig())

	t.Run("made by one instance, known to another", func(t *testing.T) {
		got := f.review(two, f.token(one, web()))
		if !got.GetAuthenticated() || got.GetUser() != "system:serviceaccount:default:web" || got.GetUid() == "" ||
			strings.Join(got.GetGroups(), " ") != "system:serviceaccounts system:serviceaccounts:default system:authenticated" {
			t.Errorf("got %v", got)
		}
		if left := time.Until(got.GetExpirationTimestamp().AsTime()); left < 50*time.Minute || left > time.Hour {
			t.Errorf("good for %s", left)
		}
	})
	t.Run("for others", func(t *testing.T) {
		req := web()
		req.Audiences, req.ExpirationSeconds = []string{"vault", "shop"}, 7*24*3600
		token := f.token(one, req)
		if got := f.review(two, token); got.GetAuthenticated() || !strings.Contains(got.GetError(), "it is for vault, shop") {
			t.Errorf("at the gateway: %v", got)
		}
		got := f.review(two, token, "shop", "bank")
		if !got.GetAuthenticated() || len(got.GetAudiences()) != 1 || time.Until(got.GetExpirationTimestamp().AsTime()) > 25*time.Hour {
			t.Errorf("at the shop: %v", got)
		}
	})
	t.Run("bound to a pod", func(t *testing.T) {
		req := web()
		req.BoundPod = &authv1.BoundPod{Name: "web-1"}
		token := f.token(one, req)
		if got := f.review(two, token); !got.GetAuthenticated() || got.GetBoundPod().GetName() != "web-1" || got.GetBoundPod().GetUid() == "" {
			t.Fatalf("got %v", got)
		}
		if _, err := client.Delete[*corev1.Pod](f.ctx, f.api, "default", "web-1", client.GracePeriod(0)); err != nil {
			t.Fatal(err)
		}
		// The mirror hears of it a moment later.
		for f.review(two, token).GetAuthenticated() {
			if f.ctx.Err() != nil {
				t.Fatal("still good")
			}
		}
		if got := f.review(two, token); !strings.Contains(got.GetError(), "pod default/web-1 is gone") {
			t.Errorf("got %v", got)
		}
		f.pod()
		if got := f.review(two, token); got.GetAuthenticated() || !strings.Contains(got.GetError(), "another") {
			t.Errorf("with a pod of the same name: %v", got)
		}
	})
	t.Run("of an account that is gone", func(t *testing.T) {
		f.create(&corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: "brief", Namespace: "default"}})
		token := f.token(one, &authv1.CreateTokenRequest{Namespace: "default", ServiceAccount: "brief"})
		if _, err := client.Delete[*corev1.ServiceAccount](f.ctx, f.api, "default", "brief"); err != nil {
			t.Fatal(err)
		}
		for f.review(two, token).GetAuthenticated() {
			if f.ctx.Err() != nil {
				t.Fatal("still good")
			}
		}
	})
	t.Run("forged", func(t *testing.T) { testForged(t, f, one) })
	t.Run("nonsense", func(t *testing.T) {
		for name, change := range map[string]func(*authv1.CreateTokenRequest){
			"no namespace":   func(r *authv1.CreateTokenRequest) { r.Namespace = "" },
			"no account":     func(r *authv1.CreateTokenRequest) { r.ServiceAccount = "" },
			"too short":      func(r *authv1.CreateTokenRequest) { r.ExpirationSeconds = 599 },
			"negative":       func(r *authv1.CreateTokenRequest) { r.ExpirationSeconds = -1 },
			"endless":        func(r *authv1.CreateTokenRequest) { r.ExpirationSeconds = 1 << 62 },
			"empty audience": func(r *authv1.CreateTokenRequest) { r.Audiences = []string{""} },
			"nameless pod":   func(r *authv1.CreateTokenRequest) { r.BoundPod = &authv1.BoundPod{Uid: "x"} },
		} {
			req := web()
			change(req)
			if _, err := one.CreateToken(f.admin(), req); apierr.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
		}
		req := web()
		req.ServiceAccount = "missing"
		if _, err := one.CreateToken(f.admin(), req); !apierr.IsNotFound(err) {
			t.Errorf("no such account: %v", err)
		}
		req = web()
		req.BoundPod = &authv1.BoundPod{Name: "web-1", Uid: "another"}
		if _, err := one.CreateToken(f.admin(), req); !apierr.IsConflict(err) {
			t.Errorf("another uid: %v", err)
		}
	})
	t.Run("rights", func(t *testing.T) {
		bound := web()
		bound.BoundPod = &authv1.BoundPod{Name: "web-1"}
		to := func(audiences ...string) *authv1.CreateTokenRequest {
			req := proto.CloneOf(bound)
			req.Audiences = audiences
			return req
		}
		for _, tt := range []struct {
			user, group string
			req         *authv1.CreateTokenRequest
			want        codes.Code
		}{
			{"system:node:node-1", "system:nodes", bound, codes.OK},
			{"system:node:node-1", "system:nodes", to("vault"), codes.OK},
			{"system:node:node-1", "system:nodes", to(DefaultConfig().Issuer, "vault"), codes.OK},
			{"system:node:node-1", "system:nodes", to("shop"), codes.PermissionDenied},
			{"system:node:node-1", "system:nodes", to("vault", "shop"), codes.PermissionDenied},
			{"ann", "system:masters", to("shop"), codes.OK},
			{"system:node:node-1", "system:nodes", web(), codes.PermissionDenied},
			{"system:node:node-2", "system:nodes", bound, codes.PermissionDenied},
			{"system:node:node-1", "", bound, codes.PermissionDenied},
			{"system:node:node-1", "system:nodes", &authv1.CreateTokenRequest{Namespace: "default", ServiceAccount: "default", BoundPod: bound.BoundPod}, codes.PermissionDenied},
			{"system:node:node-1", "system:nodes", &authv1.CreateTokenRequest{Namespace: "default", ServiceAccount: "web", BoundPod: &authv1.BoundPod{Name: "none"}}, codes.PermissionDenied},
			{"system:serviceaccount:default:web", "system:serviceaccounts", web(), codes.PermissionDenied},
			{"xebec:scheduler", "xebec:services", web(), codes.PermissionDenied},
		} {
			if _, err := one.CreateToken(as(f.ctx, tt.user, tt.group), tt.req); apierr.Code(err) != tt.want {
				t.Errorf("%s of %q asks for %v: %v", tt.user, tt.group, tt.req, err)
			}
		}
		if _, err := one.ReviewToken(as(f.ctx, "mallory"), &authv1.ReviewTokenRequest{}); !apierr.IsForbidden(err) {
			t.Errorf("a stranger reviews: %v", err)
		}
	})
}

// testForged tries tokens that this cluster did not make.
func testForged(t *testing.T, f *fixture, s *Service) {
	ring, err := s.keys.use()
	if err != nil {
		t.Fatal(err)
	}
	own := ring.signing(time.Now())
	account, err := client.Get[*corev1.ServiceAccount](f.ctx, f.api, "default", "web")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	honest := func() jwtoken.Claims {
		b := jwtoken.Bound{Namespace: "default", ServiceAccount: jwtoken.Reference{Name: "web", UID: account.GetMetadata().GetUid()}}
		return jwtoken.Claims{Kubernetes: b, Claims: jwt.Claims{Issuer: s.cfg.Issuer, Subject: b.User(), Audience: []string{s.cfg.Issuer},
			Expiry: jwt.NewNumericDate(now.Add(time.Hour))}}
	}
	signed := func(k *key, change func(*jwtoken.Claims)) string {
		c := honest()
		change(&c)
		token, err := jwtoken.Sign(k.id, k.private, c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if got := f.review(s, signed(own, func(*jwtoken.Claims) {})); !got.GetAuthenticated() {
		t.Fatalf("an honest one is refused: %v", got)
	}
	stored, err := prepended(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	foreign := *own
	if other, err := parseKey(stored[0]); err != nil {
		t.Fatal(err)
	} else {
		foreign.private = other.private
	}
	symmetric, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: make([]byte, 32), KeyID: own.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	confused, err := jwt.Signed(symmetric).Claims(honest()).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	good := signed(own, func(*jwtoken.Claims) {})
	for name, token := range map[string]string{
		"empty":              "",
		"no token":           "a.b.c",
		"huge":               strings.Repeat("x", jwtoken.MaxBytes+1),
		"no algorithm":       "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".",
		"another algorithm":  confused,
		"another's key":      signed(&foreign, func(*jwtoken.Claims) {}),
		"an unknown key":     signed(&key{id: "none", private: foreign.private}, func(*jwtoken.Claims) {}),
		"cut":                good[:len(good)-4],
		"expired":            signed(own, func(c *jwtoken.Claims) { c.Expiry = jwt.NewNumericDate(now.Add(-time.Minute)) }),
		"without an end":     signed(own, func(c *jwtoken.Claims) { c.Expiry = nil }),
		"not yet good":       signed(own, func(c *jwtoken.Claims) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Hour)) }),
		"another issuer":     signed(own, func(c *jwtoken.Claims) { c.Issuer = "https://elsewhere" }),
		"another subject":    signed(own, func(c *jwtoken.Claims) { c.Subject = "system:serviceaccount:kube-system:admin" }),
		"another's uid":      signed(own, func(c *jwtoken.Claims) { c.Kubernetes.ServiceAccount.UID = "x" }),
		"an account of none": signed(own, func(c *jwtoken.Claims) { c.Kubernetes = jwtoken.Bound{}; c.Subject = c.Kubernetes.User() }),
	} {
		if got := f.review(s, token); got.GetAuthenticated() || got.GetError() == "" || got.GetUser() != "" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRotation(t *testing.T) {
	f := newFixture(t)
	one, two := f.start(DefaultConfig()), f.start(DefaultConfig())
	token := f.token(one, web())
	before, err := one.ListKeys(f.ctx, &authv1.ListKeysRequest{})
	if err != nil || len(before.GetKeys()) != 1 || !strings.Contains(before.GetJwks(), `"crv":"P-256"`) || strings.Contains(before.GetJwks(), `"d":`) {
		t.Fatalf("keys %v, %v", before, err)
	}
	rotated, err := one.RotateKey(f.admin(), &authv1.RotateKeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		after, err := two.ListKeys(f.ctx, &authv1.ListKeysRequest{})
		if err != nil || f.ctx.Err() != nil {
			t.Fatalf("the other instance knows %v, %v", after, err)
		}
		if len(after.GetKeys()) == 2 {
			if after.GetKeys()[0].GetId() != rotated.GetId() || after.GetKeys()[0].GetSigning() || !after.GetKeys()[1].GetSigning() {
				t.Errorf("keys %v: a new one must be known to all before it signs", after.GetKeys())
			}
			break
		}
	}
	if got := f.review(two, token); !got.GetAuthenticated() {
		t.Errorf("a token of before: %v", got)
	}
	// Another instance, started now, finds both.
	if got := f.review(f.start(DefaultConfig()), token); !got.GetAuthenticated() {
		t.Errorf("at a new instance: %v", got)
	}
	for range maxKeys - 2 {
		if _, err := one.RotateKey(f.admin(), &authv1.RotateKeyRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := one.RotateKey(f.admin(), &authv1.RotateKeyRequest{}); apierr.Code(err) != codes.FailedPrecondition || apierr.Reason(err) != apierr.ReasonTooManyKeys {
		t.Errorf("one key too many: %v", err)
	}
}

func TestLives(t *testing.T) {
	cfg := DefaultConfig()
	now := time.Now()
	aged := func(ages ...time.Duration) *ring {
		r := &ring{}
		for _, age := range ages {
			r.keys = append(r.keys, key{id: age.String(), created: now.Add(-age)})
			r.stored = append(r.stored, storedKey{ID: age.String(), Created: now.Add(-age)})
		}
		return r
	}
	for _, tt := range []struct {
		ages    []time.Duration
		signing time.Duration
		kept    int
	}{
		{[]time.Duration{0}, 0, 1},
		{[]time.Duration{0, time.Hour}, time.Hour, 2},
		{[]time.Duration{2 * time.Minute, time.Hour}, 2 * time.Minute, 2},
		{[]time.Duration{time.Second, 2 * time.Second, time.Hour}, time.Hour, 3},
		{[]time.Duration{24 * time.Hour, 720 * time.Hour}, 24 * time.Hour, 2},
		{[]time.Duration{26 * time.Hour, 720 * time.Hour}, 26 * time.Hour, 1},
		{[]time.Duration{0, 26 * time.Hour, 720 * time.Hour}, 26 * time.Hour, 2},
	} {
		r := aged(tt.ages...)
		if got := r.signing(now).id; got != tt.signing.String() {
			t.Errorf("%v: signs with the one of %s, want %s", tt.ages, got, tt.signing)
		}
		if got := (&keyring{cfg: cfg}).pruned(r.stored, now); len(got) != tt.kept {
			t.Errorf("%v: %d kept, want %d", tt.ages, len(got), tt.kept)
		}
	}
	for want, change := range map[string]func(*Config){
		"issuer: ":      func(c *Config) { c.Issuer = "" },
		"maxLifetime: ": func(c *Config) { c.MaxLifetime = time.Minute },
		"rotateAfter: ": func(c *Config) { c.RotateAfter = time.Minute },
	} {
		bad := DefaultConfig()
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s%v", want, err)
		}
	}
}
