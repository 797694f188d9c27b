package gateway

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
)

// userAgent is what the gateway calls itself; callers' own travel in a header.
var userAgent = "xebec-gateway/" + version.Version()

// backends holds one balanced connection per control-plane service.
type backends struct {
	tls       *pki.Source
	directory *discovery.Directory

	mu    sync.RWMutex
	conns map[string]*grpc.ClientConn
}

func newBackends(tls *pki.Source, directory *discovery.Directory) *backends {
	return &backends{tls: tls, directory: directory, conns: make(map[string]*grpc.ClientConn)}
}

// connection returns the connection to a service whose name is known to be one.
func (b *backends) connection(service string) (*grpc.ClientConn, error) {
	if conn := b.existing(service); conn != nil {
		return conn, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if conn := b.conns[service]; conn != nil {
		return conn, nil
	}
	conn, err := rpc.Dial(rpc.SchemeDiscovery+":///"+service, rpc.ClientConfig{
		TLS: b.tls, Discovery: b.directory, UserAgent: userAgent, ForOthers: true,
	})
	if err != nil {
		return nil, err
	}
	b.conns[service] = conn
	return conn, nil
}

// registered returns the connection to a service that a caller named, which must have an instance:
// names from outside make no connections otherwise.
func (b *backends) registered(ctx context.Context, service string) (*grpc.ClientConn, error) {
	if conn := b.existing(service); conn != nil {
		return conn, nil
	}
	instances, err := b.directory.Instances(ctx)
	if err != nil {
		return nil, apierr.Unavailable("find service %q: %v", service, err)
	}
	for _, instance := range instances {
		if instance.Service == service {
			return b.connection(service)
		}
	}
	return nil, apierr.BadField("service", "no service %q runs in this cluster", service)
}

func (b *backends) existing(service string) *grpc.ClientConn {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.conns[service]
}

func (b *backends) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for service, conn := range b.conns {
		_ = conn.Close()
		delete(b.conns, service)
	}
}
