package endpoints

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func service(change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web", Uid: "service-uid"},
		Spec: &corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, ClusterIp: "10.96.0.1",
			Ports: []*corev1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80, TargetPort: &metav1.IntOrString{IntVal: 8080}}},
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func pod(n int, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("web-%d", n), Uid: fmt.Sprintf("uid-%03d", n),
			Labels: map[string]string{"app": "web"},
		},
		Spec: &corev1.PodSpec{NodeName: "node-1", Containers: []*corev1.Container{{
			Name: "c", Ports: []*corev1.ContainerPort{{Name: "serve", ContainerPort: 9090, Protocol: "TCP"}},
		}}},
		Status: &corev1.PodStatus{
			Phase: "Running", PodIp: fmt.Sprintf("10.244.%d.%d", n/200, n%200+1),
			Conditions: []*corev1.PodCondition{{Type: "Ready", Status: "True"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func pods(n int) []*corev1.Pod {
	all := make([]*corev1.Pod, n)
	for i := range all {
		all[i] = pod(i)
	}
	return all
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = "False" }
func deleted(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.New(time.Unix(1, 0)) }

// carryOut does to the slices there are what a plan says.
func carryOut(have []*discoveryv1.EndpointSlice, p plan, serial *int) []*discoveryv1.EndpointSlice {
	byName := map[string]*discoveryv1.EndpointSlice{}
	for _, e := range have {
		byName[e.Metadata.Name] = e
	}
	for _, e := range p.remove {
		delete(byName, e.Metadata.Name)
	}
	for _, e := range p.update {
		byName[e.Metadata.Name] = e
	}
	for _, e := range p.create {
		*serial++
		e.Metadata.Name = fmt.Sprintf("%s%04d", e.Metadata.GenerateName, *serial)
		byName[e.Metadata.Name] = e
	}
	return slices.Collect(maps.Values(byName))
}

func TestConditions(t *testing.T) {
	publish := func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }
	for _, tc := range []struct {
		name string
		svc  *corev1.Service
		pod  *corev1.Pod
		want string // ready serving terminating, or empty for no endpoint
	}{
		{"ready", service(), pod(1), "true true false"},
		{"not ready", service(), pod(1, unready), "false false false"},
		{"terminating and still serving", service(), pod(1, deleted), "false true true"},
		{"terminating", service(), pod(1, deleted, unready), "false false true"},
		{"published", service(publish), pod(1, unready), "true false false"},
		{"published and terminating", service(publish), pod(1, deleted), "true true true"},
		{"no conditions yet", service(), pod(1, func(p *corev1.Pod) { p.Status.Conditions = nil }), "false false false"},
		{"no address", service(), pod(1, func(p *corev1.Pod) { p.Status.PodIp = "" }), ""},
		{"failed", service(), pod(1, func(p *corev1.Pod) { p.Status.Phase = "Failed" }), ""},
		{"succeeded", service(), pod(1, func(p *corev1.Pod) { p.Status.Phase = "Succeeded" }), ""},
		{"not selected", service(), pod(1, func(p *corev1.Pod) { p.Metadata.Labels["app"] = "db" }), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planSlices(tc.svc, []*corev1.Pod{tc.pod}, nil, 100)
			if len(p.create) != 1 {
				t.Fatalf("%d slices", len(p.create))
			}
			got := ""
			for _, e := range p.create[0].Endpoints {
				c := e.Conditions
				got = fmt.Sprint(c.GetReady(), c.GetServing(), c.GetTerminating())
				if e.GetNodeName() != "node-1" || e.TargetRef.GetName() != "web-1" || e.TargetRef.GetUid() != "uid-001" {
					t.Errorf("endpoint %v", e)
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSliceHead(t *testing.T) {
	e := planSlices(service(func(s *corev1.Service) {
		s.Spec.ClusterIp = "None"
		s.Metadata.Labels = map[string]string{"team": "a"}
	}), pods(1), nil, 100).create[0]
	for label, want := range map[string]string{
		"kubernetes.io/service-name":             "web",
		"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
		"service.kubernetes.io/headless":         "",
		"team":                                   "a",
	} {
		if got, ok := e.Metadata.Labels[label]; !ok || got != want {
			t.Errorf("label %s is %q", label, got)
		}
	}
	ref := e.Metadata.OwnerReferences[0]
	if ref.Kind != "Service" || ref.Uid != "service-uid" || !ref.GetController() || e.AddressType != "IPv4" {
		t.Errorf("owner %v, type %s", ref, e.AddressType)
	}
}

func TestPorts(t *testing.T) {
	named := service(func(s *corev1.Service) {
		s.Spec.Ports[0].TargetPort = &metav1.IntOrString{Type: 1, StrVal: "serve"}
	})
	// While a rollout moves a named port, the pods need slices of their own.
	moved := pod(2, func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9999 })
	got := []int32{}
	for _, e := range planSlices(named, []*corev1.Pod{pod(1), moved}, nil, 100).create {
		if len(e.Endpoints) != 1 || len(e.Ports) != 1 || e.Ports[0].GetName() != "http" {
			t.Fatalf("slice %v", e)
		}
		got = append(got, e.Ports[0].GetPort())
	}
	slices.Sort(got)
	if !slices.Equal(got, []int32{9090, 9999}) {
		t.Errorf("ports %v", got)
	}
	same := service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = nil })
	if p := planSlices(same, pods(1), nil, 100).create[0].Ports[0].GetPort(); p != 80 {
		t.Errorf("without a target port: %d", p)
	}
	absent := service(func(s *corev1.Service) {
		s.Spec.Ports[0].TargetPort = &metav1.IntOrString{Type: 1, StrVal: "nothing"}
	})
	if e := planSlices(absent, pods(1), nil, 100).create[0]; len(e.Ports) != 0 || len(e.Endpoints) != 1 {
		t.Errorf("a port that the pod lacks: %v", e)
	}
}

func TestWritesAreFew(t *testing.T) {
	serial := 0
	svc := service()
	all := pods(250)
	have := carryOut(nil, planSlices(svc, all, nil, 100), &serial)
	if len(have) != 3 {
		t.Fatalf("%d slices for 250 endpoints", len(have))
	}
	if p := planSlices(svc, all, have, 100); !p.empty() {
		t.Fatalf("what is as it should be is written: %v", p)
	}
	writes := func(p plan) string {
		return fmt.Sprintf("%d created, %d updated, %d removed", len(p.create), len(p.update), len(p.remove))
	}
	one := slices.Clone(all)
	one[7] = pod(7, unready)
	if got := writes(planSlices(svc, one, have, 100)); got != "0 created, 1 updated, 0 removed" {
		t.Errorf("one readiness: %s", got)
	}
	// A pod that is replaced goes into the slice that loses the old one, or into the one with room.
	replaced := append(slices.Clone(all[1:]), pod(300))
	if got := writes(planSlices(svc, replaced, have, 100)); got != "0 created, 1 updated, 0 removed" {
		t.Errorf("one replaced: %s", got)
	}
	p := planSlices(svc, append(slices.Clone(all), pods(320)[250:]...), have, 100)
	if got := writes(p); got != "1 created, 1 updated, 0 removed" {
		t.Errorf("70 more: %s", got)
	}
	have = carryOut(have, planSlices(svc, nil, have, 100), &serial)
	if len(have) != 1 || len(have[0].Endpoints) != 0 {
		t.Errorf("without pods: %d slices", len(have))
	}
	if p := planSlices(svc, nil, have, 100); !p.empty() {
		t.Errorf("the empty slice is written again: %s", writes(p))
	}
}

// A service has slices of each of its families, whatever of them its pods have.
func TestFamilies(t *testing.T) {
	whole, half := pod(1, func(p *corev1.Pod) {
		p.Status.PodIps = []*corev1.PodIP{{Ip: p.GetStatus().GetPodIp()}, {Ip: "fd00::1"}}
	}), pod(2)
	for _, test := range []struct {
		families []string
		pods     []*corev1.Pod
		want     string
	}{
		{nil, nil, "IPv4:0"},
		{nil, []*corev1.Pod{whole}, "IPv4:1 IPv6:1"},
		{[]string{"IPv4"}, []*corev1.Pod{whole, half}, "IPv4:2"},
		{[]string{"IPv6"}, []*corev1.Pod{whole, half}, "IPv6:1"},
		{[]string{"IPv4", "IPv6"}, []*corev1.Pod{whole, half}, "IPv4:2 IPv6:1"},
		{[]string{"IPv4", "IPv6"}, []*corev1.Pod{half}, "IPv4:1 IPv6:0"},
		{[]string{"IPv4", "IPv6"}, nil, "IPv4:0 IPv6:0"},
	} {
		var got []string
		for _, e := range planSlices(service(func(s *corev1.Service) { s.Spec.IpFamilies = test.families }), test.pods, nil, 100).create {
			got = append(got, fmt.Sprint(e.GetAddressType(), ":", len(e.GetEndpoints())))
		}
		slices.Sort(got)
		if all := strings.Join(got, " "); all != test.want {
			t.Errorf("families %v of %d pods: slices %s, want %s", test.families, len(test.pods), all, test.want)
		}
	}
}

func TestEveryEndpointIsInExactlyOneSlice(t *testing.T) {
	serial := 0
	svc := service()
	var have []*discoveryv1.EndpointSlice
	for step, n := range []int{1, 5, 40, 3, 0, 77, 76, 10, 100} {
		current := pods(n)
		for i := range current {
			if (i+step)%3 == 0 {
				unready(current[i])
			}
		}
		have = carryOut(have, planSlices(svc, current, have, 7), &serial)
		seen := map[string]bool{}
		for _, e := range have {
			if len(e.Endpoints) > 7 {
				t.Errorf("step %d: %d endpoints in a slice", step, len(e.Endpoints))
			}
			for _, ep := range e.Endpoints {
				if seen[ep.TargetRef.Name] {
					t.Errorf("step %d: %s twice", step, ep.TargetRef.Name)
				}
				seen[ep.TargetRef.Name] = true
			}
		}
		if len(seen) != n {
			t.Errorf("step %d: %d endpoints, want %d", step, len(seen), n)
		}
		if p := planSlices(svc, current, have, 7); !p.empty() {
			t.Errorf("step %d: a second plan is not empty", step)
		}
	}
}

func TestSelectors(t *testing.T) {
	s := newSelectors()
	add := func(name string, selector map[string]string) *corev1.Service {
		svc := service(func(svc *corev1.Service) { svc.Metadata.Name, svc.Spec.Selector = name, selector })
		s.update(nil, svc)
		return svc
	}
	a := add("a", map[string]string{"app": "web"})
	add("b", map[string]string{"app": "web", "tier": "front"})
	add("none", nil)
	match := func(labels map[string]string) string {
		names := s.matching("default", labels)
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	if got := match(map[string]string{"app": "web", "tier": "front", "x": "y"}); got != "a b" {
		t.Errorf("got %q", got)
	}
	if got := match(map[string]string{"app": "web"}); got != "a" {
		t.Errorf("got %q", got)
	}
	if got := match(map[string]string{"tier": "front"}); got != "" {
		t.Errorf("got %q", got)
	}
	changed := proto.Clone(a).(*corev1.Service)
	changed.Spec.Selector = map[string]string{"app": "db"}
	s.update(a, changed)
	if got := match(map[string]string{"app": "db"}); got != "a" {
		t.Errorf("after a change: %q", got)
	}
	s.update(changed, nil)
	if got := match(map[string]string{"app": "db"}); got != "" || len(s.filed) != 1 {
		t.Errorf("after removal: %q, %v", got, s.filed)
	}
}

func TestAudit(t *testing.T) {
	at := func(name, ip string, second int64, nodePort int32) *corev1.Service {
		return service(func(s *corev1.Service) {
			s.Metadata.Name, s.Spec.ClusterIp = name, ip
			s.Metadata.CreationTimestamp = timestamppb.New(time.Unix(second, 0))
			s.Spec.Ports[0].NodePort = nodePort
		})
	}
	dual := func(name, ip, ip6 string, second int64) *corev1.Service {
		s := at(name, ip, second, 0)
		s.Spec.ClusterIps = []string{ip, ip6}
		return s
	}
	var got []string
	for _, f := range audit([]*corev1.Service{
		at("younger", "10.96.0.1", 2, 30000), at("older", "10.96.0.1", 1, 30000),
		dual("pair", "10.96.0.3", "fd00::3", 6), dual("second", "10.96.0.4", "fd00::3", 7),
		at("bare", "", 3, 0), at("headless", "None", 4, 0), at("headless-2", "None", 4, 0), at("fine", "10.96.0.2", 5, 30001),
	}) {
		got = append(got, f.service.Metadata.Name+" "+f.reason)
	}
	want := []string{"younger ClusterIPAlreadyAllocated", "younger PortAlreadyAllocated", "bare ClusterIPNotAllocated", "second ClusterIPAlreadyAllocated"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
