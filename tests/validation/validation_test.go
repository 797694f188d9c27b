// Package validation_test compares defaults and validation with Kubernetes' own, which a program built on
// Kubernetes' packages answers for: it is a module of its own, tests/validation/kubernetes.
package validation_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/manifest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var update = flag.Bool("update", false, "write testdata/messages.txt again")

const (
	// fieldsPage has the table of what Kubernetes accepts and Xebec refuses.
	fieldsPage = "../../docs/fields.md"
	// messages lists the messages that differ though both refuse the object.
	messages = "testdata/messages.txt"
	// minPairs is how many verdicts are compared at least.
	minPairs = 3000
)

// incomplete are errors of Kubernetes about what an apiserver completes before it validates: addresses and ports are
// allocated and a pod without an account gets one. Protobuf cannot tell an empty list from none, which claims are.
var incomplete = []string{
	"spec.clusterIPs Required value", "spec.healthCheckNodePort Required value",
	"spec.volumes[].projected.sources[].serviceAccountToken Forbidden", "spec.resources.claims Forbidden",
}

// ours validates an object that is to be created as the apiserver does.
func ours(object json.RawMessage) []violation {
	o, err := codec.Unmarshal(object)
	if err != nil {
		var out []violation
		errs, _ := errors.AsType[codec.Errors](err)
		for _, e := range errs {
			out = append(out, violation{Type: "decode", Field: e.Path, Detail: e.Message})
		}
		return out
	}
	k := kind.Of(o)
	if m := o.GetMetadata(); m.GetName() == "" && m.GetGenerateName() != "" {
		m.Name = m.GetGenerateName() + "abcde"
	}
	k.PrepareCreate(o)
	k.Default(o)
	var out []violation
	for _, e := range append(k.Validate(o), k.ValidateNew(o)...) {
		out = append(out, violation{Type: e.Type.String(), Field: e.Field, Detail: e.Detail})
	}
	return out
}

var (
	indices = regexp.MustCompile(`\[\d+\]`)
	quoted  = regexp.MustCompile("'[^']*'|\"[^\"]*\"")
	row     = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Z][A-Za-z, ]+) \\|")
)

// comparison collects what differs.
type comparison struct {
	t        *testing.T
	program  *program
	stricter map[string]bool // "Kind field" as in the table of docs/fields.md
	used     map[string]bool
	differ   map[string]bool
	pairs    int
}

// TestVerdictsAndMessages compares what Kubernetes and Xebec say about valid objects and about each of their mutations.
// Whatever Kubernetes refuses is refused; what it accepts is refused only where docs/fields.md says so.
func TestVerdictsAndMessages(t *testing.T) {
	c := &comparison{t: t, program: start(t), stricter: stricter(t), used: map[string]bool{}, differ: map[string]bool{}}
	docs, err := manifest.Load([]string{"testdata"}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		c.object(d.Object)
	}
	t.Logf("%d pairs", c.pairs)
	if c.pairs < minPairs {
		t.Errorf("only %d pairs were compared, want %d at least", c.pairs, minPairs)
	}
	for entry := range c.stricter {
		if !c.used[entry] {
			t.Errorf("docs/fields.md says that %s is stricter than Kubernetes, but no object shows it", entry)
		}
	}
	c.messages()
}

// TestCorpus compares verdicts on the manifests of the directory CORPUS.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("CORPUS")
	if dir == "" {
		t.Skip("CORPUS names no directory of manifests")
	}
	c := &comparison{t: t, program: start(t), stricter: stricter(t), used: map[string]bool{}, differ: map[string]bool{}}
	docs, err := manifest.Load([]string{dir}, true, nil)
	if _, ok := errors.AsType[manifest.Errors](err); err != nil && !ok {
		t.Fatal(err)
	}
	for _, d := range docs {
		if m := d.Object.GetMetadata(); kind.Of(d.Object).Namespaced && m.GetNamespace() == "" {
			m.Namespace = "default"
		}
		v, err := codec.Value(d.Object)
		if err != nil {
			t.Fatal(err)
		}
		c.compare(kind.Of(d.Object), fmt.Sprintf("%s:%d", d.Source, d.Line), v.(map[string]any))
	}
	t.Logf("%d objects", c.pairs)
}

// object compares a valid object and its mutations.
func (c *comparison) object(o kind.Object) {
	k, name := kind.Of(o), kind.Of(o).Name+"/"+o.GetMetadata().GetName()
	v, err := codec.Value(o)
	if err != nil {
		c.t.Fatal(err)
	}
	base := v.(map[string]any)
	if errs := c.compare(k, name, base); len(errs) > 0 {
		c.t.Errorf("%s is not valid: %v", name, errs)
	}
	var skip []string
	if k.Name != "Node" {
		skip = append(skip, "status")
	}
	if k.Name != "ConfigMap" {
		skip = append(skip, "metadata.ownerReferences", "metadata.finalizers", "metadata.annotations")
	}
	if k.Group == "apps" {
		skip = append(skip, "spec.template.spec")
	}
	mutations(o.ProtoReflect().Descriptor(), base, skip...)(func(m mutation) bool {
		c.compare(k, name+": "+m.what, m.object)
		return true
	})
}

// compare compares the verdicts and the messages about one object, and returns our errors.
func (c *comparison) compare(k *kind.Kind, what string, object map[string]any) []violation {
	c.pairs++
	raw, err := json.Marshal(object)
	if err != nil {
		c.t.Fatal(err)
	}
	got, want := ours(raw), c.program.ask(c.t, settled(c.t, k, raw), nil)
	switch {
	case len(got) == 0 && want.refused():
		if !slices.ContainsFunc(want.Errors, func(v violation) bool { return !slices.Contains(incomplete, place(v.Field)+" "+v.Type) }) && want.Decode == "" {
			return nil
		}
		c.t.Errorf("%s: accepted, though Kubernetes refuses it: %.400s %.600v", what, want.Decode, want.Errors)
	case len(got) > 0 && !want.refused():
		for _, v := range got {
			entry := k.Name + " " + place(v.Field)
			if !c.stricter[entry] && !notServed(k, v) {
				c.t.Errorf("%s: refused, though Kubernetes accepts it and docs/fields.md does not say so: %+v", what, v)
			}
			c.used[entry] = true
		}
	case want.Decode == "":
		c.note(k, "xebec alone", got, want.Errors)
		c.note(k, "kubernetes alone", want.Errors, got)
	}
	return got
}

// note records the messages of one side that the other has not.
func (c *comparison) note(k *kind.Kind, side string, all, others []violation) {
	for _, v := range all {
		if !slices.Contains(others, v) {
			detail := strings.ReplaceAll(quoted.ReplaceAllString(v.Detail, "''"), "\n", " ")
			c.differ[strings.TrimSpace(fmt.Sprintf("%s %s | %s | %s: %.120s", k.Name, place(v.Field), side, v.Type, detail))] = true
		}
	}
}

// messages compares the differing messages with those that are known.
func (c *comparison) messages() {
	text := strings.Join(slices.Sorted(maps.Keys(c.differ)), "\n") + "\n"
	if *update {
		if err := os.WriteFile(messages, []byte(text), 0o644); err != nil {
			c.t.Fatal(err)
		}
		return
	}
	known, err := os.ReadFile(messages)
	if err != nil {
		c.t.Fatal(err)
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(known)) {
		have[strings.TrimSpace(line)] = true
	}
	for _, line := range slices.Sorted(maps.Keys(c.differ)) {
		if !have[line] {
			c.t.Errorf("a message that differs is not in %s (go test ./tests/validation -update): %s", messages, line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(have)) {
		if !c.differ[line] {
			c.t.Errorf("%s has a difference that is none any more: %s", messages, line)
		}
	}
}

// place is a path without the numbers of elements, and without the keys of maps.
func place(path string) string {
	path = indices.ReplaceAllString(path, "[]")
	if i := strings.Index(path, "["); i >= 0 && !strings.HasPrefix(path[i:], "[]") {
		path = path[:i]
	}
	return path
}

// settled is the object as Kubernetes' apiserver validates it: of services, with the address families and with the
// first address in both of its fields, which are settled before.
func settled(t *testing.T, k *kind.Kind, raw json.RawMessage) json.RawMessage {
	if k.Name != "Service" {
		return raw
	}
	o, err := codec.Unmarshal(raw)
	if err != nil {
		return raw
	}
	spec := o.(*corev1.Service).GetSpec()
	if spec.GetType() == kind.ServiceExternalName || spec == nil {
		return raw
	}
	if spec.GetClusterIp() != "" && len(spec.GetClusterIps()) == 0 {
		spec.ClusterIps = []string{spec.GetClusterIp()}
	}
	if len(kind.SettleFamilies(spec, nil, []string{kind.FamilyIPv4, kind.FamilyIPv6})) > 0 {
		return raw
	}
	out, err := codec.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// stricter reads the table of docs/fields.md: a field and the kinds that it is stricter in.
func stricter(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile(fieldsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Stricter than Kubernetes\n")
	if !ok {
		t.Fatalf("%s has no section Stricter than Kubernetes", fieldsPage)
	}
	out := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		for k := range strings.SplitSeq(m[2], ", ") {
			out[k+" "+m[1]] = true
		}
	}
	return out
}

// notServed reports that an error is about a field or a value that the protos mark as refused.
func notServed(k *kind.Kind, v violation) bool {
	d := k.New().ProtoReflect().Descriptor()
	names := strings.Split(strings.ReplaceAll(place(v.Field), "[]", ""), ".")
	for i, name := range names {
		f := member(d, name)
		if f == nil {
			return false
		}
		if r := rulesOf(f); r.GetRefused() != "" || i == len(names)-1 && len(r.GetRefusedValues()) > 0 && v.Type == "Unsupported value" {
			return true
		}
		if d = f.Message(); d == nil {
			return false
		}
	}
	return false
}
