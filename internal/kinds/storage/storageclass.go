// Package storage has the kinds of the group storage.k8s.io.
package storage

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// Limits of the parameters of a class: how many there are, and how many bytes they take together.
const (
	maxParameters     = 512
	maxParametersSize = 256 << 10
)

var (
	storageClassRules = rules.For[*storagev1.StorageClass]{
		Name:  rules.NameIsSubdomain,
		Check: checkStorageClass,
		CheckUpdate: func(now, old *storagev1.StorageClass, c *rules.Checker) {
			if !maps.Equal(now.GetParameters(), old.GetParameters()) {
				c.Invalid(field.NewPath("parameters"), field.OmitValueType{}, rules.Immutable)
			}
		},
		Warn: func(*storagev1.StorageClass) []string {
			return []string{"provisioner: storage classes have no effect yet: no volumes are made from them"}
		},
	}
	storageClassColumns = []scheme.Column{
		column.At(".provisioner", column.New("PROVISIONER", (*storagev1.StorageClass).GetProvisioner)),
		column.At(".reclaimPolicy", column.New("RECLAIMPOLICY", (*storagev1.StorageClass).GetReclaimPolicy)),
		column.At(".volumeBindingMode", column.New("VOLUMEBINDINGMODE", (*storagev1.StorageClass).GetVolumeBindingMode)),
		column.At(".allowVolumeExpansion", column.New("ALLOWVOLUMEEXPANSION", func(s *storagev1.StorageClass) string {
			return strconv.FormatBool(s.GetAllowVolumeExpansion())
		})),
		column.AgeColumn,
	}
)

func checkStorageClass(s *storagev1.StorageClass, c *rules.Checker) {
	checkProvisioner(c, field.NewPath("provisioner"), s.GetProvisioner())
	checkParameters(c, field.NewPath("parameters"), s.GetParameters())
	var seen []map[string]map[string]bool
	for i, term := range s.GetAllowedTopologies() {
		at := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions")
		values := checkTopologyTerm(c, at, term)
		same := func(other map[string]map[string]bool) bool { return maps.EqualFunc(values, other, maps.Equal) }
		if len(values) == 0 || slices.ContainsFunc(seen, same) {
			c.Add(field.Duplicate(at, ""))
		}
		seen = append(seen, values)
	}
}

// checkProvisioner checks the name of a driver, unless it is empty: a qualified name in any case.
func checkProvisioner(c *rules.Checker, p *field.Path, name string) {
	if name == "" {
		return // reported as missing
	}
	name = strings.ToLower(name)
	c.Each(p, name, validation.IsQualifiedName(name))
}

func checkParameters(c *rules.Checker, p *field.Path, parameters map[string]string) {
	if len(parameters) > maxParameters {
		c.Add(field.TooLong(p, "", maxParameters))
		return
	}
	size := 0
	for key, value := range parameters {
		if key == "" {
			c.Invalid(p, key, "field can not be empty.")
		}
		size += len(key) + len(value)
	}
	if size > maxParametersSize {
		c.Add(field.TooLong(p, "", maxParametersSize))
	}
}

// checkTopologyTerm checks the requirements at p, and returns their values by key.
func checkTopologyTerm(c *rules.Checker, p *field.Path, term *corev1.TopologySelectorTerm) map[string]map[string]bool {
	found := map[string]map[string]bool{}
	for i, requirement := range term.GetMatchLabelExpressions() {
		at := p.Index(i)
		values := map[string]bool{}
		for j, value := range requirement.GetValues() {
			if values[value] {
				c.Add(field.Duplicate(at.Child("values").Index(j), value))
			}
			values[value] = true
		}
		if found[requirement.GetKey()] != nil {
			c.Add(field.Duplicate(at.Child("key"), requirement.GetKey()))
		}
		found[requirement.GetKey()] = values
	}
	return found
}
