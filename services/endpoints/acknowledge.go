package endpoints

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
)

const (
	// tellBehindAfter is how long a node waits for others before it gets their names.
	tellBehindAfter = 500 * time.Millisecond
	// mostBehind is how many nodes are named.
	mostBehind = 10
)

// acknowledger is the EndpointsService of an instance: it answers while there is a term of
// leadership.
type acknowledger struct {
	endpointsv1.UnimplementedEndpointsServiceServer

	mu   sync.Mutex
	term *roll // nil while following
}

// run serves a term with the nodes that the informer knows, until ctx ends.
func (a *acknowledger) run(ctx context.Context, r *roll) {
	a.set(r)
	<-ctx.Done()
	a.set(nil)
	close(r.over)
}

func (a *acknowledger) set(r *roll) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.term = r
}

// Acknowledge implements endpointsv1.EndpointsServiceServer.
func (a *acknowledger) Acknowledge(stream grpc.BidiStreamingServer[endpointsv1.AcknowledgeRequest, endpointsv1.AcknowledgeResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return apierr.BadRequest("the first message, with the node, is missing")
	}
	id := edge.IdentityFromContext(stream.Context())
	if first.GetNode() == "" || id.User != pki.NodeUser(first.GetNode()) {
		return apierr.Denied("%s may not acknowledge for node %q", id.User, first.GetNode())
	}
	a.mu.Lock()
	r := a.term
	a.mu.Unlock()
	if r == nil {
		return notLeading()
	}
	m := r.join(first)
	defer r.leave(m)
	received := make(chan error, 1)
	// It ends with the stream, which ends when this returns.
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			r.hear(m, req)
		}
	}()
	var sent *endpointsv1.AcknowledgeResponse
	behind := time.NewTimer(tellBehindAfter)
	defer behind.Stop()
	for {
		news, waiting := r.news(m)
		if !proto.Equal(news, sent) {
			if err := stream.Send(news); err != nil {
				return err
			}
			sent = news
		}
		if waiting {
			behind.Reset(tellBehindAfter)
		} else {
			behind.Stop()
		}
		select {
		case <-m.wake:
		case <-behind.C:
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-r.over:
			return notLeading()
		case <-rpc.Draining(stream.Context()):
			return notLeading()
		}
	}
}

func notLeading() error {
	return apierr.New(codes.Unavailable, elected.ReasonNotLeader,
		"this instance does not lead the endpoints service: repeat the call to reach another one")
}

// roll is what one term knows of how far nodes' service maps are. Nothing of it is stored: a new
// leader collects it again.
type roll struct {
	nodes *client.Informer[*corev1.Node]
	// over is closed when the term is.
	over chan struct{}

	mu sync.Mutex
	// programmed outlives the streams: what is in a node's maps stays there when its agent is away.
	programmed map[string]int64
	members    map[*member]struct{}
	// wanted is the highest revision that a member waits for.
	wanted int64
}

// member is one stream.
type member struct {
	node string
	wake chan struct{}
	// await is the revision that the node waits for, since when that is, and the highest that all are
	// known to have reached.
	await      int64
	since      time.Time
	everywhere int64
}

func newRoll(nodes *client.Informer[*corev1.Node]) *roll {
	r := &roll{nodes: nodes, over: make(chan struct{}), programmed: map[string]int64{}, members: map[*member]struct{}{}}
	nodes.OnChange(func(old, now *corev1.Node) {
		if counts(old) != counts(now) {
			r.nodesChanged()
		}
		if now == nil {
			r.forget(old.GetMetadata().GetName())
		}
	})
	return r
}

// counts tells whether others wait for a node: one that is silent may never answer.
func counts(n *corev1.Node) bool {
	return n != nil && n.GetMetadata().GetLabels()[core.LabelHollow] == "" &&
		core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
}

func (r *roll) join(first *endpointsv1.AcknowledgeRequest) *member {
	m := &member{node: first.GetNode(), wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.members[m] = struct{}{}
	r.mu.Unlock()
	r.hear(m, first)
	return m
}

func (r *roll) leave(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, m)
}

// forget drops what is known of a node that was deleted.
func (r *roll) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.programmed, node)
}

// hear takes a member's state, and wakes those that it matters to.
func (r *roll) hear(m *member, req *endpointsv1.AcknowledgeRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.programmed[m.node]
	r.programmed[m.node] = req.GetProgrammed()
	if req.GetAwait() != m.await {
		m.await, m.since = req.GetAwait(), time.Now()
		m.signal()
	}
	if m.await > r.wanted {
		r.wanted = m.await
		for other := range r.members {
			if r.programmed[other.node] < r.wanted {
				other.signal()
			}
		}
	}
	for other := range r.members {
		if other.await > before && other.await <= req.GetProgrammed() {
			other.signal()
		}
	}
}

// nodesChanged wakes all who wait: the node that was in their way may not count any more.
func (r *roll) nodesChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range r.members {
		if m.await > m.everywhere {
			m.signal()
		}
	}
}

func (m *member) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// news returns what a member is to know now, and whether it waits for others.
func (r *roll) news(m *member) (*endpointsv1.AcknowledgeResponse, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &endpointsv1.AcknowledgeResponse{Wanted: r.wanted}
	if m.await > m.everywhere {
		if behind := r.behind(m.await); len(behind) == 0 {
			m.everywhere = m.await
		} else if time.Since(m.since) >= tellBehindAfter {
			slices.Sort(behind)
			out.Behind = behind[:min(len(behind), mostBehind)]
		}
	}
	out.Everywhere = m.everywhere
	return out, m.await > m.everywhere
}

// behind returns the nodes that count and have not reached a revision. r.mu is held.
func (r *roll) behind(revision int64) []string {
	var names []string
	for _, n := range r.nodes.List() {
		if name := n.GetMetadata().GetName(); counts(n) && r.programmed[name] < revision {
			names = append(names, name)
		}
	}
	return names
}
