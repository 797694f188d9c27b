package core

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// checkVolumes checks the volumes and returns their names.
func checkVolumes(c *rules.Checker, p *field.Path, volumes []*corev1.Volume) rules.Names {
	seen := rules.Names{}
	for i, v := range volumes {
		at := p.Index(i)
		if c.DNSLabel(at.Child("name"), v.GetName()) {
			c.Unique(at.Child("name"), seen, v.GetName())
		}
		checkVolumeSource(c, at, v.GetVolumeSource())
	}
	return seen
}

func hasSource(s *corev1.VolumeSource) bool { return len(sources(s)) > 0 }

// sources are the fields set in a message of which exactly one has to be, in the order of their
// numbers.
func sources(m proto.Message) []protoreflect.FieldDescriptor {
	var set []protoreflect.FieldDescriptor
	r := m.ProtoReflect()
	if !r.IsValid() {
		return nil
	}
	for _, f := range rules.FieldsOf(r) {
		if r.Has(f) && f.Kind() == protoreflect.MessageKind && !f.IsMap() && !f.IsList() {
			set = append(set, f)
		}
	}
	return set
}

func checkVolumeSource(c *rules.Checker, p *field.Path, s *corev1.VolumeSource) {
	if e := s.GetEmptyDir(); e != nil {
		if e.GetSizeLimit() != nil {
			checkAmount(c, p.Child("emptyDir", "sizeLimit"), "", e.GetSizeLimit())
		}
	}
	if m := s.GetConfigMap(); m != nil {
		at := p.Child("configMap")
		if m.GetLocalObjectReference().GetName() == "" {
			c.Required(at.Child("name"), "")
		}
	}
	if d := s.GetDownwardApi(); d != nil {
		checkPodFiles(c, p.Child("downwardAPI", "items"), d.GetItems())
	}
	if s.GetProjected() != nil {
		checkProjected(c, p.Child("projected"), s.GetProjected())
	}
	if h := s.GetHostPath(); h != nil {
		checkNoBacksteps(c, p.Child("hostPath", "path"), h.GetPath())
	}
}

func checkProjected(c *rules.Checker, p *field.Path, v *corev1.ProjectedVolumeSource) {
	paths := rules.Names{}
	once := func(at *field.Path, path string) {
		if path != "" && paths[path] {
			c.Invalid(at, path, "conflicting duplicate paths")
		}
		paths[path] = true
	}
	items := func(at *field.Path, items []*corev1.KeyToPath) {
		for i, item := range items {
			once(at.Child("items").Index(i).Child("path"), item.GetPath())
		}
	}
	for i, s := range v.GetSources() {
		at := p.Child("sources").Index(i)
		if x := s.GetSecret(); x != nil {
			c.ObjectName(at.Child("secret", "name"), x.GetLocalObjectReference().GetName())
			items(at.Child("secret"), x.GetItems())
		}
		if m := s.GetConfigMap(); m != nil {
			c.ObjectName(at.Child("configMap", "name"), m.GetLocalObjectReference().GetName())
			items(at.Child("configMap"), m.GetItems())
		}
		if d := s.GetDownwardApi(); d != nil {
			checkPodFiles(c, at.Child("downwardAPI", "items"), d.GetItems())
			for j, item := range d.GetItems() {
				once(at.Child("downwardAPI", "items").Index(j).Child("path"), item.GetPath())
			}
		}
		if t := s.GetServiceAccountToken(); t != nil {
			checkToken(c, at.Child("serviceAccountToken"), t)
			once(at.Child("serviceAccountToken", "path"), t.GetPath())
		}
	}
}

// checkToken checks a token that is shown as a file.
func checkToken(c *rules.Checker, p *field.Path, t *corev1.ServiceAccountTokenProjection) {
	switch seconds := t.GetExpirationSeconds(); {
	case t.ExpirationSeconds == nil:
	case seconds < 600:
		c.Invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes")
	case seconds > 1<<32:
		c.Invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds")
	}
}

// volumeFields are the fields of a pod that files may show, besides single labels and annotations.
var volumeFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}

// checkPodFiles checks which fields of a pod become which files.
func checkPodFiles(c *rules.Checker, p *field.Path, items []*corev1.DownwardAPIVolumeFile) {
	for i, item := range items {
		at := p.Index(i)
		switch f, r := item.GetFieldRef(), item.GetResourceFieldRef(); {
		case f != nil && r != nil:
			c.Invalid(at, "", "fieldRef and resourceFieldRef can not be specified simultaneously")
		case f != nil:
			checkFieldRef(c, at.Child("fieldRef"), f, volumeFields)
		case r != nil:
			if r.GetContainerName() == "" {
				c.Required(at.Child("resourceFieldRef", "containerName"), "")
			}
			checkResourceField(c, at.Child("resourceFieldRef"), r)
		default:
			c.Required(at, "one of fieldRef and resourceFieldRef is required")
		}
	}
}
