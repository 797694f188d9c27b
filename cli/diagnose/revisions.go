package diagnose

import (
	"context"
	"slices"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// controllerRevisions lists the revisions that an owner keeps as ControllerRevisions, oldest first.
// The newest is the current one. podsHave returns the value of the label of pods that names a
// revision.
func controllerRevisions(
	ctx context.Context, cl *client.Client, owner scheme.Object, selector *metav1.LabelSelector,
	podsHave func(*appsv1.ControllerRevision) string,
) ([]Revision, error) {
	parsed, err := object.LabelSelector(selector)
	if err != nil {
		return nil, err
	}
	o := client.ListOptions{Namespace: owner.GetMetadata().GetNamespace(), LabelSelector: parsed.String()}
	all, _, err := client.List[*appsv1.ControllerRevision](ctx, cl, o)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r *appsv1.ControllerRevision) bool { return !kinds.IsControlledBy(r, owner) })
	pods, err := podsOf(ctx, cl, owner, selector)
	if err != nil {
		return nil, err
	}
	have := map[string]int32{}
	for _, p := range pods {
		have[p.GetMetadata().GetLabels()[apps.LabelControllerRevisionHash]]++
	}
	revisions := make([]Revision, len(all))
	for i, r := range history.Sorted(all) {
		template, err := history.Template(r)
		if err != nil {
			return nil, err
		}
		revisions[i] = Revision{
			Number: r.GetRevision(), Holder: r, Template: template, Replicas: have[podsHave(r)], Current: i == len(all)-1,
		}
	}
	return revisions, nil
}
