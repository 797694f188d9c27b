package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/tests/cluster"
)

// profile takes CPU profiles of a cluster's services, and of others, while something is measured,
// when they are asked for, and returns a function that waits for them. etcd serves none.
func (b *bench) profile(
	ctx context.Context,
	c *cluster.Cluster,
	name string,
	length time.Duration,
	others ...*cluster.Process,
) (wait func() error) {
	if b.profiles == "" {
		return func() error { return nil }
	}
	var group errgroup.Group
	for _, p := range append(c.Processes(), others...) {
		if p.Service == "etcd" {
			continue
		}
		group.Go(func() error {
			url := fmt.Sprintf("https://%s/debug/pprof/profile?seconds=%d", p.Diagnostics(), int(max(time.Second, length-time.Second)/time.Second))
			return fetch(ctx, c.HTTPClient(), url, filepath.Join(b.profiles, name+"-"+p.Name()+".pprof"))
		})
	}
	return group.Wait
}

func fetch(ctx context.Context, client *http.Client, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// keepLogs copies what processes logged to where profiles are kept, for a look at what went wrong.
// It keeps what it can.
func (b *bench) keepLogs(processes []*cluster.Process, name string) {
	if b.profiles == "" {
		return
	}
	for _, p := range processes {
		data, err := os.ReadFile(p.Log())
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profiles, name+"-"+p.Name()+".log"), data, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: log of", p.Name(), "is lost:", err)
		}
	}
}
