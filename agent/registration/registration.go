// Package registration keeps the two API objects of a node: its Node object, with labels and
// status, and its Lease. Real and simulated nodes share it.
package registration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/retry"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// statusEvery is the mean interval at which the status is compared, heartbeatEvery that at which
	// an unchanged status is written. The lease, not the status, shows that the node is alive.
	statusEvery    = time.Minute
	heartbeatEvery = 5 * time.Minute
	// retryMin and retryMax are the limits of the back-off after a failure.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
	// syncTimeout bounds one comparison with its writes.
	syncTimeout = 10 * time.Second
)

// Node keeps the Node object of one node. All fields are required.
type Node struct {
	Client *client.Client
	// Metadata returns the metadata of a new object. An existing one gets missing labels of it.
	Metadata func() *metav1.ObjectMeta
	// Status computes the status from the stored one, which is nil for a new object. Fields that
	// others set should be kept.
	Status func(ctx context.Context, stored *corev1.NodeStatus, now time.Time) *corev1.NodeStatus
	// Wake requests a comparison before the next one is due.
	Wake <-chan struct{}
	Log  *zap.Logger
}

// Run keeps the object until ctx ends, and returns ctx's error. It repeats by itself what fails.
func (n Node) Run(ctx context.Context) error {
	ctx = retry.ByCaller(ctx)
	var written time.Time
	pace := backoff.Backoff{Min: retryMin, Max: retryMax}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-n.Wake:
		}
		wrote, err := n.sync(ctx, time.Since(written) > heartbeatEvery)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errConflict):
			pace.Reset()
			timer.Reset(0)
			continue
		case err != nil:
			pause := pace.Next(err)
			n.Log.Warn("Failed to update the node's object", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, pause))
			if _, asked := apierr.RetryAfter(err); asked {
				// Changes during the requested pause wait as well.
				if err := backoff.Sleep(ctx, pause); err != nil {
					return err
				}
				pause = 0
			}
			timer.Reset(pause)
			continue
		case wrote:
			written = time.Now()
		}
		pace.Reset()
		timer.Reset(statusEvery*9/10 + rand.N(statusEvery/5))
	}
}

// errConflict is returned by sync when another client has changed the object meanwhile.
var errConflict = errors.New("the node's object was changed")

// sync creates the object if there is none, and brings its labels and status up to date. With
// heartbeat, an unchanged status is written too.
func (n Node) sync(ctx context.Context, heartbeat bool) (wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	meta := n.Metadata()
	node, err := client.Get[*corev1.Node](ctx, n.Client, "", meta.GetName())
	if apierr.IsNotFound(err) {
		// With its status, as kubelets do: a separate write would conflict with that of the pod range.
		_, err = client.Create(ctx, n.Client, &corev1.Node{
			Metadata: meta, Spec: &corev1.NodeSpec{}, Status: n.Status(ctx, nil, time.Now()),
		})
		if err == nil {
			n.Log.Info("Node registered")
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("registering the node: %w", err)
	}
	if !containsAll(node.GetMetadata().GetLabels(), meta.GetLabels()) {
		node = client.Clone(node)
		if node.Metadata.Labels == nil {
			node.Metadata.Labels = map[string]string{}
		}
		maps.Copy(node.Metadata.Labels, meta.GetLabels())
		if node, err = client.Update(ctx, n.Client, node); err != nil {
			return false, fmt.Errorf("updating the labels of the node: %w", err)
		}
	}
	want := client.Clone(node)
	want.Status = n.Status(ctx, node.GetStatus(), time.Now())
	if !heartbeat && sameStatus(node.GetStatus(), want.GetStatus()) {
		return false, nil
	}
	_, err = client.UpdateStatus(ctx, n.Client, want)
	if apierr.IsConflict(err) {
		return false, errConflict
	}
	if err != nil {
		return false, fmt.Errorf("updating the node's status: %w", err)
	}
	return true, nil
}

func containsAll(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// sameStatus compares two statuses without the times of heartbeats.
func sameStatus(a, b *corev1.NodeStatus) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	for _, s := range []*corev1.NodeStatus{a, b} {
		for _, c := range s.GetConditions() {
			c.LastHeartbeatTime = nil
		}
	}
	return proto.Equal(a, b)
}

// SetCondition sets a condition, with its heartbeat at now. The transition time changes only with
// the condition's status.
func SetCondition(st *corev1.NodeStatus, c *corev1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = timestamppb.New(now.Truncate(time.Second))
	c.LastTransitionTime = c.LastHeartbeatTime
	i := slices.IndexFunc(st.GetConditions(), func(o *corev1.NodeCondition) bool { return o.GetType() == c.GetType() })
	if i < 0 {
		st.Conditions = append(st.Conditions, c)
		return
	}
	if o := st.Conditions[i]; o.GetStatus() == c.GetStatus() && o.GetLastTransitionTime() != nil {
		c.LastTransitionTime = o.GetLastTransitionTime()
	}
	st.Conditions[i] = c
}
