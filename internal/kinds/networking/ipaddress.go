package networking

import (
	"net/netip"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

var (
	ipAddressRules = rules.For[*networkingv1.IPAddress]{
		Name:        nameIsAddress,
		CheckUpdate: checkIPAddressUpdate,
	}
	ipAddressColumns = []scheme.Column{
		column.New("PARENTREF", func(a *networkingv1.IPAddress) string { return parentRef(a.GetSpec().GetParentRef()) }),
		column.AgeColumn,
	}
)

// parentRef formats a reference to the owner of an allocation.
func parentRef(ref *networkingv1.ParentReference) string {
	parent := ref.GetResource()
	if ref.GetGroup() != "" {
		parent += "." + ref.GetGroup()
	}
	for _, part := range []string{ref.GetNamespace(), ref.GetName()} {
		if part != "" {
			parent += "/" + part
		}
	}
	return parent
}

// nameIsAddress accepts an address in its canonical form: two spellings of one address would be two
// allocations.
func nameIsAddress(name string) []string {
	addr, err := netip.ParseAddr(name)
	switch {
	case err != nil:
		return []string{"must be a valid IP address"}
	case addr.String() != name:
		return []string{"must be in canonical form: " + addr.String()}
	}
	return nil
}

func checkIPAddressUpdate(new, old *networkingv1.IPAddress, c *rules.Checker) {
	if !proto.Equal(new.GetSpec(), old.GetSpec()) {
		c.Invalid(field.NewPath("spec", "parentRef"), new.GetSpec().GetParentRef().GetName(), "field is immutable")
	}
}
