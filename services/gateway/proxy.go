package gateway

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/listener"
	"github.com/xebec-project/xebec/internal/method"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
)

// ReasonDraining, in the ErrorInfo of an Unavailable error: the gateway that carried the stream is
// stopping; called again, the client reaches another.
const ReasonDraining = "DRAINING"

// proxy forwards calls as frames.
type proxy struct{}

// serviceDesc describes a service whose every method is forwarded along the route. It has the name
// and file of the real one, so that reflection shows it.
func (p *proxy) serviceDesc(r route) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: r.desc.ServiceName, HandlerType: (*any)(nil), Metadata: r.desc.Metadata}
	for _, method := range r.desc.Methods {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: method.MethodName,
			Handler:    p.unaryHandler(r, "/"+r.desc.ServiceName+"/"+method.MethodName),
		})
	}
	for _, stream := range r.desc.Streams {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName:    stream.StreamName,
			Handler:       p.streamHandler(r, stream, "/"+r.desc.ServiceName+"/"+stream.StreamName),
			ServerStreams: stream.ServerStreams,
			ClientStreams: stream.ClientStreams,
		})
	}
	return desc
}

func (p *proxy) unaryHandler(r route, fullMethod string) grpc.MethodHandler {
	handle := func(ctx context.Context, req any) (any, error) {
		return p.unary(ctx, r, fullMethod, req.(*rpc.Frame))
	}
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(rpc.Frame)
		if err := decode(in); err != nil {
			return nil, err
		}
		defer in.Free()
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: fullMethod}, handle)
	}
}

// unary forwards a call of one request and one response. It starts no goroutine. The caller repeats
// what was not answered, at this gateway or at another; the search for the target of a call that it
// does not repeat is this gateway's to repeat.
func (p *proxy) unary(ctx context.Context, r route, fullMethod string, in *rpc.Frame) (any, error) {
	search := ctx
	if method.Rules(fullMethod).GetIdempotent() {
		search = retry.ByCaller(ctx)
	}
	conn, done, err := r.target(search, fullMethod, in)
	if err != nil {
		return nil, err
	}
	defer done()
	out, err := outgoing(ctx)
	if err != nil {
		return nil, err
	}
	response := new(rpc.Frame)
	var header, trailer metadata.MD
	asked := metadata.NewOutgoingContext(retry.ByCaller(ctx), out)
	err = conn.Invoke(asked, fullMethod, in, response, grpc.Header(&header), grpc.Trailer(&trailer))
	if header = ownHeaders(header); len(header) > 0 {
		_ = grpc.SetHeader(ctx, header)
	}
	if len(trailer) > 0 {
		_ = grpc.SetTrailer(ctx, trailer)
	}
	if err != nil {
		return nil, explain(err, fullMethod)
	}
	return response.Move(), nil
}

func (p *proxy) streamHandler(r route, desc grpc.StreamDesc, fullMethod string) grpc.StreamHandler {
	backendDesc := &grpc.StreamDesc{StreamName: desc.StreamName, ServerStreams: desc.ServerStreams, ClientStreams: desc.ClientStreams}
	// What only the server sends can be asked for again at another gateway; a conversation can't.
	resumable := !desc.ClientStreams
	return func(_ any, caller grpc.ServerStream) error {
		return p.stream(caller, r, backendDesc, fullMethod, resumable)
	}
}

// stream forwards a call of several messages, in both directions at once where the caller sends
// more than one. Flow control is that of the two connections: each message is sent before the next
// is received.
func (p *proxy) stream(caller grpc.ServerStream, r route, desc *grpc.StreamDesc, fullMethod string, resumable bool) error {
	// The caller's first message says where to go; in all services behind the gateway the caller
	// speaks first.
	first := new(rpc.Frame)
	if err := caller.RecvMsg(first); errors.Is(err, io.EOF) {
		return apierr.BadRequest("the call ended before its first message")
	} else if err != nil {
		return err
	}
	defer first.Free()
	ctx, cancel := context.WithCancel(caller.Context())
	defer cancel()
	conn, done, err := r.target(ctx, fullMethod, first)
	if err != nil {
		return err
	}
	defer done()
	out, err := outgoing(ctx)
	if err != nil {
		return err
	}
	backend, err := conn.NewStream(metadata.NewOutgoingContext(ctx, out), desc, fullMethod)
	if err != nil {
		return explain(err, fullMethod)
	}
	if resumable {
		stop := rpc.OnDraining(ctx, cancel)
		defer stop()
	}
	// A failed send means that the stream has ended; receiving tells with which status.
	sendErr := backend.SendMsg(first)
	switch {
	case sendErr != nil:
	case desc.ClientStreams:
		// It ends when this function returns at the latest: the caller's stream is over then.
		go upload(caller, backend, cancel)
	default:
		_ = backend.CloseSend()
	}
	err = download(caller, backend)
	caller.SetTrailer(backend.Trailer())
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && caller.Context().Err() == nil && isClosed(rpc.Draining(ctx)) {
		return apierr.New(codes.Unavailable, ReasonDraining, "the gateway is stopping: call again to reach another")
	}
	return explain(err, fullMethod)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// upload forwards the caller's messages after the first.
func upload(caller grpc.ServerStream, backend grpc.ClientStream, cancel context.CancelFunc) {
	frame := new(rpc.Frame)
	for {
		err := caller.RecvMsg(frame)
		if errors.Is(err, io.EOF) {
			_ = backend.CloseSend()
			return
		}
		if err != nil {
			cancel()
			return
		}
		err = backend.SendMsg(frame)
		frame.Free()
		if err != nil {
			// The backend has ended the stream; download finds out how.
			return
		}
	}
}

// download forwards the backend's header and messages, and returns the backend's status.
func download(caller grpc.ServerStream, backend grpc.ClientStream) error {
	frame := new(rpc.Frame)
	for began := false; ; began = true {
		err := backend.RecvMsg(frame)
		if !began {
			if header, headerErr := backend.Header(); headerErr == nil {
				if header = ownHeaders(header); len(header) > 0 {
					_ = caller.SetHeader(header)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = caller.SendMsg(frame)
		frame.Free()
		if err != nil {
			return err
		}
	}
}

// outgoing returns the headers for a backend: the caller's own, without those that belong to the
// caller's connection, and who the caller is. A header that only a gateway may send is refused,
// whatever it says.
func outgoing(ctx context.Context) (metadata.MD, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	id := edge.IdentityFromContext(ctx)
	out := make(metadata.MD, len(in)+2)
	for key, values := range in {
		switch {
		case strings.HasPrefix(key, edge.HeaderPrefix):
			return nil, apierr.New(codes.PermissionDenied, edge.ReasonForgedIdentity, id.User+" may not send header "+key)
		case key == "user-agent":
			out[edge.HeaderUserAgent] = values
		case key == edge.HeaderAuthorization:
			// It authenticated the caller to this gateway and goes no further.
		case key[0] == ':', key == "content-type", key == "te",
			strings.HasPrefix(key, "grpc-") && key != "grpc-trace-bin" && key != "grpc-tags-bin":
		default:
			out[key] = values
		}
	}
	id.Forward(edge.Headers(out))
	out[edge.HeaderRequestID] = []string{edge.RequestID(ctx)}
	if p, ok := peer.FromContext(ctx); ok {
		if source, ok := p.Addr.(listener.Addr); ok && !source.Master {
			out[edge.HeaderSource], out[edge.HeaderListener] = []string{source.Addr().String()}, []string{source.Listener}
		}
	}
	return out, nil
}

// ownHeaders returns a backend's headers without those of its connection. It changes md.
func ownHeaders(md metadata.MD) metadata.MD {
	delete(md, "content-type")
	return md
}

// explain passes a backend's status on as it is, and gives those that gRPC itself made a reason: no
// backend answered.
func explain(err error, fullMethod string) error {
	st := status.Convert(err)
	if st.Code() != codes.Unavailable || len(st.Details()) > 0 {
		return err
	}
	if isNodeCall(fullMethod) {
		return apierr.Unavailable("the node's agent does not answer: %s", st.Message())
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return apierr.Unavailable("no instance of %s answers: %s", service, st.Message())
}
