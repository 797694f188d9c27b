package controller

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// DefaultLeaseTTL is how long a leader that has vanished keeps the others waiting.
	DefaultLeaseTTL = 5 * time.Second
	// electionNamespace holds the Lease objects of the elections.
	electionNamespace = "kube-system"
	// startSpread is the most that an instance waits before its first candidacy. It depends on service and host, so
	// that the services of masters that start together elect leaders on different ones.
	startSpread = 300 * time.Millisecond

	candidacyPauseMin = 50 * time.Millisecond
	candidacyPauseMax = 2 * time.Second
)

// Config is what a group needs.
type Config struct {
	// Service names the election, kube-system/<service>, such as "workloads".
	Service string
	// Host is the machine, such as "master-1"; with Service it names this instance.
	Host string
	// Client reaches the API. The group fences copies of it.
	Client *client.Client
	// Setup fills a new term: informers, controllers, tasks. It runs before anything of the term does, and its error
	// ends the term.
	Setup func(*Term) error
	// LeaseTTL is the time to live of the leader's lease; 0 means DefaultLeaseTTL. The least is 2 seconds.
	LeaseTTL time.Duration
	// Instances returns on which hosts each service has a live instance; nothing when that is not known at present. A
	// leader steps down by it when its host leads more services than others. Nil: none ever does.
	Instances func() map[string][]string
	// Logger may be nil.
	Logger *zap.Logger
	// Metrics is where the metrics are registered; nil for nowhere.
	Metrics prometheus.Registerer
}

// Group elects a leader among the instances of a service and runs the controllers while this instance is it. Followers
// keep nothing in memory but the election itself.
type Group struct {
	cfg      Config
	identity string
	log      *zap.Logger
	vectors  *vectors
	changed  chan struct{} // holds a token when the election's Lease changed

	mu     sync.Mutex
	holder string // holderIdentity of the present Lease
	exists bool
	uid    string // of the present Lease
	// successor is whom the last leader made way for, empty for nobody, and vacant since when there is none.
	successor string
	vacant    time.Time
	term      *Term // nil while following
}

// NewGroup returns a group that does nothing until Run.
func NewGroup(cfg Config) (*Group, error) {
	switch {
	case cfg.Service == "":
		return nil, errors.New("controller group: the service has no name")
	case cfg.Host == "":
		return nil, errors.New("controller group: the host has no name")
	case cfg.Client == nil:
		return nil, errors.New("controller group: no client")
	case cfg.Setup == nil:
		return nil, errors.New("controller group: no setup")
	case cfg.LeaseTTL == 0:
		cfg.LeaseTTL = DefaultLeaseTTL
	case cfg.LeaseTTL < 2*time.Second:
		return nil, fmt.Errorf("controller group: a lease of %v is too short: at least 2s", cfg.LeaseTTL)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Group{
		cfg:      cfg,
		identity: cfg.Service + "@" + cfg.Host,
		log:      cfg.Logger,
		vectors:  newVectors(cfg.Metrics),
		changed:  make(chan struct{}, 1),
	}, nil
}

// Identity returns the name of this instance in elections: "<service>@<host>".
func (g *Group) Identity() string { return g.identity }

// Leader returns the identity of the leader, empty while there is none or it is not known yet.
func (g *Group) Leader() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holder
}

// Leading reports whether this instance leads: it holds the lease and has set up its term.
func (g *Group) Leading() bool { return g.current() != nil }

func (g *Group) current() *Term {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.term
}

// Run stands for election again and again, and leads when elected, until ctx ends. It then stops the controllers,
// gives the lease back so that another instance leads at once, and returns ctx's error. Nothing else ends it.
func (g *Group) Run(ctx context.Context) error {
	election := client.NewInformer(g.cfg.Client, client.InformerOptions[*coordinationv1.Lease]{
		Namespace:     electionNamespace,
		FieldSelector: "metadata.name=" + g.cfg.Service,
		OnError:       func(err error) { g.log.Info("Watch of the election ended, resuming", zap.Error(err)) },
	})
	election.OnChange(func(_, now *coordinationv1.Lease) { g.observe(now) })
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { _ = election.Run(ctx) }) // It ends only with ctx.

	if election.WaitForSync(ctx) != nil || !pause(ctx, g.startDelay()) {
		return ctx.Err()
	}
	pauses := backoff.Backoff{Min: candidacyPauseMin, Max: candidacyPauseMax}
	for {
		if g.taken() {
			pauses.Reset()
		}
		if !g.vacancy(ctx) {
			return ctx.Err()
		}
		err := g.lead(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case apierr.IsAlreadyExists(err):
			// Another was faster. Its Lease shows up in the watch; until then the vacancy seems to last. While the watch is
			// slow, each further candidacy is in vain and costs etcd a lease, so the pauses grow.
		case errors.Is(err, errTermOver):
			pauses.Reset()
			log := g.log.Warn
			if errors.Is(err, errSteppedDown) {
				log = g.log.Info
			}
			log("Leadership ended, standing again", zap.Error(err))
		default:
			g.log.Warn("Candidacy failed, trying again", zap.Error(err))
		}
		if pauses.Wait(ctx, err) != nil {
			return ctx.Err()
		}
	}
}

// taken reports whether the election has a Lease, as far as is known.
func (g *Group) taken() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.exists
}

func (g *Group) startDelay() time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(g.identity))
	return time.Duration(h.Sum32()%1000) * startSpread / 1000
}

// observe takes note of the election's Lease; nil when it is gone.
func (g *Group) observe(l *coordinationv1.Lease) {
	g.mu.Lock()
	g.exists = l != nil
	g.holder = l.GetSpec().GetHolderIdentity()
	g.uid = l.GetMetadata().GetUid()
	if l != nil {
		g.successor = l.GetMetadata().GetAnnotations()[annotationSuccessor]
	} else {
		g.vacant = time.Now()
	}
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// vacancy waits until nobody holds the election and reports whether that came before ctx's end. What a former run of
// this very instance holds it takes away: that run has ended, or, should it go on somewhere, can write no more, since
// its fence is the Lease that is gone then.
func (g *Group) vacancy(ctx context.Context) bool {
	for {
		g.mu.Lock()
		taken, own, uid := g.exists, g.holder == g.identity, g.uid
		var yield time.Duration
		if g.successor != "" && g.successor != g.identity {
			yield = time.Until(g.vacant.Add(yieldPause))
		}
		g.mu.Unlock()
		var again <-chan time.Time
		if !taken {
			if yield <= 0 {
				return ctx.Err() == nil
			}
			again = time.After(yield)
		}
		if own && taken {
			_, err := client.Delete[*coordinationv1.Lease](ctx, g.cfg.Client, electionNamespace, g.cfg.Service, client.IfUID(uid))
			if err != nil && !apierr.IsNotFound(err) && ctx.Err() == nil {
				g.log.Warn("Could not take away the Lease of this instance's former run", zap.Error(err))
				again = time.After(candidacyPauseMax)
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-g.changed:
		case <-again:
		}
	}
}

// errTermOver wraps the end of a term that had begun.
var errTermOver = errors.New("term over")

// errDeposed ends a term whose Lease object was deleted or replaced.
var errDeposed = errors.New("the election's Lease is gone")

// lead stands for election once and, when elected, leads until the leadership or ctx ends. It returns when everything
// of the term has stopped and the lease is given back, as far as that can be done.
func (g *Group) lead(ctx context.Context) error {
	termCtx, end := context.WithCancelCause(ctx)
	defer end(nil)
	// Once elected, the keeper must outlive ctx: the lease is held until the controllers have stopped.
	keeperCtx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeper()
	elected := context.AfterFunc(ctx, stopKeeper)
	lease, err := client.KeepLease(keeperCtx, g.cfg.Client, g.cfg.LeaseTTL, end)
	if err != nil {
		return err
	}
	defer g.giveBack(context.WithoutCancel(ctx), lease)

	now := timestamppb.Now()
	seconds := int32(lease.TTL() / time.Second)
	won, err := client.Create(ctx, g.cfg.Client, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Namespace: electionNamespace, Name: g.cfg.Service},
		Spec: &coordinationv1.LeaseSpec{
			HolderIdentity: &g.identity, LeaseDurationSeconds: &seconds, AcquireTime: now, RenewTime: now,
		},
	}, client.UnderLease(lease.ID()))
	if err != nil {
		return fmt.Errorf("stand for the election of %s: %w", g.cfg.Service, err)
	}
	elected()
	fence := &apiv1.Fence{
		Namespace: electionNamespace, Name: g.cfg.Service,
		CreateRevision: won.GetMetadata().GetResourceVersion(),
	}
	g.log.Info("Elected", zap.String(metrics.KeyRevision, fence.CreateRevision))
	return fmt.Errorf("%w: %w", errTermOver, g.serve(termCtx, end, fence, won.GetMetadata().GetUid()))
}

// serve runs one term and returns why it ended.
func (g *Group) serve(ctx context.Context, end context.CancelCauseFunc, fence *apiv1.Fence, uid string) error {
	t := &Term{ctx: ctx, end: end, client: g.cfg.Client.WithFence(fence), log: g.log, vectors: g.vectors}
	if err := g.cfg.Setup(t); err != nil {
		return fmt.Errorf("set up the controllers: %w", err)
	}
	g.lends(t)
	defer g.lends(nil)
	var guarding sync.WaitGroup
	defer guarding.Wait()
	guarding.Go(func() { g.guard(ctx, end, uid) })
	if g.cfg.Instances != nil {
		guarding.Go(func() { g.balance(ctx, end, t.client) })
	}
	return t.run()
}

func (g *Group) lends(t *Term) {
	g.mu.Lock()
	g.term = t
	g.mu.Unlock()
	if t == nil {
		g.vectors.leading.Set(0)
		return
	}
	g.vectors.leading.Set(1)
	g.vectors.terms.Inc()
}

// guard ends the term when the Lease with this uid, once seen, is gone or replaced: somebody deleted it.
func (g *Group) guard(ctx context.Context, end context.CancelCauseFunc, uid string) {
	seen := false
	for {
		g.mu.Lock()
		ours := g.exists && g.uid == uid
		g.mu.Unlock()
		if seen && !ours {
			end(errDeposed)
			return
		}
		seen = seen || ours
		select {
		case <-ctx.Done():
			return
		case <-g.changed:
		}
	}
}

// giveBack ends the lease at once, unless it is lost already.
func (g *Group) giveBack(ctx context.Context, lease *client.Lease) {
	if errors.Is(lease.Err(), client.ErrLeaseLost) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.LeaseTTL)
	defer cancel()
	if err := lease.Revoke(ctx); err != nil {
		g.log.Warn("Could not give the lease back: it will lapse", zap.Error(err))
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
