package storage

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

var (
	csiStorageCapacityRules = rules.For[*storagev1.CSIStorageCapacity]{
		Name:  rules.NameIsSubdomain,
		Check: checkCSIStorageCapacity,
		CheckUpdate: func(now, old *storagev1.CSIStorageCapacity, c *rules.Checker) {
			if !proto.Equal(now.GetNodeTopology(), old.GetNodeTopology()) {
				c.Invalid(field.NewPath("nodeTopology"), field.OmitValueType{}, rules.Immutable)
			}
		},
		Warn: func(*storagev1.CSIStorageCapacity) []string {
			return []string{"capacity: storage capacities have no effect yet: the scheduler does not look at them"}
		},
	}
	csiStorageCapacityColumns = []scheme.Column{
		column.At(".storageClassName", column.New("STORAGECLASSNAME", (*storagev1.CSIStorageCapacity).GetStorageClassName)),
		column.At(".capacity", column.New("CAPACITY", func(s *storagev1.CSIStorageCapacity) string { return s.GetCapacity().GetString_() })),
		column.AgeColumn,
	}
)

func checkCSIStorageCapacity(s *storagev1.CSIStorageCapacity, c *rules.Checker) {
	c.LabelSelector(field.NewPath("nodeTopology"), s.GetNodeTopology())
	if s.GetCapacity() == nil {
		return
	}
	switch amount, err := object.Amount(s.GetCapacity()); {
	case err != nil:
		c.Invalid(field.NewPath("capacity"), s.GetCapacity().GetString_(), err.Error())
	case amount.Sign() < 0:
		c.Invalid(field.NewPath("capacity"), s.GetCapacity().GetString_(), rules.NotNegative)
	}
}
