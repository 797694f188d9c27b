package conformance_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// process is what an image runs when the pod does not say.
type process struct {
	entrypoint, cmd []string
	env             []string
}

var (
	shellImage = process{cmd: []string{"sh"}}
	nginxImage = process{entrypoint: []string{"/usr/sbin/nginx"}, cmd: []string{"-g", "daemon off;"}}
	redisImage = process{cmd: []string{"redis-server"}}
	pauseImage = process{entrypoint: []string{"/usr/sbin/pause"}}
	podinfoImg = process{cmd: []string{"./podinfo"}}
)

// images stand in for those that the corpus names. All have the same files: a shell with its tools,
// and the program of standin under all its names.
var images = map[string]process{
	"bprashanth/nginxhttps:1.0":                  nginxImage,
	"busybox":                                    shellImage,
	"debian":                                     shellImage,
	"docker.io/library/bash":                     shellImage,
	"gcr.io/google-samples/hello-app:1.0":        {entrypoint: []string{"hello-app"}, env: []string{"VERSION=1.0.0"}},
	"gcr.io/google-samples/hello-app:2.0":        {entrypoint: []string{"hello-app"}, env: []string{"VERSION=2.0.0"}},
	"gcr.io/google-samples/hello-frontend:1.0":   {cmd: []string{"hello-front"}},
	"gcr.io/google-samples/hello-go-gke:1.0":     {cmd: []string{"hello-go"}},
	"gcr.io/google-samples/node-hello:1.0":       {cmd: []string{"node-hello"}},
	"gcr.io/google_samples/gb-frontend:v3":       {cmd: []string{"gb-frontend"}},
	"gcr.io/google_samples/gb-frontend:v5":       {cmd: []string{"gb-frontend"}},
	"gcr.io/google_samples/gb-redis-follower:v2": redisImage,
	"ghcr.io/stefanprodan/podinfo:5.0.3":         podinfoImg,
	"ghcr.io/stefanprodan/podinfo:6.14.1":        podinfoImg,
	"hashicorp/http-echo:0.2.3":                  {entrypoint: []string{"/usr/sbin/http-echo"}},
	"k8s.gcr.io/busybox":                         shellImage,
	"k8s.gcr.io/busybox:1.24":                    shellImage,
	"k8s.gcr.io/goproxy:0.1":                     {entrypoint: []string{"goproxy"}},
	"k8s.gcr.io/hpa-example":                     {cmd: []string{"apache2"}},
	"k8s.gcr.io/liveness":                        {entrypoint: []string{"/server"}},
	"k8s.gcr.io/nginx-slim:0.8":                  nginxImage,
	"k8s.gcr.io/pause:2.0":                       pauseImage,
	"k8s.gcr.io/pause:3.1":                       pauseImage,
	"k8s.gcr.io/serve_hostname":                  {entrypoint: []string{"serve-hostname"}},
	"nginx":                                      nginxImage,
	"nginx:1.14.2":                               nginxImage,
	"nginx:1.16.1":                               nginxImage,
	"polinux/stress":                             {cmd: []string{"stress"}},
	"radial/busyboxplus:curl":                    shellImage,
	"redis":                                      redisImage,
	"redis:5.0.4":                                redisImage,
	"docker.io/redis:6.0.5":                      redisImage,
	"vish/stress":                                {entrypoint: []string{"stress"}},
}

// buildImages writes an archive with all images. It needs a static busybox, such as Debian's
// busybox-static.
func buildImages(t *testing.T, archive string) {
	t.Helper()
	files, err := imageFiles(t)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		t.Fatal(err)
	}
	base, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	tagged := map[name.Tag]v1.Image{}
	for _, reference := range slices.Sorted(maps.Keys(images)) {
		tag, err := name.NewTag(reference)
		if err != nil {
			t.Fatal(err)
		}
		config, err := base.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		p := images[reference]
		config = config.DeepCopy()
		config.OS, config.Architecture = "linux", runtime.GOARCH
		config.Config = v1.Config{
			Entrypoint: p.entrypoint, Cmd: p.cmd, WorkingDir: "/usr/sbin",
			Env: append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, p.env...),
		}
		if tagged[tag], err = mutate.ConfigFile(base, config); err != nil {
			t.Fatal(err)
		}
	}
	if err := tarball.MultiWriteToFile(archive, tagged); err != nil {
		t.Fatal(err)
	}
}

// standins are the names of the program standin in the images.
var standins = []string{
	"apache2", "gb-frontend", "goproxy", "hello-app", "hello-front", "hello-go", "http-echo", "nginx", "node-hello", "pause", "podcli",
	"podinfo", "printenv", "redis-cli", "redis-server", "serve-hostname", "server", "stress", "wget",
}

// imageFiles is the layer that all images share, as a tar stream.
func imageFiles(t *testing.T) ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(t.TempDir(), "standin")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./standin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile: %w\n%s", err, out)
	}
	standin, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	tools, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tools of %s: %w", busybox, err)
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	add := func(h tar.Header, content string) {
		if err != nil {
			return
		}
		h.Size, h.Format = int64(len(content)), tar.FormatUSTAR
		if err = w.WriteHeader(&h); err == nil {
			_, err = io.WriteString(w, content)
		}
	}
	directory := func(name string, mode int64) {
		add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, "")
	}
	for _, name := range []string{"bin/", "data/", "etc/", "etc/nginx/", "home/", "root/", "run/", "usr/", "usr/bin/", "usr/sbin/", "usr/share/", "usr/share/nginx/", "usr/share/nginx/html/", "var/", "var/log/"} {
		directory(name, 0o755)
	}
	directory("tmp/", 0o1777)
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, string(shell))
	add(tar.Header{Name: "usr/sbin/standin", Mode: 0o755}, string(standin))
	for tool := range strings.FieldsSeq(string(tools)) {
		if tool != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + tool, Linkname: "busybox", Mode: 0o777}, "")
		}
	}
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/bash", Linkname: "busybox", Mode: 0o777}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/bin/env", Linkname: "../../bin/busybox", Mode: 0o777}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "server", Linkname: "usr/sbin/standin", Mode: 0o777}, "")
	for _, program := range standins {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/sbin/" + program, Linkname: "standin", Mode: 0o777}, "")
	}
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\n")
	add(tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\n")
	add(tar.Header{Name: "usr/share/nginx/html/index.html", Mode: 0o644}, "Welcome to nginx!\n")
	if err != nil {
		return nil, err
	}
	return buffer.Bytes(), w.Close()
}
