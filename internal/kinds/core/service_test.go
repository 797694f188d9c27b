package core_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func service() *corev1.Service {
	return &corev1.Service{Metadata: kindtest.Meta("web"), Spec: &corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []*corev1.ServicePort{{Port: 80}},
	}}
}

func TestService(t *testing.T) {
	kindtest.Validate(t, service, []kindtest.Bad[*corev1.Service]{
		{Name: "name", Edit: func(s *corev1.Service) { s.Metadata.Name = "a.b" }, Want: []string{`metadata.name: Invalid value: "a.b"`}},
		{Name: "name with a digit first", Edit: func(s *corev1.Service) { s.Metadata.Name = "1web" }, Want: nil},
		{Name: "no ports", Edit: func(s *corev1.Service) { s.Spec.Ports = nil }, Want: []string{"spec.ports: Required value"}},
		{Name: "no ports, headless", Edit: func(s *corev1.Service) { s.Spec.Ports, s.Spec.ClusterIp = nil, "None" }, Want: nil},
		{Name: "port 0", Edit: func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = 0, object.Count(1) },
			Want: []string{"spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{Name: "port 65536", Edit: func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = 65536, object.Text("http") },
			Want: []string{"spec.ports[0].port: Invalid value: 65536"}},
		{Name: "target port", Edit: func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = object.Count(-1) }, Want: []string{"spec.ports[0].targetPort: Invalid value: -1"}},
		{Name: "target name", Edit: func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = object.Text("no_such") }, Want: []string{`spec.ports[0].targetPort: Invalid value: "no_such"`}},
		{Name: "names wanted", Edit: func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, &corev1.ServicePort{Port: 81, Name: "b"}) },
			Want: []string{"spec.ports[0].name: Required value"}},
		{Name: "duplicates", Edit: func(s *corev1.Service) {
			s.Spec.Ports = []*corev1.ServicePort{{Name: "a", Port: 80}, {Name: "a", Port: 81}, {Name: "b", Port: 80}, {Name: "c", Port: 80, Protocol: "UDP"}}
		}, Want: []string{`spec.ports[1].name: Duplicate value: "a"`, `spec.ports[2]: Duplicate value: "80/TCP"`}},
		{Name: "SCTP", Edit: func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "SCTP" },
			Want: []string{`spec.ports[0].protocol: Unsupported value: "SCTP": the datapath carries TCP and UDP only; SCTP is not supported`}},
		{Name: "protocol", Edit: func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "tcp" },
			Want: []string{`spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP"`}},
		{Name: "node port without the type", Edit: func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 30080 },
			Want: []string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{Name: "node port", Edit: func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", 80 },
			Want: []string{"spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"}},
		{Name: "type", Edit: func(s *corev1.Service) { s.Spec.Type = "Ingress" },
			Want: []string{`spec.type: Unsupported value: "Ingress": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{Name: "cluster IP", Edit: func(s *corev1.Service) { s.Spec.ClusterIp = "10.96.0.300" }, Want: []string{`spec.clusterIP: Invalid value: "10.96.0.300": must be a valid IP address`}},
		{Name: "cluster IPs", Edit: func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "10.96.0.9", []string{"10.96.0.8"} },
			Want: []string{"spec.clusterIPs: Invalid value"}},
		{Name: "headless node port", Edit: func(s *corev1.Service) { s.Spec.Type, s.Spec.ClusterIp = "NodePort", "None" },
			Want: []string{`spec.clusterIP: Invalid value: "None": may not be set to 'None' for NodePort services`}},
		{Name: "external name", Edit: func(s *corev1.Service) {
			s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com."}
		}, Want: nil},
		{Name: "external name missing", Edit: func(s *corev1.Service) { s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ClusterIp: "10.96.0.1"} },
			Want: []string{"spec.clusterIP: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"}},
		{Name: "affinity", Edit: func(s *corev1.Service) { s.Spec.SessionAffinity = "Cookie" }, Want: []string{`spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"`}},
		{Name: "affinity seconds", Edit: func(s *corev1.Service) {
			s.Spec.SessionAffinity = "ClientIP"
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIp: &corev1.ClientIPConfig{TimeoutSeconds: proto.Int32(86401)}}
		}, Want: []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401"}},
		{Name: "policies", Edit: func(s *corev1.Service) {
			s.Spec.InternalTrafficPolicy, s.Spec.ExternalTrafficPolicy = proto.String("Zone"), "Local"
		}, Want: []string{"spec.externalTrafficPolicy: Invalid value", `spec.internalTrafficPolicy: Unsupported value: "Zone"`}},
		{Name: "load balancer fields", Edit: func(s *corev1.Service) {
			s.Spec.LoadBalancerSourceRanges, s.Spec.HealthCheckNodePort = []string{"10.0.0.0/8"}, 30000
		}, Want: []string{"spec.healthCheckNodePort: Invalid value", "spec.loadBalancerSourceRanges: Forbidden"}},
		{Name: "ranges", Edit: func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerSourceRanges = "LoadBalancer", []string{"10.0.0.0/40"}
		},
			Want: []string{`spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/40"`}},
		{Name: "external IPs", Edit: func(s *corev1.Service) { s.Spec.ExternalIps = []string{"127.0.0.1", "x"} },
			Want: []string{`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range`, `spec.externalIPs[1]: Invalid value: "x"`}},
		{Name: "selector", Edit: func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "a b"} }, Want: []string{`spec.selector: Invalid value: "a b"`}},
	})
}

func TestServiceDefaults(t *testing.T) {
	s := service()
	kinds.Of(s).Default(s)
	want := &corev1.ServiceSpec{
		Type: "ClusterIP", SessionAffinity: "None", Selector: map[string]string{"app": "web"},
		Ports:                 []*corev1.ServicePort{{Port: 80, Protocol: "TCP", TargetPort: &metav1.IntOrString{IntVal: 80}}},
		InternalTrafficPolicy: proto.String("Cluster"),
	}
	if !proto.Equal(s.GetSpec(), want) {
		t.Errorf("defaults give\n%v\nwant\n%v", s.GetSpec(), want)
	}
	if core.IsHeadless(s) {
		t.Error("a service is headless by default")
	}
	if w := kinds.Of(s).Warnings(s); len(w) != 0 {
		t.Errorf("a plain service warns: %q", w)
	}
	s.Spec.Type, s.Spec.SessionAffinity = "NodePort", "ClientIP"
	kinds.Of(s).Default(s)
	if s.GetSpec().GetExternalTrafficPolicy() != "Cluster" || s.GetSpec().GetSessionAffinityConfig().GetClientIp().GetTimeoutSeconds() != 10800 {
		t.Errorf("spec %v", s.GetSpec())
	}
	if w := kinds.Of(s).Warnings(s); len(w) != 0 {
		t.Errorf("a node port warns: %q", w)
	}
	s.Spec.Type = "LoadBalancer"
	if w := kinds.Of(s).Warnings(s); len(w) != 0 {
		t.Errorf("a load balancer warns: %q", w)
	}
}

func TestServiceUpdate(t *testing.T) {
	base := func() *corev1.Service {
		s := service()
		s.Spec.ClusterIp, s.Spec.Type = "10.96.0.7", "NodePort"
		s.Spec.Ports[0].NodePort = 30080
		return s
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.Service]{
		{Name: "nothing", Edit: func(*corev1.Service) {}, Want: nil},
		{Name: "left out", Edit: func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "", nil }, Want: nil},
		{Name: "other IP", Edit: func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "10.96.0.8", nil },
			Want: []string{`spec.clusterIP: Invalid value: "10.96.0.8": field is immutable`}},
		{Name: "headless", Edit: func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "None", nil }, Want: []string{`spec.clusterIP: Invalid value: "None": field is immutable`}},
	})

	balanced := func() *corev1.Service {
		s := service()
		s.Spec.Type, s.Spec.LoadBalancerClass = "LoadBalancer", proto.String("example.com/a")
		return s
	}
	kindtest.Update(t, balanced, []kindtest.Edit[*corev1.Service]{
		{Name: "same class", Edit: func(*corev1.Service) {}, Want: nil},
		{Name: "other class", Edit: func(s *corev1.Service) { s.Spec.LoadBalancerClass = proto.String("example.com/b") },
			Want: []string{`spec.loadBalancerClass: Invalid value: "example.com/b": may not change once set`}},
		{Name: "no class", Edit: func(s *corev1.Service) { s.Spec.LoadBalancerClass = nil },
			Want: []string{`spec.loadBalancerClass: Invalid value: "": may not change once set`}},
		{Name: "other type", Edit: func(s *corev1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = "NodePort", nil }, Want: nil},
	})

	change := func(edit func(*corev1.Service)) *corev1.Service {
		t.Helper()
		old := base()
		k := kinds.Of(old)
		k.Default(old)
		updated := proto.CloneOf(old)
		edit(updated)
		k.Default(updated)
		k.PrepareUpdate(updated, old)
		if errs := append(k.Validate(updated), k.ValidateUpdate(updated, old)...); len(errs) > 0 {
			t.Errorf("%v", errs.ToAggregate())
		}
		return updated
	}
	again := change(func(s *corev1.Service) { s.Spec = service().Spec; s.Spec.Type = "NodePort" })
	if s := again.GetSpec(); s.GetClusterIp() != "10.96.0.7" || !slices.Equal(s.GetClusterIps(), []string{"10.96.0.7"}) || s.GetPorts()[0].GetNodePort() != 30080 {
		t.Errorf("applied again: %v", s)
	}
	inner := change(func(s *corev1.Service) { s.Spec.Type = "ClusterIP" })
	if s := inner.GetSpec(); s.GetPorts()[0].GetNodePort() != 0 || s.GetExternalTrafficPolicy() != "" || s.GetClusterIp() != "10.96.0.7" {
		t.Errorf("no longer a node port: %v", s)
	}
	name := change(func(s *corev1.Service) { s.Spec.Type, s.Spec.ExternalName = "ExternalName", "db.example.com" })
	if s := name.GetSpec(); s.GetClusterIp() != "" || s.GetClusterIps() != nil {
		t.Errorf("a mere name keeps its address: %v", s)
	}
}

func TestServiceColumns(t *testing.T) {
	s := service()
	kinds.Of(s).Default(s)
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"TYPE": "ClusterIP", "CLUSTER-IP": "<none>", "EXTERNAL-IP": "<none>", "PORT(S)": "80/TCP", "SELECTOR": "app=web"})
	s.Spec.Type, s.Spec.ClusterIp = "LoadBalancer", "10.96.0.7"
	s.Spec.Ports = []*corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: "TCP"}, {Port: 53, Protocol: "UDP"}}
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"CLUSTER-IP": "10.96.0.7", "EXTERNAL-IP": "<pending>", "PORT(S)": "80:30080/TCP,53/UDP"})
	s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "192.0.2.1"}}}}
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"EXTERNAL-IP": "192.0.2.1"})
	s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com"}
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"EXTERNAL-IP": "db.example.com", "PORT(S)": "<none>", "SELECTOR": "<none>"})
}

// TestLoadBalancerStatus checks addresses of load balancers as Kubernetes does.
func TestLoadBalancerStatus(t *testing.T) {
	const at = "status.loadBalancer.ingress[0]."
	balancer := func(typ string, x ...*corev1.LoadBalancerIngress) *corev1.Service {
		s := service()
		s.Spec.Type = typ
		s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: x}}
		return s
	}
	k := kinds.Of(service())
	for name, tt := range map[string]struct {
		now  *corev1.Service
		want []string
	}{
		"address":        {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Ip: "192.0.2.1"}), nil},
		"another type":   {balancer("NodePort", &corev1.LoadBalancerIngress{Ip: "192.0.2.1"}), []string{"status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"}},
		"no address":     {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Ip: "192.0.2"}), []string{at + `ip: Invalid value: "192.0.2"`}},
		"mode":           {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Ip: "192.0.2.1", IpMode: proto.String("Any")}), []string{at + `ipMode: Unsupported value: "Any"`}},
		"mode alone":     {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Hostname: "a.b", IpMode: proto.String("VIP")}), []string{at + "ipMode: Forbidden"}},
		"name":           {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Hostname: "A b"}), []string{at + "hostname: Invalid value"}},
		"name is number": {balancer("LoadBalancer", &corev1.LoadBalancerIngress{Hostname: "010.0.0.1"}), []string{at + `hostname: Invalid value: "010.0.0.1": must be a DNS name, not an IP address`}},
	} {
		t.Run(name, func(t *testing.T) {
			old := balancer(tt.now.GetSpec().GetType())
			k.PrepareStatusUpdate(tt.now, old)
			kindtest.Expect(t, k.ValidateStatusUpdate(tt.now, old), tt.want)
			if name == "address" && tt.now.GetStatus().GetLoadBalancer().GetIngress()[0].GetIpMode() != "VIP" {
				t.Error("ipMode has no default")
			}
		})
	}
}
