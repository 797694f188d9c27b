package storage

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// maxNodeID is how many bytes the name of a node to a driver may have.
const maxNodeID = 256

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
		core.CheckDriverName(c, at.Child("name"), d.GetName())
		if len(d.GetNodeId()) > maxNodeID {
			c.Invalid(at.Child("nodeID"), d.GetNodeId(), fmt.Sprintf("must be %d characters or less", maxNodeID))
		}
		seen := rules.Names{}
		for j, key := range d.GetTopologyKeys() {
			keys := at.Child("topologyKeys").Index(j)
			c.Unique(keys, seen, key)
			c.Each(keys, key, validation.IsQualifiedName(key))
		}
	}
}

// checkCSINodeUpdate refuses changes of drivers that stay, except for the number of their volumes.
func checkCSINodeUpdate(now, old *storagev1.CSINode, c *rules.Checker) {
	before := make(map[string]*storagev1.CSINodeDriver, len(old.GetSpec().GetDrivers()))
	for _, d := range old.GetSpec().GetDrivers() {
		before[d.GetName()] = d
	}
	for i, d := range now.GetSpec().GetDrivers() {
		was := before[d.GetName()]
		if was == nil {
			continue
		}
		same := proto.CloneOf(was)
		same.Allocatable = d.GetAllocatable()
		if !proto.Equal(same, d) {
			c.Invalid(field.NewPath("spec", "drivers").Index(i), field.OmitValueType{}, rules.Immutable)
		}
	}
}
