package kinds_test

import (
	"slices"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestLookups(t *testing.T) {
	for _, k := range kinds.All() {
		names := append([]string{k.Plural, k.Singular, k.Name, k.Resource(), k.GroupKind()}, k.ShortNames...)
		for _, name := range names {
			if got, ok := kinds.ByName(name); !ok || got != k {
				t.Errorf("ByName(%q) = %v, %v", name, got, ok)
			}
		}
		if got, ok := kinds.ByGroupKind(k.Group, k.Name); !ok || got != k {
			t.Errorf("ByGroupKind(%q, %q) = %v", k.Group, k.Name, got)
		}
		if got, ok := kinds.ByAPIVersionKind(k.APIVersion(), k.Name); !ok || got != k {
			t.Errorf("ByAPIVersionKind(%q, %q) = %v", k.APIVersion(), k.Name, got)
		}
		if got, ok := kinds.OfTypeURL(k.TypeURL()); !ok || got != k {
			t.Errorf("OfTypeURL(%q) = %v", k.TypeURL(), got)
		}
		if got := kinds.Of(k.New()); got != k {
			t.Errorf("Of(new %s) = %v", k, got)
		}
	}
}

func TestTable(t *testing.T) {
	var got []string
	for _, k := range kinds.All() {
		got = append(got, k.APIVersion()+" "+k.Name)
	}
	want := []string{
		"v1 ConfigMap",
		"v1 Endpoints",
		"v1 Event",
		"v1 Namespace",
		"v1 Node",
		"v1 PersistentVolume",
		"v1 PersistentVolumeClaim",
		"v1 Pod",
		"v1 PodTemplate",
		"v1 ReplicationController",
		"v1 Secret",
		"v1 Service",
		"v1 ServiceAccount",
		"apps/v1 ControllerRevision",
		"apps/v1 DaemonSet",
		"apps/v1 Deployment",
		"apps/v1 ReplicaSet",
		"apps/v1 StatefulSet",
		"batch/v1 CronJob",
		"batch/v1 Job",
		"certificates.k8s.io/v1 CertificateSigningRequest",
		"coordination.k8s.io/v1 Lease",
		"discovery.k8s.io/v1 EndpointSlice",
		"flowcontrol.apiserver.k8s.io/v1 FlowSchema",
		"flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration",
		"gateway.xebec.io/v1 GatewayAccess",
		"networking.k8s.io/v1 IPAddress",
		"networking.k8s.io/v1 Ingress",
		"networking.k8s.io/v1 IngressClass",
		"networking.k8s.io/v1 NetworkPolicy",
		"networking.k8s.io/v1 ServiceCIDR",
		"networking.xebec.io/v1 NodePort",
		"node.k8s.io/v1 RuntimeClass",
		"policy/v1 PodDisruptionBudget",
		"resource.k8s.io/v1 DeviceClass",
		"resource.k8s.io/v1 ResourceClaim",
		"resource.k8s.io/v1 ResourceClaimTemplate",
		"resource.k8s.io/v1 ResourceSlice",
		"scheduling.k8s.io/v1alpha2 PodGroup",
		"scheduling.k8s.io/v1 PriorityClass",
		"scheduling.k8s.io/v1alpha2 Workload",
		"storage.k8s.io/v1 CSIDriver",
		"storage.k8s.io/v1 CSINode",
		"storage.k8s.io/v1 CSIStorageCapacity",
		"storage.k8s.io/v1 StorageClass",
		"storage.k8s.io/v1 VolumeAttachment",
		"storage.k8s.io/v1 VolumeAttributesClass",
	}
	if !slices.Equal(got, want) {
		t.Errorf("kinds are\n%q, want\n%q", got, want)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, name := range []string{"", "podz", "pods.apps", "deployments.core", "pods.", "."} {
		if k, ok := kinds.ByName(name); ok {
			t.Errorf("ByName(%q) = %v, want none", name, k)
		}
	}
	if _, ok := kinds.ByAPIVersionKind("v1", "pod"); ok {
		t.Error("a manifest's kind is matched in the wrong case")
	}
	if _, ok := kinds.OfTypeURL("type.googleapis.com/xebec.core.v1.PodSpec"); ok {
		t.Error("PodSpec counts as a kind")
	}
	if got := kinds.Of(new(corev1.Pod)).Resource(); got != "pods" {
		t.Errorf("Resource() = %q", got)
	}
}
