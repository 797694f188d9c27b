package kind

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// MaxAnnotations is how many bytes all keys and values of an object's annotations may take
	// together.
	MaxAnnotations = 256 << 10
	// MaxGeneratedBase is the length to which generateName is cut, so that the name with its random
	// suffix is a DNS label.
	MaxGeneratedBase = 63 - 5
)

// Finalizers that the collector acts on.
const (
	// FinalizerForeground holds an object until its dependents are gone.
	FinalizerForeground = "foregroundDeletion"
	// FinalizerOrphan holds an object until its dependents no longer refer to it.
	FinalizerOrphan = "orphan"
	// FinalizerKubernetes holds a namespace until it is empty.
	FinalizerKubernetes = "kubernetes"
)

var metadataPath = field.NewPath("metadata")

func (c *checker) metadata(m *metav1.ObjectMeta, namespaced bool, name func(string) []string) {
	p := metadataPath
	if m.GetName() == "" {
		c.required(p.Child("name"), "name or generateName is required")
	} else {
		c.each(p.Child("name"), m.GetName(), name(m.GetName()))
	}
	if g := m.GetGenerateName(); g != "" {
		// The suffix follows a trailing dash or dot of the prefix.
		c.each(p.Child("generateName"), g, name(strings.TrimRight(g, "-.")))
	}
	switch {
	case !namespaced && m.GetNamespace() != "":
		c.forbidden(p.Child("namespace"), "not allowed on this type")
	case namespaced && m.GetNamespace() == "":
		c.required(p.Child("namespace"), "")
	case namespaced:
		c.each(p.Child("namespace"), m.GetNamespace(), validation.IsDNS1123Label(m.GetNamespace()))
	}
	c.annotations(p.Child("annotations"), m.GetAnnotations())
	c.owners(p.Child("ownerReferences"), m.GetOwnerReferences())
	c.finalizers(p.Child("finalizers"), m.GetFinalizers())
}

// annotations checks how much annotations hold together.
func (c *checker) annotations(p *field.Path, annotations map[string]string) {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	if size > MaxAnnotations {
		c.add(field.TooLong(p, "", MaxAnnotations))
	}
}

func (c *checker) owners(p *field.Path, owners []*metav1.OwnerReference) {
	controller := ""
	for _, o := range owners {
		if o.GetApiVersion() == "" || strings.Count(o.GetApiVersion(), "/") > 1 || strings.HasPrefix(o.GetApiVersion(), "/") {
			c.invalid(p.Child("apiVersion"), o.GetApiVersion(), "version must be of the form v1 or group/v1")
		}
		if o.GetKind() == "" {
			c.invalid(p.Child("kind"), o.GetKind(), "must not be empty")
		}
		if o.GetName() == "" {
			c.invalid(p.Child("name"), o.GetName(), "must not be empty")
		}
		if o.GetUid() == "" {
			c.invalid(p.Child("uid"), o.GetUid(), "must not be empty")
		}
		if !o.GetController() {
			continue
		}
		owner := o.GetKind() + "/" + o.GetName()
		if controller != "" {
			c.invalid(p, owner,
				fmt.Sprintf("Only one reference can have Controller set to true. Found \"true\" in references for %s and %s", controller, owner))
		}
		controller = owner
	}
}

func (c *checker) finalizers(p *field.Path, finalizers []string) {
	for i, f := range finalizers {
		c.each(p, f, validation.IsQualifiedName(f))
		if len(validation.IsQualifiedName(f)) == 0 && !strings.Contains(f, "/") &&
			f != FinalizerForeground && f != FinalizerOrphan && f != FinalizerKubernetes {
			c.invalid(p.Index(i), f, "name is neither a standard finalizer name nor is it fully qualified")
		}
	}
	if slices.Contains(finalizers, FinalizerForeground) && slices.Contains(finalizers, FinalizerOrphan) {
		c.invalid(p, finalizers, "finalizer orphan and foregroundDeletion cannot be both set")
	}
}

// metadataUpdate checks fields that no update may change. Fields that the server sets and that the
// new metadata leaves out have been copied from the stored object before.
func (c *checker) metadataUpdate(new, old *metav1.ObjectMeta) {
	p := metadataPath
	unchanged(c, p.Child("name"), new.GetName(), old.GetName())
	unchanged(c, p.Child("namespace"), new.GetNamespace(), old.GetNamespace())
	unchanged(c, p.Child("uid"), new.GetUid(), old.GetUid())
	if !proto.Equal(new.GetCreationTimestamp(), old.GetCreationTimestamp()) {
		c.invalid(p.Child("creationTimestamp"), rfc3339(new.GetCreationTimestamp()), fieldImmutable)
	}
	if !proto.Equal(new.GetDeletionTimestamp(), old.GetDeletionTimestamp()) {
		c.invalid(p.Child("deletionTimestamp"), rfc3339(new.GetDeletionTimestamp()), fieldImmutable)
	}
	unchangedPointer(c, p.Child("deletionGracePeriodSeconds"),
		orEmpty(new).DeletionGracePeriodSeconds, orEmpty(old).DeletionGracePeriodSeconds)
	if new.GetGeneration() < old.GetGeneration() {
		c.invalid(p.Child("generation"), new.GetGeneration(), "must not be decremented")
	}
	if old.GetDeletionTimestamp() == nil {
		return
	}
	had := setOf(old.GetFinalizers(), func(f string) string { return f })
	for i, f := range new.GetFinalizers() {
		if !had[f] {
			c.forbidden(p.Child("finalizers").Index(i),
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
