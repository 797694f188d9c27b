package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// start brings up a control plane whose gateway does not hold off its one administrator, and waits
// until objects can be made.
func (b *bench) start(ctx context.Context, masters int) (*cluster.Cluster, error) {
	return b.startWith(ctx, masters, func(string, map[string]any) {})
}

// startServices is start with one master and some of the services.
func (b *bench) startServices(ctx context.Context, services ...string) (*cluster.Cluster, error) {
	return b.startConfig(ctx, cluster.Config{Masters: 1, Services: services}, func(string, map[string]any) {})
}

// startWith is start with changes to the services' configurations.
func (b *bench) startWith(
	ctx context.Context,
	masters int,
	change func(service string, settings map[string]any),
) (*cluster.Cluster, error) {
	return b.startConfig(ctx, cluster.Config{Masters: masters}, change)
}

func (b *bench) startConfig(
	ctx context.Context,
	cfg cluster.Config,
	change func(service string, settings map[string]any),
) (*cluster.Cluster, error) {
	cfg.Binaries = b.binaries
	cfg.Settings = func(service string, settings map[string]any) {
		change(service, settings)
		if service != "etcd" {
			settings["profiles"] = b.profiles != ""
		}
		if service == "gateway" {
			settings["userLimits"] = map[string]any{"perSecond": 1e6, "burst": 1000000}
		}
	}
	c, err := cluster.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	conn, err := c.Dial("gateway")
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	defer conn.Close()
	for {
		_, err := client.Get[*corev1.Namespace](ctx, client.New(conn), "", "default")
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil, !apierr.IsNotFound(err) && !apierr.IsUnavailable(err):
			return nil, errors.Join(err, c.Close())
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// measureIdle lets a master that has just started do nothing, and looks at what it used.
func measureIdle(ctx context.Context, b *bench) (result, error) {
	c, err := b.start(ctx, 1)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	stop := b.profile(ctx, c, "idle", b.idle)
	pause(ctx, b.idle)
	total, note, err := m.read()
	if err := errors.Join(err, stop()); err != nil {
		return result{}, err
	}
	var rss, pss int64
	var parts []string
	for _, p := range c.Processes() {
		u, err := p.Usage()
		if err != nil {
			return result{}, err
		}
		rss, pss = rss+u.RSS, pss+u.PSS
		parts = append(parts, fmt.Sprintf("%s %d (%d)", p.Service, u.RSS/mebibyte, u.PSS/mebibyte))
	}
	perMinute := total.Seconds() / b.idle.Minutes()
	return result{
		// Kubernetes' processes share no binary, so that both are the same there.
		figure: fmt.Sprintf("%d MiB, or %d with shared pages counted once; %.2f", rss/mebibyte, pss/mebibyte, perMinute),
		notes:  []string{"RSS in MiB, and with shared pages divided: " + strings.Join(parts, ", "), note},
	}, nil
}

// restarts is how often a start is measured.
const restarts = 9

// measureStart kills the apiserver of a running master and starts it again.
func measureStart(ctx context.Context, b *bench) (result, error) {
	c, err := b.start(ctx, 1)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	apiserver := c.Masters()[0].Process("apiserver")
	var took []time.Duration
	for range restarts {
		apiserver.Kill()
		began := time.Now()
		if err := apiserver.Start(); err != nil {
			return result{}, err
		}
		if err := apiserver.WaitServing(ctx); err != nil {
			return result{}, err
		}
		took = append(took, time.Since(began))
	}
	middle := median(took)
	return result{
		figure: fmt.Sprintf("%.2f s", middle.Seconds()),
		notes:  []string{fmt.Sprintf("%d starts, the longest %s", restarts, milliseconds(took[restarts-1]))},
	}, nil
}
