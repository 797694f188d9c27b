package deployment

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Annotations of a deployment's sets, as Kubernetes names them.
const (
	annotationDesired     = "deployment.kubernetes.io/desired-replicas"
	annotationMax         = "deployment.kubernetes.io/max-replicas"
	annotationHistory     = "deployment.kubernetes.io/revision-history"
	annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

// sameTemplate reports whether a set has the deployment's current template. A default that is newer
// than the stored set or the stored deployment makes no difference: no rollout may start because
// only one of them was written since.
func sameTemplate(rs *appsv1.ReplicaSet, d *appsv1.Deployment) bool {
	set, want := templateWithoutHash(rs.GetSpec().GetTemplate()), templateWithoutHash(d.GetSpec().GetTemplate())
	if proto.Equal(set, want) {
		return true
	}
	return proto.Equal(withDefaults(set), withDefaults(want))
}

func templateWithoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	t = proto.CloneOf(t)
	delete(t.GetMetadata().GetLabels(), apps.LabelPodTemplateHash)
	return t
}

func withDefaults(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	d := &appsv1.Deployment{Spec: &appsv1.DeploymentSpec{Template: t}}
	kinds.Of(d).Default(d)
	return d.GetSpec().GetTemplate()
}

// templateHash is the suffix of the name of a template's set. It differs from Kubernetes' hash:
// nothing else depends on it.
func templateHash(t *corev1.PodTemplateSpec, collisions int32) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode template: %w", err)
	}
	h := fnv.New32a()
	h.Write(b)
	if collisions > 0 {
		h.Write([]byte(strconv.Itoa(int(collisions))))
	}
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	sum := []byte(strconv.FormatUint(uint64(h.Sum32()), 10))
	for i, digit := range sum {
		sum[i] = alphabet[digit-'0']
	}
	return string(sum), nil
}

// ensureCurrent creates the set of the current template, or updates the existing one.
func (c *reconciler) ensureCurrent(ctx context.Context, r *rollout) error {
	if r.current != nil {
		return c.keepRevision(ctx, r)
	}
	rs, err := c.newSet(r)
	if err != nil {
		return err
	}
	name := rs.GetMetadata().GetName()
	created, err := client.Create(ctx, c.client, rs)
	if apierr.IsAlreadyExists(err) {
		return c.resolveCollision(ctx, r, rs)
	}
	if err != nil {
		if !apierr.IsRetryable(err) && !apierr.IsElectionLost(err) {
			r.createError = fmt.Sprintf("Failed to create new replica set %q: %s", name, apierr.Message(err))
			c.events.Event(r.d, events.Warning, reasonCreateError, "%s", r.createError)
		}
		return fmt.Errorf("create replica set %s: %w", name, err)
	}
	if n := rs.GetSpec().GetReplicas(); n > 0 {
		c.events.Event(r.d, events.Normal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", name, n)
	}
	r.current = created
	return c.setRevision(ctx, r, created.GetMetadata().GetAnnotations()[apps.AnnotationRevision])
}

// newSet is the set to create for the current template, as large as the first step of the rollout
// allows.
func (c *reconciler) newSet(r *rollout) (*appsv1.ReplicaSet, error) {
	d := r.d
	hash, err := templateHash(d.GetSpec().GetTemplate(), d.GetStatus().GetCollisionCount())
	if err != nil {
		return nil, err
	}
	template := proto.CloneOf(d.GetSpec().GetTemplate())
	template.Metadata.Labels = withHash(template.GetMetadata().GetLabels(), hash)
	selector := proto.CloneOf(d.GetSpec().GetSelector())
	selector.MatchLabels = withHash(selector.GetMatchLabels(), hash)
	rs := &appsv1.ReplicaSet{
		Metadata: &metav1.ObjectMeta{
			Name: d.GetMetadata().GetName() + "-" + hash, Namespace: d.GetMetadata().GetNamespace(), Labels: template.GetMetadata().GetLabels(),
			Annotations: inheritedAnnotations(d), OwnerReferences: []*metav1.OwnerReference{kinds.NewControllerRef(d)},
		},
		Spec: &appsv1.ReplicaSetSpec{
			Selector: selector, Template: template, MinReadySeconds: d.GetSpec().GetMinReadySeconds(), Replicas: new(int32),
		},
	}
	rs.Metadata.Annotations[apps.AnnotationRevision] = strconv.FormatInt(nextRevision(r.old), 10)
	annotateSize(rs, r)
	switch {
	case d.GetSpec().GetStrategy().GetType() == apps.StrategyRecreate && len(r.old) > 0:
		// The new pods wait until the old ones are gone; see recreate.
	case d.GetSpec().GetStrategy().GetType() == apps.StrategyRecreate:
		rs.Spec.Replicas = &r.limits.replicas
	default:
		for _, s := range planRolling(r.limits, replicas{name: rs.Metadata.Name}, allNumbers(r.old)) {
			if s.name == rs.Metadata.Name {
				rs.Spec.Replicas = &s.to
			}
		}
	}
	return rs, nil
}

func withHash(labels map[string]string, hash string) map[string]string {
	with := maps.Clone(labels)
	if with == nil {
		with = map[string]string{}
	}
	with[apps.LabelPodTemplateHash] = hash
	return with
}

// inheritedAnnotations are the deployment's, except those that describe the deployment itself.
func inheritedAnnotations(d *appsv1.Deployment) map[string]string {
	inherited := map[string]string{}
	for k, v := range d.GetMetadata().GetAnnotations() {
		switch k {
		case apps.AnnotationRevision, annotationHistory, annotationDesired, annotationMax, annotationLastApplied:
		default:
			inherited[k] = v
		}
	}
	return inherited
}

// resolveCollision handles an existing set of the wanted name. Either it is the deployment's own,
// which the informer does not show yet, or it has another template with the same hash, and the next
// reconcile takes the next hash.
func (c *reconciler) resolveCollision(ctx context.Context, r *rollout, wanted *appsv1.ReplicaSet) error {
	m := wanted.GetMetadata()
	there, err := client.Get[*appsv1.ReplicaSet](ctx, c.client, m.GetNamespace(), m.GetName())
	if err != nil {
		return fmt.Errorf("read replica set %s, which exists already: %w", m.GetName(), err)
	}
	if kinds.IsControlledBy(there, r.d) && sameTemplate(there, r.d) {
		r.current = there
		return nil
	}
	d := client.Clone(r.d)
	if d.Status == nil {
		d.Status = &appsv1.DeploymentStatus{}
	}
	collisions := d.GetStatus().GetCollisionCount() + 1
	d.Status.CollisionCount = &collisions
	if _, err := client.UpdateStatus(ctx, c.client, d); err != nil {
		return fmt.Errorf("count hash collision: %w", err)
	}
	return fmt.Errorf("replica set %s exists and belongs to another template; trying the next hash", m.GetName())
}
