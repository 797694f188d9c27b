package gateway

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// echo answers a Get with a fixed object, so that a benchmark measures the way and not the work.
type echo struct {
	apiv1.UnimplementedResourceServiceServer
	response *rpc.Frame
}

// desc is the Get method alone, answered with a frame.
func (e *echo) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: apiv1.ResourceService_ServiceDesc.ServiceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Get",
			Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
				in := new(rpc.Frame)
				if err := decode(in); err != nil {
					return nil, err
				}
				defer in.Free()
				return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: apiv1.ResourceService_Get_FullMethodName},
					func(context.Context, any) (any, error) { return e.response, nil })
			},
		}},
	}
}

// BenchmarkGatewayUnary measures a Get of a 1 KB object, all of caller, gateway and service in one
// process over real TLS: straight to the service, and through the gateway. The difference in
// cpu-us/op is what the gateway costs, with the second connection's client and server ends.
func BenchmarkGatewayUnary(b *testing.B) {
	cluster := rpctest.NewCluster(b)
	etcd := etcdtest.New(b, 1).Client()
	log := zap.NewNop()
	directory := discovery.New(etcd, log)
	b.Cleanup(directory.Close)

	object := &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"k": string(make([]byte, 1000))}}
	e := &echo{response: rpc.NewFrame(encode(b, &apiv1.GetResponse{Object: packed(b, object)}))}
	service := serveQuietly(b, rpc.ServerConfig{TLS: cluster.Service(b, "apiserver")}, func(r grpc.ServiceRegistrar) { r.RegisterService(e.desc(), e) })
	ctx, cancel := context.WithCancel(context.Background())
	listed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = discovery.Register(ctx, etcd, discovery.Instance{Service: "apiserver", Host: "m", Addr: service}, log, func(on bool) {
			if on {
				close(listed)
			}
		})
	}()
	b.Cleanup(func() { cancel(); <-ended })
	<-listed

	cfg := DefaultConfig()
	cfg.UserLimits = edge.Rates{PerSecond: 1e6, Burst: 1e6}
	tls := cluster.Service(b, "gateway")
	gateway, err := New(cfg, Deps{Log: log, TLS: tls, Etcd: etcd, Directory: directory})
	if err != nil {
		b.Fatal(err)
	}
	server := rpc.ServerConfig{TLS: tls}
	gateway.ConfigureServer(&server)
	address := serveQuietly(b, server, gateway.Register)

	request := &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: "c"}}
	for _, bench := range []struct{ name, address, user string }{
		{"direct", service, pki.ServiceUser("apiserver")},
		{"gateway", address, pki.ServiceUser("gateway")},
	} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", bench.name, callers), func(b *testing.B) {
				conn := cluster.Dial(b, bench.address, cluster.Admin(b), rpc.ClientConfig{ServerUser: bench.user})
				client := apiv1.NewResourceServiceClient(conn)
				if _, err := client.Get(ctx, request); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
				if callers == 1 {
					began := cpuTime()
					for b.Loop() {
						if _, err := client.Get(ctx, request); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64((cpuTime()-began).Microseconds())/float64(b.N), "cpu-us/op")
					return
				}
				began := cpuTime()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := client.Get(ctx, request); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64((cpuTime()-began).Microseconds())/float64(b.N), "cpu-us/op")
			})
		}
	}
}

func serveQuietly(b *testing.B, cfg rpc.ServerConfig, register func(grpc.ServiceRegistrar)) (address string) {
	b.Helper()
	cfg.Listen, cfg.DrainDelay = "127.0.0.1:0", -1
	server, err := rpc.NewServer(cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	register(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return server.Addr().String()
}

// cpuTime is the process's, user and system.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
