package kindtest

import (
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func template() *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "web", Image: "web:1"}}},
	}
}

func webSelector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

// Deployment returns a valid Deployment that leaves out what has defaults.
func Deployment() *appsv1.Deployment {
	return &appsv1.Deployment{Metadata: Meta("web"), Spec: &appsv1.DeploymentSpec{Selector: webSelector(), Template: template()}}
}

// ReplicaSet returns a valid ReplicaSet that leaves out what has defaults.
func ReplicaSet() *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{Metadata: Meta("web"), Spec: &appsv1.ReplicaSetSpec{Selector: webSelector(), Template: template()}}
}

// StatefulSet returns a valid StatefulSet that leaves out what has defaults.
func StatefulSet() *appsv1.StatefulSet {
	return &appsv1.StatefulSet{Metadata: Meta("web"), Spec: &appsv1.StatefulSetSpec{Selector: webSelector(), Template: template()}}
}

// Claim returns a valid PersistentVolumeClaim that leaves out what has defaults.
func Claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{Metadata: Meta("data"), Spec: &corev1.PersistentVolumeClaimSpec{
		AccessModes: []string{"ReadWriteOnce"}, Resources: &corev1.VolumeResourceRequirements{Requests: Amounts("storage", "1Gi")},
	}}
}

// ConfigMap returns a valid ConfigMap without data.
func ConfigMap() *corev1.ConfigMap { return &corev1.ConfigMap{Metadata: Meta("settings")} }

// ControllerRevision returns a valid ControllerRevision.
func ControllerRevision() *appsv1.ControllerRevision {
	return &appsv1.ControllerRevision{Metadata: Meta("web-1"), Data: &metav1.RawExtension{Raw: []byte(`{"spec":{}}`)}, Revision: 1}
}

// DaemonSet returns a valid DaemonSet that leaves out what has defaults.
func DaemonSet() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{Metadata: Meta("web"), Spec: &appsv1.DaemonSetSpec{Selector: webSelector(), Template: template()}}
}

// ReplicationController returns a valid ReplicationController that leaves out what has defaults.
func ReplicationController() *corev1.ReplicationController {
	return &corev1.ReplicationController{Metadata: Meta("web"), Spec: &corev1.ReplicationControllerSpec{Template: template()}}
}

// PodTemplate returns a valid PodTemplate that leaves out what has defaults.
func PodTemplate() *corev1.PodTemplate {
	return &corev1.PodTemplate{Metadata: Meta("web"), Template: template()}
}
