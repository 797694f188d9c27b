package core

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Phases and reclaim policies of volumes, and the annotation with mount options from before there
// was a field for them.
const (
	VolumePending   = "Pending"
	VolumeAvailable = "Available"
	VolumeBound     = "Bound"
	VolumeReleased  = "Released"
	VolumeFailed    = "Failed"

	ReclaimRetain  = "Retain"
	ReclaimDelete  = "Delete"
	ReclaimRecycle = "Recycle"

	AnnotationMountOptions = "volume.beta.kubernetes.io/mount-options"

	volumeModeFilesystem = "Filesystem"
)

// renamedLabels maps labels of nodes to the names that replaced them.
var renamedLabels = map[string]string{
	"failure-domain.beta.kubernetes.io/zone":   "topology.kubernetes.io/zone",
	"failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
	"beta.kubernetes.io/os":                    "kubernetes.io/os",
	"beta.kubernetes.io/arch":                  "kubernetes.io/arch",
	"beta.kubernetes.io/instance-type":         "node.kubernetes.io/instance-type",
}

var (
	persistentVolumeRules = rules.For[*corev1.PersistentVolume]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultPersistentVolume,
		Create: func(new *corev1.PersistentVolume) {
			new.Status = &corev1.PersistentVolumeStatus{Phase: VolumePending, LastPhaseTransitionTime: now()}
		},
		Check:         checkPersistentVolume,
		CheckUpdate:   checkPersistentVolumeUpdate,
		PrepareStatus: noteTransition,
		Warn:          warnPersistentVolume,
	}
	persistentVolumeColumns = []scheme.Column{
		column.New("CAPACITY", func(v *corev1.PersistentVolume) string {
			return v.GetSpec().GetCapacity()[ResourceStorage].GetString_()
		}),
		column.New("ACCESS MODES", func(v *corev1.PersistentVolume) string { return FormatAccessModes(v.GetSpec().GetAccessModes()) }),
		column.At(".spec.persistentVolumeReclaimPolicy", column.New("RECLAIM POLICY", func(v *corev1.PersistentVolume) string {
			return v.GetSpec().GetPersistentVolumeReclaimPolicy()
		})),
		column.At(".status.phase", column.New("STATUS", func(v *corev1.PersistentVolume) string {
			if v.GetMetadata().GetDeletionTimestamp() != nil {
				return "Terminating"
			}
			return v.GetStatus().GetPhase()
		})),
		column.New("CLAIM", ClaimOf),
		column.New("STORAGECLASS", ClassOfVolume),
		column.New("VOLUMEATTRIBUTESCLASS", func(v *corev1.PersistentVolume) string {
			if v.GetSpec() == nil || v.GetSpec().VolumeAttributesClassName == nil {
				return "<unset>"
			}
			return v.GetSpec().GetVolumeAttributesClassName()
		}),
		column.At(".status.reason", column.New("REASON", func(v *corev1.PersistentVolume) string { return v.GetStatus().GetReason() })),
		column.AgeColumn,
		column.Wide("VOLUMEMODE", func(v *corev1.PersistentVolume) string { return v.GetSpec().GetVolumeMode() }),
	}
)

// now is the time of a write, in whole seconds as in JSON.
func now() *timestamppb.Timestamp { return timestamppb.New(time.Now().Truncate(time.Second)) }

// ClaimOf is the claim that a volume is bound to or kept for, as NAMESPACE/NAME; empty for none.
func ClaimOf(v *corev1.PersistentVolume) string {
	ref := v.GetSpec().GetClaimRef()
	if ref == nil {
		return ""
	}
	return ref.GetNamespace() + "/" + ref.GetName()
}

// ClassOfVolume is the class of a volume, by the former annotation or by its field.
func ClassOfVolume(v *corev1.PersistentVolume) string {
	if class, ok := v.GetMetadata().GetAnnotations()[AnnotationStorageClass]; ok {
		return class
	}
	return v.GetSpec().GetStorageClassName()
}

// defaultPersistentVolume sets defaults that the spec of a volume without an object does not get.
func defaultPersistentVolume(v *corev1.PersistentVolume) {
	s := v.GetSpec()
	if s == nil {
		return
	}
	if s.GetPersistentVolumeReclaimPolicy() == "" {
		s.PersistentVolumeReclaimPolicy = ReclaimRetain
	}
	if s.VolumeMode == nil {
		s.VolumeMode = proto.String(volumeModeFilesystem)
	}
}

// noteTransition notes when the phase changed, unless the writer did.
func noteTransition(new, old *corev1.PersistentVolume) {
	s, was := new.GetStatus(), old.GetStatus()
	switch changed := s.GetPhase() != was.GetPhase(); {
	case s == nil:
	case changed && (s.GetLastPhaseTransitionTime() == nil || proto.Equal(s.GetLastPhaseTransitionTime(), was.GetLastPhaseTransitionTime())):
		s.LastPhaseTransitionTime = now()
	case !changed && s.GetLastPhaseTransitionTime() == nil:
		s.LastPhaseTransitionTime = was.GetLastPhaseTransitionTime()
	}
}

func checkPersistentVolume(v *corev1.PersistentVolume, c *rules.Checker) {
	p, s := field.NewPath("spec"), cmp.Or(v.GetSpec(), &corev1.PersistentVolumeSpec{})
	checkVolumeSpec(c, p, v.GetMetadata().GetName(), s)
	checkVolumeCapacity(c, p.Child("capacity"), s.GetCapacity())
	if s.GetNodeAffinity() != nil {
		CheckNodeSelector(c, p.Child("nodeAffinity", "required"), s.GetNodeAffinity().GetRequired())
	} else if s.GetPersistentVolumeSource().GetLocal() != nil {
		c.Required(p.Child("nodeAffinity"), "Local volume requires node affinity")
	}
	if h := s.GetPersistentVolumeSource().GetHostPath(); h != nil && path.Clean(h.GetPath()) == "/" &&
		s.GetPersistentVolumeReclaimPolicy() == ReclaimRecycle {
		c.Forbidden(p.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'")
	}
	if s.VolumeAttributesClassName != nil {
		at := p.Child("volumeAttributesClassName")
		if class := s.GetVolumeAttributesClassName(); class == "" {
			c.Required(at, "an empty string is disallowed")
		} else {
			c.Each(at, class, validation.IsDNS1123Subdomain(class))
		}
		if s.GetPersistentVolumeSource().GetCsi() == nil {
			c.Required(p.Child("csi"), "has to be specified when using volumeAttributesClassName")
		}
	}
	if _, ok := v.GetMetadata().GetAnnotations()[AnnotationMountOptions]; ok && !takesMountOptions(s.GetPersistentVolumeSource()) {
		c.Forbidden(rules.MetadataPath.Child("annotations", AnnotationMountOptions), "may not specify mount options for this volume type")
	}
}

// checkVolumeSpec checks what the spec of a volume with the name and one without an object, whose
// name is empty, have in common.
func checkVolumeSpec(c *rules.Checker, p *field.Path, name string, s *corev1.PersistentVolumeSpec) {
	checkAccessModes(c, p.Child("accessModes"), s.GetAccessModes())
	checkPersistentSource(c, p, name, s.GetPersistentVolumeSource())
}

// CheckInlineVolume checks the spec of a volume without an object, which a VolumeAttachment has.
func CheckInlineVolume(c *rules.Checker, p *field.Path, s *corev1.PersistentVolumeSpec) {
	const inline = "in the context of inline volumes"
	checkVolumeSpec(c, p, "", s)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"claimRef", s.GetClaimRef() != nil},
		{"capacity", len(s.GetCapacity()) > 0},
		{"nodeAffinity", s.GetNodeAffinity() != nil},
		{"storageClassName", s.GetStorageClassName() != ""},
	} {
		if f.set {
			c.Forbidden(p.Child(f.name), "may not be specified "+inline)
		}
	}
	if s.GetPersistentVolumeSource().GetCsi() == nil {
		c.Required(p.Child("csi"), "has to be specified "+inline)
	}
	if s.GetPersistentVolumeSource().GetLocal() != nil {
		c.Required(p.Child("nodeAffinity"), "Local volume requires node affinity")
	}
	if policy := s.GetPersistentVolumeReclaimPolicy(); policy != "" && policy != ReclaimRetain {
		c.Forbidden(p.Child("persistentVolumeReclaimPolicy"), "may only be "+ReclaimRetain+" "+inline)
	}
	if s.VolumeMode != nil && s.GetVolumeMode() != volumeModeFilesystem {
		c.Forbidden(p.Child("volumeMode"), "may not specify volumeMode other than "+volumeModeFilesystem+" "+inline)
	}
}

// checkVolumeCapacity demands storage, and nothing else.
func checkVolumeCapacity(c *rules.Checker, p *field.Path, capacity map[string]*metav1.Quantity) {
	if len(capacity) == 0 {
		c.Required(p, "")
	}
	if capacity[ResourceStorage] == nil || len(capacity) > 1 {
		c.Add(field.NotSupported(p, slices.Sorted(maps.Keys(capacity)), []string{ResourceStorage}))
	}
	for _, name := range slices.Sorted(maps.Keys(capacity)) {
		at := p.Key(name)
		checkVolumeAmount(c, at, capacity[name])
		if amount, err := object.Amount(capacity[name]); err == nil && amount.Sign() <= 0 {
			c.Invalid(at, capacity[name].GetString_(), "must be greater than zero")
		}
	}
}

// checkPersistentVolumeUpdate keeps the source, the mode and the nodes of a volume.
func checkPersistentVolumeUpdate(new, old *corev1.PersistentVolume, c *rules.Checker) {
	none := &corev1.PersistentVolumeSpec{}
	p, s, was := field.NewPath("spec"), cmp.Or(new.GetSpec(), none), cmp.Or(old.GetSpec(), none)
	source, sourceWas := proto.CloneOf(s.GetPersistentVolumeSource()), was.GetPersistentVolumeSource()
	if source.GetCsi() != nil && sourceWas.GetCsi() != nil && sourceWas.GetCsi().GetControllerExpandSecretRef() == nil {
		source.Csi.ControllerExpandSecretRef = nil
	}
	if !proto.Equal(source, sourceWas) {
		c.Forbidden(p.Child("persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation: %q differs", differing(p, source, sourceWas)))
	}
	if s.GetVolumeMode() != was.GetVolumeMode() {
		c.Invalid(p.Child("volumeMode"), s.GetVolumeMode(), rules.Immutable)
	}
	if was.GetNodeAffinity() != nil && !proto.Equal(s.GetNodeAffinity(), renamed(was.GetNodeAffinity(), s.GetNodeAffinity())) {
		c.Invalid(p.Child("nodeAffinity"), field.OmitValueType{}, rules.Immutable+", except for updating from beta label to GA")
	}
	if was.VolumeAttributesClassName != nil && s.VolumeAttributesClassName == nil {
		c.Forbidden(p.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden")
	}
}

// renamed returns the affinity with those labels by their new names that have them in now.
func renamed(a, now *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	out := proto.CloneOf(a)
	terms := now.GetRequired().GetNodeSelectorTerms()
	for i, term := range out.GetRequired().GetNodeSelectorTerms() {
		if i >= len(terms) {
			break
		}
		for _, lists := range [][2][]*corev1.NodeSelectorRequirement{
			{term.GetMatchExpressions(), terms[i].GetMatchExpressions()}, {term.GetMatchFields(), terms[i].GetMatchFields()},
		} {
			for j, r := range lists[0] {
				if to, ok := renamedLabels[r.GetKey()]; ok && j < len(lists[1]) && to == lists[1][j].GetKey() {
					r.Key = to
				}
			}
		}
	}
	return out
}

// formerSources are the sources that no version of Kubernetes in support can mount.
var formerSources = map[string]string{
	"cephfs":               "deprecated in v1.28, non-functional in v1.31+",
	"photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
	"scaleIO":              "deprecated in v1.16, non-functional in v1.22+",
	"storageos":            "deprecated in v1.22, non-functional in v1.25+",
	"glusterfs":            "deprecated in v1.25, non-functional in v1.26+",
	"rbd":                  "deprecated in v1.28, non-functional in v1.31+",
}

func warnPersistentVolume(v *corev1.PersistentVolume) []string {
	out := []string{"spec: PersistentVolumes have no effect yet: claims are not bound to them, and pods do not mount them"}
	for _, former := range [][2]string{
		{AnnotationStorageClass, `deprecated since v1.8; use "storageClassName" attribute instead`},
		{AnnotationMountOptions, `deprecated since v1.31; use "mountOptions" attribute instead`},
	} {
		if _, ok := v.GetMetadata().GetAnnotations()[former[0]]; ok {
			out = append(out, fmt.Sprintf("%s: %s", rules.MetadataPath.Child("annotations").Key(former[0]), former[1]))
		}
	}
	if v.GetSpec().GetPersistentVolumeReclaimPolicy() == ReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "+
			"Instead, the recommended approach is to use dynamic provisioning.")
	}
	for _, source := range sources(v.GetSpec().GetPersistentVolumeSource()) {
		if former := formerSources[source.JSONName()]; former != "" {
			out = append(out, fmt.Sprintf("spec.%s: %s", source.JSONName(), former))
		}
	}
	return out
}
