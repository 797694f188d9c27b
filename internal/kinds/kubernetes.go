package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/spelling"
)

// kubernetesKinds are Kubernetes' own kinds by group, the served ones included.
var kubernetesKinds = map[string][]string{
	"": {"Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node",
		"PersistentVolume", "PersistentVolumeClaim",
		"Pod", "PodTemplate", "ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount"},
	"admissionregistration.k8s.io": {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"},
	"apiextensions.k8s.io":         {"CustomResourceDefinition"},
	"apiregistration.k8s.io":       {"APIService"},
	"apps":                         {"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"},
	"authentication.k8s.io":        {"SelfSubjectReview", "TokenRequest", "TokenReview"},
	"authorization.k8s.io":         {"LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"},
	"autoscaling":                  {"HorizontalPodAutoscaler", "Scale"},
	"batch":                        {"CronJob", "Job"},
	"certificates.k8s.io":          {"CertificateSigningRequest", "ClusterTrustBundle", "PodCertificateRequest"},
	"coordination.k8s.io":          {"Lease", "LeaseCandidate"},
	"discovery.k8s.io":             {"EndpointSlice"},
	"events.k8s.io":                {"Event"},
	"flowcontrol.apiserver.k8s.io": {"FlowSchema", "PriorityLevelConfiguration"},
	"internal.apiserver.k8s.io":    {"StorageVersion"},
	"networking.k8s.io":            {"IPAddress", "Ingress", "IngressClass", "NetworkPolicy", "ServiceCIDR"},
	"node.k8s.io":                  {"RuntimeClass"},
	"policy":                       {"Eviction", "PodDisruptionBudget"},
	"rbac.authorization.k8s.io":    {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"},
	"resource.k8s.io":              {"DeviceClass", "DeviceTaintRule", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"},
	"scheduling.k8s.io":            {"PodGroup", "PriorityClass", "Workload"},
	"storage.k8s.io": {"CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment",
		"VolumeAttributesClass"},
	"storagemigration.k8s.io": {"StorageVersionMigration"},
}

// removal is a version of a group that Kubernetes no longer has.
type removal struct {
	apiVersion string
	// kinds are those of the version that people wrote manifests for.
	kinds []string
	// release is the first without them.
	release string
	// successor is the apiVersion in which they go on, empty when they don't.
	successor string
}

// removals are from Kubernetes' deprecated API migration guide.
var removals = []removal{
	{"extensions/v1beta1", []string{"DaemonSet", "Deployment", "ReplicaSet"}, "1.16", "apps/v1"},
	{"extensions/v1beta1", []string{"NetworkPolicy"}, "1.16", "networking.k8s.io/v1"},
	{"extensions/v1beta1", []string{"PodSecurityPolicy"}, "1.16", ""},
	{"extensions/v1beta1", []string{"Ingress"}, "1.22", "networking.k8s.io/v1"},
	{"apps/v1beta1", []string{"ControllerRevision", "Deployment", "StatefulSet"}, "1.16", "apps/v1"},
	{"apps/v1beta2", []string{"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}, "1.16", "apps/v1"},
	{"settings.k8s.io/v1alpha1", []string{"PodPreset"}, "1.20", ""},
	{"auditregistration.k8s.io/v1alpha1", []string{"AuditSink"}, "1.19", ""},
	{"admissionregistration.k8s.io/v1beta1", []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}, "1.22",
		"admissionregistration.k8s.io/v1"},
	{"apiextensions.k8s.io/v1beta1", []string{"CustomResourceDefinition"}, "1.22", "apiextensions.k8s.io/v1"},
	{"apiregistration.k8s.io/v1beta1", []string{"APIService"}, "1.22", "apiregistration.k8s.io/v1"},
	{"authentication.k8s.io/v1beta1", []string{"TokenReview"}, "1.22", "authentication.k8s.io/v1"},
	{"authorization.k8s.io/v1beta1", []string{"LocalSubjectAccessReview", "SelfSubjectAccessReview", "SubjectAccessReview"}, "1.22",
		"authorization.k8s.io/v1"},
	{"certificates.k8s.io/v1beta1", []string{"CertificateSigningRequest"}, "1.22", "certificates.k8s.io/v1"},
	{"coordination.k8s.io/v1beta1", []string{"Lease"}, "1.22", "coordination.k8s.io/v1"},
	{"networking.k8s.io/v1beta1", []string{"Ingress", "IngressClass"}, "1.22", "networking.k8s.io/v1"},
	{"rbac.authorization.k8s.io/v1alpha1", []string{"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}, "1.22",
		"rbac.authorization.k8s.io/v1"},
	{"rbac.authorization.k8s.io/v1beta1", []string{"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}, "1.22",
		"rbac.authorization.k8s.io/v1"},
	{"scheduling.k8s.io/v1alpha1", []string{"PriorityClass"}, "1.22", "scheduling.k8s.io/v1"},
	{"scheduling.k8s.io/v1beta1", []string{"PriorityClass"}, "1.22", "scheduling.k8s.io/v1"},
	{"storage.k8s.io/v1beta1", []string{"CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"}, "1.22", "storage.k8s.io/v1"},
	{"storage.k8s.io/v1beta1", []string{"CSIStorageCapacity"}, "1.27", "storage.k8s.io/v1"},
	{"batch/v2alpha1", []string{"CronJob"}, "1.21", "batch/v1"},
	{"batch/v1beta1", []string{"CronJob"}, "1.25", "batch/v1"},
	{"discovery.k8s.io/v1beta1", []string{"EndpointSlice"}, "1.25", "discovery.k8s.io/v1"},
	{"events.k8s.io/v1beta1", []string{"Event"}, "1.25", "events.k8s.io/v1"},
	{"node.k8s.io/v1beta1", []string{"RuntimeClass"}, "1.25", "node.k8s.io/v1"},
	{"policy/v1beta1", []string{"PodDisruptionBudget"}, "1.25", "policy/v1"},
	{"policy/v1beta1", []string{"PodSecurityPolicy"}, "1.25", ""},
	{"autoscaling/v2beta1", []string{"HorizontalPodAutoscaler"}, "1.25", "autoscaling/v2"},
	{"autoscaling/v2beta2", []string{"HorizontalPodAutoscaler"}, "1.26", "autoscaling/v2"},
	{"flowcontrol.apiserver.k8s.io/v1beta1", []string{"FlowSchema", "PriorityLevelConfiguration"}, "1.26", "flowcontrol.apiserver.k8s.io/v1"},
	{"flowcontrol.apiserver.k8s.io/v1beta2", []string{"FlowSchema", "PriorityLevelConfiguration"}, "1.29", "flowcontrol.apiserver.k8s.io/v1"},
	{"flowcontrol.apiserver.k8s.io/v1beta3", []string{"FlowSchema", "PriorityLevelConfiguration"}, "1.32", "flowcontrol.apiserver.k8s.io/v1"},
}

// Served returns the kind of the same name in another version of the group of apiVersion, or in the
// apiVersion that succeeded it in Kubernetes, when the scheme has it.
func Served(s *scheme.Scheme, apiVersion, name string) (*scheme.Kind, bool) {
	if r, ok := removed(apiVersion, name); ok && r.successor != "" {
		return s.ByAPIVersionKind(r.successor, name)
	}
	return s.ByGroupKind(GroupOf(apiVersion), name)
}

// WhyNot returns in a clause why a kind is not served: Kubernetes has it and Xebec does not,
// Kubernetes no longer has it, it is a custom kind, or its name is misspelt. The kind must not be
// in the scheme.
func WhyNot(s *scheme.Scheme, apiVersion, name string) string {
	group := GroupOf(apiVersion)
	if r, ok := removed(apiVersion, name); ok {
		text := fmt.Sprintf("%s of %s was removed in Kubernetes %s", name, apiVersion, r.release)
		if r.successor == "" {
			return text + " without a successor, and Xebec does not have it"
		}
		return fmt.Sprintf("%s, and Xebec does not serve its successor of %s yet", text, r.successor)
	}
	own, known := kubernetesKinds[group]
	for _, k := range s.Served() {
		if k.Group == group && !slices.Contains(own, k.Name) {
			own = append(slices.Clip(own), k.Name)
		}
	}
	switch {
	case slices.Contains(own, name):
		return fmt.Sprintf("Xebec does not serve %s of %s yet", name, apiVersion)
	case known || len(own) > 0:
		slices.Sort(own)
		if near := nearestName(name, own); near != "" {
			return fmt.Sprintf("%s has no %s, did you mean %s?", apiVersion, name, near)
		}
		return fmt.Sprintf("%s has no %s: its kinds are %s", apiVersion, name, strings.Join(own, ", "))
	case strings.Contains(group, "."):
		return fmt.Sprintf("%s of %s is a custom kind, which Xebec does not have yet", name, apiVersion)
	}
	return fmt.Sprintf("%s of %s is a kind neither of Kubernetes nor of Xebec", name, apiVersion)
}

// Unserved finds a kind of Kubernetes that the scheme does not have by the name that a user typed:
// its name or plural, in any case. It returns the kind's name and its group.
func Unserved(s *scheme.Scheme, typed string) (name, group string, ok bool) {
	typed = strings.ToLower(typed)
	for _, group := range slices.Sorted(maps.Keys(kubernetesKinds)) {
		for _, name := range kubernetesKinds[group] {
			lower := strings.ToLower(name)
			plural := lower + "s"
			switch {
			case strings.HasSuffix(lower, "s"):
				plural = lower + "es"
			case strings.HasSuffix(lower, "cy") || strings.HasSuffix(lower, "ty"):
				plural = lower[:len(lower)-1] + "ies"
			}
			if _, served := s.ByGroupKind(group, name); !served && (typed == lower || typed == plural) {
				return name, group, true
			}
		}
	}
	return "", "", false
}

// nearestName returns the known name nearest to a misspelt one, empty when none is near.
func nearestName(name string, known []string) string {
	best, limit := "", max(1, len(name)/3)
	if len(name) > 80 {
		return ""
	}
	for _, k := range known {
		if d := spelling.Distance(strings.ToLower(name), strings.ToLower(k)); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

func removed(apiVersion, name string) (removal, bool) {
	i := slices.IndexFunc(removals, func(r removal) bool { return r.apiVersion == apiVersion && slices.Contains(r.kinds, name) })
	if i < 0 {
		return removal{}, false
	}
	return removals[i], true
}

// GroupOf returns the group of an apiVersion, empty for core.
func GroupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}
