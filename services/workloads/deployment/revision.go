package deployment

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// revisionOf is the number that the set's annotation says, 0 for none.
func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, _ := strconv.ParseInt(rs.GetMetadata().GetAnnotations()[apps.AnnotationRevision], 10, 64)
	return n
}

// nextRevision is the number after those of the old sets.
func nextRevision(old []*appsv1.ReplicaSet) int64 {
	var newest int64
	for _, rs := range old {
		newest = max(newest, revisionOf(rs))
	}
	return newest + 1
}

// keepRevision brings the current set's annotations and minReadySeconds up to date. A set that was
// an old one, before a rollback, becomes the newest revision.
func (c *reconciler) keepRevision(ctx context.Context, r *rollout) error {
	changed := client.Clone(r.current)
	if changed.Metadata.Annotations == nil {
		changed.Metadata.Annotations = map[string]string{}
	}
	maps.Copy(changed.Metadata.Annotations, inheritedAnnotations(r.d))
	if next := nextRevision(r.old); revisionOf(r.current) < next {
		if was := changed.Metadata.Annotations[apps.AnnotationRevision]; was != "" {
			changed.Metadata.Annotations[annotationHistory] = joinNonEmpty(changed.Metadata.Annotations[annotationHistory], was)
		}
		changed.Metadata.Annotations[apps.AnnotationRevision] = strconv.FormatInt(next, 10)
	}
	changed.Spec.MinReadySeconds = r.d.GetSpec().GetMinReadySeconds()
	if !proto.Equal(changed, r.current) {
		updated, err := client.Update(ctx, c.client, changed)
		if err != nil {
			return fmt.Errorf("update replica set %s: %w", changed.GetMetadata().GetName(), err)
		}
		r.current = updated
	}
	return c.setRevision(ctx, r, changed.Metadata.Annotations[apps.AnnotationRevision])
}

func joinNonEmpty(list, item string) string {
	if list == "" {
		return item
	}
	return list + "," + item
}

// setRevision shows the current revision on the deployment.
func (c *reconciler) setRevision(ctx context.Context, r *rollout, revision string) error {
	if r.d.GetMetadata().GetAnnotations()[apps.AnnotationRevision] == revision {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, apps.AnnotationRevision, revision)
	d, err := client.Patch[*appsv1.Deployment](ctx, c.client, r.d.GetMetadata().GetNamespace(), r.d.GetMetadata().GetName(), patch)
	if err != nil {
		return fmt.Errorf("set revision %s: %w", revision, err)
	}
	r.d = d
	return nil
}

// trimHistory deletes the oldest empty sets beyond the revision history limit, once the rollout is
// complete.
func (c *reconciler) trimHistory(ctx context.Context, r *rollout) error {
	if !complete(r) {
		return nil
	}
	var empty []*appsv1.ReplicaSet
	for _, rs := range r.old {
		s := rs.GetStatus()
		if rs.GetMetadata().GetDeletionTimestamp() == nil && rs.GetSpec().GetReplicas() == 0 &&
			s.GetReplicas() == 0 && s.GetObservedGeneration() >= rs.GetMetadata().GetGeneration() {
			empty = append(empty, rs)
		}
	}
	slices.SortFunc(empty, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for len(empty) > int(r.d.GetSpec().GetRevisionHistoryLimit()) {
		m := empty[0].GetMetadata()
		_, err := client.Delete[*appsv1.ReplicaSet](ctx, c.client, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
		if err != nil && !apierr.IsNotFound(err) {
			return fmt.Errorf("delete old replica set %s: %w", m.GetName(), err)
		}
		empty = empty[1:]
	}
	return nil
}
