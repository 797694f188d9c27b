package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/uuid"

	// The test program serves as log writer too.
	_ "github.com/xebec-project/xebec/agent/companion"
	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/logs"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/agent/sandbox"
)

const busybox = "docker.io/library/busybox:test"

// node is what a test runs containers on.
type node struct {
	*testing.T
	daemon  *containerdtest.Daemon
	rt      *runtime.Runtime
	sandbox sandbox.Sandbox
	uid     string
}

func open(t *testing.T, d *containerdtest.Daemon) *runtime.Runtime {
	t.Helper()
	rt, err := runtime.New(t.Context(), runtime.Config{
		Address: d.Address, Namespace: "xebec-test", CgroupParent: d.CgroupParent,
		RuncRoot: filepath.Join(d.Dir, "runc"), ScratchDir: d.Dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	return rt
}

func start(t *testing.T) *node {
	t.Helper()
	d := containerdtest.Start(t)
	n := &node{T: t, daemon: d, rt: open(t, d), uid: uuid.NewString()}
	if _, err := n.rt.Images().Import(t.Context(), containerdtest.Archive(t, "busybox:test", containerdtest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(d.Dir, "ns")
	var err error
	if n.sandbox, _, err = sandbox.Create(sandbox.Config{Dir: dir, Hostname: "web-0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sandbox.Remove(dir) })
	return n
}

func (n *node) config(name string, command ...string) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		PodUID: n.uid, PodNamespace: "default", PodName: "web-0", Name: name, Image: busybox, Command: command,
		Sandbox: n.sandbox, LogPath: filepath.Join(n.daemon.Dir, "log", name+".log"),
	}
}

func (n *node) start(cfg runtime.ContainerConfig) runtime.Status {
	n.Helper()
	s, err := n.rt.Start(n.Context(), cfg)
	if err != nil {
		n.Fatal(err)
	}
	return s
}

func (n *node) wait(rt *runtime.Runtime, id string) runtime.Exit {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 20*time.Second)
	defer cancel()
	e, err := rt.Wait(ctx, id)
	if err != nil {
		n.Fatal(err)
	}
	return e
}

// output waits until the container's log holds want, and returns the log.
func (n *node) output(cfg runtime.ContainerConfig, want string) string {
	n.Helper()
	var got string
	containerdtest.Eventually(n.T, 60*time.Second, fmt.Sprintf("the log of %s holds %q", cfg.Name, want), func() bool {
		var b bytes.Buffer
		if err := logs.Read(n.Context(), cfg.LogPath, logs.Options{Tail: -1}, nil, &b); err != nil {
			n.Fatal(err)
		}
		got = b.String()
		return strings.Contains(got, want)
	})
	return got
}

func TestRuntime(t *testing.T) {
	n := start(t)
	t.Logf("snapshotter %s", n.rt.Snapshotter())
	for name, f := range map[string]func(*node){
		"lifecycle":         testLifecycle,
		"surroundings":      testSurroundings,
		"users":             testUsers,
		"exec":              testExec,
		"terminal":          testTerminal,
		"memory":            testOutOfMemory,
		"cpu":               testResources,
		"pod's bounds":      testPodBounds,
		"propagation":       testPropagation,
		"read-only below":   testReadOnlyBelow,
		"command not found": testCommandNotFound,
		"missing image":     testMissingImage,
		"idempotence":       testStartTwice,
		"never started":     testNeverStarted,
		"stopped meanwhile": testStoppedMeanwhile,
		"logs":              testLogs,
		"registry":          testRegistry,
		"private registry":  testPrivateRegistry,
		"latency":           testLatency,
	} {
		t.Run(name, func(t *testing.T) {
			one := *n
			one.T, one.uid = t, uuid.NewString()
			f(&one)
		})
	}
}

func testLifecycle(n *node) {
	cfg := n.config("main", "sh", "-c", "echo out; echo err >&2; exit 7")
	s := n.start(cfg)
	if s.ID != n.uid+"-main-0" {
		n.Errorf("id is %s", s.ID)
	}
	if e := n.wait(n.rt, s.ID); e.Code != 7 || time.Since(e.At) > time.Minute {
		n.Errorf("exit is %+v", e)
	}
	got, err := n.rt.Status(n.Context(), s.ID)
	if err != nil || got.State != runtime.Exited || got.ExitCode != 7 || got.PodName != "web-0" || got.Name != "main" {
		n.Errorf("status is %+v, %v", got, err)
	}
	if n.rt.OOMKilled(got) {
		n.Error("an ordinary exit passes for a lack of memory")
	}
	n.output(cfg, "out\n")
	n.output(cfg, "err\n")
	for range 2 {
		if err := n.rt.Remove(n.Context(), s.ID); err != nil {
			n.Fatal(err)
		}
	}
	if _, err := n.rt.Status(n.Context(), s.ID); !errors.Is(err, runtime.ErrNotFound) {
		n.Errorf("after Remove: %v", err)
	}
	if err := n.rt.RemovePod(n.Context(), n.uid); err != nil {
		n.Error(err)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + n.daemon.CgroupParent + "/pod" + n.uid)
	if len(left) > 0 {
		n.Errorf("RemovePod left %v", left)
	}
}

func testSurroundings(n *node) {
	data := n.TempDir()
	if err := os.WriteFile(filepath.Join(data, "file"), []byte("from the node\n"), 0o644); err != nil {
		n.Fatal(err)
	}
	cfg := n.config("env", "sh", "-c", `hostname; cat /data/deep/file; echo "$FROM_IMAGE $MINE"; echo x > /data/deep/new || echo read-only; touch /dev/shm/shared; echo end`)
	cfg.Env = []string{"MINE=too"}
	cfg.Mounts = []runtime.Mount{{Source: data, Target: "/data/deep", ReadOnly: true}, {Source: n.TempDir(), Target: "/data"}}
	n.start(cfg)
	got := n.output(cfg, "end\n")
	for _, want := range []string{"web-0\n", "from the node\n", "yes too\n", "read-only\n"} {
		if !strings.Contains(got, want) {
			n.Errorf("no %q in:\n%s", want, got)
		}
	}
	// A second container of the pod shares the sandbox.
	peer := n.config("peer", "sh", "-c", "ls /dev/shm; cat /proc/net/dev; cat /proc/1/oom_score_adj; echo end")
	peer.Resources.OOMScoreAdj = 1000
	n.start(peer)
	got = n.output(peer, "end\n")
	if !strings.Contains(got, "shared\n") || strings.Contains(got, "eth0") || !strings.Contains(got, "\n1000\n") {
		n.Errorf("the second container sees:\n%s", got)
	}
}

func testUsers(n *node) {
	user, group := int64(101), int64(7)
	cfg := n.config("id", "sh", "-c", "id; grep -i capbnd /proc/self/status || cat /proc/self/status; echo end")
	cfg.Security = runtime.Security{User: &user, Group: &group, Groups: []int64{42}, NonRoot: true, DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}, ReadOnlyRoot: true}
	n.start(cfg)
	got := n.output(cfg, "end\n")
	for _, want := range []string{"uid=101(web)", "gid=7", "103(logs)", "42", "CapBnd:\t0000000000000400"} {
		if !strings.Contains(got, want) {
			n.Errorf("no %q in:\n%s", want, got)
		}
	}
	root := n.config("root", "true")
	root.Security.NonRoot = true
	if _, err := n.rt.Start(n.Context(), root); !errors.Is(err, runtime.ErrCreate) || !strings.Contains(err.Error(), "runAsNonRoot") {
		n.Errorf("root in spite of runAsNonRoot: %v", err)
	}
}

func testExec(n *node) {
	s := n.start(n.config("main", "sleep", "3600"))
	var out, errs bytes.Buffer
	code, err := n.rt.Exec(n.Context(), s.ID, runtime.ExecConfig{
		Command: []string{"sh", "-c", "cat; echo failed >&2; exit 3"}, Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 3 || out.String() != "hello\n" || errs.String() != "failed\n" {
		n.Errorf("code %d, %v, stdout %q, stderr %q", code, err, &out, &errs)
	}
	// Whenever its time is over, before it runs or after.
	for limit := 10 * time.Millisecond; limit < 500*time.Millisecond; limit += limit / 4 {
		ctx, cancel := context.WithTimeout(n.Context(), limit)
		if _, err := n.rt.Exec(ctx, s.ID, runtime.ExecConfig{Command: []string{"sleep", "3600"}}); !errors.Is(err, context.DeadlineExceeded) {
			n.Errorf("a command longer than its %v: %v", limit, err)
		}
		cancel()
	}
	out.Reset()
	if _, err := n.rt.Exec(n.Context(), s.ID, runtime.ExecConfig{Command: []string{"sh", "-c", "ls -d /proc/[0-9]* | wc -l || true; for p in /proc/[0-9]*; do cat $p/cmdline; echo; done"}, Stdout: &out}); err != nil || strings.Count(out.String(), "3600") != 1 {
		n.Errorf("the overlong command goes on (%v):\n%q", err, &out)
	}
	if _, err := n.rt.Exec(n.Context(), s.ID, runtime.ExecConfig{Command: []string{"nonesuch"}}); !errors.Is(err, runtime.ErrStart) {
		n.Errorf("a command that does not exist: %v", err)
	}
	if _, err := n.rt.Exec(n.Context(), "nonesuch", runtime.ExecConfig{Command: []string{"true"}}); !errors.Is(err, runtime.ErrNotFound) {
		n.Errorf("a container that does not exist: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(n.daemon.Dir, "*", "exec-*")); len(left) > 0 {
		n.Errorf("execs left %v", left)
	}
}

func testTerminal(n *node) {
	s := n.start(n.config("main", "sleep", "3600"))
	sizes := make(chan runtime.Size, 1)
	sizes <- runtime.Size{Width: 91, Height: 37}
	in, stdin := io.Pipe()
	out, stdout := io.Pipe()
	done := make(chan error, 1)
	go func() {
		code, err := n.rt.Exec(n.Context(), s.ID, runtime.ExecConfig{Command: []string{"sh"}, Stdin: in, Stdout: stdout, TTY: true, Resize: sizes})
		if err == nil && code != 5 {
			err = fmt.Errorf("exit code %d", code)
		}
		stdout.Close()
		done <- err
	}()
	go io.WriteString(stdin, "until test \"$(stty size)\" = '37 91'; do sleep 0.01; done; echo re''sized; exit 5\n")
	got, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(got), "resized") {
		n.Errorf("terminal shows %q, %v", got, err)
	}
	stdin.Close()
	if err := <-done; err != nil {
		n.Error(err)
	}
}

func testOutOfMemory(n *node) {
	cfg := n.config("hog", "sh", "-c", "x=0123456789abcdef; while true; do x=$x$x; done")
	cfg.Resources.MemoryLimit = 16 << 20
	s := n.start(cfg)
	if e := n.wait(n.rt, s.ID); e.Code != 137 {
		n.Errorf("exit code %d", e.Code)
	}
	got, err := n.rt.Status(n.Context(), s.ID)
	if err != nil || !n.rt.OOMKilled(got) {
		n.Errorf("not seen as killed for memory: %+v, %v", got, err)
	}
}

func testResources(n *node) {
	cfg := n.config("cpu", "sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max; echo end")
	cfg.Resources = runtime.Resources{MilliCPURequest: 250, MilliCPULimit: 500}
	n.start(cfg)
	if got := n.output(cfg, "end\n"); !strings.Contains(got, "256\n50000\n") && !strings.Contains(got, "50000 100000") {
		n.Errorf("limits are:\n%s", got)
	}
}

func testCommandNotFound(n *node) {
	_, err := n.rt.Start(n.Context(), n.config("main", "nonesuch"))
	if !errors.Is(err, runtime.ErrStart) || !strings.Contains(err.Error(), "nonesuch") {
		n.Errorf("error is %v", err)
	}
	if all, err := n.rt.List(n.Context(), n.uid); err != nil || len(all) != 0 {
		n.Errorf("left: %+v, %v", all, err)
	}
}

func testMissingImage(n *node) {
	store := n.rt.Images()
	if _, _, err := store.Ensure(n.Context(), "nonesuch", "Never", nil); !errors.Is(err, images.ErrNeverPull) {
		n.Errorf("policy Never: %v", err)
	}
	cfg := n.config("main")
	cfg.Image = "docker.io/library/nonesuch:latest"
	if _, err := n.rt.Start(n.Context(), cfg); !errors.Is(err, runtime.ErrCreate) {
		n.Errorf("starting without the image: %v", err)
	}
	img, pulled, err := store.Ensure(n.Context(), "busybox:test", "IfNotPresent", nil)
	if err != nil || pulled || img.Name != busybox {
		n.Errorf("a local image: %+v, pulled %v, %v", img, pulled, err)
	}
	if _, err := store.Import(n.Context(), strings.NewReader("no archive")); err == nil {
		n.Error("nonsense was imported")
	}
}

// testRegistry pulls from a registry on the loopback device.
// testPrivateRegistry pulls from a registry that asks who calls.
func testPrivateRegistry(n *node) {
	inner := registry.New()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "ann" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	ref := host + "/team/private:1"
	tag, err := name.NewTag(ref)
	if err != nil {
		n.Fatal(err)
	}
	if err := remote.Write(tag, containerdtest.Busybox(n), remote.WithAuth(&authn.Basic{Username: "ann", Password: "secret"})); err != nil {
		n.Fatal(err)
	}
	keyring := func(place, password string) images.Keyring {
		k := images.Keyring{}
		if err := k.Add(fmt.Appendf(nil, `{"auths": {%q: {"username": "ann", "password": %q}}}`, place, password), false); err != nil {
			n.Fatal(err)
		}
		return k
	}
	store := n.rt.Images()
	for what, keys := range map[string]images.Keyring{"no": nil, "wrong": keyring(host, "guess"), "another registry's": keyring("other.test", "secret")} {
		if _, _, err := store.Ensure(n.Context(), ref, "IfNotPresent", keys); err == nil {
			n.Errorf("pulled with %s credentials", what)
		}
	}
	// The first of two that fit is refused, the second is not.
	keys := keyring(host+"/team", "guess")
	if err := keys.Add(fmt.Appendf(nil, `{"http://%s/v1/": {"auth": "YW5uOnNlY3JldA=="}}`, host), true); err != nil {
		n.Fatal(err)
	}
	if _, pulled, err := store.Ensure(n.Context(), ref, "IfNotPresent", keys); err != nil || !pulled {
		n.Errorf("pulled %v: %v", pulled, err)
	}
}

func testRegistry(n *node) {
	srv := httptest.NewServer(registry.New())
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/team/app:1"
	tag, err := name.NewTag(ref)
	if err != nil {
		n.Fatal(err)
	}
	if err := remote.Write(tag, containerdtest.Busybox(n)); err != nil {
		n.Fatal(err)
	}
	store := n.rt.Images()
	img, pulled, err := store.Ensure(n.Context(), ref, "IfNotPresent", nil)
	if err != nil || !pulled || img.Name != ref || img.Digest == "" {
		n.Fatalf("pulled %+v, %v, %v", img, pulled, err)
	}
	cfg := n.config("main", "true")
	cfg.Image = img.Name
	s := n.start(cfg)
	n.wait(n.rt, s.ID)
	if _, _, err := store.Ensure(n.Context(), strings.Replace(ref, "app", "other", 1), "IfNotPresent", nil); err == nil || !strings.Contains(err.Error(), "not found") {
		n.Errorf("an image that the registry has not: %v", err)
	}
	srv.Close()
	if _, pulled, err := store.Ensure(n.Context(), ref, "IfNotPresent", nil); err != nil || pulled {
		n.Errorf("present, registry gone: pulled %v, %v", pulled, err)
	}
	if _, _, err := store.Ensure(n.Context(), ref, "Always", nil); err == nil || !strings.Contains(err.Error(), "refused") {
		n.Errorf("Always, registry gone: %v", err)
	}
	// An image that was put on the node by hand stands in for the registry.
	own := strings.Replace(ref, "app", "own", 1)
	if _, err := store.Import(n.Context(), containerdtest.Archive(n, own, containerdtest.Busybox(n))); err != nil {
		n.Fatal(err)
	}
	if img, pulled, err := store.Ensure(n.Context(), own, "Always", nil); err != nil || pulled || img.Name != own {
		n.Errorf("Always, imported, registry gone: %+v, pulled %v, %v", img, pulled, err)
	}
	all, err := store.List(n.Context())
	if err != nil || !slices.ContainsFunc(all, func(i images.Image) bool { return i.Name == ref && i.Size > 100_000 }) {
		n.Errorf("images are %+v, %v", all, err)
	}
}

func testStartTwice(n *node) {
	cfg := n.config("main", "sleep", "3600")
	first := n.start(cfg)
	again := n.start(cfg)
	if first.Pid == 0 || first.Pid != again.Pid {
		n.Errorf("started twice: pids %d and %d", first.Pid, again.Pid)
	}
	if err := n.rt.Kill(n.Context(), first.ID, syscall.SIGKILL); err != nil {
		n.Fatal(err)
	}
	n.wait(n.rt, first.ID)
	if s := n.start(cfg); s.State != runtime.Exited || s.ExitCode != 137 {
		n.Errorf("an ended attempt was started again: %+v", s)
	}
	if err := n.rt.Kill(n.Context(), first.ID, syscall.SIGTERM); err != nil {
		n.Errorf("killing what has ended: %v", err)
	}
}

// testNeverStarted starts a container whose start was cut short by a crash, once with a snapshot
// alone.
func testNeverStarted(n *node) {
	cfg := n.config("cut", "sleep", "3600")
	cfg.LogPath = "/proc/nonesuch/x.log"
	ctx, cancel := context.WithCancel(n.Context())
	cancel()
	_, _ = n.rt.Start(ctx, cfg)
	cfg = n.config("cut", "sleep", "3600")
	if s := n.start(cfg); s.State != runtime.Running {
		n.Errorf("status is %+v", s)
	}
}

// testStoppedMeanwhile stops the agent when containerd has started a container and has not answered
// yet: the agent learns of the container, which goes on.
func testStoppedMeanwhile(n *node) {
	cfg := n.config("meanwhile", "sleep", "3600")
	ctx, stop := context.WithCancel(n.Context())
	rt := open(n.T, n.daemon)
	if err := rt.OnStart(stop); err != nil {
		n.Fatal(err)
	}
	got, err := rt.Start(ctx, cfg)
	if err != nil || got.State != runtime.Running || ctx.Err() == nil {
		n.Errorf("start returned %+v, %v", got, err)
	}
	if now, err := n.rt.Status(n.Context(), runtime.ID(n.uid, "meanwhile", 0)); err != nil || now.State != runtime.Running || now.Pid != got.Pid {
		n.Errorf("the container is %+v, %v", now, err)
	}
}

func testLogs(n *node) {
	cfg := n.config("talker", "sh", "-c", "i=0; while test $i -lt 5000; do echo line $i; i=$((i+1)); done")
	s := n.start(cfg)
	n.wait(n.rt, s.ID)
	n.output(cfg, "line 4999\n")
	var b bytes.Buffer
	tail := logs.Options{Tail: 2, Timestamps: true}
	if err := logs.Read(n.Context(), cfg.LogPath, tail, nil, &b); err != nil {
		n.Fatal(err)
	}
	if got := b.String(); strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, " line 4999\n") {
		n.Errorf("tail is %q", got)
	}
}

// testLatency prints how long a start takes, image present, shim and log writer included.
func testLatency(n *node) {
	var took []time.Duration
	for i := range 9 {
		cfg := n.config(fmt.Sprintf("c%d", i), "sleep", "3600")
		at := time.Now()
		n.start(cfg)
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	n.Logf("start of a container: p50 %v, min %v, max %v", took[len(took)/2], took[0], took[len(took)-1])
}

// TestAdoption checks that a new Runtime, as after a crash of the agent, finds what runs and learns
// of exits meanwhile.
func TestAdoption(t *testing.T) {
	n := start(t)
	long := n.start(n.config("long", "sleep", "3600"))
	short := n.start(n.config("short", "sh", "-c", "read x < /data/go 2>/dev/null; sleep 0.2; exit 9"))
	n.rt.Close()

	rt := open(t, n.daemon)
	if e := n.wait(rt, short.ID); e.Code != 9 {
		t.Errorf("exit code %d", e.Code)
	}
	all, err := rt.List(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Fatalf("found %+v, %v", all, err)
	}
	for _, s := range all {
		switch {
		case s.ID == long.ID && (s.State != runtime.Running || s.Pid != long.Pid):
			t.Errorf("the running container is %+v, was %+v", s, long)
		case s.ID == short.ID && (s.State != runtime.Exited || s.ExitCode != 9):
			t.Errorf("the ended container is %+v", s)
		}
	}
}

// TestContainerdKilled checks that containers and their logs live through a kill -9 of containerd,
// and that exits during its absence are known afterwards.
func TestContainerdKilled(t *testing.T) {
	n := start(t)
	talk := n.config("talk", "sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.05; done")
	talker := n.start(talk)
	dying := n.start(n.config("dying", "sh", "-c", "until test -e /dev/shm/go; do sleep 0.02; done; exit 4"))
	waited := make(chan error, 1)
	go func() {
		_, err := n.rt.Wait(t.Context(), talker.ID)
		waited <- err
	}()
	n.output(talk, "line 3\n")

	n.daemon.Kill()
	if err := <-waited; err == nil || errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("waiting while containerd dies: %v", err)
	}
	var b bytes.Buffer
	if err := logs.Read(t.Context(), talk.LogPath, logs.Options{Tail: 1}, nil, &b); err != nil {
		t.Fatal(err)
	}
	var at int
	fmt.Sscanf(b.String(), "line %d", &at)
	n.output(talk, fmt.Sprintf("line %d\n", at+10))
	// The other one exits while no agent runs.
	if err := os.WriteFile(filepath.Join(n.sandbox.Shm, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 60*time.Second, "the container ends", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", dying.Pid))
		return err != nil || strings.Contains(string(stat), ") Z")
	})
	if _, err := n.rt.Version(deadline(t, time.Second)); err == nil {
		t.Error("a dead containerd tells its version")
	}

	n.daemon.Run()
	containerdtest.Eventually(t, 60*time.Second, "containerd answers", func() bool {
		_, err := n.rt.Version(deadline(t, time.Second))
		return err == nil
	})
	s, err := n.rt.Status(t.Context(), talker.ID)
	if err != nil || s.State != runtime.Running || s.Pid != talker.Pid {
		t.Errorf("the running container is %+v, %v, was %+v", s, err, talker)
	}
	if e := n.wait(n.rt, dying.ID); e.Code != 4 {
		t.Errorf("exit code %d", e.Code)
	}
	if code, err := n.rt.Exec(t.Context(), talker.ID, runtime.ExecConfig{Command: []string{"true"}}); err != nil || code != 0 {
		t.Errorf("exec afterwards: %d, %v", code, err)
	}
	for _, id := range []string{talker.ID, dying.ID} {
		if err := n.rt.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestID(t *testing.T) {
	const uid = "123e4567-e89b-12d3-a456-426614174000"
	if got := runtime.ID(uid, "web", 3); got != uid+"-web-3" {
		t.Error(got)
	}
	seen := map[string]string{}
	for _, name := range []string{"a--b", "a-b", strings.Repeat("x", 63), strings.Repeat("x", 62) + "y", strings.Repeat("ab-", 21)[:62]} {
		got := runtime.ID(uid, name, 99999)
		if len(got) > 76 || seen[got] != "" {
			t.Errorf("id of %s is %s, %d bytes, shared with %q", name, got, len(got), seen[got])
		}
		seen[got] = name
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"": 15, "SIGQUIT": 3, "int": 2, "9": 9, "SIGRTMIN+3": 37, "nonsense": 15, "0": 15} {
		if got := runtime.ParseSignal(in); got != want {
			t.Errorf("%q is %d, want %d", in, got, want)
		}
	}
}
