package networking

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// GroupNetworking is the API group of kinds of networking that Kubernetes does not have.
const GroupNetworking = "networking.xebec.io"

var (
	nodePortRules = rules.For[*networkingv1.NodePort]{
		Name: nameIsNodePort,
		CheckUpdate: func(new, old *networkingv1.NodePort, c *rules.Checker) {
			if !proto.Equal(new.GetSpec(), old.GetSpec()) {
				c.Invalid(field.NewPath("spec", "parentRef"), new.GetSpec().GetParentRef().GetName(), "field is immutable")
			}
		},
	}
	nodePortColumns = []scheme.Column{
		column.New("PARENTREF", func(n *networkingv1.NodePort) string { return parentRef(n.GetSpec().GetParentRef()) }),
		column.AgeColumn,
	}
)

// NodePortName names the allocation of a node port; the protocol is TCP when empty.
func NodePortName(protocol string, port int32) string {
	return strings.ToLower(core.OrTCP(protocol)) + "-" + strconv.Itoa(int(port))
}

// nameIsNodePort accepts what NodePortName gives for the ports of nodes.
func nameIsNodePort(name string) []string {
	protocol, number, _ := strings.Cut(name, "-")
	port, err := strconv.ParseInt(number, 10, 32)
	upper := strings.ToUpper(protocol)
	if err != nil || upper != core.ProtocolTCP && upper != core.ProtocolUDP || port < 1 || port > 65535 ||
		NodePortName(upper, int32(port)) != name {
		return []string{"must be a protocol and a port, such as tcp-30080"}
	}
	return nil
}
