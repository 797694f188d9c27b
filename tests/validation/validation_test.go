// Package validation_test compares validation with that of Kubernetes. A program that is built on
// Kubernetes' own packages validates the same objects; it is a separate module,
// tests/validation/kubernetes.
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

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

var (
	update = flag.Bool("update", false, "write testdata/messages.txt again; with -only, add to it")
	only   = flag.String("only", "", "compare objects whose KIND/NAME this pattern matches, and no counts")
)

const (
	// fieldsPage has the table of what Kubernetes accepts and Xebec refuses.
	fieldsPage = "../../docs/fields.md"
	// messages lists the messages that differ though both refuse the object.
	messages = "testdata/messages.txt"
	// minCreates and minUpdates are how many verdicts are compared at least.
	minCreates, minUpdates = 18000, 18000
	// minDefaulted is how many valid objects with defaults are compared at least.
	minDefaulted = 3000
	// jobUID is the uid of all Jobs, here and in tests/validation/kubernetes.
	jobUID = "9f2b4d5c-0000-4000-8000-000000000001"
)

// minBySubresource is how many updates by each subresource are compared at least.
var minBySubresource = map[string]int{"status": 500, "resize": 500, "ephemeralcontainers": 100, "approval": 50}

// incomplete are errors of Kubernetes about what an apiserver completes before it validates:
// addresses and ports are allocated and a pod without an account gets one. Protobuf cannot tell an
// empty list or map from an absent one.
var incomplete = []string{
	"spec.clusterIPs Required value", "spec.healthCheckNodePort Required value",
	"spec.volumes[].projected.sources[].serviceAccountToken Forbidden", "spec.resources.claims Forbidden", "binaryData Forbidden",
	"spec.ephemeralContainers[].ports Forbidden", "spec.ephemeralContainers[].resizePolicy Forbidden",
	"spec.ephemeralContainers[].restartPolicyRules Forbidden",
	"spec.metadata.ownerReferences Forbidden", "spec.metadata.finalizers Forbidden", "spec.metadata.managedFields Forbidden",
}

const (
	// uncompiled is how the paths of CEL expressions end, which Xebec does not compile.
	uncompiled = ".cel.expression"
	// emptyAndSet is the detail of an error that Kubernetes also has when one of the lists is empty.
	emptyAndSet = "only one of `sharedCounters` or `devices` is allowed"
)

// create validates an object that is created as the apiserver does, and returns it as it is stored.
func create(object json.RawMessage) (scheme.Object, []violation) {
	o, err := codec.Unmarshal(object)
	if err != nil {
		return nil, undecodable(err)
	}
	k := kinds.Of(o)
	if m := o.GetMetadata(); m.GetName() == "" && m.GetGenerateName() != "" {
		m.Name = m.GetGenerateName() + "abcde"
	}
	setJobUID(o)
	k.PrepareCreate(o)
	k.Default(o)
	return o, violations(append(k.Validate(o), k.ValidateNew(o)...))
}

// setJobUID gives a Job a uid, which goes into its generated labels.
func setJobUID(o scheme.Object) {
	if j, ok := o.(*batchv1.Job); ok && j.Metadata != nil {
		j.Metadata.Uid = jobUID
	}
}

// replace validates an object that replaces a stored one as the apiserver does, and returns it as
// it is stored.
func replace(object json.RawMessage, stored scheme.Object) (scheme.Object, []violation) {
	o, err := codec.Unmarshal(object)
	if err != nil {
		return nil, undecodable(err)
	}
	k := kinds.Of(o)
	setJobUID(o)
	k.Default(o)
	k.PrepareUpdate(o, stored)
	k.Default(o)
	var errs field.ErrorList
	if s, ok := o.(*corev1.Service); ok {
		errs = core.SettleFamilies(s.GetSpec(), stored.(*corev1.Service).GetSpec(), families)
	}
	errs = append(errs, k.Validate(o)...)
	return o, violations(append(errs, k.ValidateUpdate(o, stored)...))
}

func undecodable(err error) []violation {
	var out []violation
	errs, _ := errors.AsType[codec.Errors](err)
	for _, e := range errs {
		out = append(out, violation{Type: "decode", Field: e.Path, Detail: e.Message})
	}
	return out
}

func violations(errs field.ErrorList) []violation {
	var out []violation
	for _, e := range errs {
		at := e.Field
		// The error about the spec of a pod names the field that may not change at its end.
		if _, changed, ok := strings.Cut(e.Detail, ": differs in "); ok {
			at = changed
		}
		out = append(out, violation{Type: e.Type.String(), Field: at, Detail: e.Detail})
	}
	return out
}

// families are the IP families of the cluster's services.
var families = []string{core.FamilyIPv4, core.FamilyIPv6}

var (
	indices = regexp.MustCompile(`\[\d+\]`)
	// belowKey is the rest of a place from the key of a map on.
	belowKey = regexp.MustCompile(`\[[^\]].*`)
	quoted   = regexp.MustCompile("'[^']*'|\"[^\"]*\"")
	row      = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Z][A-Za-z, ]+) \\|")
)

// comparison collects differences.
type comparison struct {
	t       *testing.T
	program *program
	// stricter has a "Kind field" for each row of the table of docs/fields.md.
	stricter map[string]bool
	used     map[string]bool
	differ   map[string]bool
	// broken are the names of the rules that a refused mutation breaks.
	broken           map[string]bool
	creates, updates int
	// subresources are the numbers of updates by each subresource.
	subresources map[string]int
	// defaulted is how many objects with defaults are compared.
	defaulted int
	// defaultsDiffer has a "Kind field" for each row of the table of defaults in docs/fields.md.
	defaultsDiffer map[string]bool
}

func newComparison(t *testing.T) *comparison {
	return &comparison{
		t: t, program: start(t), stricter: table(t, "Stricter than Kubernetes"), used: map[string]bool{}, differ: map[string]bool{}, broken: map[string]bool{},
		subresources: map[string]int{}, defaultsDiffer: table(t, "Defaults"),
	}
}

// TestVerdictsAndMessages compares what Kubernetes and Xebec say about the creation of valid
// objects and of each of their mutations, and about updates of valid objects to their mutations and
// to other valid objects of the kind. Whatever Kubernetes refuses is refused; what it accepts is
// refused only where docs/fields.md says so.
func TestVerdictsAndMessages(t *testing.T) {
	c := newComparison(t)
	docs, err := manifest.Load([]string{"testdata"}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*scheme.Kind]bool{}
	for _, d := range docs {
		if matches, err := regexp.MatchString(*only, nameOf(d.Object)); err != nil || !matches {
			continue
		}
		c.object(d.Object)
		c.status(d.Object)
		c.approval(d.Object)
		if p, ok := d.Object.(*corev1.Pod); ok {
			c.resize(p)
			if len(p.GetSpec().GetContainers()) > 1 {
				c.addEphemeral(p)
			}
		}
		for _, other := range docs {
			if kinds.Of(other.Object) == kinds.Of(d.Object) && other.Object != d.Object {
				c.transition(d.Object, other.Object)
			}
		}
		seen[kinds.Of(d.Object)] = true
	}
	if *only != "" {
		if *update {
			c.writeMessages(knownMessages(t))
		}
		return
	}
	t.Logf("%d creates, %d updates, by subresources %v, the defaults of %d objects", c.creates, c.updates, c.subresources, c.defaulted)
	for subresource, least := range minBySubresource {
		if n := c.subresources[subresource]; n < least {
			t.Errorf("%d updates by the subresource %s were compared, want %d at least", n, subresource, least)
		}
	}
	if c.creates < minCreates || c.updates < minUpdates {
		t.Errorf("%d creates and %d updates were compared, want %d and %d at least", c.creates, c.updates, minCreates, minUpdates)
	}
	for k := range seen {
		for rule := range rulesBelow(k.New().ProtoReflect().Descriptor(), unchecked(k)...) {
			if !c.broken[rule] {
				t.Errorf("no mutation breaks the rule %s: give an object in testdata the field", rule)
			}
		}
	}
	for _, entries := range []map[string]bool{c.stricter, c.defaultsDiffer} {
		for entry := range entries {
			if !c.used[entry] {
				t.Errorf("docs/fields.md says that Kubernetes treats %s differently, but no object shows it", entry)
			}
		}
	}
	if c.defaulted < minDefaulted {
		t.Errorf("the defaults of %d objects were compared, want %d at least", c.defaulted, minDefaulted)
	}
	c.messages()
}

// TestCorpus compares verdicts on the manifests of the directory CORPUS.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("CORPUS")
	if dir == "" {
		t.Skip("CORPUS names no directory of manifests")
	}
	c := newComparison(t)
	docs, err := manifest.Load([]string{dir}, true, nil)
	if _, ok := errors.AsType[manifest.Errors](err); err != nil && !ok {
		t.Fatal(err)
	}
	for _, d := range docs {
		if m := d.Object.GetMetadata(); kinds.Of(d.Object).Namespaced && m.GetNamespace() == "" {
			m.Namespace = "default"
		}
		v, err := codec.Value(d.Object)
		if err != nil {
			t.Fatal(err)
		}
		c.create(kinds.Of(d.Object), fmt.Sprintf("%s:%d", d.Source, d.Line), v.(map[string]any))
	}
	t.Logf("%d objects", c.creates)
}

// unchecked returns the fields of a kind that creates and updates ignore.
func unchecked(k *scheme.Kind) []protoreflect.Name {
	if k.Name == "Node" {
		return nil
	}
	return []protoreflect.Name{"status"}
}

// object compares creations of a valid object and of its mutations, and updates of the object to
// them.
func (c *comparison) object(o scheme.Object) {
	k, name := kinds.Of(o), nameOf(o)
	base, raw := c.value(o)
	if errs := c.create(k, name, base); len(errs) > 0 {
		c.t.Errorf("%s is not valid: %v", name, errs)
	}
	stored := c.created(k, raw)
	var skip []string
	for _, part := range unchecked(k) {
		skip = append(skip, string(part))
	}
	if k.Name != "ConfigMap" {
		skip = append(skip, "metadata.ownerReferences", "metadata.finalizers", "metadata.annotations")
	}
	// Pods are compared by themselves.
	switch {
	case k.Group == "batch":
		pod := (&corev1.PodSpec{}).ProtoReflect().Descriptor()
		skip = append(skip, allBut(pod, "spec.template.spec.", "restartPolicy")...)
		skip = append(skip, allBut(pod, "spec.jobTemplate.spec.template.spec.", "restartPolicy")...)
	case k.Name == "PersistentVolume":
		skip = append(skip, uncomparedOfVolume(o.(*corev1.PersistentVolume))...)
	case k.Name == "VolumeAttachment":
		spec := o.(*storagev1.VolumeAttachment).GetSpec().GetSource().GetInlineVolumeSpec()
		skip = append(skip, otherSources("spec.source.inlineVolumeSpec.", spec)...)
	case k.Name == "ResourceSlice":
		skip = append(skip, "spec.devices[0].taints[0].timeAdded", "spec.devices[0].taints[1].timeAdded") // The default is the current time.
	case k.Name != "Pod":
		skip = append(skip, "spec.template.spec", "template.spec")
	}
	for m := range mutations(o.ProtoReflect().Descriptor(), base, skip...) {
		immutable := strings.HasSuffix(m.rule, " immutable")
		if errs := c.create(k, name+": "+m.what, m.object); !immutable {
			c.breaks(m, errs)
		}
		if errs := c.update(k, name+": "+m.what, m.object, stored, raw); immutable {
			c.breaks(m, slices.DeleteFunc(errs, func(v violation) bool { return v.Detail != "field is immutable" }))
		}
	}
}

// created returns a valid object as it is stored before an update.
func (c *comparison) created(k *scheme.Kind, raw json.RawMessage) scheme.Object {
	if k.Name == "PersistentVolumeClaim" {
		return c.stored(raw) // What an update may change depends on the status.
	}
	stored, _ := create(raw)
	return stored
}

// breaks records the rule that a mutation breaks, if an error shows it.
func (c *comparison) breaks(m mutation, errs []violation) {
	for _, v := range errs {
		rest, ok := strings.CutPrefix(v.Field, m.path)
		if m.rule != "" && ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			c.broken[m.rule] = true
		}
	}
}

// transition compares the update of a valid object to another one of the kind, which takes its
// name.
func (c *comparison) transition(from, to scheme.Object) {
	to = proto.Clone(to).(scheme.Object)
	to.GetMetadata().Name = from.GetMetadata().GetName()
	_, raw := c.value(from)
	stored := c.created(kinds.Of(from), raw)
	object, _ := c.value(to)
	c.update(kinds.Of(from), nameOf(from)+" to "+nameOf(to), object, stored, raw)
}

func nameOf(o scheme.Object) string { return kinds.Of(o).Name + "/" + o.GetMetadata().GetName() }

// value returns an object as JSON.
func (c *comparison) value(o scheme.Object) (map[string]any, json.RawMessage) {
	v, err := codec.Value(o)
	if err != nil {
		c.t.Fatal(err)
	}
	return v.(map[string]any), c.marshal(v)
}

func (c *comparison) marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// create compares the verdicts and the messages about the creation of one object, and returns our
// errors.
func (c *comparison) create(k *scheme.Kind, what string, object map[string]any) []violation {
	c.creates++
	raw := c.marshal(object)
	_, got := create(raw)
	want := c.program.ask(c.t, settled(c.t, k, raw), nil, "")
	c.compare(k, what, got, want)
	if want.Decode == "" && len(got) == 0 {
		c.defaults(k, what, settled(c.t, k, raw), want.Defaulted)
	}
	return got
}

// update compares the verdicts and the messages about the update of a stored object, which was
// created from raw. It returns our errors.
func (c *comparison) update(
	k *scheme.Kind, what string, object map[string]any, stored scheme.Object, raw json.RawMessage,
) []violation {
	c.updates++
	asked := c.marshal(object)
	o, got := replace(asked, stored)
	if _, ok := o.(*corev1.Service); ok {
		// Kubernetes completes services as well before it validates them.
		asked = c.encode(o)
		raw = settled(c.t, k, raw)
	}
	c.compare(k, "update of "+what, got, c.program.ask(c.t, asked, raw, ""))
	return got
}

func (c *comparison) encode(o scheme.Object) json.RawMessage {
	raw, err := codec.Marshal(o)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// compare compares the verdicts and the messages about one write.
func (c *comparison) compare(k *scheme.Kind, what string, got []violation, want answer) {
	switch {
	case len(got) == 0 && want.refused():
		complete := func(v violation) bool {
			return !slices.Contains(incomplete, place(v.Field)+" "+v.Type) && !strings.HasSuffix(v.Field, uncompiled) && v.Detail != emptyAndSet
		}
		if want.Decode == "" && !slices.ContainsFunc(want.Errors, complete) {
			return
		}
		c.t.Errorf("%s: accepted, though Kubernetes refuses it: %.400s %.600v", what, want.Decode, want.Errors)
	case len(got) > 0 && !want.refused():
		for _, v := range got {
			entry := k.Name + " " + belowKey.ReplaceAllString(place(v.Field), "")
			if !c.stricter[entry] && !notServed(k, v) {
				c.t.Errorf("%s: refused, though Kubernetes accepts it and docs/fields.md does not say so: %+v", what, v)
			}
			c.used[entry] = true
		}
	case want.Decode == "":
		c.note(k, "xebec alone", got, want.Errors)
		c.note(k, "kubernetes alone", want.Errors, got)
	}
}

// note records the messages of one side that the other has not.
func (c *comparison) note(k *scheme.Kind, side string, all, others []violation) {
	for _, v := range all {
		same := func(o violation) bool { return unnumbered(k, o) == unnumbered(k, v) }
		if !slices.ContainsFunc(others, same) {
			detail := strings.ReplaceAll(quoted.ReplaceAllString(v.Detail, "''"), "\n", " ")
			c.differ[strings.TrimSpace(fmt.Sprintf("%s %s | %s | %s: %.120s", k.Name, place(v.Field), side, v.Type, detail))] = true
		}
	}
}

// unnumbered drops the number of a volume of a StatefulSet: Kubernetes numbers them together with
// those of the claim templates, in the order of a map.
func unnumbered(k *scheme.Kind, v violation) violation {
	const volumes = "spec.template.spec.volumes["
	if k.Name == "StatefulSet" && strings.HasPrefix(v.Field, volumes) {
		v.Field = place(v.Field)
	}
	return v
}

// messages compares the differing messages with those that are known.
func (c *comparison) messages() {
	if *update {
		c.writeMessages(nil)
		return
	}
	have := knownMessages(c.t)
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

// knownMessages returns the lines of the list.
func knownMessages(t *testing.T) map[string]bool {
	t.Helper()
	known, err := os.ReadFile(messages)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(known)) {
		have[strings.TrimSpace(line)] = true
	}
	return have
}

// writeMessages writes the list again: the differing messages, and the lines in keep.
func (c *comparison) writeMessages(keep map[string]bool) {
	lines := maps.Clone(c.differ)
	maps.Copy(lines, keep)
	text := strings.Join(slices.Sorted(maps.Keys(lines)), "\n") + "\n"
	if err := os.WriteFile(messages, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
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

// settled returns an object as Kubernetes' apiserver validates it: services have their address
// families, and the first address in both of its fields.
func settled(t *testing.T, k *scheme.Kind, raw json.RawMessage) json.RawMessage {
	if k.Name != "Service" {
		return raw
	}
	o, err := codec.Unmarshal(raw)
	if err != nil {
		return raw
	}
	spec := o.(*corev1.Service).GetSpec()
	if spec.GetType() == core.ServiceExternalName || spec == nil {
		return raw
	}
	if spec.GetClusterIp() != "" && len(spec.GetClusterIps()) == 0 {
		spec.ClusterIps = []string{spec.GetClusterIp()}
	}
	if len(core.SettleFamilies(spec, nil, families)) > 0 {
		return raw
	}
	out, err := codec.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// table reads the table in a section of docs/fields.md: fields, and kinds that differ in them.
func table(t *testing.T, title string) map[string]bool {
	t.Helper()
	page, err := os.ReadFile(fieldsPage)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## "+title+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", fieldsPage, title)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	out := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		for k := range strings.SplitSeq(m[2], ", ") {
			out[k+" "+m[1]] = true
		}
	}
	return out
}

// notServed reports that an error is about a field or a value that the protos mark as refused.
func notServed(k *scheme.Kind, v violation) bool {
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
