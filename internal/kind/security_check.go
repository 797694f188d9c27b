package kind

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// maxSysctlName is how long the name of a kernel parameter may be.
const maxSysctlName = 253

var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

// sysctl checks the name of a kernel parameter. One of a namespace that the pod shares with the node would be the node's.
func (c *checker) sysctl(p *field.Path, name string, s *corev1.PodSpec) {
	if len(name) > maxSysctlName || !sysctlName.MatchString(name) {
		c.invalid(p, name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlName))
		return
	}
	dotted := strings.ReplaceAll(name, "/", ".")
	switch {
	case s.GetHostNetwork() && strings.HasPrefix(dotted, "net."):
		c.invalid(p, name, "may not be specified when 'hostNetwork' is true")
	case s.GetHostIpc() && slices.ContainsFunc([]string{"kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."}, func(prefix string) bool { return strings.HasPrefix(dotted, prefix) }):
		c.invalid(p, name, "may not be specified when 'hostIPC' is true")
	}
}

// maxAppArmorProfile is how long the name of an AppArmor profile may be.
const maxAppArmorProfile = 4095

func (c *checker) appArmor(p *field.Path, a *corev1.AppArmorProfile) {
	if a == nil || !c.oneOf(p.Child("type"), a.GetType(), "Localhost", "RuntimeDefault", "Unconfined") {
		return
	}
	name := p.Child("localhostProfile")
	switch profile := a.GetLocalhostProfile(); {
	case a.GetType() != "Localhost" && a.LocalhostProfile != nil:
		c.invalid(name, profile, "can only be set when AppArmor type is Localhost")
	case a.GetType() != "Localhost":
	case strings.TrimSpace(profile) == "":
		c.required(name, "must be set when AppArmor type is Localhost")
	case strings.TrimSpace(profile) != profile:
		c.invalid(name, profile, "must not be padded with whitespace")
	case len(profile) > maxAppArmorProfile:
		c.invalid(name, profile, fmt.Sprintf("may not be longer than %d bytes", maxAppArmorProfile))
	}
}
