package security

import (
	"fmt"

	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/agent/pods/status"
	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// appArmor returns the profile that confines a container: its own wish goes first, then the pod's.
// Without a wish it is the runtime's default, where the node has AppArmor at all.
func appArmor(pod *corev1.Pod, c *corev1.Container) runtime.AppArmor {
	p := appArmorWish(pod, c)
	switch {
	case c.GetSecurityContext().GetPrivileged(), p.GetType() == "Unconfined":
		return runtime.AppArmor{}
	case p.GetType() == "Localhost":
		return runtime.AppArmor{Profile: p.GetLocalhostProfile()}
	}
	return runtime.AppArmor{Default: true}
}

func appArmorWish(pod *corev1.Pod, c *corev1.Container) *corev1.AppArmorProfile {
	if p := c.GetSecurityContext().GetAppArmorProfile(); p != nil {
		return p
	}
	return pod.GetSpec().GetSecurityContext().GetAppArmorProfile()
}

// withoutAppArmor returns why a node without AppArmor does not take a pod that asks for a profile:
// it would run unconfined, which its author did not mean. Its reason is empty when the node takes
// it.
func withoutAppArmor(pod *corev1.Pod) status.Cause {
	for _, c := range resources.Containers(pod) {
		if p := appArmorWish(pod, c); p != nil && p.GetType() != "Unconfined" {
			return status.Cause{
				Reason: "AppArmor",
				Message: fmt.Sprintf(
					"Cannot enforce AppArmor: container %s asks for profile type %s, and AppArmor is not enabled on the node",
					c.GetName(),
					p.GetType(),
				),
			}
		}
	}
	return status.Cause{}
}
