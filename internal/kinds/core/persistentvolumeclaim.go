package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Phases, access modes and the resource of claims, and the annotation that named the storage class
// before the field did.
const (
	ClaimPending = "Pending"
	ClaimBound   = "Bound"
	ClaimLost    = "Lost"

	ReadWriteOnce    = "ReadWriteOnce"
	ReadOnlyMany     = "ReadOnlyMany"
	ReadWriteMany    = "ReadWriteMany"
	ReadWriteOncePod = "ReadWriteOncePod"

	ResourceStorage = "storage"

	AnnotationStorageClass = "volume.beta.kubernetes.io/storage-class"
)

var (
	accessModes = []string{ReadOnlyMany, ReadWriteMany, ReadWriteOnce, ReadWriteOncePod}
	// accessModeLetters is how tables write access modes, in Kubernetes' order.
	accessModeLetters = [][2]string{
		{ReadWriteOnce, "RWO"}, {ReadOnlyMany, "ROX"}, {ReadWriteMany, "RWX"}, {ReadWriteOncePod, "RWOP"},
	}
	resizeStatuses = []string{
		"ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending", "NodeResizeInProgress", "NodeResizeInfeasible",
	}
)

var (
	claimRules = rules.For[*corev1.PersistentVolumeClaim]{
		Name:        rules.NameIsSubdomain,
		Create:      func(new *corev1.PersistentVolumeClaim) { settleDataSources(new.GetSpec()) },
		Update:      func(new, _ *corev1.PersistentVolumeClaim) { settleDataSources(new.GetSpec()) },
		Check:       checkClaim,
		CheckUpdate: checkClaimUpdate,
		CheckStatus: func(new, _ *corev1.PersistentVolumeClaim, c *rules.Checker) { checkClaimStatus(c, new.GetStatus()) },
		Warn:        warnClaim,
	}
	claimColumns = []scheme.Column{
		column.At(".status.phase", column.New("STATUS", func(p *corev1.PersistentVolumeClaim) string {
			if p.GetMetadata().GetDeletionTimestamp() != nil {
				return "Terminating"
			}
			return p.GetStatus().GetPhase()
		})),
		column.At(".spec.volumeName", column.New("VOLUME", func(p *corev1.PersistentVolumeClaim) string {
			return p.GetSpec().GetVolumeName()
		})),
		column.New("CAPACITY", func(p *corev1.PersistentVolumeClaim) string {
			if p.GetSpec().GetVolumeName() == "" {
				return ""
			}
			return p.GetStatus().GetCapacity()[ResourceStorage].GetString_()
		}),
		column.New("ACCESS MODES", func(p *corev1.PersistentVolumeClaim) string {
			if p.GetSpec().GetVolumeName() == "" {
				return ""
			}
			return FormatAccessModes(p.GetStatus().GetAccessModes())
		}),
		column.New("STORAGECLASS", storageClass),
		column.New("VOLUMEATTRIBUTESCLASS", func(p *corev1.PersistentVolumeClaim) string {
			if p.GetSpec().GetVolumeAttributesClassName() == "" {
				return "<unset>"
			}
			return p.GetSpec().GetVolumeAttributesClassName()
		}),
		column.AgeColumn,
		column.Wide("VOLUMEMODE", func(p *corev1.PersistentVolumeClaim) string { return p.GetSpec().GetVolumeMode() }),
	}
)

// FormatAccessModes writes access modes as tables do: RWO,ROX.
func FormatAccessModes(modes []string) string {
	var out []string
	for _, m := range accessModeLetters {
		if slices.Contains(modes, m[0]) {
			out = append(out, m[1])
		}
	}
	return strings.Join(out, ",")
}

// storageClass is the class that a claim asks for, by the former annotation or by its field.
func storageClass(p *corev1.PersistentVolumeClaim) string {
	if class, ok := p.GetMetadata().GetAnnotations()[AnnotationStorageClass]; ok {
		return class
	}
	return p.GetSpec().GetStorageClassName()
}

// settleDataSources sets the one of the two data sources that is absent to the other, when both can
// express it.
func settleDataSources(s *corev1.PersistentVolumeClaimSpec) {
	source, ref := s.GetDataSource(), s.GetDataSourceRef()
	switch {
	case source != nil && ref == nil && copiesVolume(source):
		s.DataSourceRef = &corev1.TypedObjectReference{ApiGroup: source.ApiGroup, Kind: source.GetKind(), Name: source.GetName()}
	case source == nil && ref != nil && ref.GetNamespace() == "":
		s.DataSource = &corev1.TypedLocalObjectReference{ApiGroup: ref.ApiGroup, Kind: ref.GetKind(), Name: ref.GetName()}
	}
}

// copiesVolume reports whether dataSource names a kind that it may name without dataSourceRef.
func copiesVolume(s *corev1.TypedLocalObjectReference) bool {
	return s.GetKind() == "PersistentVolumeClaim" && s.GetApiGroup() == "" ||
		s.GetKind() == "VolumeSnapshot" && s.GetApiGroup() == "snapshot.storage.k8s.io"
}

func checkClaim(p *corev1.PersistentVolumeClaim, c *rules.Checker) {
	at, s := field.NewPath("spec"), p.GetSpec()
	if !hasUnknownSource(s) {
		CheckClaimSpec(c, at, s)
		return
	}
	c.Invalid(at.Child("dataSource"), s.GetDataSource().GetKind(),
		"must be a PersistentVolumeClaim or a VolumeSnapshot of snapshot.storage.k8s.io: use dataSourceRef for other kinds")
	others := proto.CloneOf(s)
	others.DataSource = nil
	CheckClaimSpec(c, at, others)
}

// hasUnknownSource reports whether dataSource alone names a kind that needs dataSourceRef.
func hasUnknownSource(s *corev1.PersistentVolumeClaimSpec) bool {
	return s.GetDataSource() != nil && s.GetDataSourceRef() == nil && !copiesVolume(s.GetDataSource())
}

// CheckClaimSpec checks the spec of a claim, or of a template of claims.
func CheckClaimSpec(c *rules.Checker, p *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	if s.GetSelector() != nil {
		c.LabelSelector(p.Child("selector"), s.GetSelector())
	}
	checkAccessModes(c, p.Child("accessModes"), s.GetAccessModes())
	storage := p.Child("resources").Key(ResourceStorage)
	request, ok := s.GetResources().GetRequests()[ResourceStorage]
	amount, err := object.Amount(request)
	switch {
	case !ok:
		c.Required(storage, "")
	case err != nil:
		c.Invalid(storage, request.GetString_(), err.Error())
	case amount.Sign() <= 0:
		c.Invalid(storage, request.GetString_(), "must be greater than zero")
	}
	for _, class := range []struct{ field, name string }{
		{"storageClassName", s.GetStorageClassName()}, {"volumeAttributesClassName", s.GetVolumeAttributesClassName()},
	} {
		if class.name != "" {
			c.Each(p.Child(class.field), class.name, validation.IsDNS1123Subdomain(class.name))
		}
	}
	// References to other namespaces are refused as such.
	if s.GetDataSourceRef().GetNamespace() == "" {
		checkDataSources(c, p, s)
	}
}

func checkAccessModes(c *rules.Checker, p *field.Path, modes []string) {
	alone, others := false, false
	for _, mode := range modes {
		switch {
		case !slices.Contains(accessModes, mode):
			c.Add(field.NotSupported(p, mode, accessModes))
		case mode == ReadWriteOncePod:
			alone = true
		default:
			others = true
		}
	}
	if alone && others {
		c.Forbidden(p, "may not use ReadWriteOncePod with other access modes")
	}
}

func checkDataSources(c *rules.Checker, p *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	source, ref := s.GetDataSource(), s.GetDataSourceRef()
	check := func(p *field.Path, group *string, kind, name string) {
		if name == "" {
			c.Required(p.Child("name"), "")
		}
		if kind == "" {
			c.Required(p.Child("kind"), "")
		}
		switch {
		case group != nil && *group != "":
			c.Each(p.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))
		case kind != "PersistentVolumeClaim":
			c.Invalid(p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
		}
	}
	if source != nil {
		check(p.Child("dataSource"), source.ApiGroup, source.GetKind(), source.GetName())
	}
	if ref != nil {
		check(p.Child("dataSourceRef"), ref.ApiGroup, ref.GetKind(), ref.GetName())
	}
	if source != nil && ref != nil &&
		(!rules.Equal(source.ApiGroup, ref.ApiGroup) || source.GetKind() != ref.GetKind() || source.GetName() != ref.GetName()) {
		c.Invalid(p, p.Child("dataSource").String(), "must match dataSourceRef")
	}
}

// checkClaimUpdate lets a volume be bound, a storage class be named that was not, and a bound claim
// grow or change its class of attributes.
func checkClaimUpdate(new, old *corev1.PersistentVolumeClaim, c *rules.Checker) {
	p := field.NewPath("spec")
	if new.GetSpec().GetDataSourceRef().GetNamespace() != "" || hasUnknownSource(new.GetSpec()) {
		return // The source is refused as such.
	}
	if new.GetSpec() == nil || old.GetSpec() == nil {
		return // A claim without a spec is refused.
	}
	now, was := proto.CloneOf(new.GetSpec()), proto.CloneOf(old.GetSpec())
	settleDataSources(was)
	if was.GetVolumeName() == "" {
		now.VolumeName = ""
	}
	annotation, annotated := old.GetMetadata().GetAnnotations()[AnnotationStorageClass]
	if was.StorageClassName == nil && now.StorageClassName != nil && (!annotated || annotation == now.GetStorageClassName()) {
		now.StorageClassName = nil
	}
	annotationNow, annotatedNow := new.GetMetadata().GetAnnotations()[AnnotationStorageClass]
	moved := annotated && !annotatedNow && old.GetSpec().StorageClassName == nil && new.GetSpec().GetStorageClassName() == annotation
	if annotationNow != annotation && !moved {
		c.Invalid(rules.MetadataPath.Child("annotations").Key(AnnotationStorageClass), annotationNow, rules.Immutable)
	}
	if old.GetStatus().GetPhase() == ClaimBound {
		if size, ok := was.GetResources().GetRequests()[ResourceStorage]; ok && len(now.GetResources().GetRequests()) > 0 {
			now.Resources.Requests[ResourceStorage] = size
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !proto.Equal(now, was) {
		c.Forbidden(p, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims")
	}
	size, sizeWas := storageOf(new.GetSpec().GetResources().GetRequests()), storageOf(old.GetSpec().GetResources().GetRequests())
	if capacity := storageOf(old.GetStatus().GetCapacity()); size.Cmp(sizeWas) < 0 && size.Cmp(capacity) <= 0 {
		c.Forbidden(p.Child("resources", "requests", "storage"), "field can not be less than status.capacity")
	}
	if old.GetStatus().GetCurrentVolumeAttributesClassName() == "" ||
		rules.Equal(new.GetSpec().VolumeAttributesClassName, old.GetSpec().VolumeAttributesClassName) {
		return
	}
	const applied = "when status.currentVolumeAttributesClassName is not nil"
	switch class := new.GetSpec().VolumeAttributesClassName; {
	case class == nil:
		c.Forbidden(p.Child("volumeAttributesClassName"), "update to nil is forbidden "+applied)
	case *class == "":
		c.Forbidden(p.Child("volumeAttributesClassName"), "update to empty string is forbidden "+applied)
	}
}

// storageOf is an amount of storage, 0 when there is none.
func storageOf(amounts map[string]*metav1.Quantity) resource.Quantity {
	amount, err := object.Amount(amounts[ResourceStorage])
	if err != nil {
		return resource.Quantity{} // It has been reported.
	}
	return amount
}

func checkClaimStatus(c *rules.Checker, s *corev1.PersistentVolumeClaimStatus) {
	p := field.NewPath("status")
	for _, name := range slices.Sorted(maps.Keys(s.GetCapacity())) {
		checkVolumeAmount(c, p.Child("capacity").Key(name), s.GetCapacity()[name])
	}
	at := p.Child("allocatedResourceStatuses")
	for _, name := range slices.Sorted(maps.Keys(s.GetAllocatedResourceStatuses())) {
		checkVolumeResource(c, at, name)
		if !slices.Contains(resizeStatuses, s.GetAllocatedResourceStatuses()[name]) {
			c.Add(field.NotSupported(at, name, slices.Sorted(slices.Values(resizeStatuses))))
		}
	}
	at = p.Child("allocatedResources")
	for _, name := range slices.Sorted(maps.Keys(s.GetAllocatedResources())) {
		if checkVolumeResource(c, at, name) {
			checkVolumeAmount(c, at.Key(name), s.GetAllocatedResources()[name])
		}
	}
}

// checkVolumeResource checks the name of a resource that grows: storage, or one with a domain of
// its own.
func checkVolumeResource(c *rules.Checker, p *field.Path, name string) bool {
	if wrong := validation.IsQualifiedName(name); len(wrong) > 0 {
		c.Each(p, name, wrong)
		return false
	}
	if own := !strings.Contains(name, "/") || strings.Contains(name, "kubernetes.io/"); own && name != ResourceStorage {
		c.Add(field.NotSupported(p, name, []string{ResourceStorage}))
		return false
	}
	return true
}

func checkVolumeAmount(c *rules.Checker, p *field.Path, q *metav1.Quantity) {
	amount, err := object.Amount(q)
	switch {
	case err != nil:
		c.Invalid(p, q.GetString_(), err.Error())
	case amount.Sign() < 0:
		c.Invalid(p, amount.Value(), "must be a valid resource quantity")
	}
}

func warnClaim(p *corev1.PersistentVolumeClaim) []string {
	var out []string
	if _, ok := p.GetMetadata().GetAnnotations()[AnnotationStorageClass]; ok {
		out = append(out, fmt.Sprintf("%s: deprecated since v1.8; use \"storageClassName\" attribute instead",
			rules.MetadataPath.Child("annotations").Key(AnnotationStorageClass)))
	}
	out = append(out, WarnClaimSpec(field.NewPath("spec"), p.GetSpec())...)
	if p.GetSpec().GetVolumeName() == "" {
		out = append(out, "volumes are not provided yet: the claim stays Pending")
	}
	return out
}

// WarnClaimSpec returns warnings about the spec of a claim, or of a template of claims.
func WarnClaimSpec(p *field.Path, s *corev1.PersistentVolumeClaimSpec) []string {
	var out []string
	for _, list := range []struct {
		name    string
		amounts map[string]*metav1.Quantity
	}{{"requests", s.GetResources().GetRequests()}, {"limits", s.GetResources().GetLimits()}} {
		if amount := storageOf(list.amounts); amount.MilliValue()%1000 != 0 {
			out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				p.Child("resources", list.name).Key(ResourceStorage), amount.String()))
		}
	}
	return out
}
