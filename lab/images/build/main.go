// Command build compiles the sample programs beside it and puts each into an image archive,
// DIR/<program>.tar, that `xebec image load` takes. The same sources give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// sample is one image.
type sample struct {
	program string
	args    []string
	port    string
}

var samples = []sample{
	{program: "echo", port: "8080/tcp"},
	{program: "client", args: []string{"sleep"}},
}

// user is the numeric user that the samples run as; they need no rights.
const user = "65532:65532"

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "bin/images", "directory for the archives")
	version := flag.String("version", "1", "tag of the images")
	flag.Parse()
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		log.Fatal(err)
	}
	for _, s := range samples {
		if err := build(s, *version, filepath.Join(*dir, s.program+".tar")); err != nil {
			log.Fatalf("build image %s: %v", s.program, err)
		}
	}
}

func build(s sample, version, archive string) error {
	binary, err := compile(s.program)
	if err != nil {
		return err
	}
	image, err := assemble(s, binary)
	if err != nil {
		return err
	}
	tag, err := name.NewTag("xebec/" + s.program + ":" + version)
	if err != nil {
		return err
	}
	// Written aside first: an archive that is half there must never be loaded.
	partial := archive + ".partial"
	if err := tarball.WriteToFile(partial, tag, image); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return os.Rename(partial, archive)
}

// compile builds a program of this folder for Linux, without anything that differs between builds.
func compile(program string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "xebec-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, program)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", binary,
		"github.com/xebec-project/xebec/lab/images/"+program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile: %w\n%s", err, out)
	}
	return os.ReadFile(binary)
}

// assemble makes an image of one layer that holds nothing but the program.
func assemble(s sample, binary []byte) (v1.Image, error) {
	var files bytes.Buffer
	writer := tar.NewWriter(&files)
	if err := writer.WriteHeader(&tar.Header{Name: s.program, Mode: 0o755, Size: int64(len(binary)), Format: tar.FormatUSTAR}); err != nil {
		return nil, err
	}
	if _, err := writer.Write(binary); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: []string{"/" + s.program}, Cmd: s.args, User: user, Env: []string{"PATH=/"}, StopSignal: "SIGTERM",
	}
	if s.port != "" {
		config.Config.ExposedPorts = map[string]struct{}{s.port: {}}
	}
	return mutate.ConfigFile(image, config)
}
