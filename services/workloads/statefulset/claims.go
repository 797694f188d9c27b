package statefulset

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// ownership is a change of a claim's owners.
type ownership struct {
	claim *corev1.PersistentVolumeClaim
	// owners are all owner references that the claim gets.
	owners []*metav1.OwnerReference
	// conflict says that another controller has the claim, so that the policy does not apply.
	conflict bool
}

// claimOwners returns the owner references that the set's retention policy gives a claim of the
// pod: the collector deletes the claim with its owner. surplus says that the pod is deleted because
// the set became smaller. A claim that another object of the pod's or the set's name owns is left
// as it is. conflict reports another controller, beside which there can be none.
func claimOwners(
	owners []*metav1.OwnerReference, set *appsv1.StatefulSet, pod *corev1.Pod, surplus bool,
) (wanted []*metav1.OwnerReference, conflict bool) {
	if isStale(owners, set) || isStale(owners, pod) {
		return owners, false
	}
	others := slices.DeleteFunc(slices.Clone(owners), func(r *metav1.OwnerReference) bool { return refersTo(r, set) || refersTo(r, pod) })
	policy := set.GetSpec().GetPersistentVolumeClaimRetentionPolicy()
	scaled, deleted := policy.GetWhenScaled() == apps.DeleteClaims, policy.GetWhenDeleted() == apps.DeleteClaims
	if slices.ContainsFunc(others, func(r *metav1.OwnerReference) bool { return r.GetController() }) {
		return others, scaled || deleted
	}
	switch {
	case scaled && surplus:
		return append(others, kinds.NewControllerRef(pod)), false
	case deleted:
		return append(others, kinds.NewControllerRef(set)), false
	}
	return others, false
}

// refersTo reports whether a reference names an object of the owner's kind and name.
func refersTo(r *metav1.OwnerReference, owner scheme.Object) bool {
	k := kinds.Of(owner)
	return r.GetApiVersion() == k.APIVersion() && r.GetKind() == k.Name && r.GetName() == owner.GetMetadata().GetName()
}

// isStale reports whether owners name a former object of the owner's name.
func isStale(owners []*metav1.OwnerReference, owner scheme.Object) bool {
	return slices.ContainsFunc(owners, func(r *metav1.OwnerReference) bool {
		return refersTo(r, owner) && r.GetUid() != owner.GetMetadata().GetUid()
	})
}

func sameOwners(a, b []*metav1.OwnerReference) bool {
	return slices.EqualFunc(a, b, func(x, y *metav1.OwnerReference) bool { return proto.Equal(x, y) })
}
