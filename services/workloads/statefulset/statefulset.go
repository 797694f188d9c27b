// Package statefulset keeps the numbered pods of each StatefulSet, with their claims and revisions.
//
// plan.go decides: it makes the next steps from what is observed and touches nothing. identity.go
// makes pods and claims, claims.go has the owners that retention policies give claims, status.go
// computes the status. This file reads the state and takes the steps.
package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// labelHash is the label of revisions that has the hash in their name.
const labelHash = "controller.kubernetes.io/hash"

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many StatefulSets are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to pods and claims.
	Events *events.Recorder
	// Pods and Revisions mirror all objects of their kinds, with the index of
	// controller.ByController.
	Pods      *client.Informer[*corev1.Pod]
	Revisions *client.Informer[*appsv1.ControllerRevision]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	sets := controller.Informer(t, client.InformerOptions[*appsv1.StatefulSet]{})
	claims := controller.Informer(t, client.InformerOptions[*corev1.PersistentVolumeClaim]{Transform: slimClaim})
	selector := func(s *appsv1.StatefulSet) *metav1.LabelSelector { return s.GetSpec().GetSelector() }
	r := &reconciler{
		client: t.Client(), sets: sets, claims: claims, events: cfg.Events,
		pods: controller.NewDependents(controller.DependentsConfig[*appsv1.StatefulSet, *corev1.Pod]{
			Client: t.Client(), Owners: sets, Dependents: cfg.Pods, Selector: selector, Member: isMember,
		}),
		history: history.New(history.Config[*appsv1.StatefulSet]{
			Client: t.Client(), Owners: sets, Revisions: cfg.Revisions, Selector: selector, HashLabel: labelHash,
			Template: func(s *appsv1.StatefulSet) *corev1.PodTemplateSpec { return s.GetSpec().GetTemplate() },
		}),
	}
	c := t.Controller("statefulset", cfg.Workers, r.reconcile)
	controller.For(c, sets)
	r.pods.Watch(c)
	r.history.Watch(c)
	controller.Map(c, claims, r.setsOf)
}

// slimClaim drops what the controller does not read.
func slimClaim(c *corev1.PersistentVolumeClaim) {
	c.Metadata.ManagedFields, c.Spec, c.Status = nil, nil, nil
}

// isMember reports whether a pod has a name of the set's pods. The set controls no others.
func isMember(set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	_, ok := ordinalOf(set, pod)
	return ok
}

type reconciler struct {
	client  *client.Client
	sets    *client.Informer[*appsv1.StatefulSet]
	claims  *client.Informer[*corev1.PersistentVolumeClaim]
	pods    *controller.Dependents[*appsv1.StatefulSet, *corev1.Pod]
	history *history.History[*appsv1.StatefulSet]
	// written is the last write of a claim for each set.
	written controller.Written
	events  *events.Recorder
}

// setsOf returns the sets whose pods may have a claim.
func (r *reconciler) setsOf(claim *corev1.PersistentVolumeClaim) []controller.Key {
	var keys []controller.Key
	m := claim.GetMetadata()
	for _, set := range r.sets.List() {
		if set.GetMetadata().GetNamespace() == m.GetNamespace() && slices.ContainsFunc(set.GetSpec().GetVolumeClaimTemplates(),
			func(t *corev1.PersistentVolumeClaim) bool {
				return strings.HasPrefix(m.GetName(), t.GetMetadata().GetName()+"-"+set.GetMetadata().GetName()+"-")
			}) {
			keys = append(keys, client.KeyOf(set))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	set, ok := r.sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		r.history.Forget(key)
		return controller.Result{}, nil
	}
	if r.written.IsBehind(key, r.claims.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	revisions, wait, err := r.history.Claim(ctx, set)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	pods, wait, err := r.pods.Claim(ctx, set)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	s := state{
		set: set, pods: pods, now: time.Now(),
		claims: func(name string) (*corev1.PersistentVolumeClaim, bool) { return r.claims.Get(key.Namespace, name) },
	}
	collisions, err := r.resolveRevisions(ctx, &s, revisions)
	if err != nil {
		return controller.Result{}, err
	}
	failed := r.take(ctx, set, plan(s))
	again, err := r.updateStatus(ctx, s, collisions)
	if failed != nil || err != nil {
		return controller.Result{}, errors.Join(failed, err)
	}
	return controller.Result{RequeueAfter: again}, r.trim(ctx, s, revisions)
}

// resolveRevisions sets the revisions of a state, and creates the one of the set's template if need
// be. A set that is being deleted makes none.
func (r *reconciler) resolveRevisions(ctx context.Context, s *state, revisions []*appsv1.ControllerRevision) (collisions int32, err error) {
	status := s.set.GetStatus()
	if s.set.GetMetadata().GetDeletionTimestamp() != nil {
		s.current.name, s.update.name = status.GetCurrentRevision(), status.GetUpdateRevision()
		return status.GetCollisionCount(), nil
	}
	update, collisions, err := r.history.Record(ctx, s.set, revisions, status.GetCollisionCount())
	if err != nil {
		return collisions, err
	}
	s.update = revision{update.GetMetadata().GetName(), s.set.GetSpec().GetTemplate()}
	s.current = s.update
	for _, old := range revisions {
		if name := old.GetMetadata().GetName(); name == status.GetCurrentRevision() && name != s.update.name {
			template, err := history.Template(old)
			if err != nil {
				return collisions, err
			}
			s.current = revision{name, template}
		}
	}
	return collisions, nil
}

// trim deletes the oldest revisions beyond the limit that no pod has.
func (r *reconciler) trim(ctx context.Context, s state, revisions []*appsv1.ControllerRevision) error {
	limit := int(s.set.GetSpec().GetRevisionHistoryLimit())
	if limit < 0 || s.set.GetMetadata().GetDeletionTimestamp() != nil {
		return nil
	}
	live := map[string]bool{s.current.name: true, s.update.name: true}
	for _, p := range s.pods {
		live[revisionOf(p)] = true
	}
	old := slices.DeleteFunc(slices.Clone(revisions), func(c *appsv1.ControllerRevision) bool { return live[c.GetMetadata().GetName()] })
	none := func(*appsv1.ControllerRevision) bool { return false }
	return r.history.Trim(ctx, s.set, history.Surplus(old, limit, none))
}

// take takes the steps of a plan. One that fails ends an ordered plan; those of a parallel one do
// not depend on each other.
func (r *reconciler) take(ctx context.Context, set *appsv1.StatefulSet, steps []step) error {
	var failed []error
	for _, s := range steps {
		if err := r.takeStep(ctx, set, s); err != nil {
			failed = append(failed, err)
			if set.GetSpec().GetPodManagementPolicy() != apps.Parallel {
				break
			}
		}
	}
	return errors.Join(failed...)
}

func (r *reconciler) takeStep(ctx context.Context, set *appsv1.StatefulSet, s step) error {
	for _, claim := range s.newClaims {
		if err := r.createClaim(ctx, set, s.pod, claim); err != nil {
			return err
		}
	}
	for _, o := range s.owners {
		if err := r.setOwners(ctx, set, o); err != nil {
			r.record(set, s.pod, relabel, err)
			return err
		}
	}
	var err error
	switch {
	case s.blocked != "":
		err = errors.New(s.blocked)
	case s.verb == create:
		_, err = r.pods.CreateNamed(ctx, set, s.pod)
	case s.verb == remove:
		_, err = r.pods.Delete(ctx, set, []*corev1.Pod{s.pod})
	case s.verb == relabel:
		err = r.relabel(ctx, set, s.pod)
	default:
		return nil
	}
	r.record(set, s.pod, s.verb, err)
	if err != nil {
		return fmt.Errorf("%s pod %s: %w", strings.ToLower(string(s.verb)), s.pod.GetMetadata().GetName(), err)
	}
	return nil
}

func (r *reconciler) createClaim(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) error {
	name, owner, of := claim.GetMetadata().GetName(), pod.GetMetadata().GetName(), set.GetMetadata().GetName()
	created, err := client.Create(ctx, r.client, claim)
	switch {
	case apierr.IsAlreadyExists(err):
		return nil // A claim of this name is the pod's, with any creator.
	case err != nil:
		r.events.Event(set, events.Warning, "FailedCreate", "Create Claim %s for Pod %s in StatefulSet %s failed error: %s",
			name, owner, of, apierr.Message(err))
		return fmt.Errorf("create claim %s: %w", name, err)
	}
	r.written.Note(client.KeyOf(set), created.GetMetadata().GetResourceVersion())
	r.events.Event(set, events.Normal, "SuccessfulCreate", "Create Claim %s Pod %s in StatefulSet %s success", name, owner, of)
	return nil
}

// setOwners writes the owners of a claim, unless the claim changed meanwhile.
func (r *reconciler) setOwners(ctx context.Context, set *appsv1.StatefulSet, o ownership) error {
	m := o.claim.GetMetadata()
	if o.conflict {
		r.events.Event(set, events.Warning, "ConflictingController",
			"PersistentVolumeClaim %s has another controller: the retention policy is ignored for this claim", m.GetName())
	}
	if sameOwners(m.GetOwnerReferences(), o.owners) {
		return nil
	}
	patch, err := controller.OwnersPatch(m, o.owners, m.GetFinalizers())
	if err != nil {
		return err
	}
	patched, err := client.Patch[*corev1.PersistentVolumeClaim](ctx, r.client, m.GetNamespace(), m.GetName(), patch)
	if apierr.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set the owners of claim %s: %w", m.GetName(), err)
	}
	r.written.Note(client.KeyOf(set), patched.GetMetadata().GetResourceVersion())
	return nil
}

// relabel gives a pod that was adopted the labels of its identity.
func (r *reconciler) relabel(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	m := pod.GetMetadata()
	ordinal, _ := ordinalOf(set, pod)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": m.GetUid(), "labels": withIdentity(nil, m.GetName(), ordinal),
	}})
	if err != nil {
		return err
	}
	_, err = client.Patch[*corev1.Pod](ctx, r.client, m.GetNamespace(), m.GetName(), patch)
	if apierr.IsNotFound(err) {
		return nil
	}
	return err
}

// record records what happened to a pod, in Kubernetes' words.
func (r *reconciler) record(set *appsv1.StatefulSet, pod *corev1.Pod, v verb, err error) {
	name, of := pod.GetMetadata().GetName(), set.GetMetadata().GetName()
	if err != nil {
		r.events.Event(set, events.Warning, "Failed"+string(v), "%s Pod %s in StatefulSet %s failed error: %s", v, name, of, apierr.Message(err))
		return
	}
	r.events.Event(set, events.Normal, "Successful"+string(v), "%s Pod %s in StatefulSet %s successful", v, name, of)
}

func (r *reconciler) updateStatus(ctx context.Context, s state, collisions int32) (time.Duration, error) {
	status, again := newStatus(s, collisions)
	if proto.Equal(status, s.set.GetStatus()) {
		return again, nil
	}
	updated := client.Clone(s.set)
	updated.Status = status
	_, err := client.UpdateStatus(ctx, r.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}
