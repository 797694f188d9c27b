package patch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
)

func strategicPatch(t *testing.T, kindName, doc, text string) (string, error) {
	t.Helper()
	k, ok := kinds.ByName(kindName)
	if !ok {
		t.Fatalf("no kind %q", kindName)
	}
	p, err := ParseStrategic([]byte(text), k.New().ProtoReflect().Descriptor())
	if err != nil {
		return "", err
	}
	out, err := p.Apply(t.Context(), []byte(doc))
	return string(out), err
}

// TestStrategicMerge applies patches whose results are those of Kubernetes' library
// (k8s.io/apimachinery/pkg/util/strategicpatch), among them 80 random orders of elements.
func TestStrategicMerge(t *testing.T) {
	f, err := os.Open("testdata/kubernetes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, n := bufio.NewScanner(f), 0
	for ; lines.Scan(); n++ {
		var c struct {
			Name, Kind       string
			Doc, Patch, Want json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		got, err := strategicPatch(t, c.Kind, string(c.Doc), string(c.Patch))
		if err != nil || !sameJSON(t, got, string(c.Want)) {
			t.Errorf("%s: %s on %s\ngot  %s, %v\nwant %s", c.Name, c.Patch, c.Doc, got, err, c.Want)
		}
	}
	if n < 100 {
		t.Errorf("%d cases, want at least 100", n)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		t.Fatalf("not JSON: %s, %s", a, b)
	}
	return reflect.DeepEqual(x, y)
}

const webPod = `{"metadata":{"name":"web","labels":{"a":"1","b":"2"},"finalizers":["x","y","z"]},"spec":{
	"containers":[{"name":"a","image":"a:1","env":[{"name":"X","value":"1"},{"name":"Y","value":"2"}],
		"ports":[{"containerPort":80,"protocol":"TCP","name":"http"}],"args":["one","two"],"command":["run"]},
		{"name":"b","image":"b:1"},{"name":"c","image":"c:1"}],
	"volumes":[{"name":"v","emptyDir":{}},{"name":"w","configMap":{"name":"w"}}],
	"nodeSelector":{"disk":"ssd"},"tolerations":[{"key":"k","operator":"Exists"}],"restartPolicy":"Always"}}`

// TestStrategicMergeOptions has lists whose patch_strategy differs from their list_type: pod
// addresses have one owner in server-side apply and yet are merged by strategic merge patches, by
// the one key that patch_merge_key names.
func TestStrategicMergeOptions(t *testing.T) {
	for name, c := range map[string]struct{ kind, doc, patch, want string }{
		"addresses": {
			"pod", `{"status":{"podIPs":[{"ip":"10.0.0.1"}],"hostIPs":[{"ip":"10.1.0.1"}]}}`,
			`{"status":{"podIPs":[{"ip":"fd00::1"}],"hostIPs":[{"ip":"10.1.0.1","$patch":"delete"}]}}`,
			`{"status":{"podIPs":[{"ip":"fd00::1"},{"ip":"10.0.0.1"}],"hostIPs":[]}}`,
		},
		"claims of a container, of list type map": {
			"pod", `{"spec":{"containers":[{"name":"a","resources":{"claims":[{"name":"x"}]}}]}}`,
			`{"spec":{"containers":[{"name":"a","resources":{"claims":[{"name":"y"}]}}]}}`,
			`{"spec":{"containers":[{"name":"a","resources":{"claims":[{"name":"y"}]}}]}}`,
		},
	} {
		got, err := strategicPatch(t, c.kind, c.doc, c.patch)
		if err != nil || !sameJSON(t, got, c.want) {
			t.Errorf("%s: got %s, %v\nwant %s", name, got, err, c.want)
		}
	}
}

// TestStrategicMergeErrors has patches that make no sense.
func TestStrategicMergeErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                            "JSON object",
		`{"spec":{"$patch":"explode"}}`: "want merge, replace or delete",
		`{"spec":{"containers":[{"image":"x"}]}}`:                                                         "lacks name",
		`{"spec":{"containers":["x"]}}`:                                                                   "element 0 is not an object",
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":"x"}}`:                                        "must be a list",
		`{"spec":{"volumes":[{"name":"v","$retainKeys":["name"],"secret":{}}]}}`:                          `does not name "secret"`,
		`{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"b","image":"x"}]}}`: `does not name the element "b"`,
		`{"spec":{"$deleteFromPrimitiveList/containers":["a"]}}`:                                          "the elements are objects",
		`{"spec":{"$setElementOrder/tolerations":[]}}`:                                                    "which tolerations is not",
		strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200):                                     "nested",
	} {
		if out, err := strategicPatch(t, "pod", webPod, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %s, %v, want %q", text, out, err, want)
		}
	}
}

// TestStrategicMergeCost has a patch of many elements on a document of many: the time is in
// proportion to both.
func TestStrategicMergeCost(t *testing.T) {
	var elements []string
	for i := range 40000 {
		elements = append(elements, fmt.Sprintf(`{"name":"c%d"}`, i))
	}
	list := strings.Join(elements, ",")
	doc := `{"spec":{"containers":[` + list + `]}}`
	text := `{"spec":{"$setElementOrder/containers":[` + list + `],"containers":[` + list + `]}}`
	got, err := strategicPatch(t, "pod", doc, text)
	if err != nil || !sameJSON(t, got, doc) {
		t.Errorf("%.100s, %v", got, err)
	}
}
