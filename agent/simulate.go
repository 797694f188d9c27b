package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/hollow"
	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/pki"
)

// hollowValidity is how long a simulated node's certificate is valid, and up to twice of it: the
// server ends a connection when its certificate expires, and not those of all nodes at once.
const hollowValidity = 12 * time.Hour

// hollowReadBuffer is the size of a simulated node's read buffer: most of what it reads is small.
const hollowReadBuffer = 4 << 10

// authorities are what a process of simulated nodes issues and trusts certificates by.
type authorities struct {
	issuer *pki.CA
	// trusted is in PEM.
	trusted []byte
}

// source returns the identity of a node.
func (a *authorities) source(node string) (*pki.Source, error) {
	request := pki.NodeRequest(node)
	request.Validity = hollowValidity + rand.N(hollowValidity)
	return pki.NewIssuedSource(a.trusted, a.issuer, request)
}

// spareDescriptors are those that a process of simulated nodes needs besides its connections.
const spareDescriptors = 64

// enoughDescriptors tells what is missing when the process may not have as many connections as its
// nodes make.
func (a *Agent) enoughDescriptors() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(a.cfg.Hollow*len(a.cfg.Gateways) + spareDescriptors); limit.Cur < need {
		return fmt.Errorf(
			"hollow: %d nodes with a connection to each of %d gateways need %d open files, and the limit is %d: "+
				"raise it (ulimit -n) or start fewer nodes per process",
			a.cfg.Hollow,
			len(a.cfg.Gateways),
			need,
			limit.Cur,
		)
	}
	return nil
}

// prepareHollow reads what simulated nodes need, and tries it.
func (a *Agent) prepareHollow() error {
	if err := a.enoughDescriptors(); err != nil {
		return err
	}
	var err error
	if a.cfg.Metrics != diagnostics.Off {
		if a.tls, err = pki.NewSource(a.cfg.TLS); err != nil {
			return err
		}
	}
	a.authorities = &authorities{}
	if a.authorities.issuer, err = pki.LoadCA(a.cfg.HollowCACert, a.cfg.HollowCAKey); err != nil {
		return fmt.Errorf("hollowCACert, hollowCAKey: %w", err)
	}
	if a.authorities.trusted, err = os.ReadFile(a.cfg.TLS.CA); err != nil {
		return fmt.Errorf("tls.ca: %w", err)
	}
	if _, err = a.authorities.source(a.cfg.NamePrefix + "0"); err != nil {
		return fmt.Errorf("issue a simulated node's certificate by %s for a cluster that trusts %s: %w", a.cfg.HollowCACert, a.cfg.TLS.CA, err)
	}
	return nil
}

// simulation returns the parts of a process of simulated nodes.
func (n *node) simulation() []component.Component {
	return []component.Component{
		{Name: "metrics", Start: n.startMetrics, Stop: n.stopMetrics},
		{Name: "simulated nodes", Start: n.startHollow},
	}
}

func (n *node) startHollow(ctx context.Context, tasks *component.Tasks) error {
	tasks.Go(func() error { return n.runHollow(ctx) })
	return nil
}

func (a *Agent) runHollow(ctx context.Context) error {
	return hollow.Run(ctx, hollow.Config{
		Count: a.cfg.Hollow, NamePrefix: a.cfg.NamePrefix, StartsPerSecond: a.cfg.HollowStartsPerSecond, MaxPods: a.cfg.MaxPods,
		LeaseTTL: a.cfg.LeaseTTL,
		Dial: func(node string) (*grpc.ClientConn, error) {
			source, err := a.authorities.source(node)
			if err != nil {
				return nil, err
			}
			// Thousands of connections that are mostly silent should not hold buffers.
			return a.dial(source, grpc.WithReadBufferSize(hollowReadBuffer))
		},
		Log: a.log,
	})
}
