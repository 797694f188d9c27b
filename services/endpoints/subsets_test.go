package endpoints

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestSubsets(t *testing.T) {
	svc := service()
	behind := append(pods(3), pod(3, unready), pod(4, deleted))
	got := wantedEndpoints(svc, behind, nil)
	if len(got.GetSubsets()) != 1 {
		t.Fatalf("subsets %v", got.GetSubsets())
	}
	subset := got.GetSubsets()[0]
	if len(subset.GetAddresses()) != 3 || len(subset.GetNotReadyAddresses()) != 1 || len(subset.GetPorts()) != len(svc.GetSpec().GetPorts()) {
		t.Errorf("subset %v", subset)
	}
	if a := subset.GetAddresses()[0]; a.GetTargetRef().GetKind() != "Pod" || a.GetIp() == "" {
		t.Errorf("address %v", a)
	}
	if l := got.GetMetadata().GetLabels(); l["endpoints.kubernetes.io/managed-by"] != "endpoint-controller" {
		t.Errorf("labels %v", l)
	}
	if again := wantedEndpoints(svc, behind, got); again != got {
		t.Error("Endpoints that are as they should be are written again")
	}
	svc.Spec.PublishNotReadyAddresses = true
	if s := wantedEndpoints(svc, behind, got).GetSubsets()[0]; len(s.GetAddresses()) != 5 || len(s.GetNotReadyAddresses()) != 0 {
		t.Errorf("with publishNotReadyAddresses: %v", s)
	}
	if none := wantedEndpoints(svc, nil, nil); len(none.GetSubsets()) != 0 {
		t.Errorf("without pods: %v", none)
	}
}

func TestEndpointsAreTruncated(t *testing.T) {
	var many []*corev1.Pod
	for i := range 1100 {
		p := pod(i)
		p.Status.PodIp, p.Status.PodIps = fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), nil
		if i >= 900 {
			unready(p)
		}
		many = append(many, p)
	}
	got := wantedEndpoints(service(), many, nil)
	if s := got.GetSubsets()[0]; len(s.GetAddresses()) != 900 || len(s.GetNotReadyAddresses()) != 100 {
		t.Errorf("%d addresses and %d that are not ready", len(s.GetAddresses()), len(s.GetNotReadyAddresses()))
	}
	const annotation = "endpoints.kubernetes.io/over-capacity"
	if v := got.GetMetadata().GetAnnotations()[annotation]; v != "truncated" {
		t.Errorf("the annotation is %q", v)
	}
	if fewer := wantedEndpoints(service(), many[:5], got); fewer.GetMetadata().GetAnnotations()[annotation] != "" {
		t.Error("the annotation stays")
	}
}

func custom(ips ...string) *corev1.Endpoints {
	subset := &corev1.EndpointSubset{Ports: []*corev1.EndpointPort{{Name: "http", Port: 80, Protocol: "TCP"}}}
	for _, ip := range ips {
		subset.Addresses = append(subset.Addresses, &corev1.EndpointAddress{Ip: ip})
	}
	return &corev1.Endpoints{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"team": "a"}, Annotations: map[string]string{
			"example.com/a": "b", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z",
		}},
		Subsets: []*corev1.EndpointSubset{subset},
	}
}

func TestMirror(t *testing.T) {
	e := custom("192.0.2.1", "fd00::1")
	e.Subsets[0].NotReadyAddresses = []*corev1.EndpointAddress{{Ip: "192.0.2.2", Hostname: "b", NodeName: proto.String("node-1")}}
	p, skipped := planMirror(e, nil)
	if skipped != 0 || len(p.create) != 2 {
		t.Fatalf("%d skipped, plan %v", skipped, p)
	}
	families := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range p.create {
		families[s.GetAddressType()] = s
		m := s.GetMetadata()
		if m.GetLabels()[labelManagedBy] != mirrored || m.GetLabels()[labelServiceName] != "web" || m.GetLabels()["team"] != "a" ||
			len(m.GetAnnotations()) != 1 || m.GetOwnerReferences()[0].GetKind() != "Endpoints" {
			t.Errorf("metadata %v", m)
		}
	}
	if n4, n6 := len(families["IPv4"].GetEndpoints()), len(families["IPv6"].GetEndpoints()); n4 != 2 || n6 != 1 {
		t.Errorf("%d and %d endpoints", n4, n6)
	}
	for i, s := range p.create {
		s.Metadata.Name = fmt.Sprint("web-", i)
	}
	if again, _ := planMirror(e, p.create); !again.empty() {
		t.Errorf("slices that are as they should be are written again: %v", again)
	}
	e.Subsets = nil
	if gone, _ := planMirror(e, p.create); len(gone.remove) != 2 || len(gone.create)+len(gone.update) != 0 {
		t.Errorf("without subsets: %v", gone)
	}
	var ips []string
	for i := range 1003 {
		ips = append(ips, fmt.Sprintf("10.1.%d.%d", i/250, i%250+1))
	}
	if p, skipped := planMirror(custom(ips...), nil); skipped != 3 || len(p.create) != 1 || len(p.create[0].GetEndpoints()) != 1000 {
		t.Errorf("%d skipped, %d slices", skipped, len(p.create))
	}
}

func TestWhatIsNotMirrored(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Endpoints){
		"skipped": func(e *corev1.Endpoints) { e.Metadata.Labels[labelSkipMirror] = "true" },
		"a lock":  func(e *corev1.Endpoints) { e.Metadata.Annotations[annotationLeader] = "{}" },
		"our own": func(e *corev1.Endpoints) {
			e.Metadata.Labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
		},
	} {
		e := custom("192.0.2.1")
		if !mirrors(e) {
			t.Fatal("custom Endpoints are not mirrored")
		}
		edit(e)
		if mirrors(e) {
			t.Errorf("%s: mirrored", name)
		}
	}
}

// endpointsOf waits for the controllers and returns the Endpoints of the service, nil for none.
func endpointsOf(t *testing.T, c *client.Client) *corev1.Endpoints {
	t.Helper()
	<-time.After(2 * time.Second)
	synctest.Wait()
	e, err := client.Get[*corev1.Endpoints](t.Context(), c, "default", "web")
	if apierr.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestEndpointsOfServices plays the specs "EndpointsController should create Endpoints for Pods
// matching a Service" and "should create and delete Endpoints for a Service with a selector that
// matches no pods".
func TestEndpointsOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t)
		clienttest.Seed(s, service())
		if e := endpointsOf(t, c); e == nil || len(e.GetSubsets()) != 0 {
			t.Fatalf("of no pods: %v", e)
		}
		clienttest.Seed(s, pods(3)...)
		if e := endpointsOf(t, c); len(e.GetSubsets()) != 1 || len(e.GetSubsets()[0].GetAddresses()) != 3 {
			t.Fatalf("of three pods: %v", e)
		}
		if all := slicesOf(t, c); len(all) != 1 {
			t.Errorf("the Endpoints of the controller are mirrored: %v", all)
		}
		clienttest.Remove(s, service())
		if e := endpointsOf(t, c); e != nil {
			t.Errorf("of a deleted service: %v", e)
		}
	})
}

// TestCustomEndpointsAreMirrored plays the specs "EndpointSliceMirroring should mirror a custom
// Endpoints resource through create update and delete" and "Endpoints should test the lifecycle of
// an Endpoint".
func TestCustomEndpointsAreMirrored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := start(t)
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		_, err := client.Create(t.Context(), c, custom("192.0.2.1"))
		do(err)
		if e := endpointsOf(t, c); e == nil {
			t.Fatal("Endpoints without a service are deleted")
		}
		if all := slicesOf(t, c); len(all) != 0 {
			t.Errorf("Endpoints without a service are mirrored: %v", all)
		}
		clienttest.Seed(s, service(func(s *corev1.Service) { s.Spec.Selector = nil }))
		addresses := func() []string {
			endpointsOf(t, c)
			var out []string
			for _, slice := range slicesOf(t, c) {
				for _, e := range slice.GetEndpoints() {
					out = append(out, e.GetAddresses()...)
				}
			}
			slices.Sort(out)
			return out
		}
		if got := addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
			t.Fatalf("mirrored are %v", got)
		}
		e := client.Clone(endpointsOf(t, c))
		e.Subsets = custom("192.0.2.1", "192.0.2.9").Subsets
		_, err = client.Update(t.Context(), c, e)
		do(err)
		if got := addresses(); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.9"}) {
			t.Errorf("after an update: %v", got)
		}
		_, err = client.Delete[*corev1.Endpoints](t.Context(), c, "default", "web")
		do(err)
		if got := addresses(); len(got) != 0 {
			t.Errorf("after the deletion: %v", got)
		}
		_, err = client.Create(t.Context(), c, custom("192.0.2.1"))
		do(err)
		if got := addresses(); len(got) != 1 {
			t.Errorf("created again: %v", got)
		}
		clienttest.Remove(s, service())
		if e := endpointsOf(t, c); e != nil {
			t.Errorf("of a deleted service: %v", e)
		}
	})
}
