// Package conformance_test holds Xebec against Kubernetes' own published types: k8s.io/api, which
// only this test depends on. What Kubernetes writes as JSON or protobuf we read, and what we write
// Kubernetes reads, without a loss.
package conformance_test

import (
	"testing"

	k8sschedulingv1alpha2 "k8s.io/api-1.36/scheduling/v1alpha2"
	k8sappsv1 "k8s.io/api/apps/v1"
	k8sbatchv1 "k8s.io/api/batch/v1"
	k8scertificatesv1 "k8s.io/api/certificates/v1"
	k8scoordinationv1 "k8s.io/api/coordination/v1"
	k8scorev1 "k8s.io/api/core/v1"
	k8sdiscoveryv1 "k8s.io/api/discovery/v1"
	k8seventsv1 "k8s.io/api/events/v1"
	k8sflowcontrolv1 "k8s.io/api/flowcontrol/v1"
	k8snetworkingv1 "k8s.io/api/networking/v1"
	k8snodev1 "k8s.io/api/node/v1"
	k8spolicyv1 "k8s.io/api/policy/v1"
	k8sresourcev1 "k8s.io/api/resource/v1"
	k8sschedulingv1 "k8s.io/api/scheduling/v1"
	k8sstoragev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-project/xebec/internal/scheme"
)

// kubernetesObject is what every type of k8s.io/api can do.
type kubernetesObject interface {
	runtime.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// kubernetesScheme knows the types of the groups that we mirror.
func kubernetesScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		k8sappsv1.AddToScheme, k8sbatchv1.AddToScheme, k8scoordinationv1.AddToScheme, k8scorev1.AddToScheme,
		k8sdiscoveryv1.AddToScheme, k8seventsv1.AddToScheme, k8snetworkingv1.AddToScheme, k8snodev1.AddToScheme, k8spolicyv1.AddToScheme,
		k8sschedulingv1.AddToScheme, k8sstoragev1.AddToScheme,
		k8sdiscoveryv1.AddToScheme, k8snetworkingv1.AddToScheme, k8snodev1.AddToScheme, k8spolicyv1.AddToScheme,
		k8sresourcev1.AddToScheme, k8sschedulingv1.AddToScheme, k8sstoragev1.AddToScheme,
		k8sdiscoveryv1.AddToScheme, k8snetworkingv1.AddToScheme, k8snodev1.AddToScheme, k8spolicyv1.AddToScheme,
		k8sschedulingv1.AddToScheme, k8sschedulingv1alpha2.AddToScheme, k8sstoragev1.AddToScheme,
		k8sappsv1.AddToScheme, k8sbatchv1.AddToScheme, k8scertificatesv1.AddToScheme, k8scoordinationv1.AddToScheme,
		k8scorev1.AddToScheme, k8sdiscoveryv1.AddToScheme, k8seventsv1.AddToScheme, k8sflowcontrolv1.AddToScheme,
		k8snetworkingv1.AddToScheme, k8snodev1.AddToScheme, k8spolicyv1.AddToScheme, k8sschedulingv1.AddToScheme,
		k8sstoragev1.AddToScheme,
	} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// counterpart returns a new, empty object of the Kubernetes type that the kind mirrors.
func counterpart(t *testing.T, s *runtime.Scheme, k *scheme.Kind) kubernetesObject {
	t.Helper()
	o, err := s.New(schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Name})
	if err != nil {
		t.Fatalf("%s: no type of Kubernetes to compare with: %v", k, err)
	}
	return o.(kubernetesObject)
}
