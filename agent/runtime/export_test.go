package runtime

import (
	"context"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// OnStart calls f whenever containerd has started a task, before the runtime gets the answer. It is
// called before the runtime is used.
func (r *Runtime) OnStart(f func()) error {
	var err error
	r.client, err = containerd.NewWithConn(
		r.client.Conn().(*grpc.ClientConn),
		containerd.WithDefaultNamespace(r.cfg.Namespace),
		containerd.WithDefaultRuntime(shim),
		containerd.WithServices(containerd.WithTaskClient(observed{r.client.TaskService(), f})),
	)
	return err
}

// observed is a client of containerd's tasks that reports starts.
type observed struct {
	tasks.TasksClient
	started func()
}

func (o observed) Start(ctx context.Context, req *tasks.StartRequest, opts ...grpc.CallOption) (*tasks.StartResponse, error) {
	resp, err := o.TasksClient.Start(context.WithoutCancel(ctx), req, opts...)
	if err != nil {
		return nil, err
	}
	o.started()
	// The answer is lost for a caller that is gone by now, as gRPC does it.
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return resp, nil
}
