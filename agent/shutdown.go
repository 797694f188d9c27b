package agent

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/internal/metrics"
)

// errShutdown ends the agent of a machine that goes down.
var errShutdown = errors.New("node is shutting down")

// awaitShutdown waits for SIGPWR, by which the machine, or who runs it, says that it goes down: the
// node says that it is not ready, its pods end, and then the agent. What is to run on the node runs
// again with the next agent.
func (a *Agent) awaitShutdown(ctx context.Context, set *pods.Set, r *registrar) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGPWR)
	defer signal.Stop(asked)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-asked:
	}
	began := time.Now()
	a.log.Info("Node is shutting down", zap.Int(metrics.KeyPods, set.Len()), zap.Duration(metrics.KeyGracePeriod, a.cfg.ShutdownGracePeriod))
	r.setNotReady("node is shutting down")
	set.Shutdown(ctx, a.cfg.ShutdownGracePeriod, a.cfg.ShutdownGracePeriodCriticalPods)
	a.log.Info("All pods terminated", zap.Duration(metrics.KeyDuration, time.Since(began)))
	return errShutdown
}
