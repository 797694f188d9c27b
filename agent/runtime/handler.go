package runtime

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"k8s.io/apimachinery/pkg/util/validation"
)

// DefaultHandler is the handler of pods without a runtime class.
const DefaultHandler = "runc"

// Handler is a configuration of the container runtime. Runtime classes name it.
type Handler struct {
	// Shim is containerd's name of the runtime, such as io.containerd.runc.v2.
	Shim string
	// Binary is the program that the shim of runc runs instead of runc, such as /usr/bin/crun.
	Binary string
}

var validShim = regexp.MustCompile(`^[a-z0-9]+(\.[a-z0-9-]+)+\.v[0-9]+$`)

// ParseHandlers reads handlers, each "NAME=SHIM" or "NAME=SHIM:BINARY".
func ParseHandlers(list []string) (map[string]Handler, error) {
	out := map[string]Handler{}
	for _, text := range list {
		name, rest, _ := strings.Cut(text, "=")
		h := Handler{}
		h.Shim, h.Binary, _ = strings.Cut(rest, ":")
		_, twice := out[name]
		switch {
		case len(validation.IsDNS1123Label(name)) > 0 || !validShim.MatchString(h.Shim):
			return nil, fmt.Errorf("invalid runtime handler %q: want NAME=SHIM or NAME=SHIM:BINARY, such as crun=%s:/usr/bin/crun", text, shim)
		case strings.HasSuffix(text, ":") || h.Binary != "" && !filepath.IsAbs(h.Binary):
			return nil, fmt.Errorf("invalid runtime handler %q: the binary %q is not an absolute path", text, h.Binary)
		case h.Binary != "" && h.Shim != shim:
			return nil, fmt.Errorf("invalid runtime handler %q: only the shim %s takes a binary", text, shim)
		case twice:
			return nil, fmt.Errorf("runtime handler %q is configured twice", name)
		}
		out[name] = h
	}
	return out, nil
}

// Handlers returns the names of the node's handlers, sorted.
func (r *Runtime) Handlers() []string {
	names := slices.Collect(maps.Keys(r.cfg.Handlers))
	if _, ok := r.cfg.Handlers[DefaultHandler]; !ok {
		names = append(names, DefaultHandler)
	}
	return slices.Sorted(slices.Values(names))
}

// CheckHandler fails for a handler that the node does not have. An empty name stands for the
// default.
func (r *Runtime) CheckHandler(name string) error {
	if name == "" || slices.Contains(r.Handlers(), name) {
		return nil
	}
	return fmt.Errorf("no runtime for %q is configured: add it to runtimeHandlers of the node's agent, which has %s",
		name, strings.Join(r.Handlers(), ", "))
}

// runtimeOpt is the option by which a container gets a handler.
func (r *Runtime) runtimeOpt(name string) (containerd.NewContainerOpts, error) {
	if err := r.CheckHandler(name); err != nil {
		return nil, err
	}
	if name == "" {
		name = DefaultHandler
	}
	h, ok := r.cfg.Handlers[name]
	if !ok {
		h = Handler{Shim: shim}
	}
	if h.Shim != shim {
		return containerd.WithRuntime(h.Shim, nil), nil
	}
	return containerd.WithRuntime(shim, &runcoptions.Options{Root: r.cfg.RuncRoot, BinaryName: h.Binary}), nil
}
