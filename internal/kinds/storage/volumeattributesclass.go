package storage

import (
	"maps"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

var (
	volumeAttributesClassRules = rules.For[*storagev1.VolumeAttributesClass]{
		Name:        rules.NameIsSubdomain,
		Check:       checkVolumeAttributesClass,
		CheckUpdate: checkVolumeAttributesClassUpdate,
		Warn: func(*storagev1.VolumeAttributesClass) []string {
			return []string{"driverName: volume attributes classes have no effect yet: volumes do not get their parameters"}
		},
	}
	volumeAttributesClassColumns = []scheme.Column{
		column.At(".driverName", column.New("DRIVERNAME", (*storagev1.VolumeAttributesClass).GetDriverName)),
		column.AgeColumn,
	}
)

func checkVolumeAttributesClass(v *storagev1.VolumeAttributesClass, c *rules.Checker) {
	checkProvisioner(c, field.NewPath("driverName"), v.GetDriverName())
	p := field.NewPath("parameters")
	checkParameters(c, p, v.GetParameters())
	if len(v.GetParameters()) == 0 {
		c.Required(p, "must contain at least one key/value pair")
	}
}

func checkVolumeAttributesClassUpdate(now, old *storagev1.VolumeAttributesClass, c *rules.Checker) {
	if now.GetDriverName() != old.GetDriverName() {
		c.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden.")
	}
	if !maps.Equal(now.GetParameters(), old.GetParameters()) {
		c.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden.")
	}
}
