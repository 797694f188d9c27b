// Package images brings container images onto the node: from archives, from registries, and out of
// what is there.
package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

// pullTimeout bounds one attempt to pull an image.
const pullTimeout = 10 * time.Minute

var (
	// ErrNeverPull is returned by Ensure for an image that is absent and that the policy forbids to
	// pull.
	ErrNeverPull = errors.New("not present with pull policy of Never: load it with `xebec image load ARCHIVE`")
	// ErrInvalidName is returned for a name that can't name an image.
	ErrInvalidName = errors.New("invalid image name")
)

// Image is an image on the node.
type Image struct {
	// Name is the full name, such as "docker.io/library/echo:1".
	Name string
	// Digest is that of its manifest or index, such as "sha256:…".
	Digest string
	// Size is the bytes of its compressed content.
	Size int64
}

// Normalize completes an image's name as Docker does: "busybox" is
// "docker.io/library/busybox:latest". The error wraps ErrInvalidName.
func Normalize(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("%w %q: %w: write it as [registry[:port]/]name[:tag][@digest]", ErrInvalidName, name, err)
	}
	return ref.String(), nil
}

// Config says where images come from and how. The zero value stands for the registries that images
// name.
type Config struct {
	// RegistryDir holds a directory for each registry, of its host's name, with a file hosts.toml as
	// containerd reads it: mirrors to ask first, plain HTTP, certificates. Empty, or without one for a
	// registry: that is asked itself.
	RegistryDir string
	// Parallel is how many images are pulled at a time; default 5.
	Parallel int
	// ReportEvery is the interval of progress reports of a pull; default 10 s.
	ReportEvery time.Duration
}

// Store is the images of one containerd namespace, unpacked for one snapshotter. It is safe for
// concurrent use.
type Store struct {
	client      *containerd.Client
	snapshotter string
	cfg         Config
	pulls       singleflight.Group
	// slots bounds the pulls.
	slots chan struct{}

	mu sync.Mutex
	// running are the pulls on their way.
	running map[string]*pull
	// used is when an image was last asked for or seen in use, by digest.
	used map[digest.Digest]time.Time
	// root is where the snapshotter's file systems lie, once that is known.
	root string
}

// New returns the store of the client's default namespace.
func New(client *containerd.Client, snapshotter string, cfg Config) *Store {
	if cfg.Parallel < 1 {
		cfg.Parallel = 5
	}
	if cfg.ReportEvery <= 0 {
		cfg.ReportEvery = 10 * time.Second
	}
	return &Store{
		client: client, snapshotter: snapshotter, cfg: cfg, slots: make(chan struct{}, cfg.Parallel),
		running: map[string]*pull{}, used: map[digest.Digest]time.Time{},
	}
}

// Ensure makes sure that the image is on the node, unpacked, and returns it. The policy is one of
// Kubernetes': Always asks the registry for a newer one each time, and takes an image that was
// imported when it gets none; IfNotPresent pulls only an absent image; Never fails with
// ErrNeverPull when it is absent. Keys are what registries may ask for. Pulled reports whether a
// registry was asked. Report, if any, is called every few seconds of a pull.
func (s *Store) Ensure(
	ctx context.Context,
	name, policy string,
	keys Keyring,
	report ...func(Progress),
) (img Image, pulled bool, err error) {
	full, err := Normalize(name)
	if err != nil {
		return Image{}, false, err
	}
	if policy != "Always" {
		local, _, err := s.find(ctx, full)
		if err == nil {
			img, err := s.unpacked(ctx, local)
			return img, false, err
		}
		if !errdefs.IsNotFound(err) {
			return Image{}, false, fmt.Errorf("finding image %s: %w", full, err)
		}
		if policy == "Never" {
			return Image{}, false, fmt.Errorf("container image %q is %w", full, ErrNeverPull)
		}
	}
	img, err = s.pull(ctx, full, keys.For(full), report)
	if err != nil {
		// An image that was put on the node by hand stands in for the registry that does not have it:
		// most manifests name images without a tag, which asks for a pull, and a cluster without a
		// registry should run them unchanged.
		if local, imported, ferr := s.find(ctx, full); ferr == nil && imported {
			if own, uerr := s.unpacked(ctx, local); uerr == nil {
				return own, false, nil
			}
		}
	}
	return img, true, err
}

// labelImported marks images that were put on the node by hand.
const labelImported = "xebec.io/imported"

// find returns an image of the node by its full name, and whether it was put there by hand. A name
// with a digest also finds the image of that digest that has only a tag of the same repository, as
// those from archives have; it gets the name with the digest too, which stays when the tag is given
// to another image.
func (s *Store) find(ctx context.Context, full string) (img containerd.Image, imported bool, err error) {
	img, err = s.client.GetImage(ctx, full)
	if err == nil && img.Labels()[labelImported] != "" {
		return img, true, nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, false, err
	}
	named, perr := reference.ParseNormalizedNamed(full)
	digested, ok := named.(reference.Digested)
	if perr != nil || !ok {
		return img, false, err
	}
	same, lerr := s.client.ImageService().List(ctx, "target.digest=="+digested.Digest().String())
	if lerr != nil {
		return nil, false, lerr
	}
	for _, other := range same {
		tagged, perr := reference.ParseNormalizedNamed(other.Name)
		if perr != nil || tagged.Name() != named.Name() {
			continue
		}
		imported = imported || other.Labels[labelImported] != ""
		if img != nil {
			continue
		}
		made, cerr := s.client.ImageService().Create(ctx, ctrimages.Image{Name: full, Target: other.Target})
		if errdefs.IsAlreadyExists(cerr) {
			made, cerr = s.client.ImageService().Get(ctx, full)
		}
		if cerr != nil {
			return nil, false, fmt.Errorf("tagging image %s with its digest: %w", other.Name, cerr)
		}
		img, err = containerd.NewImage(s.client, made), nil
	}
	return img, imported, err
}

func (s *Store) unpacked(ctx context.Context, img containerd.Image) (Image, error) {
	done, err := img.IsUnpacked(ctx, s.snapshotter)
	if err != nil {
		return Image{}, fmt.Errorf("inspecting image %s: %w", img.Name(), err)
	}
	if !done {
		if err := img.Unpack(ctx, s.snapshotter); err != nil {
			return Image{}, fmt.Errorf("unpacking image %s: %w", img.Name(), err)
		}
	}
	s.touch(img.Target().Digest, time.Now())
	return Image{Name: img.Name(), Digest: img.Target().Digest.String()}, nil
}

// Import loads the images of a docker or OCI archive and unpacks them. The archive must name its
// images.
func (s *Store) Import(ctx context.Context, archive io.Reader) ([]Image, error) {
	loaded, err := s.client.Import(
		ctx,
		archive,
		containerd.WithImageLabels(map[string]string{labelImported: "true"}),
		containerd.WithImageRefTranslator(func(name string) string {
			full, err := Normalize(name)
			if err != nil {
				return ""
			}
			return full
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("importing images: %w", err)
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("importing images: %w: the archive contains no image name", ErrInvalidName)
	}
	out := make([]Image, 0, len(loaded))
	for _, l := range loaded {
		img := containerd.NewImage(s.client, l)
		u, err := s.unpacked(ctx, img)
		if err != nil {
			return nil, err
		}
		if u.Size, err = img.Size(ctx); err != nil {
			return nil, fmt.Errorf("reading the size of image %s: %w", u.Name, err)
		}
		out = append(out, u)
	}
	return out, nil
}

// List returns the images by name. An image whose content is incomplete has size 0.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	all, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	out := make([]Image, 0, len(all))
	for _, i := range all {
		if strings.HasPrefix(i.Name, "sha256:") {
			continue
		}
		size, err := s.size(ctx, i)
		if err != nil {
			size = 0
		}
		out = append(out, Image{Name: i.Name, Digest: i.Target.Digest.String(), Size: size})
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *Store) size(ctx context.Context, i ctrimages.Image) (int64, error) {
	return containerd.NewImage(s.client, i).Size(ctx)
}
