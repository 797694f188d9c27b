// Package clienttest is an API server in memory for unit tests: the ResourceService and
// LeaseService contracts with resource versions, selectors, paged lists of one snapshot, resumable
// watches, conflicts, fences, leases, grace periods, finalizers and transactions, under the rules
// of the compiled-in kinds.
//
// It differs from the real server in this: there is no Apply, no admission (cluster IPs are not
// allocated), objects may be created in a namespace that does not exist, and callers
// are not authenticated. It works inside testing/synctest.
package clienttest

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Server is an API server in memory. The zero value is not usable: call NewServer. All methods may
// be called concurrently.
type Server struct {
	apiv1.UnimplementedResourceServiceServer
	apiv1.UnimplementedLeaseServiceServer

	mu        sync.Mutex
	revision  int64
	compacted int64
	objects   map[objectKey]*record
	history   []change
	changed   chan struct{} // closed and replaced at every change
	cut       chan struct{} // closed and replaced to end all streams
	leases    map[int64]*lease
	nextLease int64
	advised   time.Duration // to live, for leases
	intercept func(method string, req proto.Message) error
	calls     map[string]int
}

type objectKey struct {
	kind            *scheme.Kind
	namespace, name string
}

// record is a stored object. Its message is never changed after storing.
type record struct {
	obj     scheme.Object
	created int64 // revision
	lease   int64
}

// change is one write: what was and what is now, either of which may be nil.
type change struct {
	revision int64
	key      objectKey
	old, new *record
}

// NewServer returns an empty server at revision 1.
func NewServer() *Server {
	return &Server{
		revision: 1,
		objects:  map[objectKey]*record{},
		changed:  make(chan struct{}),
		cut:      make(chan struct{}),
		leases:   map[int64]*lease{},
		calls:    map[string]int{},
	}
}

// Register adds the two services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	apiv1.RegisterResourceServiceServer(r, s)
	apiv1.RegisterLeaseServiceServer(r, s)
}

// Start serves a new Server over a connection in memory until the test ends, and returns it with a
// client.
func Start(t testing.TB) (*Server, *client.Client) {
	t.Helper()
	s := NewServer()
	return s, client.New(Serve(t, s))
}

// Unrepeated returns a client of s for code that repeats calls by itself: a call that the
// connection to a real server would repeat as well fails the test.
func Unrepeated(t testing.TB, s *Server) *client.Client {
	t.Helper()
	return client.New(unrepeated{Serve(t, s), t})
}

type unrepeated struct {
	grpc.ClientConnInterface
	t testing.TB
}

// Invoke implements grpc.ClientConnInterface.
func (u unrepeated) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if !retry.IsByCaller(ctx) {
		u.t.Errorf("%s is repeated by the connection and by its caller", method)
	}
	return u.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// Serve serves s over a connection in memory until the test ends. Several connections to one server
// may be made, to cut them one by one.
func Serve(t testing.TB, s *Server) *grpc.ClientConn {
	t.Helper()
	conn, stop, err := Connect(s)
	if err != nil {
		t.Fatalf("connect to the server in memory: %v", err)
	}
	t.Cleanup(stop)
	return conn
}

// Connect is Serve for examples, which have no testing.TB: stop closes the connection and its
// server.
func Connect(s *Server) (conn *grpc.ClientConn, stop func(), err error) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	s.Register(server)
	conn, err = grpc.NewClient("passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // It fails only by Stop.
	}()
	return conn, func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}, nil
}

// Seed stores objects as they are, status included, without defaults or validation; uid, creation
// time and resourceVersion are set where empty. What has the same name is updated, whatever its
// version. It returns the objects as stored.
func Seed[T scheme.Object](s *Server, objects ...T) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := make([]T, len(objects))
	for i, obj := range objects {
		obj = client.Clone(obj)
		if r := s.objects[keyOf(obj)]; r != nil && metadataOf(obj).Uid == "" {
			metadataOf(obj).Uid = r.obj.GetMetadata().GetUid()
		}
		s.stamp(obj)
		t := s.begin()
		t.put(keyOf(obj), obj, 0)
		t.commit()
		stored[i] = obj
	}
	return stored
}

// Remove drops an object at once, whatever finalizers it has, and reports whether it was there.
func Remove[T scheme.Object](s *Server, obj T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.begin()
	k := keyOf(obj)
	if t.get(k) == nil {
		return false
	}
	t.remove(k)
	t.commit()
	return true
}

// Intercept calls f before every unary call and at the start of every stream, by method name such
// as "Create". An error from f is the call's. A nil f ends it.
func (s *Server) Intercept(f func(method string, req proto.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Calls returns how often a method, such as "Create", was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Revision returns the present revision.
func (s *Server) Revision() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return format(s.revision)
}

// Compact forgets all changes up to now: watches that would resume before fail with OUT_OF_RANGE.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = s.revision
	s.history = nil
}

// Disconnect ends every open watch and keep-alive stream with UNAVAILABLE.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

func (s *Server) enter(method string, req proto.Message) error {
	s.mu.Lock()
	s.calls[method]++
	f := s.intercept
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(method, req)
}

// stamp fills in the metadata that a server gives every object.
func (s *Server) stamp(obj scheme.Object) {
	m := metadataOf(obj)
	if m.Uid == "" {
		m.Uid = newUID()
	}
	if m.CreationTimestamp == nil {
		m.CreationTimestamp = timestamppb.New(time.Now().Truncate(time.Second))
	}
}

// metadataOf returns the object's metadata, which it creates when absent.
func metadataOf(obj scheme.Object) *metav1.ObjectMeta {
	if m := obj.GetMetadata(); m != nil {
		return m
	}
	r := obj.ProtoReflect()
	m := &metav1.ObjectMeta{}
	r.Set(r.Descriptor().Fields().ByNumber(1), protoValue(m))
	return m
}

func keyOf(obj scheme.Object) objectKey {
	m := obj.GetMetadata()
	return objectKey{kinds.Of(obj), m.GetNamespace(), m.GetName()}
}

func (s *Server) keyFor(group, kindName, namespace, name string) (objectKey, error) {
	k, ok := kinds.ByGroupKind(group, kindName)
	if !ok {
		return objectKey{}, apierr.BadRequest("there is no kind %q in group %q", kindName, group)
	}
	if k.Namespaced && name != "" && namespace == "" {
		return objectKey{}, apierr.BadRequest("%s live in a namespace: name one", k.Plural)
	}
	return objectKey{k, namespace, name}, nil
}

func format(revision int64) string { return strconv.FormatInt(revision, 10) }

func parse(revision string) (int64, error) {
	n, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		return 0, apierr.BadRequest("%q is not a revision", revision)
	}
	return n, nil
}
