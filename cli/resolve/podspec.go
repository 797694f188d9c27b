package resolve

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// PodSpec returns the part of an object that describes its pods; nil if the kind has none. It is
// found by the type of the fields, wherever a kind has it: spec of pods, spec.template.spec of
// deployments, spec.jobTemplate.spec.template.spec of cron jobs. Changes of it change the object.
func PodSpec(obj scheme.Object) *corev1.PodSpec {
	return messageAt[*corev1.PodSpec](obj.ProtoReflect(), pathTo(obj, &corev1.PodSpec{}))
}

// PodTemplate returns the pod template of an object and the JSON names of the fields that lead to
// it; nil if the object has none. Changes of it change the object.
func PodTemplate(obj scheme.Object) (*corev1.PodTemplateSpec, []string) {
	path := pathTo(obj, &corev1.PodTemplateSpec{})
	names := make([]string, len(path))
	for i, f := range path {
		names[i] = f.JSONName()
	}
	return messageAt[*corev1.PodTemplateSpec](obj.ProtoReflect(), path), names
}

// pathTo returns the shortest path of fields, none of them a list or a map, from an object to a
// message of the type of target; nil if there is none.
func pathTo(obj scheme.Object, target proto.Message) []protoreflect.FieldDescriptor {
	type step struct {
		message protoreflect.MessageDescriptor
		path    []protoreflect.FieldDescriptor
	}
	want := target.ProtoReflect().Descriptor().FullName()
	root := obj.ProtoReflect().Descriptor()
	visited := map[protoreflect.FullName]bool{root.FullName(): true}
	for queue := []step{{message: root}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for i := range at.message.Fields().Len() {
			f := at.message.Fields().Get(i)
			if f.Message() == nil || f.IsList() || f.IsMap() || visited[f.Message().FullName()] {
				continue
			}
			visited[f.Message().FullName()] = true
			path := append(at.path[:len(at.path):len(at.path)], f)
			if f.Message().FullName() == want {
				return path
			}
			queue = append(queue, step{f.Message(), path})
		}
	}
	return nil
}

// messageAt returns the message of the generated type M at a path; nil if it is not set. Within
// objects of dynamic kinds it takes the place of a dynamic message.
func messageAt[M proto.Message](m protoreflect.Message, path []protoreflect.FieldDescriptor) M {
	var none M
	for i, f := range path {
		if !m.Has(f) {
			return none
		}
		if i == len(path)-1 {
			return generated[M](m, f)
		}
		m = m.Get(f).Message()
	}
	return none
}

func generated[M proto.Message](m protoreflect.Message, f protoreflect.FieldDescriptor) M {
	held := m.Get(f).Message().Interface()
	if found, ok := held.(M); ok {
		return found
	}
	var none M
	made := none.ProtoReflect().New().Interface().(M)
	raw, err := proto.Marshal(held)
	if err == nil {
		err = proto.Unmarshal(raw, made)
	}
	if err != nil {
		return none // Only text that is not UTF-8 fails, and decoding has refused that.
	}
	m.Set(f, protoreflect.ValueOfMessage(made.ProtoReflect()))
	return made
}
