package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// lostPods are the replicas of which a node's share is lost with it.
const lostPods = 10

// measureLost takes the power of one of two nodes, and measures until as many pods as before are
// ready elsewhere.
func measureLost(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withClient(ctx, b, 1, 2, func(l *lab.Lab, c *client.Client, _ string) error {
		replicas, labels := int32(lostPods), map[string]string{"app": "lost"}
		_, err := client.Create(ctx, c, &appsv1.ReplicaSet{
			Metadata: &metav1.ObjectMeta{Name: "lost", Namespace: "default"},
			Spec: &appsv1.ReplicaSetSpec{
				Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: &corev1.PodTemplateSpec{Metadata: &metav1.ObjectMeta{Labels: labels}, Spec: sleeper("").GetSpec()},
			},
		})
		if err != nil {
			return err
		}
		if _, err := readyPods(ctx, c, ""); err != nil {
			return err
		}
		lost := time.Now()
		if err := l.Kill(ctx, "node-2", lab.KillOptions{PowerOff: true}); err != nil {
			return err
		}
		there, err := readyPods(ctx, c, "node-2")
		if err != nil {
			return err
		}
		r.figure = fmt.Sprintf("%.1f s", there.Sub(lost).Seconds())
		return nil
	})
	return r, err
}

// readyPods returns when so many pods as there should be are ready, not counting those on a node.
func readyPods(ctx context.Context, c *client.Client, except string) (time.Time, error) {
	ready := map[string]bool{}
	for event, err := range client.Watch[*corev1.Pod](ctx, c, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			return time.Time{}, fmt.Errorf("%d of %d pods were ready: %w", len(ready), lostPods, err)
		}
		p := event.Object
		if p == nil {
			continue
		}
		counts := event.Type != apiv1.EventType_EVENT_TYPE_DELETED && p.GetMetadata().GetDeletionTimestamp() == nil &&
			p.GetSpec().GetNodeName() != except
		if name := p.GetMetadata().GetName(); counts && core.IsPodReady(p) {
			ready[name] = true
		} else {
			delete(ready, name)
		}
		if len(ready) == lostPods {
			return time.Now(), nil
		}
	}
	return time.Time{}, errors.New("the watch ended")
}
