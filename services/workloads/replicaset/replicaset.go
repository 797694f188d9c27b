// Package replicaset keeps as many pods as each ReplicaSet asks for. AddFor does so for
// ReplicationControllers too.
package replicaset

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many ReplicaSets are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to pods.
	Events *events.Recorder
	// ReplicaSets and Pods mirror all objects of their kinds, with the index of
	// controller.ByController.
	ReplicaSets *client.Informer[*appsv1.ReplicaSet]
	Pods        *client.Informer[*corev1.Pod]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	AddFor(t, ConfigFor[*appsv1.ReplicaSet]{
		Name: "replicaset", Workers: cfg.Workers, Events: cfg.Events, Sets: cfg.ReplicaSets, Pods: cfg.Pods,
		Spec:      (*appsv1.ReplicaSet).GetSpec,
		Status:    (*appsv1.ReplicaSet).GetStatus,
		SetStatus: func(rs *appsv1.ReplicaSet, s *appsv1.ReplicaSetStatus) { rs.Status = s },
	})
}

// ConfigFor is what the controller needs for sets of another kind, whose specs and statuses can be
// read as those of ReplicaSets.
type ConfigFor[O scheme.Object] struct {
	// Name is the name of the controller.
	Name string
	// Workers and Events are those of Config.
	Workers int
	Events  *events.Recorder
	// Sets and Pods mirror all objects of their kinds, with the index of controller.ByController.
	Sets *client.Informer[O]
	Pods *client.Informer[*corev1.Pod]
	// Spec and Status return those of a set. SetStatus changes the status of a set.
	Spec      func(O) *appsv1.ReplicaSetSpec
	Status    func(O) *appsv1.ReplicaSetStatus
	SetStatus func(O, *appsv1.ReplicaSetStatus)
}

// AddFor is Add for sets of another kind.
func AddFor[O scheme.Object](t *controller.Term, cfg ConfigFor[O]) {
	r := &reconciler[O]{
		ConfigFor: cfg, client: t.Client(),
		pods: podcontrol.New(podcontrol.Config[O]{
			Client: t.Client(), Events: cfg.Events, Owners: cfg.Sets, Pods: cfg.Pods,
			Selector: func(set O) *metav1.LabelSelector { return cfg.Spec(set).GetSelector() },
		}),
	}
	c := t.Controller(cfg.Name, cfg.Workers, r.reconcile)
	controller.For(c, cfg.Sets)
	r.pods.Watch(c)
}

type reconciler[O scheme.Object] struct {
	ConfigFor[O]
	client *client.Client
	pods   *podcontrol.Control[O]
}

func (r *reconciler[O]) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	set, ok := r.Sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		return controller.Result{}, nil
	}
	owned, wait, err := r.pods.Claim(ctx, set)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	var scaleErr error
	if set.GetMetadata().GetDeletionTimestamp() == nil {
		scaleErr = r.scale(ctx, set, podcontrol.Active(owned))
	}
	again, err := r.updateStatus(ctx, set, owned, scaleErr)
	if scaleErr != nil {
		return controller.Result{}, scaleErr
	}
	return controller.Result{RequeueAfter: again}, err
}

// scale creates or deletes pods until the set has as many active ones as it asks for.
func (r *reconciler[O]) scale(ctx context.Context, set O, active []*corev1.Pod) error {
	want := int(r.Spec(set).GetReplicas())
	switch {
	case len(active) < want:
		return r.pods.CreatePods(ctx, set, want-len(active), func(int) *corev1.Pod {
			return podcontrol.FromTemplate(set, r.Spec(set).GetTemplate())
		})
	case len(active) > want:
		return r.pods.DeletePods(ctx, set, podcontrol.Surplus(active, len(active)-want, r.relatedOnNodes(set)))
	}
	return nil
}

// relatedOnNodes counts the active pods on each node that belong to the set, or to another of the
// same deployment.
func (r *reconciler[O]) relatedOnNodes(set O) map[string]int {
	related := []O{set}
	if owner := kinds.ControllerOf(set); owner != nil {
		related = controller.ControlledBy(r.Sets, owner.GetUid())
	}
	onNode := map[string]int{}
	for _, set := range related {
		for _, p := range podcontrol.Active(controller.ControlledBy(r.Pods, set.GetMetadata().GetUid())) {
			onNode[p.GetSpec().GetNodeName()]++
		}
	}
	return onNode
}

// updateStatus writes the set's status. It returns when a pod that is ready becomes available, 0
// for never.
func (r *reconciler[O]) updateStatus(ctx context.Context, set O, owned []*corev1.Pod, scaleErr error) (time.Duration, error) {
	rs := &appsv1.ReplicaSet{Metadata: set.GetMetadata(), Spec: r.Spec(set), Status: r.Status(set)}
	status, again := newStatus(rs, owned, scaleErr, time.Now())
	updated := client.Clone(set)
	r.SetStatus(updated, status)
	if proto.Equal(updated, set) {
		return again, nil
	}
	_, err := client.UpdateStatus(ctx, r.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}
