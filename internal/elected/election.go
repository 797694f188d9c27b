package elected

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/renewal"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// DefaultLeaseTTL is how long the others wait for a leader that has vanished.
	DefaultLeaseTTL = 5 * time.Second
	minLeaseTTL     = 2 * time.Second
	// longestLeaseTTL is how long they wait at most, while the control plane is too busy to renew
	// leases in time.
	longestLeaseTTL = time.Minute
	// leaseCalm is for how long renewals must have been quick before a leader with such a lease steps
	// down for a shorter one.
	leaseCalm = 5 * time.Minute
	// electionNamespace holds the Lease objects of the elections.
	electionNamespace = "kube-system"
	// startSpread bounds the pause before an instance's first candidacy. The pause depends on service
	// and host, so that the services of masters that start together elect leaders on different ones.
	startSpread = 300 * time.Millisecond

	candidacyPauseMin = 50 * time.Millisecond
	candidacyPauseMax = 2 * time.Second
)

// election elects a leader among the instances of a service and runs a term of controllers while
// this instance leads. Followers keep nothing in memory but the election's Lease.
type election struct {
	cfg      Config
	deps     Deps
	identity string // in elections: "<service>@<host>"
	log      *zap.Logger
	metrics  *electionMetrics
	changed  chan struct{} // holds a token when the election's Lease changed
	ttl      renewal.TTL

	mu     sync.Mutex
	holder string // holderIdentity of the Lease, empty while there is none or it is not known yet
	exists bool
	uid    string // of the Lease
	// successor is the instance that the last leader stepped down for, empty for none; vacant is when
	// the Lease vanished.
	successor string
	vacant    time.Time
	term      *controller.Term // nil while following
}

func newElection(cfg Config, deps Deps) (*election, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("elected service: no name")
	case deps.Host == "":
		return nil, errors.New("elected service: no name of the host")
	case deps.Client == nil:
		return nil, errors.New("elected service: no client")
	case cfg.Setup == nil:
		return nil, errors.New("elected service: no setup")
	case cfg.LeaseTTL == 0:
		cfg.LeaseTTL = DefaultLeaseTTL
	case cfg.LeaseTTL < minLeaseTTL:
		return nil, fmt.Errorf("elected service: lease of %v: want %v or more", cfg.LeaseTTL, minLeaseTTL)
	}
	if deps.Logger == nil {
		deps.Logger = zap.NewNop()
	}
	return &election{
		cfg:      cfg,
		deps:     deps,
		identity: cfg.Name + "@" + deps.Host,
		log:      deps.Logger,
		metrics:  newElectionMetrics(deps.Metrics),
		changed:  make(chan struct{}, 1),
		ttl:      renewal.TTL{Least: cfg.LeaseTTL, Most: max(cfg.LeaseTTL, longestLeaseTTL), Calm: leaseCalm},
	}, nil
}

// leader returns the identity of the leader, empty while there is none or it is not known yet.
func (e *election) leader() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.holder
}

// current returns the term of this instance, nil while it follows.
func (e *election) current() *controller.Term {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term
}

// run stands for election, and leads when elected, until ctx ends. It then stops the controllers,
// revokes the lease so that another instance leads at once, and returns ctx's error. Nothing else
// ends it.
func (e *election) run(ctx context.Context) error {
	lease := client.NewInformer(e.deps.Client, client.InformerOptions[*coordinationv1.Lease]{
		Namespace:     electionNamespace,
		FieldSelector: "metadata.name=" + e.cfg.Name,
		OnError:       func(err error) { e.log.Info("Watch of the election ended, resuming", zap.Error(err)) },
	})
	lease.OnChange(func(_, now *coordinationv1.Lease) { e.observe(now) })
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { _ = lease.Run(ctx) }) // It ends only with ctx.

	if lease.WaitForSync(ctx) != nil || !pause(ctx, e.startDelay()) {
		return ctx.Err()
	}
	pauses := backoff.Backoff{Min: candidacyPauseMin, Max: candidacyPauseMax}
	for {
		if e.taken() {
			pauses.Reset()
		}
		if !e.vacancy(ctx) {
			return ctx.Err()
		}
		err := e.lead(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case apierr.IsAlreadyExists(err):
			// Another instance was faster. Until the watch shows its Lease, each further candidacy fails and
			// costs etcd a lease, so the pauses grow.
		case errors.Is(err, errTermOver):
			pauses.Reset()
			log := e.log.Warn
			if errors.Is(err, errSteppedDown) || errors.Is(err, errShorterLease) {
				log = e.log.Info
			}
			log("Leadership ended, standing again", zap.Error(err))
		default:
			e.log.Warn("Candidacy failed, trying again", zap.Error(err))
		}
		if pauses.Wait(ctx, err) != nil {
			return ctx.Err()
		}
	}
}

// taken reports whether the watch shows a Lease of the election.
func (e *election) taken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.exists
}

func (e *election) startDelay() time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.identity))
	return time.Duration(h.Sum32()%1000) * startSpread / 1000
}

// observe handles a change of the election's Lease; nil when it is gone.
func (e *election) observe(l *coordinationv1.Lease) {
	e.mu.Lock()
	e.exists = l != nil
	e.holder = l.GetSpec().GetHolderIdentity()
	e.uid = l.GetMetadata().GetUid()
	if l != nil {
		e.successor = l.GetMetadata().GetAnnotations()[annotationSuccessor]
	} else {
		e.vacant = time.Now()
	}
	e.mu.Unlock()
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// vacancy waits until the election has no Lease, and reports whether that came before ctx's end. It
// deletes the Lease of an earlier run of this instance: that run has ended, and if it has not, it
// cannot write any more, since its fence was the Lease.
func (e *election) vacancy(ctx context.Context) bool {
	for {
		e.mu.Lock()
		taken, own, uid := e.exists, e.holder == e.identity, e.uid
		var yield time.Duration
		if e.successor != "" && e.successor != e.identity {
			yield = time.Until(e.vacant.Add(yieldPause))
		}
		e.mu.Unlock()
		var again <-chan time.Time
		if !taken {
			if yield <= 0 {
				return ctx.Err() == nil
			}
			again = time.After(yield)
		}
		if own && taken {
			_, err := client.Delete[*coordinationv1.Lease](ctx, e.deps.Client, electionNamespace, e.cfg.Name, client.IfUID(uid))
			if err != nil && !apierr.IsNotFound(err) && ctx.Err() == nil {
				e.log.Warn("Failed to delete the Lease of an earlier run of this instance", zap.Error(err))
				again = time.After(candidacyPauseMax)
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-e.changed:
		case <-again:
		}
	}
}

// errTermOver wraps the end of a term that had begun.
var errTermOver = errors.New("term over")

// errShorterLease ends a term whose lease lasts longer than it has to: another instance would wait
// longer for a leader that vanished.
var errShorterLease = errors.New("leases need not last as long any more")

// errDeposed ends a term whose Lease object was deleted or replaced.
var errDeposed = errors.New("the election's Lease is gone")

// lead stands for election once and, when elected, leads until the leadership or ctx ends. It
// returns when the term has stopped and the lease is revoked, or could not be.
func (e *election) lead(ctx context.Context) error {
	termCtx, end := context.WithCancelCause(ctx)
	defer end(nil)
	// Once elected, the keeper must outlive ctx: the lease is kept until the controllers have stopped.
	keeperCtx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeper()
	elected := context.AfterFunc(ctx, stopKeeper)
	lease, err := client.KeepLease(keeperCtx, e.deps.Client, e.ttl.Current(), end, client.OnAnswer(func(took time.Duration) {
		if e.ttl.Answered(took) {
			end(errShorterLease)
		}
	}))
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(lease.Err(), client.ErrLeaseLost) {
			e.ttl.Lost()
		}
		e.revoke(context.WithoutCancel(ctx), lease)
	}()

	now := timestamppb.Now()
	seconds := int32(lease.TTL() / time.Second)
	won, err := client.Create(ctx, e.deps.Client, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Namespace: electionNamespace, Name: e.cfg.Name},
		Spec: &coordinationv1.LeaseSpec{
			HolderIdentity: &e.identity, LeaseDurationSeconds: &seconds, AcquireTime: now, RenewTime: now,
		},
	}, client.UnderLease(lease.ID()))
	if err != nil {
		return fmt.Errorf("stand for the election of %s: %w", e.cfg.Name, err)
	}
	elected()
	fence := &apiv1.Fence{
		Namespace: electionNamespace, Name: e.cfg.Name,
		CreateRevision: won.GetMetadata().GetResourceVersion(),
	}
	e.log.Info("Elected", zap.String(metrics.KeyRevision, fence.CreateRevision))
	return fmt.Errorf("%w: %w", errTermOver, e.serve(termCtx, end, fence, won.GetMetadata().GetUid()))
}

// serve runs one term and returns why it ended.
func (e *election) serve(ctx context.Context, end context.CancelCauseFunc, fence *apiv1.Fence, uid string) error {
	t := controller.NewTerm(ctx, e.deps.Client.WithFence(fence), e.log, e.metrics.controllers)
	if err := e.cfg.Setup(t); err != nil {
		return fmt.Errorf("set up the controllers: %w", err)
	}
	e.setTerm(t)
	defer e.setTerm(nil)
	var guarding sync.WaitGroup
	defer guarding.Wait()
	guarding.Go(func() { e.guard(ctx, end, uid) })
	if e.deps.Instances != nil {
		guarding.Go(func() { e.balance(ctx, end, t.Client()) })
	}
	reason := t.Run()
	end(reason)
	return reason
}

func (e *election) setTerm(t *controller.Term) {
	e.mu.Lock()
	e.term = t
	e.mu.Unlock()
	if t == nil {
		e.metrics.leading.Set(0)
		return
	}
	e.metrics.leading.Set(1)
	e.metrics.terms.Inc()
}

// guard ends the term when the Lease with this uid, once seen, is gone or replaced: it was deleted.
func (e *election) guard(ctx context.Context, end context.CancelCauseFunc, uid string) {
	seen := false
	for {
		e.mu.Lock()
		ours := e.exists && e.uid == uid
		e.mu.Unlock()
		if seen && !ours {
			end(errDeposed)
			return
		}
		seen = seen || ours
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
		}
	}
}

// revoke ends the lease at once, unless it is lost already.
func (e *election) revoke(ctx context.Context, lease *client.Lease) {
	if errors.Is(lease.Err(), client.ErrLeaseLost) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.LeaseTTL)
	defer cancel()
	if err := lease.Revoke(ctx); err != nil {
		e.log.Warn("Failed to revoke the lease: it will expire", zap.Error(err))
	}
}

// pause waits for d and reports whether that came before ctx's end.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
