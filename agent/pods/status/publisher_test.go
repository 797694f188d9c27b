package status

import (
	"context"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/retry"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// flaky is a Writer that is out of reach for the first calls.
type flaky struct {
	*testing.T
	failures, calls int
	stored          *corev1.Pod
}

func (f *flaky) UpdateStatus(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if !retry.IsByCaller(ctx) {
		f.Error("the write is repeated by the publisher and by the connection")
	}
	if f.calls++; f.calls <= f.failures {
		return nil, apierr.Unavailable("no master")
	}
	f.stored = pod
	return pod, nil
}

func (f *flaky) Delete(context.Context, *corev1.Pod) error { return nil }

// TestPublisherRepeats repeats a write until it succeeds.
func TestPublisherRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{T: t, failures: 3}
		p := NewPublisher(f, zap.NewNop(), func() { t.Error("the pod is gone") })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		p.Publish(&corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "a", ResourceVersion: "1"}}, &corev1.PodStatus{Phase: "Running"}, false)
		p.Settle(ctx)
		cancel()
		<-ended
		if f.calls != 4 || f.stored.GetStatus().GetPhase() != "Running" {
			t.Errorf("written %d times, stored %v", f.calls, f.stored)
		}
	})
}
