package pods_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// imageOf makes an image of layers, each with executable files of these contents. An empty name
// stands for a link /link to /dir.
func imageOf(t *testing.T, layers ...map[string]string) v1.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, files := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, path := range slices.Sorted(maps.Keys(files)) {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(files[path]))}
			if path == "" {
				h = &tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/dir", Mode: 0o777}
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, files[path]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := img.ConfigFile()
	if err == nil {
		cfg = cfg.DeepCopy()
		cfg.Architecture, cfg.OS = runtime.GOARCH, "linux"
		img, err = mutate.ConfigFile(img, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

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

// imageVolume is a volume of an image's files that the first container mounts.
func imageVolume(ref, policy string, more ...*corev1.VolumeMount) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, volume("files", &corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: ref, PullPolicy: policy}}))
		c := p.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, &corev1.VolumeMount{Name: "files", MountPath: "/volume"})
		c.VolumeMounts = append(c.VolumeMounts, more...)
	}
}

// has reports whether an image is on the node.
func (n *node) has(ref string) bool {
	n.Helper()
	list, err := n.rt.Images().List(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	return slices.ContainsFunc(list, func(i images.Image) bool { return i.Name == ref })
}

// TestImageVolume mounts the files of images, of one layer and of several, as Kubernetes' spec
// "ImageVolume should succeed with pod and pull policy of Always" does. They are there for all
// containers, read-only, until the pod ends.
func TestImageVolume(t *testing.T) {
	n := start(t)
	srv := httptest.NewServer(registry.New())
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	const script = "#!/bin/busybox sh\necho ran"
	for layers, img := range map[string]v1.Image{
		"one": imageOf(t, map[string]string{"a": "A1", "dir/b": "B1", "run": script, "": ""}),
		"two": imageOf(t, map[string]string{"a": "A0", "run": script}, map[string]string{"a": "A1", "dir/b": "B1", "": ""}),
	} {
		ref := host + "/" + layers + ":1"
		push(t, ref, img)
		p := pod("image-"+layers, "", imageVolume(ref, "Always",
			&corev1.VolumeMount{Name: "files", MountPath: "/b", SubPath: "dir/b"}, &corev1.VolumeMount{Name: "files", MountPath: "/linked", SubPath: "link"}))
		p.Spec.SecurityContext = &corev1.PodSecurityContext{FsGroup: proto.Int64(2000)}
		see := `echo $(cat /volume/a) $(cat /b) $(cat /linked/b); touch /volume/new || echo read-only; /volume/run || echo noexec; `
		p.Spec.Containers[0].Command[2] = see + `test -e /tmp/x || sleep 3600`
		other := container("other", "cat /volume/a; echo; sleep 3600")
		other.VolumeMounts = []*corev1.VolumeMount{{Name: "files", MountPath: "/volume"}}
		p.Spec.Containers = append(p.Spec.Containers, other)
		uid := n.create(p)
		running := n.until(uid, "it runs", core.IsPodReady)
		want := func(what string) {
			t.Helper()
			var got string
			n.until(uid, what, func(*corev1.Pod) bool {
				got = n.log(running, false)
				return strings.Contains(got, "noexec")
			})
			if !strings.Contains(got, "A1 B1 B1\n") || !strings.Contains(got, "read-only") || strings.Contains(got, "ran\n") {
				t.Errorf("image of %s layer, %s: the container sees\n%s", layers, what, got)
			}
		}
		want("it has looked")

		// The next agent mounts nothing again, and the tag now means another image.
		push(t, ref, imageOf(t, map[string]string{"a": "A2"}))
		if layers == "one" {
			n.stop()
			n.agent()
		}
		collector := images.NewCollector(n.rt.Images(), images.GC{High: 100, InUse: n.set.Images})
		if _, err := collector.FreeUnused(t.Context()); err != nil || !n.has(ref) {
			t.Errorf("the image in use: %v, it is there: %v", err, n.has(ref))
		}
		used, err := n.set.DiskUsage(t.Context(), uid)
		if err != nil {
			t.Error(err)
		}
		if err := n.kill(uid, "main"); err != nil {
			t.Fatal(err)
		}
		n.until(uid, "it runs again", func(p *corev1.Pod) bool { return core.IsPodReady(p) && status(p).GetRestartCount() == 1 })
		want("it has looked again")
		t.Logf("the pod uses %d bytes of disk", used)

		n.delete(uid)
		n.untilGone(uid)
		n.noImageViews(uid)
		if _, err := collector.FreeUnused(t.Context()); err != nil || n.has(ref) {
			t.Errorf("the image that was in use: %v, it is there: %v", err, n.has(ref))
		}
	}
	n.noBindsLeft()
}

// kill ends a container of a pod.
func (n *node) kill(uid, container string) error {
	list, err := n.rt.List(n.Context(), uid)
	for _, s := range list {
		if s.Name == container {
			return n.rt.Kill(n.Context(), s.ID, 9)
		}
	}
	return errors.Join(err, fmt.Errorf("no container %s", container))
}

// noImageViews fails the test if file systems of a pod's images are left.
func (n *node) noImageViews(uid string) {
	n.Helper()
	if left, err := n.rt.Snapshots(n.Context(), uid); err != nil || len(left) > 0 {
		n.Errorf("file systems %q are left, %v", left, err)
	}
}

// TestImageVolumeErrors has images that can't be pulled or mounted: the containers that mount them
// wait with kubelet's reasons, the others run.
func TestImageVolumeErrors(t *testing.T) {
	n := start(t)
	srv := httptest.NewServer(registry.New())
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	push(t, host+"/files:1", imageOf(t, map[string]string{"a": "A1"}))
	for _, c := range []struct {
		name, ref, policy, subPath, reason, message, event string
	}{
		{"never", host + "/none:1", "Never", "", "ErrImageNeverPull", "not present with pull policy of Never", "Warning ErrImageNeverPull"},
		{"absent", host + "/none:1", "IfNotPresent", "", "ImagePullBackOff", `Back-off pulling image "` + host + `/none:1"`, `Warning Failed: Failed to pull image "` + host + `/none:1"`},
		{"invalid", "NOT AN IMAGE", "", "", "InvalidImageName", "invalid image name", `Warning InspectFailed: Failed to inspect image "NOT AN IMAGE"`},
		{"sub", host + "/files:1", "", "none", "CreateContainerError", `ImageVolumeMountFailed: volume files: subPath "none"`, "Warning Failed: Error: ImageVolumeMountFailed"},
	} {
		p := pod(c.name, "sleep 3600", imageVolume(c.ref, c.policy))
		p.Spec.Containers[0].VolumeMounts[0].SubPath = c.subPath
		p.Spec.Containers = append(p.Spec.Containers, container("other", "sleep 3600"))
		uid := n.create(p)
		p = n.until(uid, c.name+" waits with "+c.reason, waitingFor(c.reason))
		if m := status(p).GetState().GetWaiting().GetMessage(); !strings.Contains(m, c.message) {
			t.Errorf("%s: the message is %q, want one with %q", c.name, m, c.message)
		}
		n.cluster.mu.Lock()
		events := strings.Join(n.cluster.events, "\n")
		n.cluster.mu.Unlock()
		if !strings.Contains(events, c.name+" "+c.event) {
			t.Errorf("%s: no event %q in\n%s", c.name, c.event, events)
		}
		n.until(uid, "the other container runs", func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 2 && p.Status.ContainerStatuses[1].GetState().GetRunning() != nil
		})
		n.delete(uid)
		n.untilGone(uid)
		n.noImageViews(uid)
		if _, err := os.Stat("/volume/new"); err == nil {
			t.Error("something was written to the node")
		}
	}
}
