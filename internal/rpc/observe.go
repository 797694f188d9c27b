package rpc

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/metrics"
)

// observer counts and logs every call once, when it ends.
type observer struct {
	log       *zap.Logger
	level     func(fullMethod string, code codes.Code) zapcore.Level
	object    func(fullMethod string, req any) string
	draining  context.Context
	strangers *sampler // bounds the log of those who did not authenticate
	refusals  *sampler // bounds the log of calls that were too many

	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	refused *prometheus.CounterVec
	closed  *prometheus.CounterVec
}

func newObserver(cfg ServerConfig, log *zap.Logger, draining context.Context) (*observer, error) {
	o := &observer{
		log:       log,
		level:     cfg.LogLevel,
		object:    cfg.Object,
		draining:  draining,
		strangers: newSampler(),
		refusals:  newSampler(),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCHandled, Help: "Calls that the server ended, by method and code.",
		}, []string{metrics.LabelMethod, metrics.LabelCode}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.RPCSeconds, Help: "Seconds that unary calls took at the server.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{metrics.LabelMethod}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCRefused, Help: "Calls refused before they reached a handler, by reason.",
		}, []string{metrics.LabelReason}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCConnectionsClosed, Help: "Connections refused or closed by the limits, by reason.",
		}, []string{metrics.LabelReason}),
	}
	if o.level == nil {
		o.level = failuresAtInfo
	}
	if o.object == nil {
		o.object = func(_ string, req any) string { return Object(req) }
	}
	if cfg.Metrics == nil {
		return o, nil
	}
	for _, c := range []prometheus.Collector{o.handled, o.seconds, o.refused, o.closed} {
		if err := cfg.Metrics.Register(c); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// failuresAtInfo logs what failed at Info and what went well at Debug.
func failuresAtInfo(_ string, code codes.Code) zapcore.Level {
	switch code {
	case codes.OK:
		return zapcore.DebugLevel
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return zapcore.WarnLevel
	}
	return zapcore.InfoLevel
}

// ServerReporter begins a call: it puts the record into the context that the later interceptors fill.
func (o *observer) ServerReporter(ctx context.Context, meta interceptors.CallMeta) (interceptors.Reporter, context.Context) {
	method, _ := grpc.Method(ctx) // meta would put its copy together anew at each look
	r := &report{observer: o, ctx: ctx, method: method, unary: meta.Typ == interceptors.Unary, req: meta.ReqOrNil}
	if c := callFrom(ctx); c != nil {
		r.call = *c
	}
	r.call.draining = o.draining
	return r, context.WithValue(ctx, callKey{}, &r.call)
}

// report observes one call.
type report struct {
	interceptors.NoopReporter
	*observer
	call
	ctx    context.Context
	method string
	unary  bool
	req    any
	// unlogged is how many calls the log left out before this one.
	unlogged int
}

// PostMsgReceive keeps the first message's object of a stream; the message itself may be gone when the stream ends.
func (r *report) PostMsgReceive(req any, err error, _ time.Duration) {
	if r.unary || err != nil || r.req != nil || isPlumbing(r.method) {
		return
	}
	r.req = struct{}{}
	r.call.object = r.observer.object(r.method, req)
}

// early observes a call that is refused before any of it is read. Of callers that did not authenticate the log holds a
// sample, or they could fill the disk.
func (o *observer) early(ctx context.Context, c *call, method string, err error) {
	fields := 0
	if c.identity.IsZero() {
		var ok bool
		if fields, ok = o.strangers.take(); !ok {
			o.handled.WithLabelValues(method, apierr.Code(err).String()).Inc()
			return
		}
	}
	r := &report{observer: o, ctx: ctx, method: method, call: *c, unlogged: fields}
	r.PostCall(err, 0)
}

func (o *observer) countClosed(reason string) { o.closed.WithLabelValues(reason).Inc() }

func (r *report) PostCall(err error, took time.Duration) {
	// As the caller sees it: gRPC turns the ends of contexts into codes only after this.
	code := apierr.Code(err)
	r.handled.WithLabelValues(r.method, code.String()).Inc()
	if r.unary {
		r.seconds.WithLabelValues(r.method).Observe(took.Seconds())
	}
	level := r.level(r.method, code)
	if isPlumbing(r.method) {
		// Health and reflection streams end in Canceled as a rule.
		level = zapcore.DebugLevel
	}
	message := metrics.MessageCall
	if code != codes.OK {
		message = "Call failed"
	}
	entry := r.log.Check(level, message)
	if entry == nil {
		return
	}
	if code == codes.ResourceExhausted {
		// Most of them come when the server has the least time to write them down. The metrics count all.
		var ok bool
		if r.unlogged, ok = r.refusals.take(); !ok {
			return
		}
	}
	fields := make([]zap.Field, 0, 8)
	fields = append(fields,
		zap.String(metrics.KeyCaller, r.identity.User),
		zap.String(metrics.KeyMethod, r.method),
		zap.Stringer(metrics.KeyCode, code),
		zap.Duration(metrics.KeyLatency, took))
	object := r.call.object
	if object == "" && r.unary {
		object = r.observer.object(r.method, r.req)
	}
	if object != "" {
		fields = append(fields, zap.String(metrics.KeyObject, object))
	}
	if r.identity.Forwarder != "" {
		fields = append(fields, zap.String(metrics.KeyForwarder, r.identity.Forwarder))
	}
	if r.unlogged > 0 {
		fields = append(fields, zap.Int("unlogged", r.unlogged))
	}
	if err != nil {
		fields = append(fields, zap.String("error", status.Convert(err).Message()))
		if p, ok := peer.FromContext(r.ctx); ok {
			fields = append(fields, zap.Stringer(metrics.KeyPeer, p.Addr))
		}
	}
	entry.Write(fields...)
}

// recovered turns a handler's panic into an error for its caller, so that one bad request does not end the process.
func (o *observer) recovered(ctx context.Context, cause any) error {
	o.log.Error("A handler panicked", zap.Any("panic", cause), zap.String(metrics.KeyCaller, IdentityFromContext(ctx).User),
		zap.ByteString("stack", debug.Stack()))
	return refuse(codes.Internal, ReasonPanic, "the server failed in handling the call; its log says where")
}

func (o *observer) countRefusal(reason string) { o.refused.WithLabelValues(reason).Inc() }
