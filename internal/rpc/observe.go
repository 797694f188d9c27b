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
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
)

// observer counts and logs every call once, when it ends.
type observer struct {
	log    *zap.Logger
	level  func(fullMethod string, code codes.Code) zapcore.Level
	object func(fullMethod string, req any) string
	// unauthenticated bounds the log of callers that did not authenticate.
	unauthenticated *edge.Sampler
	// overloaded bounds the log of calls that the server had no resources for.
	overloaded *edge.Sampler

	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newObserver(cfg ServerConfig, log *zap.Logger) (*observer, error) {
	o := &observer{
		log:             log,
		level:           cfg.LogLevel,
		object:          cfg.Object,
		unauthenticated: edge.NewSampler(),
		overloaded:      edge.NewSampler(),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.RPCHandled, Help: "Calls that the server ended, by method and code.",
		}, []string{metrics.LabelMethod, metrics.LabelCode}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.RPCSeconds, Help: "Seconds that unary calls took at the server.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{metrics.LabelMethod}),
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
	for _, c := range []prometheus.Collector{o.handled, o.seconds} {
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

// ServerReporter begins a call: it puts the record into the context that the later interceptors
// fill.
func (o *observer) ServerReporter(ctx context.Context, meta interceptors.CallMeta) (interceptors.Reporter, context.Context) {
	method, _ := grpc.Method(ctx) // meta would build its copy at each use
	r := &report{observer: o, ctx: ctx, method: method, unary: meta.Typ == interceptors.Unary, req: meta.ReqOrNil}
	if c := edge.CallFromContext(ctx); c != nil {
		r.Call = *c
	}
	return r, edge.ContextWithCall(ctx, &r.Call)
}

// report observes one call.
type report struct {
	interceptors.NoopReporter
	*observer
	edge.Call
	ctx    context.Context
	method string
	unary  bool
	req    any
	// unlogged is how many calls the log left out before this one.
	unlogged int
}

// PostMsgReceive keeps the first message's object of a stream; the message itself may be gone when
// the stream ends.
func (r *report) PostMsgReceive(req any, err error, _ time.Duration) {
	if r.unary || err != nil || r.req != nil || isInfrastructure(r.method) {
		return
	}
	r.req = struct{}{}
	r.Object = r.observer.object(r.method, req)
}

// early observes a call that is refused before any of it is read, and returns the error for its
// caller. Of callers that did not authenticate the log has a sample, since they could fill the
// disk.
func (o *observer) early(ctx context.Context, c *edge.Call, method string, err error) error {
	unlogged := 0
	if c.Identity.IsZero() {
		var ok bool
		if unlogged, ok = o.unauthenticated.Take(); !ok {
			o.handled.WithLabelValues(method, apierr.Code(err).String()).Inc()
			return withRequestID(err, c.RequestID)
		}
	}
	r := &report{observer: o, ctx: ctx, method: method, Call: *c, unlogged: unlogged}
	r.PostCall(err, 0)
	return withRequestID(err, c.RequestID)
}

// PostCall observes the end of a call.
func (r *report) PostCall(err error, took time.Duration) {
	// As the caller sees it: gRPC turns the ends of contexts into codes only after this.
	code := apierr.Code(err)
	r.handled.WithLabelValues(r.method, code.String()).Inc()
	if r.unary {
		r.seconds.WithLabelValues(r.method).Observe(took.Seconds())
	}
	level := r.level(r.method, code)
	if isInfrastructure(r.method) {
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
		// Most of them come when the server has the least time to write logs. The metrics count all.
		var ok bool
		if r.unlogged, ok = r.observer.overloaded.Take(); !ok {
			return
		}
	}
	entry.Write(r.fields(code, err, took)...)
}

func (r *report) fields(code codes.Code, err error, took time.Duration) []zap.Field {
	fields := make([]zap.Field, 0, 10)
	fields = append(fields,
		zap.String(metrics.KeyCaller, r.Identity.User),
		zap.String(metrics.KeyMethod, r.method),
		zap.Stringer(metrics.KeyCode, code),
		zap.Duration(metrics.KeyLatency, took),
		zap.String(metrics.KeyRequestID, r.RequestID))
	object := r.Object
	if object == "" && r.unary {
		object = r.observer.object(r.method, r.req)
	}
	if object != "" {
		fields = append(fields, zap.String(metrics.KeyObject, object))
	}
	if r.Identity.Forwarder != "" {
		fields = append(fields, zap.String(metrics.KeyForwarder, r.Identity.Forwarder))
	}
	if r.unlogged > 0 {
		fields = append(fields, zap.Int(metrics.KeyUnlogged, r.unlogged))
	}
	if err != nil {
		fields = append(fields, zap.String(metrics.KeyError, status.Convert(err).Message()))
		if p, ok := peer.FromContext(r.ctx); ok {
			fields = append(fields, zap.Stringer(metrics.KeyPeer, p.Addr))
		}
	}
	return fields
}

// recovered turns a handler's panic into an error for its caller, so that one bad request does not
// end the process.
func (o *observer) recovered(ctx context.Context, cause any) error {
	o.log.Error("A handler panicked", zap.Any(metrics.KeyPanic, cause), zap.String(metrics.KeyCaller, edge.IdentityFromContext(ctx).User),
		zap.String(metrics.KeyRequestID, edge.RequestID(ctx)), zap.ByteString(metrics.KeyStack, debug.Stack()))
	return refuse(codes.Internal, ReasonPanic, "the handler panicked; the server's log has the stack")
}

// identifyUnary and identifyStream add the request id to the errors that a call ends with.
func identifyUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, withRequestID(err, edge.RequestID(ctx))
}

func identifyStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return withRequestID(handler(srv, stream), edge.RequestID(stream.Context()))
}
