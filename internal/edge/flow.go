package edge

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/fairness"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/token"
)

const (
	// HeaderLease marks calls about Lease objects, with which elections are held and nodes report
	// that they are alive: their priority is that of leases. Calls of people and service accounts
	// gain nothing by it.
	HeaderLease = "xebec-lease"

	// startLimit is how long a stream keeps the seat of its start at most, since a caller that does
	// not read would hold it.
	startLimit = 10 * time.Second
)

// levelOf returns the priority level of a caller's calls; leases says that the call is about a
// Lease object. Within a level callers take turns by their names.
func levelOf(id Identity, leases bool) fairness.Level {
	service, node := id.Member(pki.GroupServices), id.Member(pki.GroupNodes)
	switch {
	case service && leases:
		return fairness.System
	case service, strings.HasPrefix(id.User, token.AccountUserPrefix):
		return fairness.Controllers
	case node && leases:
		return fairness.Leases
	case node:
		return fairness.Nodes
	}
	return fairness.People
}

// seats are the seats of a server, with their metrics.
type seats struct {
	dispatcher *fairness.Dispatcher
	refused    func(reason string)
	inUse      *prometheus.GaugeVec
	waiting    *prometheus.GaugeVec
	overloaded *prometheus.CounterVec
	waits      []prometheus.Observer // by level
	seconds    *prometheus.HistogramVec
}

func newSeats(cfg fairness.Config, refused func(reason string)) *seats {
	s := &seats{
		dispatcher: fairness.New(cfg),
		refused:    refused,
		inUse: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.RPCSeats, Help: "Seats in use, by priority level.",
		}, []string{metrics.LabelLevel}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.RPCQueue, Help: "Calls that wait for a seat, by priority level.",
		}, []string{metrics.LabelLevel}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.RPCWaitSeconds, Help: "Seconds that calls waited for their seat, by priority level.",
			Buckets: []float64{0, .001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{metrics.LabelLevel}),
		overloaded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCOverloaded, Help: "Calls that got no seat, by priority level and reason.",
		}, []string{metrics.LabelLevel, metrics.LabelReason}),
	}
	for _, level := range fairness.All() {
		s.waits = append(s.waits, s.seconds.WithLabelValues(level.String()))
	}
	return s
}

// collectors returns the metrics to register.
func (s *seats) collectors() []prometheus.Collector {
	total := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: metrics.RPCInFlight, Help: "Calls that the server works on now.",
	}, func() float64 {
		sum := 0
		for _, level := range fairness.All() {
			sum += s.dispatcher.Load(level).InUse
		}
		return float64(sum)
	})
	return []prometheus.Collector{
		total, s.seconds, s.overloaded,
		loadGauge{s.inUse, s.dispatcher, func(l fairness.Load) int { return l.InUse }},
		loadGauge{s.waiting, s.dispatcher, func(l fairness.Load) int { return l.Waiting }},
	}
}

// loadGauge is a gauge by level that is read when it is asked for, so that calls do not pay for it.
type loadGauge struct {
	*prometheus.GaugeVec
	dispatcher *fairness.Dispatcher
	read       func(fairness.Load) int
}

// Collect implements prometheus.Collector.
func (g loadGauge) Collect(to chan<- prometheus.Metric) {
	for _, level := range fairness.All() {
		g.WithLabelValues(level.String()).Set(float64(g.read(g.dispatcher.Load(level))))
	}
	g.GaugeVec.Collect(to)
}

// Seat is the seat of one call. Any goroutine may release it, and the goroutine that handles the
// call may take it again. A nil Seat is that of a call that needs none.
type Seat struct {
	of     *seats
	level  fairness.Level
	caller string
	limit  time.Duration // how long it is held at most; 0 for no limit

	mu      sync.Mutex
	held    fairness.Seat
	overdue *time.Timer
}

// seat returns the seat of a caller's call, not taken yet.
func (s *seats) seat(id Identity, leases bool) *Seat {
	return &Seat{of: s, level: levelOf(id, leases), caller: id.User}
}

// Take waits for the seat. The error is for the caller.
func (s *Seat) Take(ctx context.Context) error {
	if s == nil {
		return nil
	}
	held, err := s.of.dispatcher.Enter(ctx, s.level, s.caller)
	if err == nil {
		s.of.waits[s.level].Observe(held.Waited.Seconds())
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = held
		if s.limit > 0 {
			s.overdue = time.AfterFunc(s.limit, s.Release)
		}
		return nil
	}
	refused, ok := errors.AsType[*fairness.RefusedError](err)
	if !ok {
		return Ended(ctx, err)
	}
	s.of.overloaded.WithLabelValues(s.level.String(), refused.Reason).Inc()
	s.of.refused(apierr.ReasonOverloaded)
	return refuseFor(refused.Delay, apierr.ReasonOverloaded, "%v: try again in %s", refused, refused.Delay.Round(time.Millisecond))
}

// Release gives the seat back if it is held.
func (s *Seat) Release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.Release()
	if s.overdue != nil {
		s.overdue.Stop()
		s.overdue = nil
	}
}
