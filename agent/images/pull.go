package images

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is how far a pull is.
type Progress struct {
	// Queued tells that it waits for others to end.
	Queued bool
	// Done and Total are bytes of compressed content. Total grows while the image's manifests are
	// read.
	Done, Total int64
}

// pull is an image on its way.
type pull struct {
	mu      sync.Mutex
	started bool
	parts   map[string]ocispec.Descriptor
}

// note remembers a part of the image, as the pull comes to know of it.
func (p *pull) note(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts[remotes.MakeRefKey(ctx, d)] = d
	return nil, nil
}

// progress asks containerd how much of the parts there is.
func (s *Store) progress(ctx context.Context, p *pull) Progress {
	p.mu.Lock()
	out := Progress{Queued: !p.started}
	parts := make(map[string]ocispec.Descriptor, len(p.parts))
	for ref, d := range p.parts {
		parts[ref] = d
	}
	p.mu.Unlock()
	for ref, d := range parts {
		out.Total += d.Size
		if _, err := s.client.ContentStore().Info(ctx, d.Digest); err == nil {
			out.Done += d.Size
		} else if st, err := s.client.ContentStore().Status(ctx, ref); err == nil {
			out.Done += st.Offset
		}
	}
	return out
}

// resolver finds images at their registries, or those registries' mirrors. Only the registry itself
// learns the credentials, wherever it, or a mirror, may send the client for the content.
func (s *Store) resolver(ctx context.Context, full string, c Credentials) remotes.Resolver {
	options := dockerconfig.HostOptions{Credentials: func(host string) (string, string, error) {
		if host != registryHost(full) {
			return "", "", nil
		}
		return c.User, c.Password, nil
	}}
	if s.cfg.RegistryDir != "" {
		options.HostDir = dockerconfig.HostDirFromRoot(s.cfg.RegistryDir)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: dockerconfig.ConfigureHosts(ctx, options)})
}

// pull fetches an image once for all who ask for it at the same time, and tells them how far it is.
func (s *Store) pull(ctx context.Context, full string, keys []Credentials, report []func(Progress)) (Image, error) {
	key := fmt.Sprintf("%s %q", full, keys)
	s.mu.Lock()
	p := s.running[key]
	if p == nil {
		p = &pull{parts: map[string]ocispec.Descriptor{}}
		s.running[key] = p
	}
	s.mu.Unlock()
	ch := s.pulls.DoChan(key, func() (any, error) {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.running, key)
		}()
		// The pull serves others too, so that it does not end with the first caller's context.
		return s.fetch(context.WithoutCancel(ctx), full, keys, p)
	})
	tick := time.NewTicker(s.cfg.ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return Image{}, ctx.Err()
		case <-tick.C:
			for _, f := range report {
				f(s.progress(ctx, p))
			}
		case r := <-ch:
			if r.Err != nil {
				return Image{}, r.Err
			}
			return r.Val.(Image), nil
		}
	}
}

// fetch waits for its turn and pulls the image with the first credentials that its registry takes.
func (s *Store) fetch(ctx context.Context, full string, keys []Credentials, p *pull) (Image, error) {
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	p.mu.Lock()
	p.started = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if len(keys) == 0 {
		keys = []Credentials{{}}
	}
	var errs []error
	for _, c := range keys {
		img, err := s.client.Pull(ctx, full,
			containerd.WithPullUnpack,
			containerd.WithPullSnapshotter(s.snapshotter),
			containerd.WithResolver(s.resolver(ctx, full, c)),
			containerd.WithImageHandler(ctrimages.HandlerFunc(p.note)),
		)
		if err == nil {
			out, err := s.unpacked(ctx, img)
			if err == nil {
				out.Size, err = img.Size(ctx)
			}
			return out, err
		}
		errs = append(errs, err)
	}
	return Image{}, fmt.Errorf(
		"pulling image %s: %w; check the name, the registry and imagePullSecrets, or load it with `xebec image load ARCHIVE`",
		full,
		errors.Join(errs...),
	)
}
