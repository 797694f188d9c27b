package pipeline

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
)

// storedPod returns a pod of ordinary size as the apiserver stores it.
func storedPod() *corev1.Pod {
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: "web-5d4f8c7b9-x2x7k", Namespace: "default", Uid: "93c1cf54-9ea6-4a2b-8b0e-1b9cf7a8e1a5",
			CreationTimestamp: timestamppb.New(time.Unix(1700000000, 0)), Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9"},
			OwnerReferences: []*metav1.OwnerReference{{ApiVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4f8c7b9", Uid: "1", Controller: proto.Bool(true)}},
		},
		Spec: &corev1.PodSpec{
			NodeName: "node-1",
			Containers: []*corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env: []*corev1.EnvVar{
					{Name: "MODE", Value: "production"},
					{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				},
				VolumeMounts:   []*corev1.VolumeMount{{Name: "config", MountPath: "/etc/web", ReadOnly: true}},
				ReadinessProbe: &corev1.Probe{Handler: &corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{Path: "/readyz", Port: object.Text("http")}}},
			}},
			Volumes: []*corev1.Volume{{Name: "config", VolumeSource: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: &corev1.LocalObjectReference{Name: "web"},
			}}}},
		},
		Status: &corev1.PodStatus{Phase: "Running", PodIp: "10.244.1.7", HostIp: "192.0.2.1"},
	}
	kinds.Of(pod).Default(pod)
	return pod
}

// BenchmarkCompleteUpdate completes and validates an update of a pod, as each update does beside
// reading and writing etcd.
func BenchmarkCompleteUpdate(b *testing.B) {
	p := &plan{Pipeline: &Pipeline{Registry: registry.New(registry.Config{ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})}}
	old := storedPod()
	updated := proto.CloneOf(old)
	updated.Metadata.Labels["team"] = "shop"
	k := kinds.Of(old)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.completeWrite(b.Context(), "", k, old, updated); err != nil {
			b.Fatal(err)
		}
	}
}
