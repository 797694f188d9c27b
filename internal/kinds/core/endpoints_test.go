package core_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestEndpoints(t *testing.T) {
	type endpoints = *corev1.Endpoints
	base := func() endpoints {
		return &corev1.Endpoints{Metadata: kindtest.Meta("web"), Subsets: []*corev1.EndpointSubset{{
			Addresses: []*corev1.EndpointAddress{{Ip: "10.0.0.1"}, {Ip: "fd00::1"}}, Ports: []*corev1.EndpointPort{{Port: 80}},
		}}}
	}
	const at = "subsets[0]."
	kindtest.Validate(t, base, []kindtest.Bad[endpoints]{
		{Name: "no subsets", Edit: func(e endpoints) { e.Subsets = nil }},
		{Name: "no addresses", Edit: func(e endpoints) { e.Subsets[0].Addresses = nil }, Want: []string{"subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"}},
		{Name: "addresses", Edit: func(e endpoints) {
			e.Subsets[0].NotReadyAddresses = []*corev1.EndpointAddress{{}, {Ip: "127.0.0.1"}, {Ip: "0.0.0.0"}, {Ip: "fe80::1"}, {Ip: "224.0.0.1"}, {Ip: "10.0.0.2", Hostname: "a.b", NodeName: proto.String("N")}}
		}, Want: []string{at + "notReadyAddresses[0].ip: Invalid value", at + "notReadyAddresses[1].ip: Invalid value", at + "notReadyAddresses[2].ip: Invalid value",
			at + "notReadyAddresses[3].ip: Invalid value", at + "notReadyAddresses[4].ip: Invalid value",
			at + "notReadyAddresses[5].hostname: Invalid value", at + "notReadyAddresses[5].nodeName: Invalid value"}},
		{Name: "ports", Edit: func(e endpoints) {
			e.Subsets[0].Ports = []*corev1.EndpointPort{{Name: "http", Port: 0}, {Port: 80, Protocol: "ICMP"}}
		}, Want: []string{at + "ports[0].port: Invalid value: 0", at + "ports[1].name: Required value", at + `ports[1].protocol: Unsupported value: "ICMP"`}},
	})
	e := base()
	kindtest.ExpectCells(t, e, kindtest.Now, map[string]string{"ENDPOINTS": "10.0.0.1:80,[fd00::1]:80"})
	e.Subsets[0].Ports = append(e.Subsets[0].Ports, &corev1.EndpointPort{Port: 443})
	kindtest.ExpectCells(t, e, kindtest.Now, map[string]string{"ENDPOINTS": "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more..."})
	kindtest.ExpectCells(t, new(corev1.Endpoints), kindtest.Now, map[string]string{"ENDPOINTS": "<none>"})
	if n := len(kinds.Of(e).Warnings(e)); n != 1 {
		t.Errorf("%d warnings of deprecation", n)
	}
	e.Metadata.Labels = map[string]string{core.LabelEndpointsManagedBy: core.EndpointsController}
	if w := kinds.Of(e).Warnings(e); len(w) != 0 {
		t.Errorf("the endpoints service is warned: %q", w)
	}
}
