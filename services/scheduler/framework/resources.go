package framework

import (
	"fmt"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// ResourceID is the index of a resource in Resources.
type ResourceID int

// The resources that plug-ins know. All others get the next free ids.
const (
	CPU ResourceID = iota
	Memory
	Pods
)

// Resources holds amounts, indexed by ResourceID: cpu in thousandths of a core, all others in their
// own unit.
type Resources []int64

// ResourceTable numbers the resources that nodes offer. What only pods request has no id, so that
// pods with made-up names cannot make the vectors of all nodes longer. A table is not safe for
// concurrent use.
type ResourceTable struct {
	ids map[string]ResourceID
}

// NewResourceTable returns a table with cpu, memory and pods.
func NewResourceTable() *ResourceTable {
	return &ResourceTable{map[string]ResourceID{core.ResourceCPU: CPU, core.ResourceMemory: Memory, core.ResourcePods: Pods}}
}

// ID returns the id of a resource, false when no node has offered it.
func (t *ResourceTable) ID(name string) (ResourceID, bool) {
	id, ok := t.ids[name]
	return id, ok
}

// Add returns the id of a resource, a new one when the resource has none yet.
func (t *ResourceTable) Add(name string) ResourceID {
	id, ok := t.ids[name]
	if !ok {
		id = ResourceID(len(t.ids))
		t.ids[name] = id
	}
	return id
}

// Len returns the number of ids, which is the length of every node's vectors.
func (t *ResourceTable) Len() int { return len(t.ids) }

// Amounts are those of a resource list by name, in the units of Resources.
type Amounts map[string]int64

// ReadAmounts reads a resource list. The error names a quantity that does not parse.
func ReadAmounts(list map[string]*metav1.Quantity) (Amounts, error) {
	a := make(Amounts, len(list))
	for name, q := range list {
		v, err := object.Amount(q)
		if err != nil {
			return nil, fmt.Errorf("resource %s: %w", name, err)
		}
		if name == core.ResourceCPU {
			a[name] = v.MilliValue()
		} else {
			a[name] = v.Value()
		}
	}
	return a, nil
}
