package gateway

import (
	"container/list"
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// maxIdleAgents bounds the connections kept to agents that no call uses.
	maxIdleAgents = 128
	// lookupTimeout bounds finding out where an agent is.
	lookupTimeout = 5 * time.Second
	// agentIdleTimeout is after how long without a call the network connection to an agent is given
	// up.
	agentIdleTimeout = time.Minute
)

// nodes holds the connections to agents.
type nodes struct {
	tls     *pki.Source
	objects *client.Client

	mu     sync.Mutex
	agents map[string]*list.Element // by node, of *agent
	recent list.List                // most recently used first
	closed bool
}

// agent is the connection to one node's agent at one address.
type agent struct {
	node, address string
	conn          *grpc.ClientConn
	calls         int
	// stale agents are in no list any more and close with their last call.
	stale bool
}

func newNodes(tls *pki.Source, objects *client.Client) *nodes {
	return &nodes{tls: tls, objects: objects, agents: make(map[string]*list.Element)}
}

// agent returns the connection to the agent of a node, given by name or by a pod that is bound to
// it, and a function to call when the call is over.
func (n *nodes) agent(ctx context.Context, node, namespace, pod string) (*grpc.ClientConn, func(), error) {
	ctx, cancel := context.WithTimeout(rpc.PassRequestID(ctx), lookupTimeout)
	defer cancel()
	if node == "" {
		if pod == "" || namespace == "" {
			return nil, nil, apierr.BadField("target", "name a node, or a pod and its namespace")
		}
		bound, err := client.Get[*corev1.Pod](ctx, n.objects, namespace, pod)
		if err != nil {
			return nil, nil, err
		}
		if node = bound.GetSpec().GetNodeName(); node == "" {
			return nil, nil, apierr.FailedPrecondition("NOT_BOUND", namespace+"/"+pod, "pod %s/%s is not bound to a node yet", namespace, pod)
		}
	}
	// Read again for each call: such calls are few, and a node that moved is found at once.
	object, err := client.Get[*corev1.Node](ctx, n.objects, "", node)
	if err != nil {
		return nil, nil, err
	}
	address, ok := core.AgentAddress(object)
	if !ok {
		return nil, nil, apierr.FailedPrecondition("NO_ADDRESS", node, "node %s has no internal address yet: its agent has not registered", node)
	}
	return n.connect(node, address)
}

func (n *nodes) connect(node, address string) (*grpc.ClientConn, func(), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, apierr.Unavailable("the gateway is stopping")
	}
	if element, ok := n.agents[node]; ok {
		a := element.Value.(*agent)
		if a.address == address {
			n.recent.MoveToFront(element)
			a.calls++
			return a.conn, func() { n.release(a) }, nil
		}
		n.drop(element)
	}
	conn, err := rpc.Dial(address, rpc.ClientConfig{
		TLS:        n.tls,
		ServerUser: pki.NodeUser(node),
		UserAgent:  userAgent,
		Silence:    rpc.PatientSilence,
		ForOthers:  true,
		Options:    []grpc.DialOption{grpc.WithIdleTimeout(agentIdleTimeout)},
	})
	if err != nil {
		return nil, nil, err
	}
	a := &agent{node: node, address: address, conn: conn, calls: 1}
	n.agents[node] = n.recent.PushFront(a)
	n.evict()
	return conn, func() { n.release(a) }, nil
}

// evict drops agents, those first that were not used for longest, while there are too many; ones in
// use stay.
func (n *nodes) evict() {
	for element := n.recent.Back(); element != nil && len(n.agents) > maxIdleAgents; {
		previous := element.Prev()
		if element.Value.(*agent).calls == 0 {
			n.drop(element)
		}
		element = previous
	}
}

// drop takes an agent out of the lists and closes it once no call uses it.
func (n *nodes) drop(element *list.Element) {
	a := n.recent.Remove(element).(*agent)
	delete(n.agents, a.node)
	a.stale = true
	if a.calls == 0 {
		_ = a.conn.Close()
	}
}

func (n *nodes) release(a *agent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a.calls--
	if a.stale && a.calls == 0 {
		_ = a.conn.Close()
	}
}

func (n *nodes) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.agents)
}

func (n *nodes) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for element := n.recent.Front(); element != nil; element = n.recent.Front() {
		n.drop(element)
	}
}
