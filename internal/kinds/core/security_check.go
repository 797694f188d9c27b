package core

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// maxAppArmorProfile is how long the name of an AppArmor profile may be.
const maxAppArmorProfile = 4095

func checkAppArmor(c *rules.Checker, p *field.Path, a *corev1.AppArmorProfile) {
	if a.GetType() == "" {
		return
	}
	name := p.Child("localhostProfile")
	switch profile := a.GetLocalhostProfile(); {
	case a.GetType() != "Localhost" && a.LocalhostProfile != nil:
		c.Invalid(name, profile, "can only be set when AppArmor type is Localhost")
	case a.GetType() != "Localhost":
	case strings.TrimSpace(profile) == "":
		c.Required(name, "must be set when AppArmor type is Localhost")
	case strings.TrimSpace(profile) != profile:
		c.Invalid(name, profile, "must not be padded with whitespace")
	case len(profile) > maxAppArmorProfile:
		c.Invalid(name, profile, fmt.Sprintf("may not be longer than %d bytes", maxAppArmorProfile))
	}
}
