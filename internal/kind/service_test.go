package kind_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func service() *corev1.Service {
	return &corev1.Service{Metadata: meta("web"), Spec: &corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, Ports: []*corev1.ServicePort{{Port: 80}},
	}}
}

func TestService(t *testing.T) {
	testValidate(t, service, []badCase[*corev1.Service]{
		{"name", func(s *corev1.Service) { s.Metadata.Name = "a.b" }, []string{`metadata.name: Invalid value: "a.b"`}},
		{"name with a digit first", func(s *corev1.Service) { s.Metadata.Name = "1web" }, nil},
		{"no ports", func(s *corev1.Service) { s.Spec.Ports = nil }, []string{"spec.ports: Required value"}},
		{"no ports, headless", func(s *corev1.Service) { s.Spec.Ports, s.Spec.ClusterIp = nil, "None" }, nil},
		{"port 0", func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = 0, kind.Count(1) },
			[]string{"spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{"port 65536", func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = 65536, kind.Text("http") },
			[]string{"spec.ports[0].port: Invalid value: 65536"}},
		{"target port", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = kind.Count(-1) }, []string{"spec.ports[0].targetPort: Invalid value: -1"}},
		{"target name", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = kind.Text("no_such") }, []string{`spec.ports[0].targetPort: Invalid value: "no_such"`}},
		{"names wanted", func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, &corev1.ServicePort{Port: 81, Name: "b"}) },
			[]string{"spec.ports[0].name: Required value"}},
		{"duplicates", func(s *corev1.Service) {
			s.Spec.Ports = []*corev1.ServicePort{{Name: "a", Port: 80}, {Name: "a", Port: 81}, {Name: "b", Port: 80}, {Name: "c", Port: 80, Protocol: "UDP"}}
		}, []string{`spec.ports[1].name: Duplicate value: "a"`, `spec.ports[2]: Duplicate value: "80/TCP"`}},
		{"SCTP", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "SCTP" },
			[]string{`spec.ports[0].protocol: Unsupported value: "SCTP": the datapath carries TCP and UDP only; SCTP is not supported`}},
		{"protocol", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "tcp" },
			[]string{`spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP"`}},
		{"node port without the type", func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 30080 },
			[]string{"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{"node port", func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", 80 },
			[]string{"spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"}},
		{"type", func(s *corev1.Service) { s.Spec.Type = "Ingress" },
			[]string{`spec.type: Unsupported value: "Ingress": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{"cluster IP", func(s *corev1.Service) { s.Spec.ClusterIp = "10.96.0.300" }, []string{`spec.clusterIP: Invalid value: "10.96.0.300": must be a valid IP address`}},
		{"cluster IPs", func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "10.96.0.9", []string{"10.96.0.8"} },
			[]string{"spec.clusterIPs: Invalid value"}},
		{"headless node port", func(s *corev1.Service) { s.Spec.Type, s.Spec.ClusterIp = "NodePort", "None" },
			[]string{`spec.clusterIP: Invalid value: "None": may not be set to 'None' for NodePort services`}},
		{"external name", func(s *corev1.Service) {
			s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com."}
		}, nil},
		{"external name missing", func(s *corev1.Service) { s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ClusterIp: "10.96.0.1"} },
			[]string{"spec.clusterIP: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"}},
		{"affinity", func(s *corev1.Service) { s.Spec.SessionAffinity = "Cookie" }, []string{`spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"`}},
		{"affinity seconds", func(s *corev1.Service) {
			s.Spec.SessionAffinity = "ClientIP"
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIp: &corev1.ClientIPConfig{TimeoutSeconds: proto.Int32(86401)}}
		}, []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401"}},
		{"policies", func(s *corev1.Service) {
			s.Spec.InternalTrafficPolicy, s.Spec.ExternalTrafficPolicy = proto.String("Zone"), "Local"
		}, []string{"spec.externalTrafficPolicy: Invalid value", `spec.internalTrafficPolicy: Unsupported value: "Zone"`}},
		{"load balancer fields", func(s *corev1.Service) {
			s.Spec.LoadBalancerSourceRanges, s.Spec.HealthCheckNodePort = []string{"10.0.0.0/8"}, 30000
		}, []string{"spec.healthCheckNodePort: Invalid value", "spec.loadBalancerSourceRanges: Forbidden"}},
		{"ranges", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerSourceRanges = "LoadBalancer", []string{"10.0.0.0/40"}
		},
			[]string{`spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/40"`}},
		{"external IPs", func(s *corev1.Service) { s.Spec.ExternalIps = []string{"127.0.0.1", "x"} },
			[]string{`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range`, `spec.externalIPs[1]: Invalid value: "x"`}},
		{"selector", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "a b"} }, []string{`spec.selector: Invalid value: "a b"`}},
	})
}

func TestServiceDefaults(t *testing.T) {
	s := service()
	kind.Of(s).Default(s)
	want := &corev1.ServiceSpec{
		Type: "ClusterIP", SessionAffinity: "None", Selector: map[string]string{"app": "web"},
		Ports:                 []*corev1.ServicePort{{Port: 80, Protocol: "TCP", TargetPort: &metav1.IntOrString{IntVal: 80}}},
		InternalTrafficPolicy: proto.String("Cluster"),
	}
	if !proto.Equal(s.GetSpec(), want) {
		t.Errorf("defaults give\n%v\nwant\n%v", s.GetSpec(), want)
	}
	if kind.IsHeadless(s) {
		t.Error("a service is headless by default")
	}
	if w := kind.Of(s).Warnings(s); len(w) != 0 {
		t.Errorf("a plain service warns: %q", w)
	}
	s.Spec.Type, s.Spec.SessionAffinity = "NodePort", "ClientIP"
	kind.Of(s).Default(s)
	if s.GetSpec().GetExternalTrafficPolicy() != "Cluster" || s.GetSpec().GetSessionAffinityConfig().GetClientIp().GetTimeoutSeconds() != 10800 {
		t.Errorf("spec %v", s.GetSpec())
	}
	if w := kind.Of(s).Warnings(s); len(w) != 0 {
		t.Errorf("a node port warns: %q", w)
	}
	s.Spec.Type = "LoadBalancer"
	if w := kind.Of(s).Warnings(s); len(w) != 0 {
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
	testUpdate(t, base, []updateCase[*corev1.Service]{
		{"nothing", func(*corev1.Service) {}, nil},
		{"left out", func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "", nil }, nil},
		{"other IP", func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "10.96.0.8", nil },
			[]string{`spec.clusterIP: Invalid value: "10.96.0.8": field is immutable`}},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIp, s.Spec.ClusterIps = "None", nil }, []string{`spec.clusterIP: Invalid value: "None": field is immutable`}},
	})

	balanced := func() *corev1.Service {
		s := service()
		s.Spec.Type, s.Spec.LoadBalancerClass = "LoadBalancer", proto.String("example.com/a")
		return s
	}
	testUpdate(t, balanced, []updateCase[*corev1.Service]{
		{"same class", func(*corev1.Service) {}, nil},
		{"other class", func(s *corev1.Service) { s.Spec.LoadBalancerClass = proto.String("example.com/b") },
			[]string{`spec.loadBalancerClass: Invalid value: "example.com/b": may not change once set`}},
		{"no class", func(s *corev1.Service) { s.Spec.LoadBalancerClass = nil },
			[]string{`spec.loadBalancerClass: Invalid value: "": may not change once set`}},
		{"other type", func(s *corev1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = "NodePort", nil }, nil},
	})

	change := func(edit func(*corev1.Service)) *corev1.Service {
		t.Helper()
		old := base()
		k := kind.Of(old)
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
	kind.Of(s).Default(s)
	expectCells(t, s, now, map[string]string{"TYPE": "ClusterIP", "CLUSTER-IP": "<none>", "EXTERNAL-IP": "<none>", "PORT(S)": "80/TCP", "SELECTOR": "app=web"})
	s.Spec.Type, s.Spec.ClusterIp = "LoadBalancer", "10.96.0.7"
	s.Spec.Ports = []*corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: "TCP"}, {Port: 53, Protocol: "UDP"}}
	expectCells(t, s, now, map[string]string{"CLUSTER-IP": "10.96.0.7", "EXTERNAL-IP": "<pending>", "PORT(S)": "80:30080/TCP,53/UDP"})
	s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "192.0.2.1"}}}}
	expectCells(t, s, now, map[string]string{"EXTERNAL-IP": "192.0.2.1"})
	s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com"}
	expectCells(t, s, now, map[string]string{"EXTERNAL-IP": "db.example.com", "PORT(S)": "<none>", "SELECTOR": "<none>"})
}
