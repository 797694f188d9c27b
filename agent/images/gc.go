package images

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/introspection"
	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/metrics"
)

// labelPinned marks images that other programs want to be kept, as containerd's CRI does.
const labelPinned = "io.cri-containerd.pinned"

// GC says when images are removed to make room.
type GC struct {
	// High is the share of the disk in use, in percent, from which images are removed, and Low the
	// share at which that ends. With 100 for High images are only removed when FreeUnused is called.
	High, Low int
	// MinAge is minimum time that an image is unused before it is removed.
	MinAge time.Duration
	// Every is how often the disk is looked at.
	Every time.Duration
	// InUse returns the full names of images that pods of the node need, whether their containers run
	// or not.
	InUse func() []string
	// Failed is called when too little space was freed; the reason is ReasonGCFailed or
	// ReasonFreeDiskSpaceFailed.
	Failed func(reason, message string)
	Log    *zap.Logger
}

// Reasons of the events that tell that images could not be collected, as in Kubernetes.
const (
	ReasonGCFailed            = "ImageGCFailed"
	ReasonFreeDiskSpaceFailed = "FreeDiskSpaceFailed"
)

// Collector removes images that nothing uses when the disk they lie on fills up: those first that
// were not used for the longest time. Images that were put on the node by hand are never removed,
// for nothing would bring them back, nor those that are labelled as pinned.
type Collector struct {
	store *Store
	cfg   GC
}

// NewCollector returns a collector of the store's images.
func NewCollector(s *Store, cfg GC) *Collector {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Collector{store: s, cfg: cfg}
}

// Run looks at the disk now and then until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Every)
	defer tick.Stop()
	for {
		if err := c.Collect(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("Failed to remove unused images", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Collect removes images if the disk is full enough.
func (c *Collector) Collect(ctx context.Context) error {
	disk, err := c.store.Disk(ctx)
	if err != nil {
		c.failed(ReasonGCFailed, err.Error())
		return err
	}
	// Images are looked at each time: who uses them is known from what was seen.
	unused, err := c.unused(ctx, time.Now())
	if err != nil {
		c.failed(ReasonGCFailed, err.Error())
		return err
	}
	used := disk.usedPercent()
	if c.cfg.High >= 100 || used < c.cfg.High {
		return nil
	}
	want := disk.Capacity*int64(100-c.cfg.Low)/100 - disk.Available
	c.cfg.Log.Info("Disk usage of images is above the threshold", zap.Int(metrics.KeyUsage, used), zap.Int64(metrics.KeyToFree, want))
	freed, err := c.free(ctx, unused, want)
	if err != nil {
		c.failed(ReasonGCFailed, err.Error())
		return err
	}
	if freed < want {
		err := fmt.Errorf(
			"failed to garbage collect the required amount of images: wanted to free %d bytes, freed %d: the disk is at %d%%, the threshold is %d%%",
			want,
			freed,
			used,
			c.cfg.High,
		)
		c.failed(ReasonFreeDiskSpaceFailed, err.Error())
		return err
	}
	return nil
}

// FreeUnused removes every image that may be removed and returns how many bytes of disk that made
// free.
func (c *Collector) FreeUnused(ctx context.Context) (int64, error) {
	unused, err := c.unused(ctx, time.Now())
	if err != nil {
		return 0, err
	}
	return c.free(ctx, unused, 1<<62)
}

func (c *Collector) failed(reason, message string) {
	if c.cfg.Failed != nil {
		c.cfg.Failed(reason, message)
	}
}

// candidate is an image that may go, with all its names.
type candidate struct {
	digest digest.Digest
	names  []string
	used   time.Time
}

// unused returns what may be removed, the longest unused first, and notes what is in use.
func (c *Collector) unused(ctx context.Context, now time.Time) ([]candidate, error) {
	all, err := c.store.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	containers, err := c.store.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the containers that use images: %w", err)
	}
	needed := map[string]bool{}
	for _, ctr := range containers {
		needed[ctr.Image] = true
	}
	if c.cfg.InUse != nil {
		for _, name := range c.cfg.InUse() {
			needed[name] = true
		}
	}
	byDigest, kept := map[digest.Digest]*candidate{}, map[digest.Digest]bool{}
	for _, i := range all {
		d := i.Target.Digest
		if needed[i.Name] {
			c.store.touch(d, now)
		}
		if needed[i.Name] || pinned(i) {
			kept[d] = true
		}
		one := byDigest[d]
		if one == nil {
			one = &candidate{digest: d, used: c.store.lastUsed(d, i.CreatedAt, now)}
			byDigest[d] = one
		}
		one.names = append(one.names, i.Name)
	}
	c.store.forget(byDigest)
	var out []candidate
	for d, one := range byDigest {
		if !kept[d] && now.Sub(one.used) >= c.cfg.MinAge {
			out = append(out, *one)
		}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(a.used.Compare(b.used), strings.Compare(a.names[0], b.names[0]))
	})
	return out, nil
}

func pinned(i ctrimages.Image) bool {
	return i.Labels[labelImported] != "" || i.Labels[labelPinned] == "pinned"
}

// free removes images until so many bytes have become free.
func (c *Collector) free(ctx context.Context, unused []candidate, want int64) (int64, error) {
	before, err := c.store.Disk(ctx)
	if err != nil {
		return 0, err
	}
	var freed int64
	for _, one := range unused {
		if freed >= want {
			break
		}
		for i, name := range one.names {
			var opts []ctrimages.DeleteOpt
			if i == len(one.names)-1 {
				// The content goes now, not when containerd next has time.
				opts = append(opts, ctrimages.SynchronousDelete())
			}
			if err := c.store.client.ImageService().Delete(ctx, name, opts...); err != nil {
				return freed, fmt.Errorf("removing image %s: %w", name, err)
			}
		}
		now, err := c.store.Disk(ctx)
		if err != nil {
			return freed, err
		}
		// Others write meanwhile: what they took is not to be taken for what was not freed.
		freed = max(freed, now.Available-before.Available)
		c.cfg.Log.Info("Image removed",
			zap.Strings(metrics.KeyImages, one.names), zap.Time(metrics.KeyLastUsed, one.used), zap.Int64(metrics.KeyFreed, freed))
	}
	return freed, nil
}

// Disk is the file system that unpacked images and containers' own files lie on.
type Disk struct {
	// Path is a directory of it.
	Path string
	// Capacity and Available are in bytes; available is what a program without special rights can
	// still use.
	Capacity, Available int64
	// Inodes and FreeInodes count files; both are 0 where the file system does not bound them.
	Inodes, FreeInodes int64
}

func (d Disk) usedPercent() int {
	if d.Capacity <= 0 {
		return 0
	}
	return int(100 - d.Available*100/d.Capacity)
}

// DiskAt returns the file system of a path.
func DiskAt(path string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Disk{}, fmt.Errorf("inspecting the file system of %s: %w", path, err)
	}
	return Disk{
		Path: path, Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize,
		Inodes: int64(st.Files), FreeInodes: int64(st.Ffree),
	}, nil
}

// Disk returns the file system that the store's snapshotter uses.
func (s *Store) Disk(ctx context.Context) (Disk, error) {
	s.mu.Lock()
	root := s.root
	s.mu.Unlock()
	if root == "" {
		plugins, err := s.introspection().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+s.snapshotter)
		if err != nil {
			return Disk{}, fmt.Errorf("locating the images: %w", err)
		}
		for _, p := range plugins.GetPlugins() {
			root = p.GetExports()["root"]
		}
		if root == "" {
			return Disk{}, fmt.Errorf("containerd does not report where snapshotter %s stores images", s.snapshotter)
		}
		s.mu.Lock()
		s.root = root
		s.mu.Unlock()
	}
	return DiskAt(root)
}

func (s *Store) introspection() introspection.Service { return s.client.IntrospectionService() }

// touch notes that an image is in use.
func (s *Store) touch(d digest.Digest, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[d].Before(now) {
		s.used[d] = now
	}
}

// lastUsed returns when an image was last used. One that was on the node before the agent started
// counts as used at that start: its earlier use is unknown.
func (s *Store) lastUsed(d digest.Digest, created, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.used[d]
	if !ok {
		at = now
		s.used[d] = at
	}
	if at.Before(created) {
		return created
	}
	return at
}

// forget drops what is known of images that are gone.
func (s *Store) forget(present map[digest.Digest]*candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.used {
		if present[d] == nil {
			delete(s.used, d)
		}
	}
}
