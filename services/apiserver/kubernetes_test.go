package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// shown is a line for each slice: its name and endpoints.
func shown(list []*discoveryv1.EndpointSlice) string {
	var lines []string
	for _, e := range list {
		line := e.GetMetadata().GetName() + fmt.Sprintf(" %s %s/%d:", e.GetAddressType(), e.GetPorts()[0].GetName(), e.GetPorts()[0].GetPort())
		for _, endpoint := range e.GetEndpoints() {
			line += " " + endpoint.GetAddresses()[0]
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestKubernetesSlices(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gateways []string
		want     string
	}{
		{"none", nil, ""},
		{"one machine with nothing but loopback", []string{"127.0.0.1:6443", "[::1]:6443"}, ""},
		{"names", []string{"m1.example:6443", "0.0.0.0:6443"}, ""},
		{"three masters", []string{"10.0.0.13:6443", "10.0.0.11:6443", "10.0.0.12:6443"},
			"kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.11 10.0.0.12 10.0.0.13"},
		{"a port and a family of its own", []string{"10.0.0.11:6443", "10.0.0.12:7443", "[fd00::1]:6443"},
			"kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.11\nkubernetes-ipv4-7443 IPv4 https/7443: 10.0.0.12\nkubernetes-ipv6-6443 IPv6 https/6443: fd00::1"},
	} {
		if got := shown(kubernetesSlices(tt.gateways)); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

func TestKubernetesService(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := admin(start(t, etcd))
	second := admin(start(t, etcd))
	waitNamespace(t, c)
	first := service("first")
	if _, err := client.Create(ctx, c, at(first, "10.96.0.1")); !apierr.IsInvalid(err) || !strings.Contains(err.Error(), "is the address of service default/kubernetes") {
		t.Errorf("another service took the address: %v", err)
	}
	cfg := DefaultConfig()
	cfg.ClusterDNS = "10.96.0.1"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("the DNS took the address: %v", err)
	}

	register := func(host, address string) (leave func()) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = discovery.Register(ctx, etcd.Client(), discovery.Instance{Service: "gateway", Host: host, Addr: address, Version: "v1"}, zaptest.NewLogger(t), nil)
		}()
		leave = func() {
			cancel()
			<-done
		}
		t.Cleanup(leave)
		return leave
	}
	until := func(what, want string) {
		t.Helper()
		var got string
		for ctx.Err() == nil {
			list, _, err := client.List[*discoveryv1.EndpointSlice](ctx, c, client.ListOptions{Namespace: "default", LabelSelector: "kubernetes.io/service-name=kubernetes"})
			if got = shown(list); err == nil && got == want {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
		t.Fatalf("%s: the endpoints are\n%s\nwant\n%s", what, got, want)
	}
	leave := register("master-1", "10.0.0.11:6443")
	until("one gateway", "kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.11")
	svc, err := client.Get[*corev1.Service](ctx, second, "default", "kubernetes")
	if err != nil || svc.GetSpec().GetClusterIp() != "10.96.0.1" || svc.GetSpec().GetPorts()[0].GetPort() != 443 {
		t.Fatalf("the service is %v, %v", svc.GetSpec(), err)
	}
	register("master-2", "10.0.0.12:6443")
	until("two", "kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.11 10.0.0.12")
	leave()
	until("one that left", "kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.12")
	register("master-1", "10.0.0.11:7443")
	until("another port", "kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.12\nkubernetes-ipv4-7443 IPv4 https/7443: 10.0.0.11")

	// A deleted service is created again with the next change of the gateways, or after an interval.
	if _, err := client.Delete[*corev1.Service](ctx, c, "default", "kubernetes"); err != nil {
		t.Fatal(err)
	}
	register("master-3", "10.0.0.13:6443")
	until("a third", "kubernetes-ipv4-6443 IPv4 https/6443: 10.0.0.12 10.0.0.13\nkubernetes-ipv4-7443 IPv4 https/7443: 10.0.0.11")
	for svc, err = client.Get[*corev1.Service](ctx, second, "default", "kubernetes"); err != nil && ctx.Err() == nil; {
		<-time.After(10 * time.Millisecond)
		svc, err = client.Get[*corev1.Service](ctx, second, "default", "kubernetes")
	}
	if err != nil || svc.GetSpec().GetClusterIp() != "10.96.0.1" {
		t.Errorf("after its deletion the service is %v, %v", svc.GetSpec(), err)
	}
}
