package validation_test

import corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"

// otherSources returns the paths of the sources that a volume with this spec does not have. That
// there is one source alone is a rule that is broken by itself. flexVolume, which Kubernetes
// accepts beside another, is not among them.
func otherSources(prefix string, spec *corev1.PersistentVolumeSpec) []string {
	var out []string
	source := spec.GetPersistentVolumeSource().ProtoReflect()
	for i := range source.Descriptor().Fields().Len() {
		if f := source.Descriptor().Fields().Get(i); !source.Has(f) && f.Name() != "flex_volume" {
			out = append(out, prefix+f.JSONName())
		}
	}
	return out
}

// uncomparedOfVolume returns the paths of a volume that are not mutated: those of other sources,
// and all but those of its source when it has no class.
func uncomparedOfVolume(v *corev1.PersistentVolume) []string {
	out := otherSources("spec.", v.GetSpec())
	if v.GetSpec().GetStorageClassName() != "" {
		return out
	}
	out = append(out, "metadata")
	if v.GetSpec().GetPersistentVolumeSource().GetFlexVolume() == nil {
		out = append(out, "spec.flexVolume")
	}
	d := v.GetSpec().ProtoReflect().Descriptor()
	for i := range d.Fields().Len() {
		out = append(out, "spec."+d.Fields().Get(i).JSONName())
	}
	return out
}
