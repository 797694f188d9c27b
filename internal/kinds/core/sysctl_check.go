package core

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	maxSysctl     = 253
	sysctlSegment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlFormat  = "(" + sysctlSegment + `[\./])*` + sysctlSegment
)

var sysctlName = regexp.MustCompile("^" + sysctlFormat + "$")

// checkSysctls checks the kernel parameters that a pod sets. Those of a namespace that is the
// node's own would change the node.
func checkSysctls(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	seen := rules.Names{}
	for i, y := range s.GetSecurityContext().GetSysctls() {
		at, name := p.Index(i).Child("name"), y.GetName()
		switch {
		case name == "":
			c.Required(at, "")
			continue
		case len(name) > maxSysctl || !sysctlName.MatchString(name):
			c.Invalid(at, name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctl, sysctlFormat))
			continue
		}
		dotted := dottedSysctl(name)
		c.Unique(at, seen, dotted)
		if s.GetHostNetwork() && strings.HasPrefix(dotted, "net.") {
			c.Invalid(at, name, "may not be specified when 'hostNetwork' is true")
		}
		ipc := dotted == "kernel.sem" || strings.HasPrefix(dotted, "kernel.shm") || strings.HasPrefix(dotted, "kernel.msg") ||
			strings.HasPrefix(dotted, "fs.mqueue.")
		if s.GetHostIpc() && ipc {
			c.Invalid(at, name, "may not be specified when 'hostIPC' is true")
		}
	}
}

// dottedSysctl is the name with dots between its parts, whatever the first separator says: with
// slashes a dot is part of a name, as in that of an interface.
func dottedSysctl(name string) string {
	first := strings.IndexAny(name, "./")
	if first < 0 || name[first] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
