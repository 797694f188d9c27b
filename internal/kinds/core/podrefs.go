package core

import (
	"slices"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// PodRefersTo returns what kind of object a pod's spec refers to, as Secret, of the ones that nodes
// read for their pods; empty for none.
func PodRefersTo(spec *corev1.PodSpec) string {
	for _, v := range spec.GetVolumes() {
		src := v.GetVolumeSource()
		switch {
		case src.GetConfigMap() != nil:
			return "ConfigMap"
		case src.GetSecret() != nil:
			return "Secret"
		}
		for _, p := range src.GetProjected().GetSources() {
			switch {
			case p.GetConfigMap() != nil:
				return "ConfigMap"
			case p.GetSecret() != nil:
				return "Secret"
			case p.GetServiceAccountToken() != nil:
				return "ServiceAccount"
			}
		}
	}
	for _, c := range slices.Concat(spec.GetInitContainers(), spec.GetContainers()) {
		for _, e := range c.GetEnvFrom() {
			if e.GetConfigMapRef() != nil {
				return "ConfigMap"
			}
			return "Secret"
		}
		for _, e := range c.GetEnv() {
			switch {
			case e.GetValueFrom().GetConfigMapKeyRef() != nil:
				return "ConfigMap"
			case e.GetValueFrom().GetSecretKeyRef() != nil:
				return "Secret"
			}
		}
	}
	if len(spec.GetImagePullSecrets()) > 0 {
		return "Secret"
	}
	return ""
}
