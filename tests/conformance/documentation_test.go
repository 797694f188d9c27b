package conformance_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/tests/cluster"
)

// trialPrefix begins the names of namespaces that a trial has for itself.
const trialPrefix = "trial-"

// checkLimit is many times what the slowest check takes, a liveness probe that fails after 30 s and
// thrice.
const checkLimit = 100 * time.Second

// gapLimit is how long a trial is given that is not expected to work.
const gapLimit = 20 * time.Second

// TestDocumentation runs manifests of the documentation, unmodified, on a cluster with real
// containers, and checks what their pages say. The images are stand-ins of the same names.
func TestDocumentation(t *testing.T) {
	dir := corpus(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a lab needs root")
		}
		t.Skip("a lab needs root")
	}
	launched := launch(t)
	for _, trial := range allTrials() {
		t.Run(trial.name(), func(t *testing.T) {
			t.Parallel()
			s := *launched
			if s.namespace = trial.namespace; s.namespace == "" {
				s.namespace = trialPrefix + strings.ToLower(rand.Text()[:8])
			}
			needNamespace(t, s.api, s.namespace)
			limit := checkLimit
			if trial.gap != "" {
				limit = gapLimit
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			t.Cleanup(func() {
				if err := s.clear(context.WithoutCancel(ctx), dir, trial.files); err != nil {
					t.Error(err)
				}
			})
			switch err := s.run(ctx, dir, trial); {
			case errors.Is(err, errUnpulled):
				t.Skip(err)
			case trial.gap != "" && err == nil:
				t.Errorf("%s works now, but is said not to: %s", strings.Join(trial.files, ", "), trial.gap)
			case trial.gap != "":
				t.Logf("not yet (%s): %v", trial.gap, err)
			case err != nil:
				t.Errorf("%s: %v", strings.Join(trial.files, ", "), err)
			}
		})
	}
}

// run plays a trial.
func (s *stage) run(ctx context.Context, dir string, trial trial) error {
	for _, command := range trial.before {
		if _, err := s.xebec(ctx, "", command...); err != nil {
			return err
		}
	}
	if trial.setup != "" {
		if _, err := s.xebec(ctx, trial.setup, "apply", "-f", "-"); err != nil {
			return err
		}
	}
	for _, check := range trial.first {
		if err := check.await(ctx, s); err != nil {
			return fmt.Errorf("before the manifests: %w", err)
		}
	}
	if err := s.apply(ctx, dir, trial.files); err != nil {
		return err
	}
	for _, check := range trial.checks {
		if err := check.await(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// launch brings up a lab of one master and two nodes that have the images.
func launch(t *testing.T) *stage {
	t.Helper()
	// In memory: the lab's machines run the programs from here, and sockets need short paths.
	dir, err := os.MkdirTemp("/dev/shm", "xconf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	binaries, remove, err := cluster.Build(t.Context(), "xebec", "xebecd", "xebec-agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	archive := filepath.Join(dir, "images.tar")
	buildImages(t, archive)
	options := lab.Options{
		Name: "conf" + strings.ToLower(rand.Text()[:6]), StateDir: filepath.Join(dir, "lab"), BinDir: binaries,
		Masters: 1, Nodes: 2, DualStack: true, Ephemeral: true, ContextFile: filepath.Join(dir, "config"),
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), lab.DownOptions{Name: options.Name, Purge: true}); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := lab.Up(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &stage{
		api: client.New(conn, client.WithFieldManager("conformance")), binary: filepath.Join(binaries, "xebec"),
		config: options.ContextFile, namespace: "default",
	}
	began := time.Now()
	if _, err := s.xebec(ctx, "", "image", "load", archive); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%d images loaded in %.1f s\n", len(images), time.Since(began).Seconds())
	around := *s
	around.namespace = beyond
	needNamespace(t, s.api, beyond)
	if _, err := around.xebec(ctx, neighbours, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	return s
}
