package environment

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// variable is one of a container's environment.
type variable struct{ name, value string }

// Links returns the variables by which a pod's containers find services: those of its namespace,
// unless the pod does not want them, and in any case the cluster itself, the service
// default/kubernetes. Services returns the services of a namespace; nil: there are no variables.
// They are as of the container's start.
func Links(ctx context.Context, services func(ctx context.Context, namespace string) []*corev1.Service, pod *corev1.Pod) []variable {
	if services == nil {
		return nil
	}
	var linked []*corev1.Service
	if spec := pod.GetSpec(); spec.EnableServiceLinks == nil || spec.GetEnableServiceLinks() {
		linked = services(ctx, pod.GetMetadata().GetNamespace())
	}
	if !slices.ContainsFunc(linked, func(s *corev1.Service) bool { return s.GetMetadata().GetName() == core.KubernetesService }) {
		for _, s := range services(ctx, core.KubernetesNamespace) {
			if s.GetMetadata().GetName() == core.KubernetesService {
				linked = append(slices.Clip(linked), s)
			}
		}
	}
	return linkVariables(linked)
}

// linkVariables returns the variables of services, by name: for each NAME_SERVICE_HOST,
// NAME_SERVICE_PORT and NAME_SERVICE_PORT_PORTNAME, and those that linked containers once had,
// NAME_PORT and NAME_PORT_443_TCP with _PROTO, _PORT and _ADDR. Services without an address of
// their own have none.
func linkVariables(services []*corev1.Service) []variable {
	services = slices.DeleteFunc(slices.Clone(services), func(s *corev1.Service) bool {
		ip := s.GetSpec().GetClusterIp()
		return ip == "" || ip == core.ClusterIPNone || s.GetSpec().GetType() == core.ServiceExternalName || len(s.GetSpec().GetPorts()) == 0
	})
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		return cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName())
	})
	var out []variable
	add := func(name, value string) { out = append(out, variable{name, value}) }
	for _, s := range services {
		name, ip, ports := variableName(s.GetMetadata().GetName()), s.GetSpec().GetClusterIp(), s.GetSpec().GetPorts()
		number := func(p *corev1.ServicePort) string { return strconv.Itoa(int(p.GetPort())) }
		url := func(p *corev1.ServicePort) string {
			return strings.ToLower(protocol(p)) + "://" + net.JoinHostPort(ip, number(p))
		}
		add(name+"_SERVICE_HOST", ip)
		add(name+"_SERVICE_PORT", number(ports[0]))
		for _, p := range ports {
			if p.GetName() != "" {
				add(name+"_SERVICE_PORT_"+variableName(p.GetName()), number(p))
			}
		}
		add(name+"_PORT", url(ports[0]))
		for _, p := range ports {
			prefix := name + "_PORT_" + number(p) + "_" + protocol(p)
			add(prefix, url(p))
			add(prefix+"_PROTO", strings.ToLower(protocol(p)))
			add(prefix+"_PORT", number(p))
			add(prefix+"_ADDR", ip)
		}
	}
	return out
}

func protocol(p *corev1.ServicePort) string { return cmp.Or(p.GetProtocol(), core.ProtocolTCP) }

// variableName makes the name of a variable of that of a service or port.
func variableName(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
