package kind

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// volumes checks the volumes and returns their names.
func (c *checker) volumes(p *field.Path, volumes []*corev1.Volume) names {
	seen := names{}
	for i, v := range volumes {
		at := p.Index(i)
		if c.dnsLabel(at.Child("name"), v.GetName()) {
			c.unique(at.Child("name"), seen, v.GetName())
		}
		c.volumeSource(at, v.GetVolumeSource())
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
	for _, f := range fieldsOf(r) {
		if r.Has(f) && f.Kind() == protoreflect.MessageKind && !f.IsMap() && !f.IsList() {
			set = append(set, f)
		}
	}
	return set
}

// exactlyOne checks a message of which exactly one field is set; it returns that field's name.
func (c *checker) exactlyOne(p *field.Path, m proto.Message, missing, further string) protoreflect.Name {
	set := sources(m)
	if len(set) == 0 {
		c.required(p, missing)
		return ""
	}
	for _, f := range set[1:] {
		c.forbidden(p.Child(f.JSONName()), further)
	}
	return set[0].Name()
}

func (c *checker) volumeSource(p *field.Path, s *corev1.VolumeSource) {
	// A volume that agents do not support is refused: a pod that runs without it may lose its data.
	if c.exactlyOne(p, s, "must specify a volume type", "may not specify more than 1 volume type") == "" {
		return
	}
	if e := s.GetEmptyDir(); e != nil {
		if e.GetSizeLimit() != nil {
			c.amount(p.Child("emptyDir", "sizeLimit"), "", e.GetSizeLimit())
		}
	}
	if m := s.GetConfigMap(); m != nil {
		at := p.Child("configMap")
		if m.GetLocalObjectReference().GetName() == "" {
			c.required(at.Child("name"), "")
		}
	}
	if d := s.GetDownwardApi(); d != nil {
		c.podFiles(p.Child("downwardAPI", "items"), d.GetItems())
	}
	if s.GetProjected() != nil {
		c.projected(p.Child("projected"), s.GetProjected())
	}
	if h := s.GetHostPath(); h != nil {
		at := p.Child("hostPath")
		if slices.Contains(strings.Split(h.GetPath(), "/"), "..") {
			c.invalid(at.Child("path"), h.GetPath(), "must not contain '..'")
		}
	}
}

func (c *checker) projected(p *field.Path, v *corev1.ProjectedVolumeSource) {
	paths := names{}
	once := func(at *field.Path, path string) {
		if path != "" && paths[path] {
			c.invalid(at, path, "conflicting duplicate paths")
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
		if c.exactlyOne(at, s, "must specify a source", "may not specify more than 1 source") == "" {
			continue
		}
		if x := s.GetSecret(); x != nil {
			c.objectName(at.Child("secret", "name"), x.GetLocalObjectReference().GetName())
			items(at.Child("secret"), x.GetItems())
		}
		if m := s.GetConfigMap(); m != nil {
			c.objectName(at.Child("configMap", "name"), m.GetLocalObjectReference().GetName())
			items(at.Child("configMap"), m.GetItems())
		}
		if d := s.GetDownwardApi(); d != nil {
			c.podFiles(at.Child("downwardAPI", "items"), d.GetItems())
			for j, item := range d.GetItems() {
				once(at.Child("downwardAPI", "items").Index(j).Child("path"), item.GetPath())
			}
		}
		if t := s.GetServiceAccountToken(); t != nil {
			c.token(at.Child("serviceAccountToken"), t)
			once(at.Child("serviceAccountToken", "path"), t.GetPath())
		}
	}
}

// token checks a token that is shown as a file.
func (c *checker) token(p *field.Path, t *corev1.ServiceAccountTokenProjection) {
	switch seconds := t.GetExpirationSeconds(); {
	case t.ExpirationSeconds == nil:
	case seconds < 600:
		c.invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes")
	case seconds > 1<<32:
		c.invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds")
	}
}

// volumeFields are the fields of a pod that files may show, besides single labels and annotations.
var volumeFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}

// podFiles checks which fields of a pod become which files.
func (c *checker) podFiles(p *field.Path, items []*corev1.DownwardAPIVolumeFile) {
	for i, item := range items {
		at := p.Index(i)
		switch f, r := item.GetFieldRef(), item.GetResourceFieldRef(); {
		case f != nil && r != nil:
			c.invalid(at, "", "fieldRef and resourceFieldRef can not be specified simultaneously")
		case f != nil:
			c.fieldRef(at.Child("fieldRef"), f, volumeFields)
		case r != nil:
			if r.GetContainerName() == "" {
				c.required(at.Child("resourceFieldRef", "containerName"), "")
			}
			c.resourceField(at.Child("resourceFieldRef"), r)
		default:
			c.required(at, "one of fieldRef and resourceFieldRef is required")
		}
	}
}
