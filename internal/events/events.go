// Package events records what happens to objects as core/v1 Events: asynchronously, aggregated and
// rate-limited per object, so that recording one costs its caller nothing and a broken object
// cannot flood the store. Events live under leases of one hour and vanish by themselves.
package events

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// The types of event that Kubernetes knows.
const (
	Normal  = "Normal"
	Warning = "Warning"
)

const (
	// lifetime is the time to live of the leases that events are created under.
	lifetime = time.Hour
	// leaseShare is how long events are created under one lease.
	leaseShare = 10 * time.Minute
	// period is how long occurrences are counted up in one event. That does not extend its life, so
	// the last of them can be seen for lifetime - leaseShare - period, half an hour, at least.
	period = 20 * time.Minute
	// remembered is how many different events are known for aggregation.
	remembered = 4096
	// burst and refill bound the events of one object: 25 at once, then one every five minutes, as in
	// Kubernetes.
	burst  = 25
	refill = 5 * time.Minute
	// queueLength is how many events may wait to be written.
	queueLength = 1024
	// together is how many new events are written in one transaction at most.
	together = 100
	// attempts is how often the write of one event is tried.
	attempts = 3
	// maxMessage is the longest message that is kept, in bytes.
	maxMessage = 1024
)

// Config is what a recorder needs.
type Config struct {
	// Client writes the events. It should not be fenced: a deposed leader's last events are true all
	// the same.
	Client *client.Client
	// Component is the reporter, such as "deployment-controller".
	Component string
	// Host is the machine that reports; it may be empty.
	Host string
	// Logger may be nil.
	Logger *zap.Logger
	// Metrics is where the metrics are registered; nil for nowhere. Only one recorder of a process may
	// be.
	Metrics prometheus.Registerer
}

// Recorder records events. Event may be called concurrently, before, during and after Run; what is
// recorded while Run does not run waits in the queue.
type Recorder struct {
	cfg     Config
	queue   chan occurrence
	written prometheus.Counter
	dropped *prometheus.CounterVec

	mu     sync.Mutex
	limits map[string]*rate.Limiter // by object, within remembered

	// Of Run's goroutine alone.
	known   map[string]*series // by event name, within remembered
	lease   int64
	renewAt time.Time
}

// occurrence is one call of Event.
type occurrence struct {
	object                 *corev1.ObjectReference
	eventType, reason, msg string
	at                     time.Time
}

// series is what is known of an event that was written.
type series struct {
	count int32
	begun time.Time // when its Event object was created
}

// NewRecorder returns a recorder that writes nothing until Run.
func NewRecorder(cfg Config) *Recorder {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	f := promauto.With(cfg.Metrics)
	return &Recorder{
		cfg:   cfg,
		queue: make(chan occurrence, queueLength),
		written: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.EventsWritten, Help: "Events written.",
		}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.EventsDropped, Help: "Events not written.",
		}, []string{metrics.LabelReason}),
		known:  map[string]*series{},
		limits: map[string]*rate.Limiter{},
	}
}

// Event records that something happened to obj. The type is Normal or Warning, the reason one word
// in CamelCase that programs may match, the message a sentence for people. It never blocks: when
// the queue is full or the object has had too many events of late, the event is dropped and
// counted.
func (r *Recorder) Event(obj scheme.Object, eventType, reason, format string, args ...any) {
	r.EventAt(ReferenceTo(obj), eventType, reason, format, args...)
}

// EventAt is Event for an object that the caller knows by reference, perhaps with a field path into
// it. The reference must not be changed afterwards.
func (r *Recorder) EventAt(ref *corev1.ObjectReference, eventType, reason, format string, args ...any) {
	o := occurrence{object: ref, eventType: eventType, reason: reason, msg: shorten(fmt.Sprintf(format, args...)), at: time.Now()}
	if !r.allowed(o) {
		r.dropped.WithLabelValues("limited").Inc()
		return
	}
	select {
	case r.queue <- o:
	default:
		r.dropped.WithLabelValues("full").Inc()
	}
}

// ReferenceTo returns a reference to obj as events carry it.
func ReferenceTo(obj scheme.Object) *corev1.ObjectReference {
	k, m := kinds.Of(obj), obj.GetMetadata()
	return &corev1.ObjectReference{
		Kind: k.Name, ApiVersion: k.APIVersion(), Namespace: m.GetNamespace(), Name: m.GetName(),
		Uid: m.GetUid(), ResourceVersion: m.GetResourceVersion(),
	}
}

// shorten cuts a message at the limit, not within a character.
func shorten(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage - len("...")
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "..."
}

// allowed takes a token from the object's bucket.
func (r *Recorder) allowed(o occurrence) bool {
	key := o.object.GetUid() + "/" + o.object.GetNamespace() + "/" + o.object.GetName()
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.limits[key]
	if l == nil {
		if len(r.limits) >= remembered {
			r.forgetFullBuckets()
		}
		l = rate.NewLimiter(rate.Every(refill), burst)
		r.limits[key] = l
	}
	return l.Allow()
}

// forgetFullBuckets drops the buckets that have filled up again, or all of them when none has: the
// bound on memory counts more than the limit.
func (r *Recorder) forgetFullBuckets() {
	for key, l := range r.limits {
		if l.Tokens() >= burst {
			delete(r.limits, key)
		}
	}
	if len(r.limits) >= remembered {
		clear(r.limits)
	}
}

// Run writes events until ctx ends, and returns ctx's error. What waits then is dropped.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-r.queue:
			for _, o := range r.writeTogether(ctx, r.gather(o)) {
				if err := r.write(ctx, o); err != nil && ctx.Err() == nil {
					r.dropped.WithLabelValues("failed").Inc()
					r.cfg.Logger.Warn("Event not written", zap.String(metrics.LabelReason, o.reason),
						zap.String(metrics.KeyObject, o.object.GetNamespace()+"/"+o.object.GetName()), zap.Error(err))
				}
			}
		}
	}
}

// gather returns the first occurrence and those that wait behind it. It does not wait for more.
func (r *Recorder) gather(first occurrence) []occurrence {
	waiting := []occurrence{first}
	for len(waiting) < together {
		select {
		case o := <-r.queue:
			waiting = append(waiting, o)
		default:
			return waiting
		}
	}
	return waiting
}

// writeTogether creates the events that are new in one transaction, which costs a fraction of as
// many calls, and returns the occurrences that are left: those of known events or, when the
// transaction fails, which one of them may have caused, all.
func (r *Recorder) writeTogether(ctx context.Context, waiting []occurrence) (left []occurrence) {
	if len(waiting) == 1 {
		return waiting
	}
	lease, err := r.currentLease(ctx)
	if err != nil {
		return waiting
	}
	var ops []client.Operation
	begun := make(map[string]occurrence)
	for _, o := range waiting {
		name := r.name(o)
		if _, twice := begun[name]; twice || r.known[name] != nil {
			left = append(left, o)
			continue
		}
		begun[name] = o
		ops = append(ops, client.OpCreate(r.event(name, o), client.UnderLease(lease)))
	}
	if len(ops) == 0 {
		return left
	}
	if _, err := client.Transact(ctx, r.cfg.Client, ops...); err != nil {
		return waiting
	}
	for name, o := range begun {
		r.remember(name, &series{count: 1, begun: o.at})
		r.written.Inc()
	}
	return left
}

// write stores an occurrence, trying again after a pause when the API is out of reach.
func (r *Recorder) write(ctx context.Context, o occurrence) error {
	ctx = retry.ByCaller(ctx)
	pace := backoff.Backoff{Min: time.Second, Max: attempts * time.Second}
	for attempt := 1; ; attempt++ {
		err := r.store(ctx, o)
		if err == nil || !apierr.IsRetryable(err) || attempt == attempts {
			if err == nil {
				r.written.Inc()
			}
			return err
		}
		if err := pace.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// store counts up the event that the occurrence belongs to, or creates it.
func (r *Recorder) store(ctx context.Context, o occurrence) error {
	namespace, name := namespaceOf(o), r.name(o)
	if s := r.known[name]; s != nil {
		if err := r.count(ctx, namespace, name, s, o.at); !apierr.IsNotFound(err) {
			return err
		}
	}
	err := r.create(ctx, name, o)
	if !apierr.IsAlreadyExists(err) {
		return err
	}
	// An earlier run of this process began it.
	old, err := client.Get[*corev1.Event](ctx, r.cfg.Client, namespace, name)
	if err != nil {
		return err
	}
	s := &series{count: old.GetCount(), begun: o.at}
	r.remember(name, s)
	return r.count(ctx, namespace, name, s, o.at)
}

func (r *Recorder) count(ctx context.Context, namespace, name string, s *series, at time.Time) error {
	_, err := client.Patch[*corev1.Event](ctx, r.cfg.Client, namespace, name, countPatch(s.count+1, at))
	if err == nil {
		s.count++
	}
	return err
}

// event returns the object that stands for the first occurrence of an event.
func (r *Recorder) event(name string, o occurrence) *corev1.Event {
	at := timestamppb.New(o.at.Truncate(time.Second))
	return &corev1.Event{
		Metadata:           &metav1.ObjectMeta{Namespace: namespaceOf(o), Name: name},
		InvolvedObject:     o.object,
		Type:               o.eventType,
		Reason:             o.reason,
		Message:            o.msg,
		Source:             &corev1.EventSource{Component: r.cfg.Component, Host: r.cfg.Host},
		ReportingComponent: r.cfg.Component,
		ReportingInstance:  r.cfg.Host,
		FirstTimestamp:     at,
		LastTimestamp:      at,
		Count:              1,
	}
}

func (r *Recorder) create(ctx context.Context, name string, o occurrence) error {
	lease, err := r.currentLease(ctx)
	if err != nil {
		return err
	}
	_, err = client.Create(ctx, r.cfg.Client, r.event(name, o), client.UnderLease(lease))
	if err != nil {
		if !apierr.IsAlreadyExists(err) {
			// The lease may have lapsed while the API was away: the next attempt takes a new one.
			r.lease = 0
		}
		return err
	}
	r.remember(name, &series{count: 1, begun: o.at})
	return nil
}

// remember keeps the series, forgetting those that are over, or all when there are too many: the
// next occurrence of a forgotten one costs two reads more.
func (r *Recorder) remember(name string, s *series) {
	if len(r.known) >= remembered {
		for n, old := range r.known {
			if s.begun.Sub(old.begun) >= period {
				delete(r.known, n)
			}
		}
		if len(r.known) >= remembered {
			clear(r.known)
		}
	}
	r.known[name] = s
}

// currentLease returns a lease that is not older than leaseShare. The former one lapses by itself.
func (r *Recorder) currentLease(ctx context.Context) (int64, error) {
	if r.lease != 0 && time.Now().Before(r.renewAt) {
		return r.lease, nil
	}
	ctx, cancel := context.WithTimeout(ctx, client.DefaultTimeout)
	defer cancel()
	resp, err := r.cfg.Client.Leases().Grant(ctx, &apiv1.GrantRequest{TtlSeconds: int64(lifetime / time.Second)})
	if err != nil {
		return 0, fmt.Errorf("grant a lease for events: %w", err)
	}
	r.lease, r.renewAt = resp.GetLeaseId(), time.Now().Add(leaseShare)
	return r.lease, nil
}

// name gives all occurrences with the same object, reason and message within one period the same
// event.
func (r *Recorder) name(o occurrence) string {
	h := fnv.New64a()
	for _, s := range []string{
		r.cfg.Component, r.cfg.Host, o.object.GetUid(), o.object.GetKind(), o.object.GetFieldPath(), o.eventType, o.reason, o.msg,
	} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(o.at.Unix())/uint64(period/time.Second)))
	// A name may have 253 characters.
	name := o.object.GetName()
	name = strings.TrimRight(name[:min(len(name), 253-17)], ".-")
	return name + "." + fmt.Sprintf("%016x", h.Sum64())
}

// namespaceOf puts the events of objects that have no namespace into "default", as Kubernetes does.
func namespaceOf(o occurrence) string {
	if ns := o.object.GetNamespace(); ns != "" {
		return ns
	}
	return "default"
}

// countPatch is the merge patch that records one more occurrence.
func countPatch(count int32, at time.Time) []byte {
	return []byte(`{"count":` + strconv.Itoa(int(count)) + `,"lastTimestamp":"` + at.UTC().Format(time.RFC3339) + `"}`)
}
