package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

const (
	// balanceInterval is how often a leader looks at how the leaderships are spread, give or take a fifth.
	balanceInterval = 20 * time.Second
	// balanceSettled is for how long leaders and instances must have been the same before a leader steps down.
	balanceSettled = 40 * time.Second
	// balanceExcess is how many more services one host must lead than another for one of them to move: moving it at less
	// would only exchange the two.
	balanceExcess = 2
	// yieldPause is how long the others leave a vacancy to the successor that the leader before named.
	yieldPause = 2 * time.Second
	// annotationSuccessor is on the Lease of a leader that steps down, and names the instance that should lead next.
	annotationSuccessor = "control.xebec.io/successor"
)

// errSteppedDown ends a term in favour of an instance on a host that leads fewer services.
var errSteppedDown = errors.New("stepped down for another host")

// balance ends the term when this host leads more services than it should. The leaders of all services come to the same
// conclusion from what they see, so that one of them moves at a time, and what it changes makes the others wait again.
func (g *Group) balance(ctx context.Context, end context.CancelCauseFunc, c *client.Client) {
	seen, since := "", time.Time{}
	for pause(ctx, balanceInterval*4/5+rand.N(balanceInterval*2/5)) {
		v, err := g.view(ctx)
		if err != nil {
			g.log.Debug("Could not look at the other elections", zap.Error(err))
			seen = ""
			continue
		}
		if now := v.String(); now != seen {
			seen, since = now, time.Now()
			continue
		}
		service, to, ok := v.move()
		if !ok || service != g.cfg.Service || time.Since(since) < balanceSettled {
			continue
		}
		if err := g.nameSuccessor(ctx, c, service+"@"+to); err != nil {
			g.log.Info("Could not name a successor", zap.Error(err))
			seen = ""
			continue
		}
		end(fmt.Errorf("%w: %s leads fewer services", errSteppedDown, to))
		return
	}
}

// nameSuccessor writes into this leader's Lease whom it makes way for.
func (g *Group) nameSuccessor(ctx context.Context, c *client.Client, successor string) error {
	l, err := client.Get[*coordinationv1.Lease](ctx, c, electionNamespace, g.cfg.Service)
	if err != nil {
		return err
	}
	l = client.Clone(l)
	if l.Metadata.Annotations == nil {
		l.Metadata.Annotations = map[string]string{}
	}
	l.Metadata.Annotations[annotationSuccessor] = successor
	_, err = client.Update(ctx, c, l)
	return err
}

// leadership is who leads a service, and where it has instances.
type leadership struct {
	service, leader, term string
	hosts                 []string
}

// view is the leaderships of all elected services, by service.
type view []leadership

func (g *Group) view(ctx context.Context) (view, error) {
	instances := g.cfg.Instances()
	leases, _, err := client.List[*coordinationv1.Lease](ctx, g.cfg.Client, client.ListOptions{Namespace: electionNamespace})
	if err != nil {
		return nil, fmt.Errorf("list the elections: %w", err)
	}
	var v view
	for _, l := range leases {
		service, host, ok := strings.Cut(l.GetSpec().GetHolderIdentity(), "@")
		if ok && service == l.GetMetadata().GetName() {
			hosts := slices.Clone(instances[service])
			slices.Sort(hosts)
			v = append(v, leadership{service, host, l.GetMetadata().GetUid(), hosts})
		}
	}
	slices.SortFunc(v, func(a, b leadership) int { return strings.Compare(a.service, b.service) })
	return v, nil
}

// String is equal for views of the same state.
func (v view) String() string { return fmt.Sprint([]leadership(v)) }

// move says which leadership should go to which host, if any: one of the host that leads the most to the one that leads the
// least. While an instance is missing somewhere none moves.
func (v view) move() (service, to string, ok bool) {
	if len(v) == 0 {
		return "", "", false
	}
	hosts := v[0].hosts
	led := map[string]int{}
	for _, l := range v {
		if !slices.Equal(l.hosts, hosts) || !slices.Contains(hosts, l.leader) {
			return "", "", false
		}
		led[l.leader]++
	}
	most, least := hosts[0], hosts[0]
	for _, host := range hosts {
		if led[host] > led[most] {
			most = host
		}
		if led[host] < led[least] {
			least = host
		}
	}
	if led[most]-led[least] < balanceExcess {
		return "", "", false
	}
	i := slices.IndexFunc(v, func(l leadership) bool { return l.leader == most })
	return v[i].service, least, true
}
