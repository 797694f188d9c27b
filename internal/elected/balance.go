package elected

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
	// balanceInterval is how often a leader reads how the leaderships are spread, give or take a
	// fifth.
	balanceInterval = 20 * time.Second
	// balanceSettled is for how long leaders and instances must have been the same before a leader
	// steps down.
	balanceSettled = 40 * time.Second
	// balanceExcess is how many more services one host must lead than another before one of them
	// moves: with a smaller difference, the move would only swap the two.
	balanceExcess = 2
	// yieldPause is how long the other instances leave a vacancy to the successor that the last leader
	// named.
	yieldPause = 2 * time.Second
	// annotationSuccessor is on the Lease of a leader that steps down, and names the instance that
	// should lead next.
	annotationSuccessor = "control.xebec.io/successor"
)

// errSteppedDown ends a term in favour of an instance on a host that leads fewer services.
var errSteppedDown = errors.New("stepped down for another host")

// balance ends the term when this host leads more services than it should. The leaders of all
// services draw the same conclusion from the same state, so that one of them moves at a time; its
// move changes the state, and the others wait again.
func (e *election) balance(ctx context.Context, end context.CancelCauseFunc, c *client.Client) {
	seen, since := "", time.Time{}
	for pause(ctx, balanceInterval*4/5+rand.N(balanceInterval*2/5)) {
		v, err := e.view(ctx)
		if err != nil {
			e.log.Debug("Failed to read the other elections", zap.Error(err))
			seen = ""
			continue
		}
		if now := v.String(); now != seen {
			seen, since = now, time.Now()
			continue
		}
		service, to, ok := v.move()
		if !ok || service != e.cfg.Name || time.Since(since) < balanceSettled {
			continue
		}
		if err := e.nameSuccessor(ctx, c, service+"@"+to); err != nil {
			e.log.Info("Failed to name a successor", zap.Error(err))
			seen = ""
			continue
		}
		end(fmt.Errorf("%w: %s leads fewer services", errSteppedDown, to))
		return
	}
}

// nameSuccessor writes the successor into this leader's Lease.
func (e *election) nameSuccessor(ctx context.Context, c *client.Client, successor string) error {
	l, err := client.Get[*coordinationv1.Lease](ctx, c, electionNamespace, e.cfg.Name)
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

// leadership is the leader of a service, and the hosts of its instances.
type leadership struct {
	service, leader, term string
	hosts                 []string
}

// view is the leaderships of all elected services, by service.
type view []leadership

func (e *election) view(ctx context.Context) (view, error) {
	instances := e.deps.Instances()
	leases, _, err := client.List[*coordinationv1.Lease](ctx, e.deps.Client, client.ListOptions{Namespace: electionNamespace})
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

// move returns which leadership should move to which host, if any: one of the host that leads the
// most to the host that leads the least. None moves while an instance is missing.
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
