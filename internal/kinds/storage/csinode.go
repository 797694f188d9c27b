package storage

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// Limits of the names of drivers and nodes, in bytes.
const (
	maxDriverName = 63
	maxNodeID     = 256
)

var (
	csiNodeRules = rules.For[*storagev1.CSINode]{
		Name:        rules.NameIsSubdomain,
		Check:       checkCSINode,
		CheckUpdate: checkCSINodeUpdate,
		Warn: func(*storagev1.CSINode) []string {
			return []string{"spec: the CSI drivers of nodes have no effect yet: nodes do not call them"}
		},
	}
	csiNodeColumns = []scheme.Column{
		column.New("DRIVERS", func(n *storagev1.CSINode) string { return strconv.Itoa(len(n.GetSpec().GetDrivers())) }),
		column.AgeColumn,
	}
)

func checkCSINode(n *storagev1.CSINode, c *rules.Checker) {
	for i, d := range n.GetSpec().GetDrivers() {
		at := field.NewPath("spec", "drivers").Index(i)
		if len(d.GetName()) > maxDriverName {
			c.Add(field.TooLong(at.Child("name"), "", maxDriverName))
		}
		if name := strings.ToLower(d.GetName()); name != "" {
			c.Each(at.Child("name"), d.GetName(), validation.IsDNS1123Subdomain(name))
		}
		if len(d.GetNodeId()) > maxNodeID {
			c.Invalid(at.Child("nodeID"), d.GetNodeId(), fmt.Sprintf("must be %d characters or less", maxNodeID))
		}
		seen := rules.Names{}
		for _, key := range d.GetTopologyKeys() {
			if key == "" {
				c.Required(at, "")
			}
			c.Unique(at, seen, key)
			c.Each(at, key, validation.IsQualifiedName(key))
		}
	}
}

// checkCSINodeUpdate refuses changes of drivers that stay, except for the number of their volumes.
func checkCSINodeUpdate(now, old *storagev1.CSINode, c *rules.Checker) {
	before := make(map[string]*storagev1.CSINodeDriver, len(old.GetSpec().GetDrivers()))
	for _, d := range old.GetSpec().GetDrivers() {
		before[d.GetName()] = d
	}
	for _, d := range now.GetSpec().GetDrivers() {
		was := before[d.GetName()]
		if was == nil {
			continue
		}
		same := proto.CloneOf(was)
		same.Allocatable = d.GetAllocatable()
		if !proto.Equal(same, d) {
			c.Invalid(field.NewPath("spec", "drivers"), field.OmitValueType{}, rules.Immutable)
		}
	}
}
