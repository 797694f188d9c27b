package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// writerFunc is a function that takes what is written.
type writerFunc func([]byte) error

func (w writerFunc) Write(p []byte) (int, error) { return len(p), w(p) }

// runHere runs the commands of an exec on this machine, so that a directory of it stands for a
// container's.
func runHere(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	cmd := exec.CommandContext(stream.Context(), start.GetCommand()[0], start.GetCommand()[1:]...)
	var mu sync.Mutex
	send := func(r *nodev1.ExecResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(r)
	}
	cmd.Stdout = writerFunc(func(p []byte) error {
		return send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: bytes.Clone(p)}})
	})
	cmd.Stderr = writerFunc(func(p []byte) error {
		return send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stderr{Stderr: bytes.Clone(p)}})
	})
	if start.GetStdin() {
		r, w := io.Pipe()
		cmd.Stdin = r
		go func() {
			for {
				req, err := stream.Recv()
				if err != nil || req.GetCloseStdin() {
					w.CloseWithError(err)
					return
				}
				if _, err := w.Write(req.GetStdin()); err != nil {
					return
				}
			}
		}()
	}
	err = cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return apierr.BadRequest("%v", err)
	}
	return send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_ExitCode{ExitCode: int32(cmd.ProcessState.ExitCode())}})
}

func TestCopy(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	c.exec = runHere
	there, here := t.TempDir(), t.TempDir()
	site := filepath.Join(here, "site")
	big := strings.Repeat("0123456789", 200_000)
	if err := errors.Join(os.MkdirAll(filepath.Join(site, "sub"), 0o755), os.WriteFile(filepath.Join(site, "sub", "page"), []byte(big), 0o640), os.Symlink("sub/page", filepath.Join(site, "link"))); err != nil {
		t.Fatal(err)
	}
	c.run(t, "cp", site, "web-1:"+there).want(t, exit.OK, "")
	c.run(t, "cp", site, "web-1:"+there+"/named").want(t, exit.OK, "")
	for _, name := range []string{"site", "named"} {
		got, err := os.ReadFile(filepath.Join(there, name, "link"))
		if err != nil || string(got) != big {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	back := t.TempDir()
	c.run(t, "cp", "web-1:"+there+"/site", back).want(t, exit.OK, "")
	c.run(t, "cp", "web-1:"+there+"/site/sub/page", back+"/copy").want(t, exit.OK, "")
	for _, name := range []string{"site/link", "copy"} {
		if got, err := os.ReadFile(filepath.Join(back, name)); err != nil || string(got) != big {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	c.run(t, "cp", "web-1:"+there+"/none", back).want(t, exit.Failed, "", "none", "tar in container echo of pod web-1 failed")
	c.run(t, "cp", filepath.Join(here, "none"), "web-1:/tmp").want(t, exit.Failed, "", "no such file")
	c.run(t, "cp", "a", "b").want(t, exit.Usage, "", "POD:PATH")
	c.run(t, "cp", "web-1:/a", "web-1:/b").want(t, exit.Usage, "", "POD:PATH")
}

func TestPortForward(t *testing.T) {
	c := startCluster(t)
	service := &corev1.Service{Metadata: &metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: &corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []*corev1.ServicePort{{Port: 80, TargetPort: &metav1.IntOrString{Type: 1, StrVal: "http"}}},
	}}
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	clienttest.Seed(c.Server, service)
	c.portForward = func(stream grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		if first.GetPort() != 8080 {
			return apierr.FailedPrecondition("PORT_CLOSED", "default/web-1", "connecting to port %d of the pod: refused", first.GetPort())
		}
		if err := stream.Send(&nodev1.PortForwardResponse{}); err != nil {
			return err
		}
		// It answers once all has been said, as a server does that reads to the end.
		var got []byte
		for {
			req, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			got = append(got, req.GetData()...)
		}
		if err := stream.Send(&nodev1.PortForwardResponse{Data: bytes.ToUpper(got)}); err != nil {
			return err
		}
		return stream.Send(&nodev1.PortForwardResponse{Eof: true})
	}
	for _, args := range [][]string{{"web-1", ":8080"}, {"web-1", ":http"}, {"service/web", ":80"}, {"web-1", ":9"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, w := io.Pipe()
			var errs bytes.Buffer
			s := session.New(session.Streams{In: strings.NewReader(""), Out: w, Err: &errs})
			s.Dial = c.dialer()
			done := make(chan int, 1)
			go func() {
				done <- RunSession(ctx, s, append([]string{"port-forward"}, args...))
				w.Close()
			}()
			line := make([]byte, 100)
			n, err := out.Read(line)
			if err != nil {
				t.Fatalf("%v: %s", err, errs.String())
			}
			address, _, _ := strings.Cut(strings.TrimPrefix(string(line[:n]), "Forwarding from "), " -> ")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// At a closed port the connection may be gone by now.
			if _, err := conn.Write([]byte("hello")); err == nil {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			got, _ := io.ReadAll(conn)
			cancel()
			if code := <-done; code != exit.OK {
				t.Errorf("it ended with %d: %s", code, errs.String())
			}
			if args[1] == ":9" {
				if len(got) != 0 || !strings.Contains(errs.String(), "connecting to port 9") {
					t.Errorf("a closed port: %q, %s", got, errs.String())
				}
				return
			}
			if string(got) != "HELLO" {
				t.Errorf("got %q: %s", got, errs.String())
			}
		})
	}
	t.Run("the pod goes away", func(t *testing.T) {
		c.portForward = func(stream grpc.BidiStreamingServer[nodev1.PortForwardRequest, nodev1.PortForwardResponse]) error {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			return errors.Join(stream.Send(&nodev1.PortForwardResponse{}), stream.Send(&nodev1.PortForwardResponse{Data: []byte("bye")}))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, w := io.Pipe()
		s := session.New(session.Streams{In: strings.NewReader(""), Out: w, Err: io.Discard})
		s.Dial = c.dialer()
		done := make(chan int, 1)
		go func() { done <- RunSession(ctx, s, []string{"port-forward", "web-1", ":8080"}) }()
		line := make([]byte, 100)
		n, err := out.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		address, _, _ := strings.Cut(strings.TrimPrefix(string(line[:n]), "Forwarding from "), " -> ")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if got, err := io.ReadAll(conn); string(got) != "bye" || err != nil {
			t.Errorf("the connection to a pod that has gone: %q, %v", got, err)
		}
		cancel()
		if code := <-done; code != exit.OK {
			t.Errorf("it ended with %d", code)
		}
	})
	c.run(t, "port-forward", "web-1", "nonesuch").want(t, exit.Usage, "", `invalid remote port "nonesuch"`)
	c.run(t, "port-forward", "service/web", "81").want(t, exit.Failed, "", `service "web" has no port 81`)
}

func TestTop(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, testNode("node-1", true), testNode("node-2", true))
	clienttest.Seed(c.Server, webPod("web-1", "node-1"), webPod("web-2", "node-1"))
	var mu sync.Mutex
	asked := int64(0)
	c.stats = func(req *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
		if req.GetTarget().GetNode() == "node-2" {
			return nil, apierr.Unavailable("no answer")
		}
		mu.Lock()
		asked++
		n := asked
		mu.Unlock()
		// In each second the node uses half a CPU, the pods a tenth and a fifth.
		use := func(perSecond, mebibytes int64) *nodev1.Usage {
			return &nodev1.Usage{CpuNanoseconds: n * perSecond, MemoryBytes: mebibytes << 20}
		}
		one := func(name string, u *nodev1.Usage) *nodev1.PodStats {
			return &nodev1.PodStats{Namespace: "default", Name: name, Uid: "uid-" + name, Usage: u, Containers: []*nodev1.ContainerStats{{Name: "echo", Usage: u}}}
		}
		return &nodev1.StatsResponse{
			Time: timestamppb.New(testNow.Add(time.Duration(n) * time.Second)), Node: use(500e6, 1024),
			Pods: []*nodev1.PodStats{one("web-1", use(100e6, 10)), one("web-2", use(200e6, 20)), one("gone", use(300e6, 5))},
		}, nil
	}
	c.run(t, "top", "nodes", "node-1").want(t, exit.OK, "NAME     CPU    CPU%   MEMORY   MEMORY%\nnode-1   500m   25%    1024Mi   25%\n")
	c.run(t, "top", "nodes").want(t, exit.Failed, "NAME     CPU         CPU%   MEMORY      MEMORY%\nnode-1   500m        25%    1024Mi      25%\nnode-2   <unknown>          <unknown>\n", "read usage of node node-2")
	c.run(t, "top", "pods").want(t, exit.OK, "NAME    CPU    MEMORY\nweb-2   200m   20Mi\nweb-1   100m   10Mi\n")
	c.run(t, "top", "pods", "-A", "--containers", "-l", "app=web").want(t, exit.OK,
		"NAMESPACE   NAME    CONTAINER   CPU    MEMORY\ndefault     web-2   echo        200m   20Mi\ndefault     web-1   echo        100m   10Mi\n")
	c.run(t, "top", "pods", "none").want(t, exit.Failed, "", `pod "none" not found`)
	c.run(t, "top", "pods", "-l", "app=none").want(t, exit.OK, "", "No running pods found.")
}

// tarOf makes an archive, each file of which has the content "new".
func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "new"[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCopyFromHostileTar runs the whole command against a container that sends what it likes.
func TestCopyFromHostileTar(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	sent := tarOf(t, tar.Header{Name: "up", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "up/a", Typeflag: tar.TypeSymlink, Linkname: ".."},
		tar.Header{Name: "up/a/notes.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3})
	c.exec = func(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: sent}}); err != nil {
			return err
		}
		return stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_ExitCode{}})
	}
	home := t.TempDir()
	notes := filepath.Join(home, "notes.txt")
	if err := os.WriteFile(notes, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.run(t, "cp", "web-1:/tmp/up", filepath.Join(home, "up")).want(t, exit.Failed, "", "skipped up/a", "write up/a/notes.txt")
	expect := func(content string, names ...string) {
		t.Helper()
		entries, err := os.ReadDir(home)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		text, err := os.ReadFile(notes)
		if !slices.Equal(got, names) || string(text) != content || err != nil {
			t.Errorf("the directory has %q with notes %q (%v), want %q with %q", got, text, err, names, content)
		}
	}
	expect("mine", "notes.txt", "up")
	// A link of the user's own to a file means that file; what is no file is not written over.
	sent = tarOf(t, tar.Header{Name: "up", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3})
	link := filepath.Join(home, "link")
	if err := os.Symlink("notes.txt", link); err != nil {
		t.Fatal(err)
	}
	c.run(t, "cp", "web-1:/tmp/up", link).want(t, exit.OK, "")
	c.run(t, "cp", "web-1:/tmp/up", os.DevNull).want(t, exit.Failed, "", "is not a regular file")
	if target, err := os.Readlink(link); target != "notes.txt" || err != nil {
		t.Errorf("the link leads to %q: %v", target, err)
	}
	expect("new", "link", "notes.txt", "up")
}
