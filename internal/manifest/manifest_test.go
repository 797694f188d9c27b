package manifest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// names writes documents as line:Kind/name.
func names(docs []manifest.Document) []string {
	var out []string
	for _, d := range docs {
		out = append(out, fmt.Sprintf("%d:%s/%s", d.Line, kinds.Of(d.Object).Name, d.Object.GetMetadata().GetName()))
	}
	return out
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"nothing", "", nil},
		{"empty documents", "---\n---\n# only words\n---\n", nil},
		{"several documents", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n---\n---\n# b\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
			[]string{"1:Pod/a", "8:ConfigMap/b"}},
		{"JSON stream", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"metadata\":{\"name\":\"\\ud83d\\ude00\"}}",
			[]string{"1:Pod/a", "2:Pod/😀"}},
		{"JSON with tabs", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"a\"}\n}", []string{"1:Pod/a"}},
		{"YAML that looks like JSON", "{apiVersion: v1, kind: Pod, metadata: {name: a}}", []string{"1:Pod/a"}},
		{"list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: a\n- apiVersion: v1\n  kind: PodList\n  items:\n  - {apiVersion: v1, kind: Pod, metadata: {name: b}}\n",
			[]string{"4:Pod/a", "11:Pod/b"}},
		{"empty list", "apiVersion: v1\nkind: List\nmetadata: {}\n", nil},
		{"generateName", "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: a-\n", []string{"1:Pod/"}},
		{"Windows line ends", "apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: a\r\n", []string{"1:Pod/a"}},
		{"byte order mark", "\ufeffapiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n", []string{"1:Pod/a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := manifest.Decode("m.yaml", strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, names(docs)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestScalars(t *testing.T) {
	docs, err := manifest.Decode("m.yaml", strings.NewReader(`
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: &labels
    app: web
    yes: on
    since: 2026-01-02
    "1": "2"
    3: three
  annotations:
    <<: *labels
    app: other
spec:
  hostNetwork: yes
  containers:
  - name: c
    resources: &small
      limits: {cpu: 0.5, memory: 1_000}
  - name: d
    resources: *small
  volumes:
  - name: v
    secret: {secretName: s, defaultMode: 0644}
  - name: w
    configMap: {name: c, defaultMode: 0o644}
`))
	if err != nil {
		t.Fatal(err)
	}
	pod := docs[0].Object.(*corev1.Pod)
	if diff := cmp.Diff(map[string]string{"app": "web", "yes": "on", "since": "2026-01-02", "1": "2", "3": "three"}, pod.GetMetadata().GetLabels()); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"app": "other", "yes": "on", "since": "2026-01-02", "1": "2", "3": "three"}, pod.GetMetadata().GetAnnotations()); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	limits := pod.GetSpec().GetContainers()[1].GetResources().GetLimits()
	if !pod.GetSpec().GetHostNetwork() || limits["cpu"].GetString_() != "500m" || limits["memory"].GetString_() != "1k" {
		t.Errorf("hostNetwork %v, limits %v", pod.GetSpec().GetHostNetwork(), limits)
	}
	for _, v := range pod.GetSpec().GetVolumes() {
		if mode := v.GetVolumeSource().GetSecret().GetDefaultMode() + v.GetVolumeSource().GetConfigMap().GetDefaultMode(); mode != 0o644 {
			t.Errorf("mode of %s is %o", v.GetName(), mode)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	const web = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - name: web\n"
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"unknown field", web + "        imagee: x\n", []string{`m.yaml:10: spec.template.spec.containers[0].imagee: unknown field, did you mean image?`}},
		{"all errors of all documents", web + "        imagee: x\n        args: {}\n---\nkind: Pod\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  nmae: x\n",
			[]string{
				`m.yaml:10: spec.template.spec.containers[0].imagee: unknown field, did you mean image?`,
				`m.yaml:11: spec.template.spec.containers[0].args: must be a list, not an object`,
				`m.yaml:13: apiVersion: required, such as v1 or apps/v1`,
				`m.yaml:18: metadata.nmae: unknown field, did you mean name?`,
			}},
		{"unknown kind", "apiVersion: x/v1\nmetadata: {}\nkind: Foo\n", []string{`m.yaml:3: kind: Foo of x/v1 is a kind neither of Kubernetes nor of Xebec`}},
		{"old apiVersion", "apiVersion: apps/v1beta2\nkind: Deployment\n", []string{`m.yaml:1: apiVersion: Deployment is not served in "apps/v1beta2": write apps/v1`}},
		{"no name", "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n", []string{`m.yaml:4: metadata.name: required, unless generateName is given`}},
		{"no metadata", "\napiVersion: v1\nkind: Pod\n", []string{`m.yaml:2: metadata.name: required, unless generateName is given`}},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec: 1\n- hello\n",
			[]string{`m.yaml:6: items[0].spec: must be an object, not the number 1`, `m.yaml:7: items[1]: must be an object with apiVersion, kind and metadata, not the string "hello"`}},
		{"items that are no list", "apiVersion: v1\nkind: List\nitems: {}\n", []string{`m.yaml:2: kind: v1 has no List: its kinds are Binding, `}},
		{"not an object", "hello\n", []string{`m.yaml:1: must be an object with apiVersion, kind and metadata, not the string "hello"`}},
		{"syntax", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n b: c\n", []string{`m.yaml:5: not valid YAML: did not find expected key`}},
		{"tab", "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n", []string{`m.yaml:4: not valid YAML: found character that cannot start any token`}},
		{"JSON syntax", "{\n\"apiVersion\": \"v1\",\n\"kind\": ]}", []string{`m.yaml:3: not valid JSON: `}},
		{"quoted number", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  port: 8080\n", []string{`m.yaml:5: data[port]: must be a string, not the number 8080: write it in quotes`}},
		{"alias to itself", "apiVersion: v1\nkind: Pod\nmetadata: &m\n  labels: *m\n", []string{`m.yaml:4: alias *m stands within the value that it names`}},
		{"merge of a string", "apiVersion: v1\nkind: Pod\nmetadata:\n  <<: a\n", []string{`m.yaml:4: only objects can be merged with <<`}},
		{"unknown alias", "a: *b\n", []string{`m.yaml: not valid YAML: unknown anchor 'b' referenced`}},
		{"infinity", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  priority: .inf\n", []string{`m.yaml:5: .inf is not a JSON number`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := manifest.Decode("m.yaml", strings.NewReader(tt.text))
			errs, ok := errors.AsType[manifest.Errors](err)
			if !ok {
				t.Fatalf("error is %v, want manifest.Errors", err)
			}
			if len(errs) != len(tt.want) {
				t.Fatalf("errors are\n%v\nwant\n%s", err, strings.Join(tt.want, "\n"))
			}
			for i, e := range errs {
				if !strings.HasPrefix(e.Error(), tt.want[i]) {
					t.Errorf("error %d\n got %s\nwant %s", i, e, tt.want[i])
				}
			}
		})
	}
}

func TestDuplicateKeys(t *testing.T) {
	docs, err := manifest.Decode("m.yaml", strings.NewReader(`apiVersion: v1
kind: Pod
kind: ConfigMap
metadata:
  name: a
  name: b
  labels: {x: "1", x: "2",
    x: "3"}
data: {a: 1}
data: {a: one}
`))
	if err != nil {
		t.Fatal(err)
	}
	c := docs[0].Object.(*corev1.ConfigMap)
	if c.GetMetadata().GetName() != "b" || c.GetMetadata().GetLabels()["x"] != "3" || c.GetData()["a"] != "one" {
		t.Errorf("the object is %v: the last of each key counts", c)
	}
	want := `m.yaml:3: kind: duplicate key, first written on line 2: the last one counts
m.yaml:6: metadata.name: duplicate key, first written on line 5: the last one counts
m.yaml:7: metadata.labels[x]: duplicate key, first written on line 7: the last one counts
m.yaml:8: metadata.labels[x]: duplicate key, first written on line 7: the last one counts
m.yaml:10: data: duplicate key, first written on line 9: the last one counts`
	if diff := cmp.Diff(want, docs[0].Warnings.Error()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestLineOf(t *testing.T) {
	docs, err := manifest.Decode("m.yaml", strings.NewReader(`apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    a.b/c: x
    d: y
spec:
  containers:
  - name: a
    env:
    - {name: A}
    - name: B
      value: c
`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"": 1, "metadata.name": 4, "metadata.annotations[a.b/c]": 6, "spec.containers[0].env[1].value": 14, "spec.containers[0].env[0]": 12,
		"spec.containers[0].image": 10, "spec.containers[5]": 9, "spec.containers[x": 9, "nothing.at[0].all": 1,
	} {
		if got := docs[0].LineOf(path); got != want {
			t.Errorf("%s is on line %d, want %d", path, got, want)
		}
	}
}

func TestGoodObjectsComeWithTheErrors(t *testing.T) {
	docs, err := manifest.Decode("m.yaml", strings.NewReader("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n---\n- [\n"))
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff([]string{"1:Pod/a", "7:Pod/b"}, names(docs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, ok := errors.AsType[*codec.FieldError](err); !ok {
		t.Errorf("%T holds no FieldError", err)
	}
}

// TestLaughs decodes texts of a few hundred bytes that stand for many gigabytes.
func TestLaughs(t *testing.T) {
	nested := func(open, item, shut, sep string) string {
		var b strings.Builder
		b.WriteString("a0: &a0 " + open + strings.Repeat("x"+item+sep, 9) + "x" + item + shut + "\n")
		for i := 1; i < 12; i++ {
			fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"lists": nested("[", "", "]", ","),
		"text":  "a: &a \"" + strings.Repeat("x", 100000) + "\"\nb: [" + strings.Repeat("*a, ", 100000) + "*a]\n",
		"merge": "a: &a {" + strings.Repeat("x: 1,", 1000) + "y: 1}\nb: {<<: [" + strings.Repeat("*a, ", 100000) + "*a]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := manifest.Decode("m.yaml", strings.NewReader(text))
			if err == nil || !strings.Contains(err.Error(), "grow beyond all measure") {
				t.Errorf("error is %v", err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad(t *testing.T) {
	pod := func(name string) string { return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\n" }
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"b.yaml": pod("b"), "a.yml": pod("a"), "c.JSON": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c"}}`,
		"readme.md": "# no manifest", "sub/d.yaml": pod("d"), "odd": pod("odd"), "bad/x.yaml": "kind: Pod\n", "none/x.txt": "",
	})
	tests := []struct {
		name      string
		paths     []string
		recursive bool
		want      []string
		err       string
	}{
		{"directory", []string{dir}, false, []string{"a", "b", "c"}, ""},
		{"recursive", []string{dir + "/sub", dir + "/none/.."}, false, []string{"d", "a", "b", "c"}, ""},
		{"all below", []string{dir}, true, []string{"a", "b", "c", "d"}, filepath.Join(dir, "bad/x.yaml") + ":1: apiVersion: required, such as v1 or apps/v1"},
		{"any name, and stdin", []string{dir + "/odd", "-"}, false, []string{"odd", "in"}, ""},
		{"missing", []string{dir + "/nope", dir + "/b.yaml"}, false, []string{"b"}, dir + "/nope: no such file or directory"},
		{"no manifests", []string{dir + "/none"}, false, nil, dir + "/none: the directory has no .yaml, .yml or .json file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := manifest.Load(tt.paths, tt.recursive, strings.NewReader(pod("in")))
			var got []string
			for _, d := range docs {
				got = append(got, d.Object.GetMetadata().GetName())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error is %v, want %q", err, tt.err)
			}
		})
	}
}

// TestCorpus reads every manifest under $CORPUS. Each must be read, or be refused for reasons that
// name what Xebec does not have; the outcome is logged file by file.
func TestCorpus(t *testing.T) {
	corpus := os.Getenv("CORPUS")
	if corpus == "" {
		t.Skip("CORPUS names no directory of manifests")
	}
	var read, objects int
	refused := map[string]int{}
	err := filepath.WalkDir(corpus, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		docs, err := manifest.Load([]string{path}, false, nil)
		objects += len(docs)
		for _, doc := range docs {
			if _, err := codec.MarshalYAML(doc.Object); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if err == nil {
			read++
			return nil
		}
		errs, ok := errors.AsType[manifest.Errors](err)
		if !ok {
			t.Errorf("%s: %v", path, err)
		}
		for _, e := range errs {
			rel := *e
			rel.Source, _ = filepath.Rel(corpus, e.Source)
			if fe, ok := errors.AsType[*codec.FieldError](e); ok && (fe.Path == "kind" || fe.Path == "apiVersion") {
				refused[fe.Message[:min(50, len(fe.Message))]]++
				continue
			}
			t.Log(rel.Error())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files read whole, %d objects", read, objects)
	for reason, n := range refused {
		t.Logf("%4d %s", n, reason)
	}
	if objects == 0 {
		t.Error("the corpus has no object that could be read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems: [{kind: Pod, apiVersion: v1, metadata: {generateName: b}}]\n"))
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: &m\n  name: a\ndata: &d {a: yes, b: |\n  text\n}\nbinaryData: {<<: [*d]}\n"))
	f.Add([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":1,"strategy":{"rollingUpdate":{"maxSurge":"25%"}}}}`))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - resources: {limits: {cpu: 0x10, memory: 1e3, a: 010}}\n    env: [{name: a, value: !!binary aGk=}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := manifest.Decode("fuzz", strings.NewReader(string(data)))
		if errs, ok := errors.AsType[manifest.Errors](err); err != nil && (!ok || len(errs) == 0) {
			t.Fatalf("error %v is a %T", err, err)
		}
		for _, doc := range docs {
			text, err := codec.MarshalYAML(doc.Object)
			if err != nil {
				t.Fatal(err)
			}
			again, err := manifest.Decode("again", strings.NewReader(string(text)))
			if err != nil || len(again) != 1 {
				t.Fatalf("what was written cannot be read: %v\n%s", err, text)
			}
			if diff := jsonDiff(t, doc.Object, again[0].Object); diff != "" {
				t.Fatalf("YAML lost something:\n%s\n%s", diff, text)
			}
		}
	})
}

func jsonDiff(t *testing.T, a, b scheme.Object) string {
	t.Helper()
	x, err := codec.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := codec.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return cmp.Diff(string(x), string(y))
}

// A manifest for Kubernetes goes from the file to the message without losing a word.
func TestDeployment(t *testing.T) {
	docs, err := manifest.Decode("deploy.yaml", strings.NewReader(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        env:
        - name: POD
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        livenessProbe: {httpGet: {path: /, port: http}, periodSeconds: 2}
`))
	if err != nil {
		t.Fatal(err)
	}
	d := docs[0].Object.(*appsv1.Deployment)
	c := d.GetSpec().GetTemplate().GetSpec().GetContainers()[0]
	if d.GetSpec().GetStrategy().GetRollingUpdate().GetMaxSurge().GetStrVal() != "25%" ||
		c.GetLivenessProbe().GetHandler().GetHttpGet().GetPort().GetStrVal() != "http" ||
		c.GetEnv()[0].GetValueFrom().GetFieldRef().GetFieldPath() != "metadata.name" {
		t.Errorf("got %v", d)
	}
}

// TestDiscovery reads objects of kinds that are added while a manifest is read.
func TestDiscovery(t *testing.T) {
	known := slices.DeleteFunc(kinds.All(), func(k *scheme.Kind) bool { return k.Name == "Secret" })
	served, err := scheme.New(known...)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	r := manifest.Reader{Kinds: served, Discover: func() {
		calls++
		if err := served.Register(kinds.Of(&corev1.Secret{})); err != nil {
			t.Error(err)
		}
	}}
	text := `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
{apiVersion: v1, kind: SecretList, items: [{apiVersion: v1, kind: Secret, metadata: {name: b}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: c}
dta: {}
---
{apiVersion: v1, kind: Sceret, metadata: {name: d}}
`
	docs, err := r.Decode("m.yaml", strings.NewReader(text))
	if diff := cmp.Diff([]string{"1:ConfigMap/a", "3:Secret/b"}, names(docs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := "m.yaml:8: dta: unknown field, did you mean data?\nm.yaml:10: kind: v1 has no Sceret, did you mean Secret?"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v, want\n%s", err, want)
	}
	if calls != 1 {
		t.Errorf("the kinds are discovered %d times, want once", calls)
	}
}

// TestJSONKeepsEmptyFields writes a document as JSON: what the message does not tell apart from
// fields that are left out is in it.
func TestJSONKeepsEmptyFields(t *testing.T) {
	docs, err := manifest.Decode("m.yaml", strings.NewReader(`
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {}, annotations: {a: ""}, creationTimestamp: null}
spec:
  hostNetwork: false
  restartPolicy: Never
  restartPolicy: ""
  nodeSelector:
  containers:
  - {name: one, image: x, tty: no, stdin: yes, resources: {}}
  - {name: two, image: x, env: [{name: A, value: ""}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	docs[0].Object.GetMetadata().Namespace = "default"
	got, err := docs[0].JSON()
	want := `{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"a":""},"name":"a","namespace":"default","labels":{}},` +
		`"spec":{"containers":[{"image":"x","name":"one","resources":{},"stdin":true,"tty":false},` +
		`{"env":[{"name":"A","value":""}],"image":"x","name":"two"}],"hostNetwork":false,"restartPolicy":""}}`
	if err != nil || string(got) != want {
		t.Errorf("%v, %s\nwant %s", err, got, want)
	}
}
