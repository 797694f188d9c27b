package workloads

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Labels and annotations by which a deployment marks its sets, as Kubernetes names them.
const (
	hashLabel          = "pod-template-hash"
	revisionAnnotation = "deployment.kubernetes.io/revision"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	lastAppliedByHand  = "kubectl.kubernetes.io/last-applied-configuration"
)

// recreate is the strategy that stops all old pods before it starts a new one.
const recreate = "Recreate"

// deploymentsController moves each Deployment to the ReplicaSet of its present template.
type deploymentsController struct {
	client      *client.Client
	deployments *client.Informer[*appsv1.Deployment]
	sets        *controller.Dependents[*appsv1.Deployment, *appsv1.ReplicaSet]
	pods        *client.Informer[*corev1.Pod]
	events      *events.Recorder
}

func (c *deploymentsController) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	d, ok := c.deployments.Get(key.Namespace, key.Name)
	if !ok {
		c.sets.Forget(key)
		return controller.Result{}, nil
	}
	sets, wait, err := c.sets.Claim(ctx, d)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	r, err := newRollout(d, sets)
	if err != nil {
		return controller.Result{}, err
	}
	var failed error
	if d.GetMetadata().GetDeletionTimestamp() == nil {
		// The status is written all the same when a set could not be made: it is where people look for the reason.
		if failed = c.advance(ctx, r); failed != nil && r.createError == "" {
			return controller.Result{}, failed
		}
	}
	again, err := c.updateStatus(ctx, r)
	if failed != nil {
		return controller.Result{}, failed
	}
	return controller.Result{RequeueAfter: again}, err
}

// rollout is a deployment with its sets.
type rollout struct {
	d      *appsv1.Deployment
	limits limits
	// current is the set of the present template, nil before it is made; old are the others, oldest first.
	current *appsv1.ReplicaSet
	old     []*appsv1.ReplicaSet
	// createError is why the set of the present template could not be made, in a sentence; empty when it could.
	createError string
}

// all are the old sets and the current one.
func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.current == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.current)
}

// newRollout sorts a deployment's sets into the current one and the old ones.
func newRollout(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (*rollout, error) {
	limits, err := limitsOf(d)
	if err != nil {
		return nil, err
	}
	r := &rollout{d: d, limits: limits}
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(ageOf(a), ageOf(b)), cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()))
	})
	for _, rs := range sets {
		// Of several with the template, adopted ones for example, the oldest is current, so that it stays the same one.
		if r.current == nil && sameTemplate(rs, d) {
			r.current = rs
			continue
		}
		r.old = append(r.old, rs)
	}
	return r, nil
}

// limitsOf resolves a deployment's limits. Recreate has none to resolve: nothing beyond the replicas, nothing missing.
func limitsOf(d *appsv1.Deployment) (limits, error) {
	if d.GetSpec().GetStrategy().GetType() == recreate {
		return limits{replicas: d.GetSpec().GetReplicas()}, nil
	}
	update := d.GetSpec().GetStrategy().GetRollingUpdate()
	return resolveLimits(d.GetSpec().GetReplicas(), update.GetMaxSurge(), update.GetMaxUnavailable())
}

// advance takes the next step of the rollout, whatever state the last one left.
func (c *deploymentsController) advance(ctx context.Context, r *rollout) error {
	spec := r.d.GetSpec()
	if spec.GetPaused() {
		if r.current != nil {
			if err := c.keepRevision(ctx, r); err != nil {
				return err
			}
		}
		return c.scaleAll(ctx, r, c.proportional(r))
	}
	if err := c.ensureCurrent(ctx, r); err != nil {
		return err
	}
	if steps := c.proportional(r); len(steps) > 0 {
		return c.scaleAll(ctx, r, steps)
	}
	var err error
	if spec.GetStrategy().GetType() == recreate {
		err = c.recreate(ctx, r)
	} else {
		err = c.scaleAll(ctx, r, planRolling(r.limits, numbers(r.current), allNumbers(r.old)))
	}
	if err != nil {
		return err
	}
	return c.trimHistory(ctx, r)
}

// recreate stops all old pods, and starts the new ones only when none is left.
func (c *deploymentsController) recreate(ctx context.Context, r *rollout) error {
	var steps []scaling
	for _, rs := range r.old {
		if rs.GetSpec().GetReplicas() > 0 {
			steps = append(steps, scaling{rs.GetMetadata().GetName(), 0})
		}
	}
	if len(steps) > 0 {
		return c.scaleAll(ctx, r, steps)
	}
	for _, rs := range r.old {
		// Until the set's own controller has seen its new size it may still make pods. Its status changes when the last
		// pod is gone, and brings us back.
		if s := rs.GetStatus(); s.GetReplicas() > 0 || s.GetObservedGeneration() < rs.GetMetadata().GetGeneration() {
			return nil
		}
		for _, p := range controller.ControlledBy(c.pods, rs.GetMetadata().GetUid()) {
			if !kind.IsPodFinished(p) {
				return nil
			}
		}
	}
	return c.scaleAll(ctx, r, []scaling{{r.current.GetMetadata().GetName(), r.limits.replicas}})
}

// proportional is the step that follows a change of the deployment's size, or any size of a paused one; none when the
// ordinary step of the rollout does it all.
func (c *deploymentsController) proportional(r *rollout) []scaling {
	resized, paused := false, r.d.GetSpec().GetPaused()
	var live []*appsv1.ReplicaSet
	for _, rs := range r.all() {
		if rs.GetSpec().GetReplicas() == 0 {
			continue
		}
		live = append(live, rs)
		desired, ok := annotatedNumber(rs, desiredAnnotation)
		resized = resized || ok && desired != r.limits.replicas
	}
	if !resized && !paused {
		return nil
	}
	// One set only: there is no mix to keep. While paused and without pods, it is the current set or else the newest.
	var only *appsv1.ReplicaSet
	switch {
	case len(live) == 1:
		only = live[0]
	case len(live) == 0 && len(r.all()) > 0:
		only = r.all()[len(r.all())-1]
	}
	switch {
	case only != nil && only.GetSpec().GetReplicas() != r.limits.replicas:
		return []scaling{{only.GetMetadata().GetName(), r.limits.replicas}}
	case len(live) < 2:
		return nil
	case r.current != nil && r.current.GetSpec().GetReplicas() == r.limits.replicas && r.current.GetStatus().GetAvailableReplicas() == r.limits.replicas:
		var steps []scaling // the current set is whole: the old ones have had their time, even of a paused deployment
		for _, rs := range live {
			if rs != r.current {
				steps = append(steps, scaling{rs.GetMetadata().GetName(), 0})
			}
		}
		return steps
	case !resized || r.d.GetSpec().GetStrategy().GetType() == recreate:
		return nil
	}
	return planProportional(r.limits, allNumbers(live))
}

func numbers(rs *appsv1.ReplicaSet) replicas {
	maxReplicas, _ := annotatedNumber(rs, maxAnnotation)
	return replicas{
		name: rs.GetMetadata().GetName(), wanted: rs.GetSpec().GetReplicas(), actual: rs.GetStatus().GetReplicas(),
		available: rs.GetStatus().GetAvailableReplicas(), maxReplicas: maxReplicas, age: ageOf(rs),
	}
}

func allNumbers(sets []*appsv1.ReplicaSet) []replicas {
	all := make([]replicas, len(sets))
	for i, rs := range sets {
		all[i] = numbers(rs)
	}
	return all
}

// ageOf orders sets by when they were made.
func ageOf(rs *appsv1.ReplicaSet) int64 {
	return rs.GetMetadata().GetCreationTimestamp().AsTime().UnixNano()
}

func annotatedNumber(rs *appsv1.ReplicaSet, annotation string) (int32, bool) {
	n, err := strconv.ParseInt(rs.GetMetadata().GetAnnotations()[annotation], 10, 32)
	return int32(n), err == nil
}

// scaleAll gives sets their new sizes, and brings the annotations of every live set up to the deployment's size.
func (c *deploymentsController) scaleAll(ctx context.Context, r *rollout, steps []scaling) error {
	to := map[string]int32{}
	for _, s := range steps {
		to[s.name] = s.to
	}
	for _, rs := range r.all() {
		n, scaled := to[rs.GetMetadata().GetName()]
		if !scaled {
			n = rs.GetSpec().GetReplicas()
		}
		changed := proto.Clone(rs).(*appsv1.ReplicaSet)
		changed.Spec.Replicas = &n
		if n > 0 || rs.GetSpec().GetReplicas() > 0 {
			annotateSize(changed, r)
		}
		if proto.Equal(rs, changed) {
			continue
		}
		if _, err := client.Update(ctx, c.client, changed); err != nil {
			return fmt.Errorf("scale replica set %s to %d: %w", rs.GetMetadata().GetName(), n, err)
		}
		if before := rs.GetSpec().GetReplicas(); before != n {
			direction := "up"
			if n < before {
				direction = "down"
			}
			c.events.Event(r.d, events.Normal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, rs.GetMetadata().GetName(), before, n)
		}
	}
	return nil
}

func annotateSize(rs *appsv1.ReplicaSet, r *rollout) {
	if rs.Metadata.Annotations == nil {
		rs.Metadata.Annotations = map[string]string{}
	}
	surge := r.limits.maxSurge
	if r.d.GetSpec().GetStrategy().GetType() == recreate {
		surge = 0
	}
	rs.Metadata.Annotations[desiredAnnotation] = strconv.Itoa(int(r.limits.replicas))
	rs.Metadata.Annotations[maxAnnotation] = strconv.Itoa(int(r.limits.replicas + surge))
}

// sameTemplate reports whether a set was made from the deployment's present template.
func sameTemplate(rs *appsv1.ReplicaSet, d *appsv1.Deployment) bool {
	t := proto.Clone(rs.GetSpec().GetTemplate()).(*corev1.PodTemplateSpec)
	delete(t.GetMetadata().GetLabels(), hashLabel)
	want := proto.Clone(d.GetSpec().GetTemplate()).(*corev1.PodTemplateSpec)
	delete(want.GetMetadata().GetLabels(), hashLabel)
	return proto.Equal(t, want)
}

// templateHash names the set of a template. It need not be Kubernetes' own number: nothing but the name depends on it.
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

// ensureCurrent makes the set of the present template, or brings the one there is up to date.
func (c *deploymentsController) ensureCurrent(ctx context.Context, r *rollout) error {
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
	return c.setRevision(ctx, r, created.GetMetadata().GetAnnotations()[revisionAnnotation])
}

// newSet is the set to create for the present template, as large as the first step of the rollout allows.
func (c *deploymentsController) newSet(r *rollout) (*appsv1.ReplicaSet, error) {
	d := r.d
	hash, err := templateHash(d.GetSpec().GetTemplate(), d.GetStatus().GetCollisionCount())
	if err != nil {
		return nil, err
	}
	template := proto.Clone(d.GetSpec().GetTemplate()).(*corev1.PodTemplateSpec)
	template.Metadata.Labels = withHash(template.GetMetadata().GetLabels(), hash)
	selector := proto.Clone(d.GetSpec().GetSelector()).(*metav1.LabelSelector)
	selector.MatchLabels = withHash(selector.GetMatchLabels(), hash)
	rs := &appsv1.ReplicaSet{
		Metadata: &metav1.ObjectMeta{
			Name: d.GetMetadata().GetName() + "-" + hash, Namespace: d.GetMetadata().GetNamespace(), Labels: template.GetMetadata().GetLabels(),
			Annotations: inheritedAnnotations(d), OwnerReferences: []*metav1.OwnerReference{kind.NewControllerRef(d)},
		},
		Spec: &appsv1.ReplicaSetSpec{Selector: selector, Template: template, MinReadySeconds: d.GetSpec().GetMinReadySeconds(), Replicas: new(int32)},
	}
	rs.Metadata.Annotations[revisionAnnotation] = nextRevision(r.old)
	annotateSize(rs, r)
	switch {
	case d.GetSpec().GetStrategy().GetType() == recreate && len(r.old) > 0:
		// It waits until the old pods are gone; see recreate.
	case d.GetSpec().GetStrategy().GetType() == recreate:
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
	with[hashLabel] = hash
	return with
}

// inheritedAnnotations are the deployment's, but for those that describe the deployment itself.
func inheritedAnnotations(d *appsv1.Deployment) map[string]string {
	inherited := map[string]string{}
	for k, v := range d.GetMetadata().GetAnnotations() {
		switch k {
		case revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation, lastAppliedByHand:
		default:
			inherited[k] = v
		}
	}
	return inherited
}

func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.GetMetadata().GetAnnotations()[revisionAnnotation], 10, 64)
	return n
}

func nextRevision(old []*appsv1.ReplicaSet) string {
	var newest int64
	for _, rs := range old {
		newest = max(newest, revisionOf(rs))
	}
	return strconv.FormatInt(newest+1, 10)
}

// keepRevision brings the current set's annotations and minReadySeconds up to date. A set that was an old one, before a
// rollback, becomes the newest revision.
func (c *deploymentsController) keepRevision(ctx context.Context, r *rollout) error {
	changed := proto.Clone(r.current).(*appsv1.ReplicaSet)
	if changed.Metadata.Annotations == nil {
		changed.Metadata.Annotations = map[string]string{}
	}
	maps.Copy(changed.Metadata.Annotations, inheritedAnnotations(r.d))
	if next := nextRevision(r.old); revisionOf(r.current) < atoi(next) {
		if was := changed.Metadata.Annotations[revisionAnnotation]; was != "" {
			changed.Metadata.Annotations[historyAnnotation] = joinNonEmpty(changed.Metadata.Annotations[historyAnnotation], was)
		}
		changed.Metadata.Annotations[revisionAnnotation] = next
	}
	changed.Spec.MinReadySeconds = r.d.GetSpec().GetMinReadySeconds()
	if !proto.Equal(changed, r.current) {
		updated, err := client.Update(ctx, c.client, changed)
		if err != nil {
			return fmt.Errorf("update replica set %s: %w", changed.GetMetadata().GetName(), err)
		}
		r.current = updated
	}
	return c.setRevision(ctx, r, changed.Metadata.Annotations[revisionAnnotation])
}

func joinNonEmpty(list, item string) string {
	if list == "" {
		return item
	}
	return list + "," + item
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// setRevision shows the current revision on the deployment.
func (c *deploymentsController) setRevision(ctx context.Context, r *rollout, revision string) error {
	if r.d.GetMetadata().GetAnnotations()[revisionAnnotation] == revision {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, revisionAnnotation, revision)
	d, err := client.Patch[*appsv1.Deployment](ctx, c.client, r.d.GetMetadata().GetNamespace(), r.d.GetMetadata().GetName(), patch)
	if err != nil {
		return fmt.Errorf("set revision %s: %w", revision, err)
	}
	r.d = d
	return nil
}

// resolveCollision handles a set of the wanted name that the informer does not show as ours: our own of a moment ago, which
// the next reconcile finds, or one of another template that hashes alike, for which the next hash is taken.
func (c *deploymentsController) resolveCollision(ctx context.Context, r *rollout, wanted *appsv1.ReplicaSet) error {
	m := wanted.GetMetadata()
	there, err := client.Get[*appsv1.ReplicaSet](ctx, c.client, m.GetNamespace(), m.GetName())
	if err != nil {
		return fmt.Errorf("read replica set %s, which exists already: %w", m.GetName(), err)
	}
	if kind.IsControlledBy(there, r.d) && sameTemplate(there, r.d) {
		r.current = there
		return nil
	}
	d := proto.Clone(r.d).(*appsv1.Deployment)
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

// trimHistory deletes the oldest empty sets beyond the revision history limit, once the rollout is complete.
func (c *deploymentsController) trimHistory(ctx context.Context, r *rollout) error {
	if !complete(r) {
		return nil
	}
	var empty []*appsv1.ReplicaSet
	for _, rs := range r.old {
		s := rs.GetStatus()
		if rs.GetMetadata().GetDeletionTimestamp() == nil && rs.GetSpec().GetReplicas() == 0 && s.GetReplicas() == 0 && s.GetObservedGeneration() >= rs.GetMetadata().GetGeneration() {
			empty = append(empty, rs)
		}
	}
	slices.SortFunc(empty, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for len(empty) > int(r.d.GetSpec().GetRevisionHistoryLimit()) {
		m := empty[0].GetMetadata()
		if _, err := client.Delete[*appsv1.ReplicaSet](ctx, c.client, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid())); err != nil && !apierr.IsNotFound(err) {
			return fmt.Errorf("delete old replica set %s: %w", m.GetName(), err)
		}
		empty = empty[1:]
	}
	return nil
}

func (c *deploymentsController) updateStatus(ctx context.Context, r *rollout) (time.Duration, error) {
	status, again := deploymentStatus(r, time.Now())
	if proto.Equal(status, r.d.GetStatus()) {
		return again, nil
	}
	updated := proto.Clone(r.d).(*appsv1.Deployment)
	updated.Status = status
	_, err := client.UpdateStatus(ctx, c.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}
