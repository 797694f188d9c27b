package core

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// AccountMountPath is where containers find the token of their service account, as token, with
	// ca.crt and namespace.
	AccountMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// AccountVolumePrefix is the prefix of the name of the volume that holds them.
	AccountVolumePrefix = "kube-api-access-"
	// RootCAConfigMap is the config map that holds the cluster's certificate authorities as RootCAKey,
	// in every namespace. It is not stored: nodes have the authorities and write them to volumes.
	RootCAConfigMap = "kube-root-ca.crt"
	// RootCAKey is the key in RootCAConfigMap.
	RootCAKey = "ca.crt"

	// KubernetesNamespace is the namespace of the service through which pods reach the cluster's
	// gateways.
	KubernetesNamespace = "default"
	// KubernetesService is that service's name.
	KubernetesService = "kubernetes"

	// accountTokenSeconds is the lifetime of the token: a little over an hour, which distinguishes it
	// from tokens that were requested explicitly, as in Kubernetes.
	accountTokenSeconds = 3607
)

// Automounts reports whether the token of its service account is mounted into a pod: the pod's
// field decides, then the account's, and the default is true. The account may be nil.
func Automounts(spec *corev1.PodSpec, account *corev1.ServiceAccount) bool {
	switch {
	case spec.AutomountServiceAccountToken != nil:
		return spec.GetAutomountServiceAccountToken()
	case account != nil && account.AutomountServiceAccountToken != nil:
		return account.GetAutomountServiceAccountToken()
	}
	return true
}

// MountAccountToken mounts a volume with the token of the pod's service account into the containers
// of a pod, except into those that mount something else at AccountMountPath. The volume is named
// AccountVolumePrefix plus suffix. It is not added when no container needs it, or when the pod
// already has a volume with the prefix, which is mounted instead.
func MountAccountToken(spec *corev1.PodSpec, suffix string) {
	name, found := AccountVolumePrefix+suffix, false
	if i := slices.IndexFunc(spec.GetVolumes(), isAccountVolume); i >= 0 {
		name, found = spec.GetVolumes()[i].GetName(), true
	}
	mounted := false
	for _, c := range slices.Concat(spec.GetInitContainers(), spec.GetContainers()) {
		if slices.ContainsFunc(c.GetVolumeMounts(), func(m *corev1.VolumeMount) bool { return m.GetMountPath() == AccountMountPath }) {
			continue
		}
		c.VolumeMounts = append(c.VolumeMounts, &corev1.VolumeMount{Name: name, MountPath: AccountMountPath, ReadOnly: true})
		mounted = true
	}
	if mounted && !found {
		spec.Volumes = append(spec.Volumes, accountVolume(name))
	}
}

func isAccountVolume(v *corev1.Volume) bool {
	return strings.HasPrefix(v.GetName(), AccountVolumePrefix)
}

// accountVolume returns the volume with its defaults, as Kubernetes creates it.
func accountVolume(name string) *corev1.Volume {
	return &corev1.Volume{Name: name, VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: proto.Int32(0o644),
		Sources: []*corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: proto.Int64(accountTokenSeconds), Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: &corev1.LocalObjectReference{Name: RootCAConfigMap},
				Items:                []*corev1.KeyToPath{{Key: RootCAKey, Path: "ca.crt"}},
			}},
			{DownwardApi: &corev1.DownwardAPIProjection{Items: []*corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{ApiVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
