package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	simulatedNodes = 100
	replicas       = 1000
)

func deployment() *appsv1.Deployment {
	labels := map[string]string{"app": "bench"}
	return &appsv1.Deployment{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "bench"},
		Spec: &appsv1.DeploymentSpec{
			Replicas: proto.Int32(replicas),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: &corev1.PodTemplateSpec{
				Metadata: &metav1.ObjectMeta{Labels: labels},
				Spec: &corev1.PodSpec{Containers: []*corev1.Container{{
					Name: "main", Image: "bench:1",
					Resources: &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"cpu": {String_: "100m"}, "memory": {String_: "64Mi"}}},
				}}},
			},
		},
	}
}

// measureDeployment makes a deployment on simulated nodes and waits until its pods are bound and
// then until they run.
func measureDeployment(ctx context.Context, b *bench) (result, error) {
	sim, err := b.startSimulation(ctx, simulatedNodes, func(string, map[string]any) {})
	if err != nil {
		return result{}, err
	}
	defer sim.close()
	c, api := sim.cluster, sim.api

	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	agents, err := newMeter(append(c.Processes()[:0:0], sim.nodes))
	if err != nil {
		return result{}, err
	}
	stop := b.profile(ctx, c, "deployment", b.length)
	began := time.Now()
	if _, err := client.Create(ctx, api, deployment()); err != nil {
		return result{}, err
	}
	var bound, running time.Duration
	var cpu time.Duration
	var note string
	err = waitPods(ctx, api, func(nBound, nRunning int) (done bool, err error) {
		if bound == 0 && nBound == replicas {
			bound = time.Since(began)
			if cpu, note, err = m.read(); err != nil {
				return true, err
			}
		}
		running = time.Since(began)
		return nRunning == replicas, nil
	})
	if err := errors.Join(err, stop()); err != nil {
		return result{}, err
	}
	all, _, err := m.read()
	if err != nil {
		return result{}, err
	}
	// Events are written behind.
	pause(ctx, 3*time.Second)
	late, _, err := m.read()
	if err != nil {
		return result{}, err
	}
	_, agentNote, err := agents.read()
	if err != nil {
		return result{}, err
	}
	return result{
		figure: fmt.Sprintf("%.2f s, %.2f CPU-s", bound.Seconds(), cpu.Seconds()),
		notes: []string{
			"until all are bound, " + note,
			fmt.Sprintf("all run after %.2f s and %.2f CPU-s; 3 s later, with all events written, %.2f CPU-s; simulated nodes, %s",
				running.Seconds(), all.Seconds(), late.Seconds(), agentNote),
		},
	}, nil
}

// waitPods watches pods and tells after each change how many are bound and run, until progress is
// done.
func waitPods(ctx context.Context, api *client.Client, progress func(bound, running int) (bool, error)) error {
	bound, running := make(map[string]bool), make(map[string]bool)
	for event, err := range client.Watch[*corev1.Pod](ctx, api, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			return fmt.Errorf("with %d pods bound and %d running: %w", len(bound), len(running), err)
		}
		pod := event.Object
		if pod == nil {
			continue
		}
		name := pod.GetMetadata().GetName()
		if pod.GetSpec().GetNodeName() != "" {
			bound[name] = true
		}
		if pod.GetStatus().GetPhase() == "Running" {
			running[name] = true
		}
		if done, err := progress(len(bound), len(running)); done || err != nil {
			return err
		}
	}
	return errors.New("the watch ended")
}
