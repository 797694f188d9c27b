// Package gateway has the kinds of the group gateway.xebec.io.
package gateway

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
)

// GroupGateway is the API group of the configuration of gateways.
const GroupGateway = "gateway.xebec.io"

// GatewayAccessName is the name of the only GatewayAccess that counts.
const GatewayAccessName = "cluster"

var (
	gatewayAccessRules = rules.For[*gatewayv1.GatewayAccess]{
		Name: func(name string) []string {
			if name != GatewayAccessName {
				return []string{fmt.Sprintf("must be %q: there is one for all gateways", GatewayAccessName)}
			}
			return nil
		},
		Check: checkGatewayAccess,
	}
	gatewayAccessColumns = []scheme.Column{
		column.New("PUBLIC", func(a *gatewayv1.GatewayAccess) string { return listenerText(a.GetSpec().GetPublic()) }),
		column.New("PRIVATE", func(a *gatewayv1.GatewayAccess) string { return listenerText(a.GetSpec().GetPrivate()) }),
		column.AgeColumn,
	}
)

// listenerText summarizes which clients a listener admits.
func listenerText(l *gatewayv1.ListenerAccess) string {
	switch {
	case l == nil:
		return "<configured>"
	case l.Enabled != nil && !l.GetEnabled():
		return "off"
	case len(l.GetAllowedCidrs()) == 0:
		return "everywhere"
	case len(l.GetAllowedCidrs()) > 3:
		return fmt.Sprintf("%s and %d more", strings.Join(l.GetAllowedCidrs()[:2], ","), len(l.GetAllowedCidrs())-2)
	}
	return strings.Join(l.GetAllowedCidrs(), ",")
}

func checkGatewayAccess(a *gatewayv1.GatewayAccess, c *rules.Checker) {
	spec := field.NewPath("spec")
	off := 0
	for _, listener := range []struct {
		name string
		*gatewayv1.ListenerAccess
	}{{"public", a.GetSpec().GetPublic()}, {"private", a.GetSpec().GetPrivate()}} {
		l := listener.ListenerAccess
		if l == nil || l.Enabled == nil || l.GetEnabled() {
			continue
		}
		off++
		if len(l.GetAllowedCidrs()) > 0 {
			c.Invalid(spec.Child(listener.name, "allowedCIDRs"), strings.Join(l.GetAllowedCidrs(), ","), "must be empty where enabled is false")
		}
	}
	if off == 2 {
		c.Invalid(spec, "public and private off", "one listener must take connections")
	}
	checkAllowList(c, spec.Child("public", "allowedCIDRs"), a.GetSpec().GetPublic().GetAllowedCidrs())
	checkAllowList(c, spec.Child("private", "allowedCIDRs"), a.GetSpec().GetPrivate().GetAllowedCidrs())
}

func checkAllowList(c *rules.Checker, p *field.Path, entries []string) {
	_, problems := allowlist.Parse(entries)
	for _, problem := range problems {
		if problem.Index < 0 {
			c.Add(field.TooMany(p, len(entries), allowlist.Max))
			continue
		}
		c.Invalid(p.Index(problem.Index), problem.Entry, problem.Reason)
	}
}
