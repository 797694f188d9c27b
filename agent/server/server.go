// Package server answers the gateway's calls to a node: logs, commands, ports, images, stats and
// the state of the service maps.
package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/rpc"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// chunk is the most bytes in one message.
const chunk = 32 << 10

// Reasons of errors, in ErrorInfo.
const (
	// ReasonNotRunning: the container does not run, so that nothing can be run in it.
	ReasonNotRunning = "CONTAINER_NOT_RUNNING"
	// ReasonWaiting: the container has not started yet and has no log.
	ReasonWaiting = "CONTAINER_WAITING"
	// ReasonExecFailed: the command could not be started in the container.
	ReasonExecFailed = "EXEC_FAILED"
	// ReasonNoStdin: the container's spec asks for no standard input, so that nothing can be passed on
	// to it.
	ReasonNoStdin = "NO_STDIN"
	// ReasonPortClosed: nothing in the pod listens at the port.
	ReasonPortClosed = "PORT_CLOSED"
)

// Config is what a server builds on.
type Config struct {
	// Node is this node's name: calls for others are refused.
	Node    string
	Pods    *pods.Set
	Runtime *runtime.Runtime
	// Cgroup is that of the whole machine.
	Cgroup string
	// Services compares what the service maps hold with what they should; revision is that of the
	// cluster state.
	Services func() (entries []*nodev1.ServiceEntry, revision string, err error)
	// Features tells how the node provides what depends on its kernel. Nil: nothing is known.
	Features func() []*nodev1.KernelFeature
	// Network looks into the node's datapath.
	Network Network
	// Imported is called after images came onto the node.
	Imported func()
}

// Network answers what is asked of the node's datapath.
type Network struct {
	// Drops returns what policies dropped of late and, until stop is called, what they drop.
	Drops func() (last []policy.Drop, next <-chan policy.Drop, stop func())
	// Unrouted returns likewise what the routing of services dropped.
	Unrouted    func() (last []datapath.Drop, next <-chan datapath.Drop, stop func())
	Connections func(*nodev1.ListConnectionsRequest) (*nodev1.ListConnectionsResponse, error)
	Trace       func(*nodev1.TraceConnectionRequest) (*nodev1.TraceConnectionResponse, error)
}

// Server is a NodeService.
type Server struct {
	nodev1.UnimplementedNodeServiceServer
	cfg Config
}

// New returns a server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Register registers the service's handlers.
func (s *Server) Register(r grpc.ServiceRegistrar) { nodev1.RegisterNodeServiceServer(r, s) }

// Authorize lets administrators call, and only through the gateway, which has checked and logged
// who they are. The nodes service calls directly, and only to find out whether the node reaches
// others.
func Authorize(ctx context.Context, id edge.Identity, fullMethod string) error {
	direct, reach := id.Forwarder == "", fullMethod == nodev1.ReachabilityService_Reach_FullMethodName
	_, service := id.Caller().Service()
	switch {
	case reach && !(direct && service):
		return apierr.Denied("%s: only the nodes service may call this method, directly; the caller is %s", fullMethod, id.User)
	case !reach && direct:
		return apierr.Denied("%s: agents accept calls only through a gateway; %s called directly", fullMethod, id.User)
	}
	return rpc.AuthorizeMethod(ctx, id, fullMethod)
}

func (s *Server) check(t *nodev1.Target, pod bool) error {
	switch {
	case t.GetNode() != "" && t.GetNode() != s.cfg.Node:
		return apierr.BadField("target.node", "this is node %s, not %s", s.cfg.Node, t.GetNode())
	case pod && (t.GetPod() == "" || t.GetNamespace() == ""):
		return apierr.BadField("target", "a pod and its namespace are required")
	}
	return nil
}

// failure turns the errors of the packages below into the API's.
func failure(err error, subject string) error {
	switch {
	case errors.Is(err, pods.ErrAmbiguous):
		return apierr.BadField("container", "%v", err)
	case errors.Is(err, pods.ErrNotFound):
		return apierr.New(codes.NotFound, apierr.ReasonNotFound, err.Error())
	case errors.Is(err, pods.ErrNotRunning):
		return apierr.FailedPrecondition(ReasonNotRunning, subject, "%v", err)
	case errors.Is(err, runtime.ErrNotFound):
		return apierr.FailedPrecondition(ReasonNotRunning, subject, "the container is not running: %v", err)
	case errors.Is(err, runtime.ErrStart):
		return apierr.FailedPrecondition(ReasonExecFailed, subject, "%v", err)
	case errors.Is(err, images.ErrInvalidName):
		return apierr.BadRequest("%v", err)
	}
	return apierr.From(err)
}

// Logs implements nodev1.NodeServiceServer.
func (s *Server) Logs(req *nodev1.LogsRequest, stream grpc.ServerStreamingServer[nodev1.LogsResponse]) error {
	t := req.GetTarget()
	if err := s.check(t, true); err != nil {
		return err
	}
	subject := t.GetNamespace() + "/" + t.GetPod()
	in, err := s.cfg.Pods.Container(t.GetNamespace(), t.GetPod(), req.GetContainer(), false, req.GetPrevious())
	if err != nil {
		return failure(err, subject)
	}
	if _, err := os.Stat(in.LogPath); errors.Is(err, fs.ErrNotExist) && !in.Running && !req.GetPrevious() {
		return apierr.FailedPrecondition(ReasonWaiting, subject, "the container has not started yet and has no log")
	}
	opts := logs.Options{Tail: -1, Follow: req.GetFollow() && in.Running, Timestamps: req.GetTimestamps()}
	if req.TailLines != nil {
		if opts.Tail = req.GetTailLines(); opts.Tail < 0 {
			return apierr.BadField("tail_lines", "invalid value %d: must be greater than or equal to 0", opts.Tail)
		}
	}
	if req.GetSinceTime() != nil {
		opts.Since = req.GetSinceTime().AsTime()
	}
	err = logs.Read(stream.Context(), in.LogPath, opts, in.Ended, writerFunc(func(p []byte) error {
		return stream.Send(&nodev1.LogsResponse{Data: p})
	}))
	return failure(err, subject)
}

// writerFunc sends bytes in messages of bounded size.
type writerFunc func([]byte) error

func (f writerFunc) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(chunk, len(p)-sent)
		if err := f(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// ImportImage implements nodev1.NodeServiceServer.
func (s *Server) ImportImage(stream grpc.ClientStreamingServer[nodev1.ImportImageRequest, nodev1.ImportImageResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return apierr.BadRequest("the first message must have the target")
	}
	if err := s.check(first.GetTarget(), false); err != nil {
		return err
	}
	archive := &archiveReader{stream: stream, rest: first.GetData()}
	imported, err := s.cfg.Runtime.Images().Import(stream.Context(), archive)
	if err != nil {
		if archive.broken != nil {
			return apierr.From(archive.broken)
		}
		return apierr.BadRequest("%v", err)
	}
	s.cfg.Pods.ImagesChanged()
	if s.cfg.Imported != nil {
		s.cfg.Imported()
	}
	return stream.SendAndClose(&nodev1.ImportImageResponse{Images: convert(imported)})
}

// archiveReader reads the archive out of a stream's messages.
type archiveReader struct {
	stream grpc.ClientStreamingServer[nodev1.ImportImageRequest, nodev1.ImportImageResponse]
	rest   []byte
	broken error
}

func (a *archiveReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		req, err := a.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			a.broken = err
			return 0, err
		}
		a.rest = req.GetData()
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// ListImages implements nodev1.NodeServiceServer.
func (s *Server) ListImages(ctx context.Context, req *nodev1.ListImagesRequest) (*nodev1.ListImagesResponse, error) {
	if err := s.check(req.GetTarget(), false); err != nil {
		return nil, err
	}
	all, err := s.cfg.Runtime.Images().List(ctx)
	if err != nil {
		return nil, failure(err, s.cfg.Node)
	}
	return &nodev1.ListImagesResponse{Images: convert(all)}, nil
}

func convert(list []images.Image) []*nodev1.Image {
	out := make([]*nodev1.Image, 0, len(list))
	for _, i := range list {
		out = append(out, &nodev1.Image{Name: i.Name, Digest: i.Digest, SizeBytes: i.Size})
	}
	return out
}

// ListServices implements nodev1.NodeServiceServer.
func (s *Server) ListServices(_ context.Context, req *nodev1.ListServicesRequest) (*nodev1.ListServicesResponse, error) {
	if err := s.check(req.GetTarget(), false); err != nil {
		return nil, err
	}
	if s.cfg.Services == nil {
		return nil, apierr.Unavailable("the service maps of the node are not loaded")
	}
	entries, revision, err := s.cfg.Services()
	if err != nil {
		return nil, apierr.Unavailable("reading the service maps: %v", err)
	}
	resp := &nodev1.ListServicesResponse{Services: entries, ResourceVersion: revision}
	if s.cfg.Features != nil {
		resp.Features = s.cfg.Features()
	}
	return resp, nil
}

// Exec implements nodev1.NodeServiceServer.
func (s *Server) Exec(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return apierr.BadRequest("the first message must have start")
	}
	start := first.GetStart()
	if start == nil || len(start.GetCommand()) == 0 {
		return apierr.BadField("start.command", "required")
	}
	t := start.GetTarget()
	if err := s.check(t, true); err != nil {
		return err
	}
	subject := t.GetNamespace() + "/" + t.GetPod()
	in, err := s.cfg.Pods.Container(t.GetNamespace(), t.GetPod(), start.GetContainer(), true, false)
	if err != nil {
		return failure(err, subject)
	}
	if !in.Running {
		return apierr.FailedPrecondition(ReasonNotRunning, subject, "the container is not running")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	call := &execCall{stream: stream, sizes: newestSize{make(chan runtime.Size, 1)}}
	cfg := runtime.ExecConfig{
		Command: start.GetCommand(), TTY: start.GetTty(), Resize: call.sizes.c,
		Stdout: call.output(func(p []byte) *nodev1.ExecResponse {
			return &nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: p}}
		}),
		Stderr: call.output(func(p []byte) *nodev1.ExecResponse {
			return &nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stderr{Stderr: p}}
		}),
	}
	var stdin *io.PipeWriter
	if start.GetStdin() {
		r, w := io.Pipe()
		// What is still written once the command is over has nowhere to go.
		defer r.Close()
		cfg.Stdin, stdin = r, w
	}
	if size := start.GetSize(); size != nil && start.GetTty() {
		call.sizes.put(runtime.Size{Width: size.GetWidth(), Height: size.GetHeight()})
	}
	// The receiver ends with the stream, which ends when this returns.
	go call.receive(cancel, stdin)
	code, err := s.cfg.Runtime.Exec(ctx, in.ID, cfg)
	if err != nil {
		return failure(err, subject)
	}
	return call.send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_ExitCode{ExitCode: int32(code)}})
}
