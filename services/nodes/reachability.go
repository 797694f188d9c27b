package nodes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

const (
	// answerWindow is for how long before an eviction the agent of an unreachable node is asked.
	answerWindow = 4 * time.Second
	// askAgain is how long after an answer a node that does not renew its lease is asked again: as
	// often as others renew.
	askAgain = 3 * time.Second
	// opinionLife is how long the outcome of asking counts.
	opinionLife = 15 * time.Second
	// heartbeatTTL is the time to live of an agent's lease. An agent that answered counts as one that
	// has renewed its lease at that time.
	heartbeatTTL = 10 * time.Second
	// witnesses is how many other nodes are asked whether they reach a node.
	witnesses = 3
	// reachWorkers bounds the nodes that are asked about at once.
	reachWorkers = 32
)

// reachability is the second opinion on nodes that do not renew their leases: it asks their agents
// directly, and asks other nodes whether they reach them. A node that is only cut off from the
// masters, or was only slow, keeps its pods.
type reachability struct {
	nodes  *client.Informer[*corev1.Node]
	events *events.Recorder
	log    *zap.Logger
	// ask asks the agent of a node, from another node or, when that is nil, from here, until it
	// answers or ctx ends.
	ask func(ctx context.Context, from, node *corev1.Node) error
	// known is called when the opinion on a node has changed.
	known func(controller.Key)

	mu       sync.Mutex
	opinions map[string]opinion
}

// opinion is what was found out about a node.
type opinion struct {
	// asked is when the last round of asking began that nothing came of, answered when the node
	// answered last, and ended when the last round did.
	asked, answered, ended time.Time
}

func (r *reachability) of(node string) opinion {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opinions[node]
}

func (r *reachability) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.opinions, node)
}

// canAsk reports whether a node has an agent that can be asked: simulated nodes have none.
func canAsk(n *corev1.Node) bool {
	_, ok := core.AgentAddress(n)
	return ok && n.GetMetadata().GetLabels()[core.LabelHollow] == ""
}

// reconcile asks about one node.
func (r *reachability) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := r.nodes.Get("", key.Name)
	if !ok || !canAsk(node) {
		return controller.Result{}, nil
	}
	begun := time.Now()
	by, problem := r.round(ctx, node)
	if ctx.Err() != nil {
		return controller.Result{}, ctx.Err()
	}
	r.mu.Lock()
	o := r.opinions[key.Name]
	o.ended = time.Now()
	if problem == nil {
		o.answered = o.ended
	} else {
		o.asked = begun
	}
	r.opinions[key.Name] = o
	r.mu.Unlock()
	if problem == nil {
		r.events.Event(node, events.Normal, "NodeReachable", "Node %s does not renew its lease but answers %s: its pods stay", key.Name, by)
	} else {
		r.log.Info("Node does not answer", zap.String(metrics.KeyNode, key.Name), zap.Error(problem))
	}
	r.known(key)
	return controller.Result{}, nil
}

// round asks the agent of a node from here and from some other nodes at once. It returns who was
// answered first, or why each of them was not.
func (r *reachability) round(ctx context.Context, node *corev1.Node) (by string, problem error) {
	ctx, cancel := context.WithTimeout(ctx, answerWindow)
	defer cancel()
	type outcome struct {
		by  string
		err error
	}
	from := append(r.witnesses(node), nil)
	outcomes := make(chan outcome, len(from))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, witness := range from {
		asking.Go(func() {
			name := "the nodes service"
			if witness != nil {
				name = "node " + witness.GetMetadata().GetName()
			}
			outcomes <- outcome{name, r.ask(ctx, witness, node)}
		})
	}
	for range from {
		o := <-outcomes
		if o.err == nil {
			return o.by, nil
		}
		problem = errors.Join(problem, fmt.Errorf("%s: %w", o.by, o.err))
	}
	return "", problem
}

// witnesses picks some of the ready nodes at random.
func (r *reachability) witnesses(except *corev1.Node) []*corev1.Node {
	var ready []*corev1.Node
	for _, n := range r.nodes.List() {
		isReady := core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
		if isReady && n.GetMetadata().GetName() != except.GetMetadata().GetName() && canAsk(n) {
			ready = append(ready, n)
		}
	}
	rand.Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
	return ready[:min(len(ready), witnesses)]
}

// asker asks agents over the network.
type asker struct{ tls *pki.Source }

func (a asker) config(node *corev1.Node) rpc.ClientConfig {
	return rpc.ClientConfig{TLS: a.tls, ServerUser: pki.NodeUser(node.GetMetadata().GetName()), UserAgent: "xebec-nodes/" + version.Version()}
}

// errSilent is what another node found out.
var errSilent = errors.New("the agent does not answer")

func (a asker) ask(ctx context.Context, from, node *corev1.Node) error {
	if from == nil {
		address, _ := core.AgentAddress(node)
		return rpc.Reach(ctx, address, a.config(node))
	}
	address, _ := core.AgentAddress(from)
	conn, err := rpc.Dial(address, a.config(from))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := nodev1.NewReachabilityServiceClient(conn).Reach(ctx, &nodev1.ReachRequest{Node: node.GetMetadata().GetName()})
	switch {
	case err != nil:
		return fmt.Errorf("ask the agent whether it reaches the other: %w", err)
	case !resp.GetAnswers():
		return fmt.Errorf("%w: %s", errSilent, resp.GetProblem())
	}
	return nil
}
