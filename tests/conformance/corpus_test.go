package conformance_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

var update = flag.Bool("update", false, "update the table in docs/conformance.md")

// page is the document that holds the result of TestCorpus.
const page = "../../docs/conformance.md"

// class is what became of an object of a manifest.
type class string

const (
	accepted class = "accepted"
	warned   class = "accepted with warnings"
	refused  class = "refused"
	unserved class = "kind not served"
	noObject class = "empty"
)

// finding is the result for one object, or for one file that holds none.
type finding struct {
	file     string
	line     int
	object   string // such as Pod/web; empty when it was not read
	class    class
	messages []string
}

// meant are the files of which objects are refused on purpose, and why. Any other refusal is an
// error, and so is one of these that no longer happens.
var meant = map[string]string{
	"kubernetes-website/application/job/job-tmpl.yaml":                               "a template that sed fills in: its name has a $",
	"kubernetes-website/pods/pod-projected-svc-token.yaml":                           "it names a service account that is not there",
	"kubernetes-website/pods/security/seccomp/profiles/audit.json":                   "no object: a file for nodes",
	"kubernetes-website/pods/security/seccomp/profiles/fine-grained.json":            "no object: a file for nodes",
	"kubernetes-website/pods/security/seccomp/profiles/violation.json":               "no object: a file for nodes",
	"kubernetes-website/service/networking/dual-stack-ipfamilies-ipv6.yaml":          "IPv6, as on a Kubernetes cluster without it",
	"kubernetes-website/service/networking/dual-stack-ipv6-svc.yaml":                 "a field that Kubernetes removed as well",
	"kubernetes-website/service/networking/dual-stack-prefer-ipv6-lb-svc.yaml":       "IPv6, as on a Kubernetes cluster without it",
	"kubernetes-website/service/networking/dual-stack-preferred-ipfamilies-svc.yaml": "IPv6, as on a Kubernetes cluster without it",
}

// bases are the files that only change an object, by server-side apply, and those that make it.
var bases = map[string]string{
	"kubernetes-website/application/ssa/nginx-deployment-replicas-only.yaml": "kubernetes-website/application/ssa/nginx-deployment.yaml",
}

// lenient are the files that the documentation has refused by a policy of the namespace, which is
// of a kind that is not served yet.
var lenient = map[string]string{
	"kubernetes-website/admin/resource/cpu-constraints-pod-2.yaml":    "LimitRange",
	"kubernetes-website/admin/resource/cpu-constraints-pod-3.yaml":    "LimitRange",
	"kubernetes-website/admin/resource/limit-range-pod-2.yaml":        "LimitRange",
	"kubernetes-website/admin/resource/limit-range-pod-3.yaml":        "LimitRange",
	"kubernetes-website/admin/resource/memory-constraints-pod-2.yaml": "LimitRange",
	"kubernetes-website/admin/resource/memory-constraints-pod-3.yaml": "LimitRange",
	"kubernetes-website/admin/resource/quota-mem-cpu-pod-2.yaml":      "ResourceQuota",
	"kubernetes-website/admin/resource/quota-pod-deployment.yaml":     "ResourceQuota",
}

// corpus is the directory of manifests that the test runs on.
func corpus(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CORPUS")
	if dir == "" {
		t.Skip("CORPUS names no directory of manifests")
	}
	return dir
}

// manifests are the files of the corpus, by name, relative to it.
func manifests(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("%s holds no manifest", dir)
	}
	return files
}

// controlPlane starts the processes that decide on a write, and returns an administrator's client.
func controlPlane(t *testing.T) *client.Client {
	t.Helper()
	binaries, remove, err := cluster.Build(t.Context(), "xebecd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries, Services: []string{"etcd", "apiserver", "gateway"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := c.Dial("gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return client.New(conn, client.WithFieldManager("conformance"))
}

// TestCorpus applies every object of every manifest to a control plane, as a dry run, and compares
// what becomes of them with docs/conformance.md.
func TestCorpus(t *testing.T) {
	dir := corpus(t)
	api := controlPlane(t)
	var all []finding
	for _, file := range manifests(t, dir) {
		all = append(all, try(t, api, dir, file)...)
	}
	judge(t, all)
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	switch fresh := report(t, string(old), all); {
	case fresh == string(old):
	case *update:
		if err := os.WriteFile(page, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s does not say what became of the manifests; run: make conformance CORPUS=%s UPDATE=1", page, dir)
	}
}

// judge reports what should not have become of an object.
func judge(t *testing.T, all []finding) {
	t.Helper()
	wasRefused, wasAccepted := map[string]bool{}, map[string]bool{}
	for _, f := range all {
		switch f.class {
		case refused:
			wasRefused[f.file] = true
			if meant[f.file] == "" {
				t.Errorf("%s:%d: %s is refused: %s", f.file, f.line, f.object, strings.Join(f.messages, "; "))
			}
		case accepted, warned:
			wasAccepted[f.file] = true
		case unserved:
			name, _, _ := strings.Cut(f.object, " of ")
			if !strings.Contains(f.messages[0], name) {
				t.Errorf("%s:%d: the error does not name the kind: %s", f.file, f.line, f.messages[0])
			}
		}
	}
	for file, why := range meant {
		if !wasRefused[file] {
			t.Errorf("%s is not refused any more, but was meant to be: %s", file, why)
		}
	}
	for file := range lenient {
		if !wasAccepted[file] {
			t.Errorf("%s is not accepted any more: it does not belong among those that are let through", file)
		}
	}
}

// try reads one manifest and applies its objects.
func try(t *testing.T, api *client.Client, dir, file string) []finding {
	t.Helper()
	r, err := os.Open(filepath.Join(dir, filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	docs, err := manifest.Decode(file, r)
	var found []finding
	if errs, ok := errors.AsType[manifest.Errors](err); ok {
		found = append(found, unread(file, errs)...)
	} else if err != nil {
		t.Fatal(err)
	}
	if base := bases[file]; base != "" {
		api = onTopOf(t, api, dir, base)
	}
	for _, d := range docs {
		found = append(found, apply(t, api, d))
	}
	if len(found) == 0 {
		found = append(found, finding{file: file, class: noObject})
	}
	slices.SortStableFunc(found, func(a, b finding) int { return a.line - b.line })
	return found
}

// unread are the findings for objects that were refused before they were sent.
func unread(file string, errs manifest.Errors) []finding {
	var found []finding
	for _, e := range errs {
		f := finding{file: file, line: e.Line, class: refused, messages: []string{e.Err.Error()}}
		if fe, ok := errors.AsType[*codec.FieldError](e.Err); ok && fe.Path == "kind" && fe.Kind != "" {
			f.class, f.object, f.messages = unserved, fe.Kind, []string{fe.Message}
		}
		if n := len(found); n > 0 && f.class == refused && found[n-1].class == refused && found[n-1].line == f.line {
			found[n-1].messages = append(found[n-1].messages, f.messages...)
			continue
		}
		found = append(found, f)
	}
	return found
}

// onTopOf stores the objects of a manifest and returns a client that owns none of their fields.
func onTopOf(t *testing.T, api *client.Client, dir, file string) *client.Client {
	t.Helper()
	docs, err := manifest.Load([]string{filepath.Join(dir, filepath.FromSlash(file))}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		d.Object.GetMetadata().Namespace = "default"
		if _, _, err := client.Apply(t.Context(), api, d.Object); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return api.WithFieldManager("handover")
}

// apply sends one object to the control plane as a dry run, into a namespace that is made for it
// when need be.
func apply(t *testing.T, api *client.Client, d manifest.Document) finding {
	t.Helper()
	k, m := kinds.Of(d.Object), d.Object.GetMetadata()
	f := finding{file: d.Source, line: d.Line, object: k.Name + "/" + m.GetName() + m.GetGenerateName(), class: accepted}
	if k.Namespaced {
		if m.GetNamespace() == "" {
			m.Namespace = "default"
		}
		needNamespace(t, api, m.GetNamespace())
	}
	_, _, err := client.Apply(t.Context(), api, d.Object, client.DryRun, client.Warnings(&f.messages))
	switch {
	case err != nil && apierr.IsBadRequest(err):
		f.class, f.messages = refused, nil
		for _, v := range apierr.Violations(err) {
			f.messages = append(f.messages, v.String())
		}
		if f.messages == nil {
			f.messages = []string{apierr.Message(err)}
		}
	case err != nil:
		f.class, f.messages = refused, []string{fmt.Sprintf("%s: %s", apierr.Reason(err), apierr.Message(err))}
	case len(f.messages) > 0:
		f.class = warned
	}
	return f
}

func needNamespace(t *testing.T, api *client.Client, name string) {
	t.Helper()
	_, err := client.Create(t.Context(), api, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name}})
	if err != nil && !apierr.IsAlreadyExists(err) {
		t.Fatalf("create namespace %s: %v", name, err)
	}
}
