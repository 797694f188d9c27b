package status

import (
	"context"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	pacing "github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/failpoint"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/retry"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	publishTimeout  = 10 * time.Second
	publishRetryMin = 100 * time.Millisecond
	publishRetryMax = 10 * time.Second
)

// Writer stores the statuses of pods. Its errors are those of package apierr.
type Writer interface {
	// UpdateStatus stores the status of the pod with pod's uid and returns the pod as stored; not
	// found when that pod is gone.
	UpdateStatus(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error)
	// Delete removes the pod of this uid for good. One that is gone already is no error.
	Delete(ctx context.Context, pod *corev1.Pod) error
}

// Publisher writes the newest status of a pod to the control plane, one write at a time. A status
// that was not written is replaced by a newer one, never queued, so that a slow control plane does
// not delay the pod's worker.
type Publisher struct {
	cluster Writer
	log     *zap.Logger
	// gone is called once the control plane has no such pod any more.
	gone func()

	mu     sync.Mutex
	pod    *corev1.Pod
	want   *corev1.PodStatus
	final  bool
	wake   chan struct{}
	stored *corev1.Pod
	// written is the status of the last successful write.
	written *corev1.PodStatus
}

// NewPublisher returns a publisher of one pod. Gone is called when the control plane no longer has
// the pod.
func NewPublisher(cluster Writer, log *zap.Logger, gone func()) *Publisher {
	return &Publisher{cluster: cluster, log: log, gone: gone, wake: make(chan struct{}, 1)}
}

// Publish asks for the pod, as the control plane was last seen to have it, to get this status; with
// final, to be removed after that.
func (p *Publisher) Publish(pod *corev1.Pod, status *corev1.PodStatus, final bool) {
	p.mu.Lock()
	p.pod, p.want, p.final = pod, status, final
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Latest returns the status that the next one must keep times and others' conditions of.
func (p *Publisher) Latest(pod *corev1.Pod) *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stored != nil && revision(p.stored) > revision(pod) {
		return p.stored
	}
	return pod
}

// Restated compares what was written with the pod in a state of all pods that is complete up to a
// revision. It says whether a write that the state should have was undone: the control plane went
// back to a backup.
func (p *Publisher) Restated(pod *corev1.Pod, complete int64) (undone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stored == nil || revision(p.stored) > complete || revision(pod) >= revision(p.stored) {
		return false
	}
	p.stored, p.written = nil, nil
	return true
}

// Settle returns when the newest status has been written, or ctx is done.
func (p *Publisher) Settle(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		settled := p.want == nil || p.written != nil && proto.Equal(p.written, p.want) || proto.Equal(p.pod.GetStatus(), p.want)
		p.mu.Unlock()
		if settled {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Run writes what Publish is given until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	pace := pacing.Backoff{Min: publishRetryMin, Max: publishRetryMax}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-retry.C:
		}
		err := p.step(ctx)
		if err == nil {
			pace.Reset()
			continue
		}
		pause := pace.Next(err)
		if ctx.Err() == nil {
			p.log.Debug("Failed to update the pod's status", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, pause))
		}
		if _, asked := apierr.RetryAfter(err); asked {
			// A status that changes meanwhile waits as well.
			if pacing.Sleep(ctx, pause) != nil {
				return
			}
			pause = 0
		}
		retry.Reset(pause)
	}
}

// step makes at most one write of the status and one removal.
func (p *Publisher) step(ctx context.Context) error {
	p.mu.Lock()
	pod, want, final := p.pod, p.want, p.final
	if p.stored != nil && pod != nil && revision(p.stored) > revision(pod) {
		pod = p.stored
	}
	known := pod
	// A status that the server stores in another form than it was written in must not be written again
	// forever.
	if p.written != nil && p.stored != nil && known == p.stored && proto.Equal(p.written, want) {
		want = known.GetStatus()
	}
	p.mu.Unlock()
	if pod == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(retry.ByCaller(ctx), publishTimeout) // Run repeats the step
	defer cancel()
	if !proto.Equal(known.GetStatus(), want) {
		update := &corev1.Pod{Metadata: pod.GetMetadata(), Spec: pod.GetSpec(), Status: want}
		stored, err := p.cluster.UpdateStatus(ctx, update)
		if apierr.IsNotFound(err) {
			p.gone()
			return nil
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.stored, p.written = stored, want
		p.mu.Unlock()
		pod = stored
		failpoint.Hit("status-written")
	}
	// A pod that is not being deleted any more was brought back by a backup, and the worker will hear
	// of it.
	if !final || pod.GetMetadata().GetDeletionTimestamp() == nil {
		return nil
	}
	if err := p.cluster.Delete(ctx, pod); err != nil && !apierr.IsNotFound(err) {
		return err
	}
	failpoint.Hit("pod-removed-from-api")
	p.gone()
	return nil
}

func revision(pod *corev1.Pod) int64 {
	n, _ := strconv.ParseInt(pod.GetMetadata().GetResourceVersion(), 10, 64)
	return n
}
