package kind

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	maxSysctl     = 253
	sysctlSegment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlFormat  = "(" + sysctlSegment + `[\./])*` + sysctlSegment
)

var sysctlName = regexp.MustCompile("^" + sysctlFormat + "$")

// sysctls checks the kernel parameters that a pod sets. Those of a namespace that is the node's own
// would change the node.
func (c *checker) sysctls(p *field.Path, s *corev1.PodSpec) {
	seen := names{}
	for i, y := range s.GetSecurityContext().GetSysctls() {
		at, name := p.Index(i).Child("name"), y.GetName()
		switch {
		case name == "":
			c.required(at, "")
			continue
		case len(name) > maxSysctl || !sysctlName.MatchString(name):
			c.invalid(at, name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctl, sysctlFormat))
			continue
		}
		dotted := dottedSysctl(name)
		c.unique(at, seen, dotted)
		if s.GetHostNetwork() && strings.HasPrefix(dotted, "net.") {
			c.invalid(at, name, "may not be specified when 'hostNetwork' is true")
		}
		ipc := dotted == "kernel.sem" || strings.HasPrefix(dotted, "kernel.shm") || strings.HasPrefix(dotted, "kernel.msg") ||
			strings.HasPrefix(dotted, "fs.mqueue.")
		if s.GetHostIpc() && ipc {
			c.invalid(at, name, "may not be specified when 'hostIPC' is true")
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
