package datapath

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

const (
	// verifyEvery is the interval of verifications and repairs of the kernel's maps.
	verifyEvery = time.Minute
	minRetry    = 50 * time.Millisecond
	maxRetry    = 5 * time.Second
)

// programmer is the kernel part as the Syncer sees it.
type programmer interface {
	Replace([]Service) error
	Update(Change) error
	Verify() error
	Sever() (int, error)
	Dump() ([]Service, error)
	Announce([]netip.Addr) error
	Renew() error
}

// Syncer keeps a Datapath equal to what the informers of services and endpoint
// slices say. Events may come from any goroutine. Nothing is written before
// Synced: what an earlier agent left in the maps stays until all is known.
//
// A change is written at once when the Syncer is idle; what arrives during a
// write goes with the next one.
type Syncer struct {
	datapath programmer
	metrics  *Metrics
	log      *zap.Logger
	wake     chan struct{}

	// written is signalled when the maps have come to what is wanted.
	written chan struct{}
	outward outward
	drops   drops

	// programmed is called with the revision that the maps have reached. It may be nil.
	programmed func(revision int64)

	mu      sync.Mutex
	table   *Table
	synced  bool
	heard   time.Time // of the first event not yet written; zero: there is none
	reached int64     // the revision of the endpoint slices that the table has come to
}

// NewSyncer returns the syncer of the named node's datapath, whose metrics it
// shares.
func NewSyncer(node string, d *Datapath, log *zap.Logger) *Syncer {
	s := newSyncer(node, d, d.cfg.Metrics, log)
	name := s.ServiceAt
	s.metrics.name.Store(&name)
	if d.cfg.NodeIP.IsValid() {
		at := []netip.Addr{d.cfg.NodeIP}
		if d.cfg.IPv6 && d.cfg.NodeIP6.IsValid() {
			at = append(at, d.cfg.NodeIP6)
		}
		s.table = NewTable(node, at...)
		s.outward.health = newHealthServer(d.cfg.NodeIP, log)
	}
	return s
}

func newSyncer(node string, p programmer, m *Metrics, log *zap.Logger) *Syncer {
	return &Syncer{datapath: p, metrics: m, log: log, wake: make(chan struct{}, 1), written: make(chan struct{}, 1), table: NewTable(node)}
}

// OnService takes an informer's event: old is nil when the service was created,
// now is nil when it was deleted. The objects are kept and must not change.
func (s *Syncer) OnService(old, now *corev1.Service) {
	s.mu.Lock()
	s.table.OnService(old, now)
	s.noteEvent()
	s.mu.Unlock()
	s.signal()
}

// OnEndpointSlice takes an informer's event: old is nil when the slice was
// created, now is nil when it was deleted. The objects are kept and must not
// change.
func (s *Syncer) OnEndpointSlice(old, now *discoveryv1.EndpointSlice) {
	s.mu.Lock()
	s.table.OnEndpointSlice(old, now)
	s.noteEvent()
	s.mu.Unlock()
	s.signal()
}

// OnProgrammed sets a function that is called with the revision of the endpoint slices up to which
// the maps are complete: the one given to Reached, once it is written. Call it before Run. f must
// not block.
func (s *Syncer) OnProgrammed(f func(revision int64)) { s.programmed = f }

// Reached says that the events up to a revision of the endpoint slices have been
// delivered.
func (s *Syncer) Reached(revision int64) {
	s.mu.Lock()
	changed := s.reached != revision
	s.reached = revision
	s.mu.Unlock()
	if changed {
		s.signal()
	}
}

// OnPod takes an informer's event of a pod on this node: old is nil when the pod
// was created, now is nil when it was deleted. The objects are kept and must not
// change.
func (s *Syncer) OnPod(old, now *corev1.Pod) {
	s.mu.Lock()
	s.table.OnPod(old, now)
	s.noteEvent()
	s.mu.Unlock()
	s.signal()
}

// SetZones says in which zone each node is, as far as nodes have zones. The map is
// kept.
func (s *Syncer) SetZones(zones map[string]string) {
	s.mu.Lock()
	s.table.SetZones(zones)
	s.mu.Unlock()
	s.signal()
}

// SetRoutes says from which networks pods have their addresses, and to which parts
// of these, the node's own included, there are routes: see Table.SetRoutes.
func (s *Syncer) SetRoutes(pods, routed []netip.Prefix) {
	s.mu.Lock()
	s.table.SetRoutes(pods, routed)
	s.mu.Unlock()
	s.signal()
}

// PreferMaglev makes services that do not say otherwise spread what arrives from
// elsewhere by lookup tables. It comes before the first event.
func (s *Syncer) PreferMaglev() { s.table.PreferMaglev() }

// AnnounceClass makes the node answer for the addresses of load balancers that are of
// the class, or of none, when it is the one to do so. It comes before the first event.
func (s *Syncer) AnnounceClass(class string) { s.table.AnnounceClass(class) }

// SetAnnouncers says which nodes may answer for load balancers' addresses. Until it is
// called what is answered for stays as it is.
func (s *Syncer) SetAnnouncers(nodes *Announcers) {
	s.mu.Lock()
	s.table.SetAnnouncers(nodes)
	s.mu.Unlock()
	s.signal()
}

// Synced says that the first lists of both informers have been delivered.
func (s *Syncer) Synced() {
	s.mu.Lock()
	s.synced = true
	s.mu.Unlock()
	s.signal()
}

// noteEvent records the time of an event. The caller holds s.mu.
func (s *Syncer) noteEvent() {
	if s.heard.IsZero() {
		s.heard = time.Now()
	}
}

func (s *Syncer) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes changes until the context ends; it returns the context's error.
// A failed write is logged and tried again, with all that is wanted.
func (s *Syncer) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { s.runOutward(ctx) })
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	replace := true // the first write compares everything
	retry := minRetry
	for {
		done, err := s.write(replace)
		switch {
		case err != nil:
			s.log.Error("Failed to program services", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, retry))
			if !wait(ctx, retry+rand.N(retry)) {
				return ctx.Err()
			}
			replace, retry = true, min(2*retry, maxRetry)
			continue
		case done:
			replace, retry = false, minRetry
			select {
			case s.written <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-verify.C:
			if err := s.datapath.Verify(); err != nil {
				s.log.Error("Failed to verify the service maps", zap.Error(err))
			}
			replace = true
		}
	}
}

// write brings the maps to what is wanted now. It reports whether it did: before Synced it does
// nothing.
func (s *Syncer) write(replace bool) (bool, error) {
	s.mu.Lock()
	if !s.synced {
		s.mu.Unlock()
		return false, nil
	}
	change, heard, reached := s.table.Flush(), s.heard, s.reached
	s.heard = time.Time{}
	var all []Service
	if replace {
		all = slices.Collect(s.table.All())
	}
	s.mu.Unlock()

	if !replace && change.Empty() {
		s.reportProgress(reached)
		return true, nil
	}
	began := time.Now()
	var err error
	if replace {
		err = s.datapath.Replace(all)
	} else {
		err = s.datapath.Update(change)
	}
	s.metrics.wrote(began, heard, err)
	if err != nil {
		s.mu.Lock()
		s.heard = heard // what comes meanwhile is not older
		s.mu.Unlock()
	}
	if err == nil && (replace || change.has(UDP)) {
		s.sever()
	}
	if err == nil {
		s.reportProgress(reached)
	}
	return true, err
}

func (s *Syncer) reportProgress(reached int64) {
	if s.programmed != nil && reached > 0 {
		s.programmed(reached)
	}
}

// sever parts connected sockets from endpoints that are gone. The next change,
// or verification, tries again what fails.
func (s *Syncer) sever() {
	n, err := s.datapath.Sever()
	if err != nil {
		s.log.Error("Failed to close UDP sockets of removed endpoints", zap.Error(err))
	}
	if n > 0 {
		s.log.Info("Closed UDP sockets of removed endpoints", zap.Int(metrics.KeySockets, n))
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// ServiceAt names the service that is to have a frontend, empty when none is.
func (s *Syncer) ServiceAt(f Frontend) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if owner := s.table.owner(f); owner != nil {
		return owner.Name
	}
	return ""
}

// Entry compares what the maps should hold for a frontend with what they do.
type Entry struct {
	// Service is "namespace/name[:port]", empty when no service wants the frontend.
	Service string
	// Frontend is where clients connect to.
	Frontend Frontend
	// Wanted and Actual are sorted.
	Wanted, Actual []netip.AddrPort
	// Programmed reports whether the frontend is in the maps at all.
	Programmed bool
}

// Entries returns all frontends that are wanted or are in the maps, sorted by
// name, then by address.
func (s *Syncer) Entries() ([]Entry, error) {
	actual, err := s.datapath.Dump()
	if err != nil {
		return nil, err
	}
	entries := make(map[Frontend]*Entry, len(actual))
	for _, a := range actual {
		backends := slices.Clone(a.Backends)
		slices.SortFunc(backends, netip.AddrPort.Compare)
		entries[a.Frontend] = &Entry{Frontend: a.Frontend, Actual: backends, Programmed: true}
	}
	s.mu.Lock()
	for w := range s.table.All() {
		e := entries[w.Frontend]
		if e == nil {
			e = &Entry{Frontend: w.Frontend}
			entries[w.Frontend] = e
		}
		e.Service, e.Wanted = w.Name, w.Backends
	}
	s.mu.Unlock()

	out := make([]Entry, 0, len(entries))
	for _, e := range entries {
		out = append(out, *e)
	}
	slices.SortFunc(out, compareEntries)
	return out, nil
}

func compareEntries(a, b Entry) int {
	return cmp.Or(
		cmp.Compare(a.Service, b.Service),
		a.Frontend.compare(b.Frontend),
	)
}
