// Package runtime runs containers on containerd, through its own client and without the CRI layer.
// It works with the daemons of the 1.6, 1.7 and 2.x series.
//
// A container's id is computed from its pod, name and attempt, and its labels say the same in full:
// whatever happens to the agent, what runs is found again and nothing is started twice. Exits are
// learnt by waiting on tasks, never from events, since a wait can be repeated and an event can't.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	eventtypes "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/xebec-project/xebec/agent/images"
)

const (
	shim         = "io.containerd.runc.v2"
	callTimeout  = 30 * time.Second
	startTimeout = 2 * time.Minute
)

// Config says which containerd to use and how.
type Config struct {
	// Address is the path of containerd's socket.
	Address string
	// Namespace is the containerd namespace that holds the node's containers and images. One for each
	// node that shares a containerd; default "xebec".
	Namespace string
	// Snapshotter holds the containers' root file systems. Empty: "overlayfs", or "native" where
	// containerd's own directory lies on an overlay, which can't carry another.
	Snapshotter string
	// RuncRoot is the directory in which runc keeps its state; one for each node. Empty for runc's
	// default.
	RuncRoot string
	// Handlers are the node's runtime handlers by name. Without one of the name DefaultHandler, that
	// is runc.
	Handlers map[string]Handler
	// CgroupParent is the cgroup under which all pods' cgroups are made, such as "/xebec/node-1";
	// default "/xebec".
	CgroupParent string
	// LogWriter is the program that is started as log writer (see package logs) for each container;
	// default the running program itself.
	LogWriter string
	// ScratchDir is where the pipes of running execs are made; default the directory for temporary
	// files.
	ScratchDir string
	// MountDir is where files that containers mount have paths while a container is made; containerd
	// must see mounts below it. What is there belongs to one agent, which removes what one before it
	// left; default "mounts" in ScratchDir.
	MountDir string
	// Images says where images come from.
	Images images.Config
}

// Runtime runs the containers of one node. It is safe for concurrent use.
type Runtime struct {
	cfg    Config
	client *containerd.Client
	images *images.Store
	// readOnlyBelow is asked of the machine when it is first needed.
	readOnlyBelow func() bool
}

// New connects to containerd and fails when it does not answer before ctx is done.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Namespace == "" {
		cfg.Namespace = "xebec"
	}
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = "/xebec"
	}
	if cfg.ScratchDir == "" {
		cfg.ScratchDir = os.TempDir()
	}
	if cfg.MountDir == "" {
		cfg.MountDir = filepath.Join(cfg.ScratchDir, "mounts")
	}
	if err := detachAll(cfg.MountDir); err != nil {
		return nil, err
	}
	if cfg.LogWriter == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding the log writer: %w", err)
		}
		cfg.LogWriter = self
	}
	if !filepath.IsAbs(cfg.LogWriter) {
		return nil, fmt.Errorf("log writer %q is not an absolute path", cfg.LogWriter)
	}
	client, err := containerd.New(cfg.Address,
		containerd.WithDefaultNamespace(cfg.Namespace),
		containerd.WithDefaultRuntime(shim),
		containerd.WithDefaultPlatform(platforms.Default()),
		containerd.WithTimeout(callTimeout),
		containerd.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		})}),
	)
	if err != nil {
		return nil, fmt.Errorf("connecting to containerd at %s: %w", cfg.Address, err)
	}
	r := &Runtime{cfg: cfg, client: client, readOnlyBelow: sync.OnceValue(readOnlyBelow)}
	if err := r.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("requesting the version of containerd at %s: %w", cfg.Address, err), client.Close())
	}
	r.images = images.New(client, r.cfg.Snapshotter, r.cfg.Images)
	return r, nil
}

// Close ends the connection. Containers go on.
func (r *Runtime) Close() error { return r.client.Close() }

// Images returns the images that containers can be made of.
func (r *Runtime) Images() *images.Store { return r.images }

// Snapshotter returns the snapshotter in use.
func (r *Runtime) Snapshotter() string { return r.cfg.Snapshotter }

// Version returns containerd's version, such as "1.6.20". It fails while containerd is away.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("requesting the version of containerd: %w", err)
	}
	return v.Version, nil
}

func (r *Runtime) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.cfg.Namespace)
}

// waitReady asks until containerd answers, which it does not while it starts.
func (r *Runtime) waitReady(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := r.chooseSnapshotter(ctx)
		if !errdefs.IsUnavailable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// copying is the snapshotter that needs no overlay: each of its file systems is a copy.
const copying = "native"

func (r *Runtime) chooseSnapshotter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return err
	}
	if r.cfg.Snapshotter != "" {
		for _, p := range resp.Plugins {
			if p.ID == r.cfg.Snapshotter {
				return loadError(p)
			}
		}
		return fmt.Errorf("containerd has no snapshotter %q", r.cfg.Snapshotter)
	}
	r.cfg.Snapshotter = copying
	for _, p := range resp.Plugins {
		if p.ID == "overlayfs" && p.InitErr == nil && !onOverlay(p.Exports["root"]) {
			r.cfg.Snapshotter = "overlayfs"
		}
	}
	return nil
}

func loadError(p *eventtypes.Plugin) error {
	if p.InitErr == nil {
		return nil
	}
	return fmt.Errorf("containerd could not load snapshotter %q: %s", p.ID, p.InitErr.GetMessage())
}

func onOverlay(dir string) bool {
	var st unix.Statfs_t
	return dir != "" && unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.OVERLAYFS_SUPER_MAGIC
}
