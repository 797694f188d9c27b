package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func rfc3339(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

const (
	// MaxAnnotations is how many bytes all keys and values of an object's annotations may take
	// together.
	MaxAnnotations = 256 << 10
	// MaxGeneratedBase is the length to which generateName is cut, so that the name with its random
	// suffix is a DNS label.
	MaxGeneratedBase = 63 - 5
)

// MetadataPath is the path of metadata in errors.
var MetadataPath = field.NewPath("metadata")

func (c *Checker) metadata(m *metav1.ObjectMeta, namespaced bool, name func(string) []string) {
	p := MetadataPath
	if m.GetName() == "" {
		c.Required(p.Child("name"), "name or generateName is required")
	} else {
		c.Each(p.Child("name"), m.GetName(), name(m.GetName()))
	}
	if g := m.GetGenerateName(); g != "" {
		// The suffix follows a trailing dash or dot of the prefix.
		c.Each(p.Child("generateName"), g, name(strings.TrimRight(g, "-.")))
	}
	switch {
	case !namespaced && m.GetNamespace() != "":
		c.Forbidden(p.Child("namespace"), "not allowed on this type")
	case namespaced && m.GetNamespace() == "":
		c.Required(p.Child("namespace"), "")
	case namespaced:
		c.Each(p.Child("namespace"), m.GetNamespace(), validation.IsDNS1123Label(m.GetNamespace()))
	}
	c.Annotations(p.Child("annotations"), m.GetAnnotations())
	c.owners(p.Child("ownerReferences"), m.GetOwnerReferences())
	c.finalizers(p.Child("finalizers"), m.GetFinalizers())
}

// Annotations checks how much annotations hold together.
func (c *Checker) Annotations(p *field.Path, annotations map[string]string) {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	if size > MaxAnnotations {
		c.Add(field.TooLong(p, "", MaxAnnotations))
	}
}

func (c *Checker) owners(p *field.Path, owners []*metav1.OwnerReference) {
	controller := ""
	for _, o := range owners {
		if o.GetApiVersion() == "" || strings.Count(o.GetApiVersion(), "/") > 1 || strings.HasPrefix(o.GetApiVersion(), "/") {
			c.Invalid(p.Child("apiVersion"), o.GetApiVersion(), "version must be of the form v1 or group/v1")
		}
		if o.GetKind() == "" {
			c.Invalid(p.Child("kind"), o.GetKind(), "must not be empty")
		}
		if o.GetName() == "" {
			c.Invalid(p.Child("name"), o.GetName(), "must not be empty")
		}
		if o.GetUid() == "" {
			c.Invalid(p.Child("uid"), o.GetUid(), "must not be empty")
		}
		if !o.GetController() {
			continue
		}
		owner := o.GetKind() + "/" + o.GetName()
		if controller != "" {
			c.Invalid(p, owner,
				fmt.Sprintf("Only one reference can have Controller set to true. Found \"true\" in references for %s and %s", controller, owner))
		}
		controller = owner
	}
}

func (c *Checker) finalizers(p *field.Path, finalizers []string) {
	for i, f := range finalizers {
		c.Each(p, f, validation.IsQualifiedName(f))
		if len(validation.IsQualifiedName(f)) == 0 && !strings.Contains(f, "/") &&
			f != object.FinalizerForeground && f != object.FinalizerOrphan && f != object.FinalizerKubernetes {
			c.Invalid(p.Index(i), f, "name is neither a standard finalizer name nor is it fully qualified")
		}
	}
	if slices.Contains(finalizers, object.FinalizerForeground) && slices.Contains(finalizers, object.FinalizerOrphan) {
		c.Invalid(p, finalizers, "finalizer orphan and foregroundDeletion cannot be both set")
	}
}

// metadataUpdate checks fields that no update may change. Fields that the server sets and that the
// new metadata leaves out have been copied from the stored object before.
func (c *Checker) metadataUpdate(new, old *metav1.ObjectMeta) {
	p := MetadataPath
	Unchanged(c, p.Child("name"), new.GetName(), old.GetName())
	Unchanged(c, p.Child("namespace"), new.GetNamespace(), old.GetNamespace())
	Unchanged(c, p.Child("uid"), new.GetUid(), old.GetUid())
	if !proto.Equal(new.GetCreationTimestamp(), old.GetCreationTimestamp()) {
		c.Invalid(p.Child("creationTimestamp"), rfc3339(new.GetCreationTimestamp()), Immutable)
	}
	if !proto.Equal(new.GetDeletionTimestamp(), old.GetDeletionTimestamp()) {
		c.Invalid(p.Child("deletionTimestamp"), rfc3339(new.GetDeletionTimestamp()), Immutable)
	}
	unchangedPointer(c, p.Child("deletionGracePeriodSeconds"),
		orEmpty(new).DeletionGracePeriodSeconds, orEmpty(old).DeletionGracePeriodSeconds)
	if new.GetGeneration() < old.GetGeneration() {
		c.Invalid(p.Child("generation"), new.GetGeneration(), "must not be decremented")
	}
	if old.GetDeletionTimestamp() == nil {
		return
	}
	had := SetOf(old.GetFinalizers(), func(f string) string { return f })
	for i, f := range new.GetFinalizers() {
		if !had[f] {
			c.Forbidden(p.Child("finalizers").Index(i),
				fmt.Sprintf("no new finalizers can be added if the object is being deleted, found new finalizer %q", f))
		}
	}
}

func orEmpty(m *metav1.ObjectMeta) *metav1.ObjectMeta {
	if m == nil {
		return &metav1.ObjectMeta{}
	}
	return m
}
