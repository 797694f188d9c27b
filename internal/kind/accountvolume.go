package kind

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// AccountMountPath is where containers find the token of their service account, as token, with ca.crt and namespace.
	AccountMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// AccountVolumePrefix begins the name of the volume that shows them.
	AccountVolumePrefix = "kube-api-access-"
	// RootCAConfigMap is the config map that, in every namespace, holds the cluster's authorities as RootCAKey. It is no
	// stored object: nodes, which have the authorities, show it to volumes.
	RootCAConfigMap = "kube-root-ca.crt"
	// RootCAKey is the key in RootCAConfigMap.
	RootCAKey = "ca.crt"

	// KubernetesNamespace is where the service is by which pods reach the cluster's gateways.
	KubernetesNamespace = "default"
	// KubernetesService is that service's name.
	KubernetesService = "kubernetes"

	// accountTokenSeconds is how long the token is good: an hour and a little, by which Kubernetes tells it from one that was
	// asked for.
	accountTokenSeconds = 3607
)

// Automounts tells whether a pod wants its service account's token mounted: as it says, else as the account says, else yes. A
// nil account says nothing.
func Automounts(spec *corev1.PodSpec, account *corev1.ServiceAccount) bool {
	switch {
	case spec.AutomountServiceAccountToken != nil:
		return spec.GetAutomountServiceAccountToken()
	case account != nil && account.AutomountServiceAccountToken != nil:
		return account.GetAutomountServiceAccountToken()
	}
	return true
}

// MountAccountToken gives the containers of a pod, but for those that have something else at AccountMountPath, a volume with
// the token of the pod's service account. The volume is named AccountVolumePrefix and suffix, and is not made where no
// container needs it or the pod has one of such a name already, which is mounted then.
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

// accountVolume is the volume with its defaults, as Kubernetes makes it.
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
