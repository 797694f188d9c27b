package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/agent/sandbox"
)

// TestMain lets the test program serve as log writer too. It fails when a goroutine outlives the
// tests.
func TestMain(m *testing.M) {
	if logs.Asked() {
		os.Exit(logs.RunWriter(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

// open connects to a containerd of the test's own.
func open(t *testing.T, d *containerdtest.Daemon, cfg images.Config) *runtime.Runtime {
	t.Helper()
	rt, err := runtime.New(t.Context(), runtime.Config{
		Address: d.Address, Namespace: "images-test", CgroupParent: d.CgroupParent, RuncRoot: filepath.Join(d.Dir, "runc"), ScratchDir: d.Dir, Images: cfg,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	return rt
}

// heavy adds a file of random content to an image, which no compression makes smaller.
func heavy(t *testing.T, img v1.Image, size int) v1.Image {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "data/weight", Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// push puts an image into a registry.
func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(ref, name.Insecure)
	if err == nil {
		err = remote.Write(tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCollect fills a small disk with images and lets room be made.
func TestCollect(t *testing.T) {
	d := containerdtest.StartOn(t, 110<<20)
	srv := httptest.NewServer(registry.New())
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	rt := open(t, d, images.Config{})
	store := rt.Images()
	base := containerdtest.Busybox(t)
	var refs []string
	for i := range 6 {
		ref := fmt.Sprintf("%s/app:%d", host, i)
		push(t, ref, heavy(t, base, 5<<20))
		if _, pulled, err := store.Ensure(t.Context(), ref, "IfNotPresent", nil); err != nil || !pulled {
			t.Fatalf("%s: pulled %v, %v", ref, pulled, err)
		}
		refs = append(refs, ref)
	}
	// A second name of the longest unused one, and one that was put there by hand.
	if _, err := store.Import(t.Context(), containerdtest.Archive(t, "kept:1", base)); err != nil {
		t.Fatal(err)
	}
	disk, err := store.Disk(t.Context())
	if err != nil || disk.Capacity != 110<<20 {
		t.Fatalf("the disk is %+v, %v", disk, err)
	}
	used := int(100 - disk.Available*100/disk.Capacity)
	t.Logf("%d%% of the disk are in use", used)

	// Image 0 is used by a container, 1 by a pod whose container is yet to start again, 2 was just
	// looked for.
	uid := uuid.NewString()
	box, _, err := sandbox.Create(sandbox.Config{Dir: filepath.Join(d.Dir, "ns"), Hostname: "box"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(filepath.Join(d.Dir, "ns")); err != nil {
			t.Error(err)
		}
	})
	running, err := rt.Start(t.Context(), runtime.ContainerConfig{
		PodUID: uid, PodName: "box", PodNamespace: "default", Name: "main", Image: refs[0], Sandbox: box, LogPath: filepath.Join(d.Dir, "main.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Ensure(t.Context(), refs[2], "IfNotPresent", nil); err != nil {
		t.Fatal(err)
	}
	var events []string
	policy := images.GC{
		High: used - 2, Low: used - 15, InUse: func() []string { return refs[1:2] },
		Failed: func(reason, message string) { events = append(events, reason+": "+message) },
	}
	there := func() []string {
		list, err := store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range list {
			out = append(out, i.Name)
		}
		return out
	}

	young := policy
	young.MinAge = time.Hour
	if err := images.NewCollector(store, young).Collect(t.Context()); err == nil || len(events) != 1 || !strings.HasPrefix(events[0], "FreeDiskSpaceFailed: ") {
		t.Errorf("nothing is old enough: %v, events %v", err, events)
	}
	roomy := policy
	roomy.High, roomy.Low = used+5, used-5
	if err := images.NewCollector(store, roomy).Collect(t.Context()); err != nil || len(there()) != 7 {
		t.Errorf("with room enough: %v, there are %v", err, there())
	}

	collector := images.NewCollector(store, policy)
	if err := collector.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	// 3 and 4 were longest unused; 15 % of the disk are two of them, about 10 MiB each with their file
	// systems.
	want := []string{refs[0], refs[1], refs[2], refs[5], "docker.io/library/kept:1"}
	slices.Sort(want)
	if got := there(); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	now, err := store.Disk(t.Context())
	if err != nil || int(100-now.Available*100/now.Capacity) > policy.Low+1 {
		t.Errorf("the disk is %+v, %v", now, err)
	}

	if freed, err := collector.FreeUnused(t.Context()); err != nil || freed < 10<<20 {
		t.Errorf("freed %d, %v", freed, err)
	}
	want = []string{refs[0], refs[1], "docker.io/library/kept:1"}
	slices.Sort(want)
	if got := there(); !slices.Equal(got, want) {
		t.Errorf("used are %v, want %v", got, want)
	}
	if s, err := rt.Status(t.Context(), running.ID); err != nil || s.State != runtime.Running {
		t.Errorf("the container is %+v, %v", s, err)
	}
	if err := errors.Join(rt.Remove(t.Context(), running.ID), rt.RemovePod(t.Context(), uid)); err != nil {
		t.Error(err)
	}
}

// TestMirror pulls an image of a registry that does not exist from a mirror.
func TestMirror(t *testing.T) {
	d := containerdtest.Start(t)
	var asked sync.Map
	inner := registry.New()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Query().Get("ns"), r.Header.Get("Authorization"))
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	dir := filepath.Join(d.Dir, "certs.d")
	hosts := fmt.Sprintf("server = \"https://registry.invalid\"\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", srv.URL)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "registry.invalid"), 0o755), os.WriteFile(filepath.Join(dir, "registry.invalid", "hosts.toml"), []byte(hosts), 0o644)); err != nil {
		t.Fatal(err)
	}
	push(t, strings.TrimPrefix(srv.URL, "http://")+"/team/app:1", containerdtest.Busybox(t))
	store := open(t, d, images.Config{RegistryDir: dir}).Images()
	keys := images.Keyring{}
	if err := keys.Add([]byte(`{"auths": {"registry.invalid": {"username": "ann", "password": "secret"}}}`), false); err != nil {
		t.Fatal(err)
	}
	img, pulled, err := store.Ensure(t.Context(), "registry.invalid/team/app:1", "IfNotPresent", keys)
	if err != nil || !pulled || img.Name != "registry.invalid/team/app:1" || img.Size < 100_000 {
		t.Fatalf("pulled %+v, %v, %v", img, pulled, err)
	}
	if auth, ok := asked.Load("registry.invalid"); !ok || auth != "" {
		t.Errorf("the mirror was asked %v, and received %q: the credentials are the registry's", ok, auth)
	}
}

// TestParallelPulls checks that pulls go side by side up to the bound.
func TestParallelPulls(t *testing.T) {
	d := containerdtest.Start(t)
	var now, most atomic.Int32
	release := make(chan struct{})
	inner := registry.New()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Each image's manifest is asked for by its name once, before all else.
		if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/") && strings.Contains(r.Header.Get("User-Agent"), "containerd") {
			n := now.Add(1)
			defer now.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	store := open(t, d, images.Config{Parallel: 2, ReportEvery: 20 * time.Millisecond}).Images()
	var queued, running atomic.Int32
	report := func(p images.Progress) {
		if p.Queued {
			queued.Add(1)
		} else {
			running.Add(1)
		}
	}
	base := containerdtest.Busybox(t)
	var wg sync.WaitGroup
	for i := range 4 {
		ref := fmt.Sprintf("%s/app:%d", strings.TrimPrefix(srv.URL, "http://"), i)
		push(t, ref, base)
		wg.Go(func() {
			if _, _, err := store.Ensure(context.WithoutCancel(t.Context()), ref, "Always", nil, report); err != nil {
				t.Error(err)
			}
		})
	}
	containerdtest.Eventually(t, 60*time.Second, "two pulls are on their way, and two wait", func() bool {
		return now.Load() == 2 && queued.Load() > 1 && running.Load() > 1
	})
	close(release)
	wg.Wait()
	if got := most.Load(); got != 2 {
		t.Errorf("%d pulls at a time, want 2", got)
	}
}
