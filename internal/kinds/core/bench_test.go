package core_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// BenchmarkPod defaults and validates a pod of ordinary size, as the creation of one does.
func BenchmarkPod(b *testing.B) {
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: "web-5d4f8c7b9-x2x7k", Namespace: "default", Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9"},
			OwnerReferences: []*metav1.OwnerReference{{ApiVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4f8c7b9", Uid: "1", Controller: proto.Bool(true)}},
		},
		Spec: &corev1.PodSpec{
			Containers: []*corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2",
				Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env: []*corev1.EnvVar{
					{Name: "MODE", Value: "production"},
					{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				},
				Resources:    &corev1.ResourceRequirements{Requests: kindtest.Amounts("cpu", "100m", "memory", "64Mi"), Limits: kindtest.Amounts("memory", "128Mi")},
				VolumeMounts: []*corev1.VolumeMount{{Name: "config", MountPath: "/etc/web", ReadOnly: true}},
				ReadinessProbe: &corev1.Probe{Handler: &corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{
					Path: "/readyz", Port: object.Text("http"),
				}}},
			}},
			Volumes: []*corev1.Volume{{Name: "config", VolumeSource: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: &corev1.LocalObjectReference{Name: "web"},
			}}}},
			Tolerations: []*corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: proto.Int64(300)}},
		},
	}
	k := kinds.Of(pod)
	pods := make([]*corev1.Pod, b.N)
	for i := range pods {
		pods[i] = proto.CloneOf(pod)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, p := range pods {
		k.Default(p)
		if errs := append(k.Validate(p), k.ValidateNew(p)...); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
