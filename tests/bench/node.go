package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

const (
	// burstPods are started at burstRate a second for the figure of starting many.
	burstPods = 100
	burstRate = 50
	// fullNode is how many pods a node takes.
	fullNode = 110
	// reachTrials is how many pods come and go for the figures of reaching pods.
	reachTrials = 40
)

func fiftyAndNinetyNine(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprintf("p50 %s, p99 %s", milliseconds(quantile(took, .5)), milliseconds(quantile(took, .99)))
}

// sleeper is a pod that does nothing.
func sleeper(name string, args ...string) *corev1.Pod {
	if len(args) == 0 {
		args = []string{"sleep"}
	}
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: &corev1.PodSpec{TerminationGracePeriodSeconds: new(int64), Containers: []*corev1.Container{
			{Name: "c", Image: "xebec/client:1", ImagePullPolicy: "Never", Args: args},
		}},
	}
}

// moments is when pods were first seen bound and ready.
type moments struct{ bound, ready time.Time }

// watchPods follows the pods until all of a number are ready, and returns their moments by name.
func watchPods(ctx context.Context, c *client.Client, want int, begun func()) (map[string]moments, error) {
	seen, ready := map[string]moments{}, 0
	for event, err := range client.Watch[*corev1.Pod](ctx, c, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			return nil, fmt.Errorf("%d of %d pods were ready: %w", ready, want, err)
		}
		if event.InitialStateEnd {
			go begun()
		}
		pod := event.Object
		if pod == nil {
			continue
		}
		name := pod.GetMetadata().GetName()
		m := seen[name]
		if m.bound.IsZero() && pod.GetSpec().GetNodeName() != "" {
			m.bound = time.Now()
		}
		if m.ready.IsZero() && core.IsPodReady(pod) {
			m.ready = time.Now()
			ready++
		}
		seen[name] = m
		if ready == want {
			return seen, nil
		}
	}
	return nil, errors.New("the watch ended")
}

// startMany creates pods at a rate and waits until all are ready.
func startMany(ctx context.Context, c *client.Client, prefix string, count, rate int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var creating errgroup.Group
	seen, err := watchPods(ctx, c, count, func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := range count {
			creating.Go(func() error {
				_, err := client.Create(ctx, c, sleeper(fmt.Sprintf("%s-%d", prefix, i)))
				return err
			})
			<-tick.C
		}
	})
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, m := range seen {
		took = append(took, m.ready.Sub(m.bound))
	}
	return took, creating.Wait()
}

// measureBurst measures pods' starts when many come at once to one node.
func measureBurst(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withClient(ctx, b, 1, 1, func(_ *lab.Lab, c *client.Client, _ string) error {
		took, err := startMany(ctx, c, "burst", burstPods, burstRate)
		if err != nil {
			return err
		}
		r.figure = fiftyAndNinetyNine(took)
		return nil
	})
	return r, err
}

// measureFull fills a node and measures what its agent uses then: its memory, and its processor
// time while nothing happens.
func measureFull(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withClient(ctx, b, 1, 1, func(l *lab.Lab, c *client.Client, _ string) error {
		pid, err := processID(ctx, l, "node-1", "agent")
		if err != nil {
			return err
		}
		empty, err := cluster.UsageOf(pid)
		if err != nil {
			return err
		}
		if _, err := startMany(ctx, c, "full", fullNode, 20); err != nil {
			return err
		}
		pause(ctx, 10*time.Second)
		before, err := cluster.UsageOf(pid)
		if err != nil {
			return err
		}
		pause(ctx, b.idle/2)
		after, err := cluster.UsageOf(pid)
		if err != nil {
			return err
		}
		perMinute := (after.CPU - before.CPU).Seconds() / (b.idle / 2).Minutes()
		r.figure = fmt.Sprintf("%d MiB; %.2f CPU-s/min", after.RSS/mebibyte, perMinute)
		r.notes = append(
			r.notes,
			fmt.Sprintf("agent with no pod %d MiB; right after the pods started %d MiB", empty.RSS/mebibyte, before.RSS/mebibyte),
		)
		return nil
	})
	return r, err
}

// measureReach has pods of a service come and go, and probers on both nodes that ask the service
// who answers: when pods that are ready answer on the later node, and until when pods that were
// deleted do on the last.
func measureReach(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withClient(ctx, b, 1, 2, func(_ *lab.Lab, c *client.Client, config string) error {
		svc, err := client.Create(ctx, c, &corev1.Service{
			Metadata: &metav1.ObjectMeta{Name: "target", Namespace: "default"},
			Spec: &corev1.ServiceSpec{
				Selector: map[string]string{"app": "target"},
				Ports:    []*corev1.ServicePort{{Port: 80, TargetPort: &metav1.IntOrString{IntVal: 8080}}},
			},
		})
		if err != nil {
			return err
		}
		probers := []string{"prober-node-1", "prober-node-2"}
		for _, name := range probers {
			pod := sleeper(name, "names", svc.GetSpec().GetClusterIp()+":80", "--for", "10m", "--interval", "1ms", "--timeout", "1s")
			pod.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": strings.TrimPrefix(name, "prober-")}
			pod.Spec.RestartPolicy = "Never"
			if _, err := startOne(ctx, c, pod); err != nil {
				return err
			}
		}
		// Beside this one, so that those that leave are not asked for want of others.
		if _, err := startOne(ctx, c, target("base")); err != nil {
			return err
		}
		ready, deleted := map[string]time.Time{}, map[string]time.Time{}
		for i := range reachTrials {
			name := fmt.Sprintf("target-%d", i)
			if ready[name], err = startOne(ctx, c, target(name)); err != nil {
				return err
			}
			pause(ctx, 300*time.Millisecond)
			deleted[name] = time.Now()
			if _, err := client.Delete[*corev1.Pod](ctx, c, "default", name); err != nil {
				return err
			}
		}
		pause(ctx, time.Second)
		var up, down []time.Duration
		first, last := map[string]int64{}, map[string]int64{}
		for _, prober := range probers {
			answered, err := proberSaw(ctx, c, b.binaries, config, prober)
			if err != nil {
				return err
			}
			for name, a := range answered {
				first[name], last[name] = max(first[name], a.First), max(last[name], a.Last)
			}
		}
		for name := range ready {
			if first[name] == 0 {
				return fmt.Errorf("pod %s never answered", name)
			}
			up = append(up, time.Unix(0, first[name]).Sub(ready[name]))
			down = append(down, max(time.Unix(0, last[name]).Sub(deleted[name]), 0))
		}
		r.figure = "up " + fiftyAndNinetyNine(up) + "; down " + fiftyAndNinetyNine(down)
		return nil
	})
	return r, err
}

// target is a server behind the service.
func target(name string) *corev1.Pod {
	grace := int64(10)
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": "target"}},
		Spec: &corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []*corev1.Container{{
			Name: "c", Image: "xebec/echo:1", ImagePullPolicy: "Never", Env: []*corev1.EnvVar{{Name: "DRAIN", Value: "500ms"}},
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, Handler: &corev1.ProbeHandler{
				HttpGet: &corev1.HTTPGetAction{Path: "/readyz", Port: &metav1.IntOrString{IntVal: 8080}},
			}},
		}}},
	}
}

// startOne creates a pod and returns when it was seen ready.
func startOne(ctx context.Context, c *client.Client, pod *corev1.Pod) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	name := pod.GetMetadata().GetName()
	if _, err := client.Create(ctx, c, pod); err != nil {
		return time.Time{}, err
	}
	one := client.WatchOptions{Namespace: "default", FieldSelector: "metadata.name=" + name}
	for event, err := range client.Watch[*corev1.Pod](ctx, c, one) {
		if err != nil {
			return time.Time{}, fmt.Errorf("pod %s: %w", name, err)
		}
		if event.Object != nil && core.IsPodReady(event.Object) {
			return time.Now(), nil
		}
	}
	return time.Time{}, errors.New("the watch ended")
}

// proberSaw ends a prober and returns the addresses that it saw.
func proberSaw(ctx context.Context, c *client.Client, binaries, config, name string) (map[string]struct{ First, Last int64 }, error) {
	if _, err := xebec(ctx, binaries, config, "exec", name, "--", "/client", "stop"); err != nil {
		return nil, err
	}
	for {
		// An end of ctx ends this call.
		pod, err := client.Get[*corev1.Pod](ctx, c, "default", name)
		if err != nil {
			return nil, err
		}
		if pod.GetStatus().GetPhase() == core.PodSucceeded {
			break
		}
		pause(ctx, 50*time.Millisecond)
	}
	text, err := xebec(ctx, binaries, config, "logs", name)
	if err != nil {
		return nil, err
	}
	seen := map[string]struct{ First, Last int64 }{}
	return seen, json.Unmarshal([]byte(text), &seen)
}

func processID(ctx context.Context, l *lab.Lab, host, name string) (int, error) {
	status, err := l.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, h := range status.Hosts {
		for _, p := range h.Processes {
			if h.Name == host && p.Name == name && p.PID != 0 {
				return p.PID, nil
			}
		}
	}
	return 0, fmt.Errorf("%s/%s does not run", host, name)
}

// withClient is withLab with the sample images on the nodes and a connection.
func withClient(ctx context.Context, b *bench, masters, nodes int, f func(l *lab.Lab, c *client.Client, config string) error) error {
	return withLab(ctx, b, masters, nodes, func(l *lab.Lab, config string, _ time.Duration) error {
		if err := loadImages(ctx, b.binaries, config, filepath.Dir(config)); err != nil {
			return err
		}
		conn, err := l.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		return f(l, client.New(conn), config)
	})
}
