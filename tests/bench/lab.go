package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// podStarts is how many pods are started, one by one, for the figure of starting a pod.
const podStarts = 40

// withLab brings up a lab, tells f how long that took and takes the lab down again. It needs root.
func withLab(ctx context.Context, b *bench, masters, nodes int, f func(l *lab.Lab, config string, up time.Duration) error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "xebec-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	options := lab.Options{
		Name: fmt.Sprintf("bench%d", rand.N(1_000_000)), StateDir: filepath.Join(dir, "state"), BinDir: b.binaries,
		Masters: masters, Nodes: nodes, Ephemeral: true, ContextFile: filepath.Join(dir, "config"),
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, lab.Down(ctx, lab.DownOptions{Name: options.Name, Purge: true}))
	}()
	began := time.Now()
	l, err := lab.Up(ctx, options)
	if err != nil {
		return err
	}
	return f(l, options.ContextFile, time.Since(began))
}

// measureUp measures `lab up` with three masters and two nodes, from programs that are built to all
// nodes ready.
func measureUp(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withLab(ctx, b, 3, 2, func(_ *lab.Lab, _ string, up time.Duration) error {
		r.figure = fmt.Sprintf("%.1f s", up.Seconds())
		return nil
	})
	return r, err
}

// measurePods measures, as a watcher sees it, the time from a pod's binding to its container
// running, for pods that are started one after the other and whose image is on the node.
func measurePods(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withLab(ctx, b, 1, 1, func(l *lab.Lab, config string, _ time.Duration) error {
		if err := loadImages(ctx, b.binaries, config, filepath.Dir(config)); err != nil {
			return err
		}
		conn, err := l.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		c := client.New(conn)
		took := make([]time.Duration, podStarts)
		for i := range took {
			if took[i], err = startPod(ctx, c, fmt.Sprintf("start-%d", i)); err != nil {
				return fmt.Errorf("pod %d: %w", i, err)
			}
		}
		slices.Sort(took)
		r.figure = fiftyAndNinetyNine(took)
		return nil
	})
	return r, err
}

// loadImages builds the sample images into dir and loads them as a user would.
func loadImages(ctx context.Context, binaries, config, dir string) error {
	build := exec.CommandContext(ctx, "go", "run", "github.com/xebec-project/xebec/lab/images/build", "-dir", dir)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build images: %w\n%s", err, out)
	}
	_, err := xebec(ctx, binaries, config, "image", "load", filepath.Join(dir, "client.tar"), filepath.Join(dir, "echo.tar"))
	return err
}

// xebec runs the command line and returns its output.
func xebec(ctx context.Context, binaries, config string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "xebec"), args...)
	cmd.Env = append(os.Environ(), "XEBECCONFIG="+config)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("xebec %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// startPod creates a pod and returns the time from its binding to its container running.
func startPod(ctx context.Context, c *client.Client, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	created := make(chan error, 1)
	var bound time.Time
	one := client.WatchOptions{Namespace: "default", FieldSelector: "metadata.name=" + name}
	for event, err := range client.Watch[*corev1.Pod](ctx, c, one) {
		if err != nil {
			return 0, err
		}
		if event.InitialStateEnd {
			go func() {
				_, err := client.Create(ctx, c, &corev1.Pod{
					Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"},
					Spec: &corev1.PodSpec{
						TerminationGracePeriodSeconds: new(int64),
						Containers: []*corev1.Container{
							{Name: "c", Image: "xebec/client:1", ImagePullPolicy: "Never", Args: []string{"sleep"}},
						},
					},
				})
				created <- err
			}()
			continue
		}
		pod := event.Object
		if pod == nil {
			continue
		}
		if bound.IsZero() && pod.GetSpec().GetNodeName() != "" {
			bound = time.Now()
		}
		if core.IsPodReady(pod) {
			took := time.Since(bound)
			_, err := client.Delete[*corev1.Pod](ctx, c, "default", name)
			return took, errors.Join(<-created, err)
		}
	}
	return 0, errors.New("the watch ended before the pod ran")
}
