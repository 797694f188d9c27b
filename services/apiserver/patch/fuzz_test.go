package patch

import (
	"encoding/json"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const fuzzedPod = `{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}],"env":[{"name":"A","value":"B"}]}]}}`

// fuzz applies patches: the result is JSON, or the patch is refused.
func fuzz(f *testing.F, parse func([]byte) (Patch, error)) {
	f.Fuzz(func(t *testing.T, text, doc []byte) {
		p, err := parse(text)
		if err != nil {
			return
		}
		if out, err := p.Apply(t.Context(), doc); err == nil && !json.Valid(out) {
			t.Errorf("%s on %s gives %s", text, doc, out)
		}
	})
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"metadata":{"labels":{"x":null,"z":"1"}}}`), []byte(fuzzedPod))
	f.Add([]byte(`{"a":[1,{"b":null}]}`), []byte(`{"a":{"b":1}}`))
	fuzz(f, ParseMerge)
}

func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		`[{"op":"test","path":"/metadata/name","value":"a"},{"op":"replace","path":"/metadata/labels/x","value":"z"}]`,
		`[{"op":"add","path":"/spec/containers/-","value":{"name":"d"}},{"op":"remove","path":"/spec/containers/0"}]`,
		`[{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"},{"op":"copy","from":"/spec","path":"/a~1b~0c"}]`,
		`[{"op":"add","path":"","value":1}]`,
	} {
		f.Add([]byte(text), []byte(fuzzedPod))
	}
	fuzz(f, ParseJSON)
}

func FuzzStrategic(f *testing.F) {
	for _, text := range []string{
		`{"spec":{"containers":[{"name":"c","image":"i"},{"name":"d"}]}}`,
		`{"spec":{"containers":[{"$patch":"delete","name":"c"}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"d"}]}}`,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"$retainKeys":["name"]}}`,
		`{"spec":{"$patch":"replace","nodeName":"n"}}`,
	} {
		f.Add([]byte(text), []byte(fuzzedPod))
	}
	pod := (&corev1.Pod{}).ProtoReflect().Descriptor()
	fuzz(f, func(text []byte) (Patch, error) { return ParseStrategic(text, pod) })
}
