package apps

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Policies and strategies of a StatefulSet, and the labels of its pods.
const (
	OrderedReady     = "OrderedReady"
	Parallel         = "Parallel"
	StrategyOnDelete = "OnDelete"
	RetainClaims     = "Retain"
	DeleteClaims     = "Delete"

	LabelStatefulSetPodName     = "statefulset.kubernetes.io/pod-name"
	LabelPodIndex               = "apps.kubernetes.io/pod-index"
	LabelControllerRevisionHash = "controller-revision-hash"
)

// onlyMutable is the detail of the error about a change of a field that never changes.
const onlyMutable = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', " +
	"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"

var (
	statefulSetRules = rules.For[*appsv1.StatefulSet]{
		Name:        rules.NameIsLabel,
		Defaults:    defaultStatefulSet,
		Check:       checkStatefulSet,
		CheckUpdate: checkStatefulSetUpdate,
		CheckStatus: func(new, old *appsv1.StatefulSet, c *rules.Checker) {
			checkStatefulSetStatus(new.GetStatus(), c)
			if n := new.GetStatus().GetCollisionCount(); n < old.GetStatus().GetCollisionCount() {
				c.Invalid(field.NewPath("status", "collisionCount"), n, "cannot be decremented")
			}
		},
		Warn: warnStatefulSet,
	}
	statefulSetColumns = []scheme.Column{
		column.New("READY", func(s *appsv1.StatefulSet) string {
			return fmt.Sprintf("%d/%d", s.GetStatus().GetReadyReplicas(), s.GetSpec().GetReplicas())
		}),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(s *appsv1.StatefulSet) string { return core.TemplateContainers(s.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(s *appsv1.StatefulSet) string { return core.TemplateImages(s.GetSpec().GetTemplate()) }),
	}
)

func defaultStatefulSet(s *appsv1.StatefulSet) {
	u := s.GetSpec().GetUpdateStrategy()
	if u.GetType() == "" {
		u.Type = StrategyRollingUpdate
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if r := u.GetRollingUpdate(); u.GetType() == StrategyRollingUpdate && r != nil && r.Partition == nil {
		r.Partition = new(int32)
	}
	core.DefaultTemplate(s.Spec.Template)
}

func checkStatefulSet(s *appsv1.StatefulSet, c *rules.Checker) {
	p, spec := field.NewPath("spec"), s.GetSpec()
	if policy := spec.GetPodManagementPolicy(); policy != OrderedReady && policy != Parallel {
		c.Invalid(p.Child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'")
	}
	checkStatefulSetStrategy(c, p.Child("updateStrategy"), spec.GetUpdateStrategy())
	for i, claim := range spec.GetVolumeClaimTemplates() {
		core.CheckClaimSpec(c, p.Child("volumeClaimTemplates").Index(i).Child("spec"), claim.GetSpec())
	}
	if n := spec.GetOrdinals().GetStart(); n < 0 {
		c.Invalid(p.Child("ordinals.start"), n, rules.NotNegative)
	}
	if name := spec.GetServiceName(); name != "" {
		c.Each(p.Child("serviceName"), name, validation.IsDNS1123Label(name))
	}
	checkSelectorAndTemplate(c, "StatefulSet", p, spec.GetSelector(), identifiedTemplate(spec))
}

// identifiedTemplate is the template as pods have it: the controller replaces its host name and
// subdomain, and gives each pod a volume for each template of claims.
func identifiedTemplate(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	if s.GetTemplate().GetSpec() == nil {
		return s.GetTemplate()
	}
	t := proto.CloneOf(s.GetTemplate())
	t.Spec.Hostname, t.Spec.Subdomain = "", ""
	t.Spec.Volumes = nil
	claimed := map[string]bool{}
	for _, claim := range s.GetVolumeClaimTemplates() {
		name := claim.GetMetadata().GetName()
		if claimed[name] {
			continue
		}
		claimed[name] = true
		t.Spec.Volumes = append(t.Spec.Volumes, &corev1.Volume{Name: name, VolumeSource: &corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}})
	}
	for _, v := range s.GetTemplate().GetSpec().GetVolumes() {
		if !claimed[v.GetName()] {
			t.Spec.Volumes = append(t.Spec.Volumes, v)
		}
	}
	return t
}

func checkStatefulSetStrategy(c *rules.Checker, p *field.Path, u *appsv1.StatefulSetUpdateStrategy) {
	r := u.GetRollingUpdate()
	switch u.GetType() {
	case StrategyOnDelete:
		if r != nil {
			c.Invalid(p.Child("rollingUpdate"), "", "only allowed for updateStrategy 'RollingUpdate'")
		}
		return
	case StrategyRollingUpdate:
	default:
		c.Invalid(p, u.GetType(), "must be 'RollingUpdate' or 'OnDelete'")
		return
	}
	if n := r.GetPartition(); n < 0 {
		c.Invalid(p.Child("rollingUpdate", "partition"), n, rules.NotNegative)
	}
	if r.GetMaxUnavailable() != nil {
		checkMaxUnavailable(c, p.Child("rollingUpdate", "maxUnavailable"), r.GetMaxUnavailable())
	}
}

// checkMaxUnavailable checks a number of pods or a percentage of at least 1.
func checkMaxUnavailable(c *rules.Checker, p *field.Path, v *metav1.IntOrString) {
	value := object.IntOrStringText(v)
	n, percent, ok := object.PercentOrCount(v)
	switch {
	case !ok:
		c.Each(p, value, validation.IsValidPercent(v.GetStrVal()))
		c.Invalid(p, value, "cannot be 0")
	case n < 0:
		c.Invalid(p, value, rules.NotNegative)
	case n == 0:
		c.Invalid(p, value, "cannot be 0")
	case percent && n > 100:
		c.Invalid(p, value, "must not be greater than 100%")
	}
}

func checkStatefulSetUpdate(new, old *appsv1.StatefulSet, c *rules.Checker) {
	if new.GetSpec() == nil || old.GetSpec() == nil {
		return // A set without a spec is refused.
	}
	was, now := proto.CloneOf(old.GetSpec()), proto.CloneOf(new.GetSpec())
	for _, s := range []*appsv1.StatefulSetSpec{was, now} {
		s.Replicas, s.Template, s.UpdateStrategy, s.MinReadySeconds, s.Ordinals = nil, nil, nil, 0, nil
		s.RevisionHistoryLimit, s.PersistentVolumeClaimRetentionPolicy = nil, nil
	}
	if !proto.Equal(now, was) {
		c.Forbidden(field.NewPath("spec"), onlyMutable)
	}
}

func checkStatefulSetStatus(s *appsv1.StatefulSetStatus, c *rules.Checker) {
	p := field.NewPath("status")
	for _, count := range []struct {
		name string
		n    int32
	}{
		{"readyReplicas", s.GetReadyReplicas()}, {"currentReplicas", s.GetCurrentReplicas()},
		{"updatedReplicas", s.GetUpdatedReplicas()}, {"availableReplicas", s.GetAvailableReplicas()},
	} {
		if count.n > s.GetReplicas() {
			c.Invalid(p.Child(count.name), count.n, "cannot be greater than status.replicas")
		}
	}
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.Invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than status.readyReplicas")
	}
}

func warnStatefulSet(s *appsv1.StatefulSet) []string {
	p, spec := field.NewPath("spec"), s.GetSpec()
	out := core.WarnPod(p.Child("template"), spec.GetTemplate().GetMetadata(), spec.GetTemplate().GetSpec())
	for i, claim := range spec.GetVolumeClaimTemplates() {
		out = append(out, core.WarnClaimSpec(p.Child("volumeClaimTemplates").Index(i), claim.GetSpec())...)
	}
	if len(spec.GetVolumeClaimTemplates()) > 0 {
		out = append(out, "spec.volumeClaimTemplates: volumes are not provided yet: the claims and the pods that mount them stay Pending")
	}
	if spec.GetRevisionHistoryLimit() < 0 {
		out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return out
}
