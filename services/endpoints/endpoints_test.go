package endpoints

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

func start(t *testing.T) (*clienttest.Server, *client.Client) {
	t.Helper()
	s, c := clienttest.Start(t)
	svc, err := New(Config{}, Deps{Host: "master-1", Client: c})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = svc.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-time.After(time.Second) // The election.
	synctest.Wait()
	return s, c
}

func slicesOf(t *testing.T, c *client.Client) []*discoveryv1.EndpointSlice {
	t.Helper()
	synctest.Wait()
	all, _, err := client.List[*discoveryv1.EndpointSlice](t.Context(), c, client.ListOptions{
		Namespace: "default", LabelSelector: "kubernetes.io/service-name=web",
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestServiceFollowsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t)
		clienttest.Seed(s, service())
		clienttest.Seed(s, pods(5)...)
		<-time.After(200 * time.Millisecond)
		all := slicesOf(t, c)
		if len(all) != 1 || len(all[0].Endpoints) != 5 {
			t.Fatalf("slices %v", all)
		}
		begun := time.Now()
		clienttest.Seed(s, pod(3, unready))
		for time.Since(begun) < time.Second {
			synctest.Wait()
			ready := 0
			for _, e := range slicesOf(t, c)[0].Endpoints {
				if e.Conditions.GetReady() {
					ready++
				}
			}
			if ready == 4 {
				break
			}
			<-time.After(time.Millisecond)
		}
		if d := time.Since(begun); d > 2*time.Millisecond {
			t.Errorf("readiness took %v to show, without any load", d)
		}
		<-time.After(2 * endpointsBatch) // The Endpoints object follows.
		updates := s.Calls("Update") + s.Calls("Create")
		clienttest.Seed(s, pod(3, unready, func(p *corev1.Pod) { p.Metadata.Annotations = map[string]string{"a": "b"} }))
		<-time.After(time.Second)
		if n := s.Calls("Update") + s.Calls("Create") - updates; n != 0 {
			t.Errorf("%d writes for a change that no slice shows", n)
		}
		clienttest.Remove(s, pod(3))
		<-time.After(200 * time.Millisecond)
		if n := len(slicesOf(t, c)[0].Endpoints); n != 4 {
			t.Errorf("%d endpoints", n)
		}
		clienttest.Seed(s, service(func(s *corev1.Service) { s.Spec.Selector = nil }))
		<-time.After(200 * time.Millisecond)
		if all := slicesOf(t, c); len(all) != 0 {
			t.Errorf("slices of a service without a selector: %v", all)
		}
	})
}

// TestFormerSlicesAreTakenOver starts beside slices that carry the label of v0.1.0, and slices of
// others.
func TestFormerSlicesAreTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, service())
		clienttest.Seed(s, pods(3)...)
		former := planSlices(service(), pods(3), nil, 100).create[0]
		former.Metadata.Name, former.Metadata.Labels[labelManagedBy] = "web-former", "endpointslice-controller.xebec"
		others := client.Clone(former)
		others.Metadata.Name, others.Metadata.Labels[labelManagedBy], others.Metadata.OwnerReferences = "web-others", "another-controller", nil
		clienttest.Seed(s, former, others)
		svc, err := New(Config{}, Deps{Host: "master-1", Client: c})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = svc.Run(ctx)
		}()
		<-time.After(2 * time.Second)
		got := map[string]string{}
		for _, e := range slicesOf(t, c) {
			got[e.Metadata.Name] = e.Metadata.Labels[labelManagedBy]
			if len(e.Endpoints) != 3 {
				t.Errorf("%s has %d endpoints", e.Metadata.Name, len(e.Endpoints))
			}
		}
		if want := map[string]string{"web-former": "endpointslice-controller.k8s.io", "web-others": "another-controller"}; !maps.Equal(got, want) {
			t.Errorf("slices %v, want %v", got, want)
		}
		cancel()
		<-done
	})
}
