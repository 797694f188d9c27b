package describe

import (
	"context"
	"fmt"
	"strings"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// describePersistentVolume writes a volume: who has it, from which nodes it can be used, and where
// its storage is from.
func describePersistentVolume(_ context.Context, _ *client.Client, r *report, v *corev1.PersistentVolume) error {
	source, err := codec.Value(v.GetSpec().GetPersistentVolumeSource())
	if err != nil {
		return err
	}
	spec := v.GetSpec()
	r.metadata(v)
	r.labels(v)
	r.ends(v)
	r.field("StorageClass", core.ClassOfVolume(v))
	phase := v.GetStatus().GetPhase()
	if v.GetMetadata().GetDeletionTimestamp() != nil {
		phase = "Terminating"
	}
	r.field("Status", phase)
	r.field("Claim", core.ClaimOf(v))
	r.field("Reclaim Policy", spec.GetPersistentVolumeReclaimPolicy())
	r.field("Access Modes", core.FormatAccessModes(spec.GetAccessModes()))
	r.field("VolumeMode", spec.GetVolumeMode())
	r.field("Capacity", spec.GetCapacity()[core.ResourceStorage].GetString_())
	r.optional("VolumeAttributesClass", spec.GetVolumeAttributesClassName())
	if terms := spec.GetNodeAffinity().GetRequired().GetNodeSelectorTerms(); len(terms) == 0 {
		r.field("Node Affinity", "<none>")
	} else {
		r.group("Node Affinity", func() {
			r.group("Required Terms", func() {
				for i, t := range terms {
					r.list(fmt.Sprintf("Term %d", i), requirements(t))
				}
			})
		})
	}
	r.field("Message", v.GetStatus().GetMessage())
	r.optional("Mount Options", strings.Join(spec.GetMountOptions(), ","))
	members, _ := source.(map[string]any)
	r.group("Source", func() {
		for name, fields := range members {
			r.field("Type", name)
			below, _ := fields.(map[string]any)
			r.tree(below)
		}
	})
	return nil
}

// requirements writes what a node must have: KEY in [VALUES].
func requirements(t *corev1.NodeSelectorTerm) []string {
	var out []string
	for _, list := range [][]*corev1.NodeSelectorRequirement{t.GetMatchExpressions(), t.GetMatchFields()} {
		for _, r := range list {
			text := r.GetKey() + " " + strings.ToLower(r.GetOperator())
			if len(r.GetValues()) > 0 {
				text += " [" + strings.Join(r.GetValues(), ", ") + "]"
			}
			out = append(out, text)
		}
	}
	return out
}
