package environment

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func linked(namespace, name, ip string, ports ...*corev1.ServicePort) *corev1.Service {
	return &corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: &corev1.ServiceSpec{ClusterIp: ip, Ports: ports}}
}

func TestLinks(t *testing.T) {
	all := []*corev1.Service{
		linked("default", "kubernetes", "10.96.0.1", &corev1.ServicePort{Name: "https", Port: 443, Protocol: "TCP"}),
		linked("default", "other", "10.96.0.2", &corev1.ServicePort{Port: 80}),
		linked("shop", "web-front", "fd00:10:96::7", &corev1.ServicePort{Name: "http", Port: 80}, &corev1.ServicePort{Name: "dns-udp", Port: 53, Protocol: "UDP"}),
		linked("shop", "headless", "None", &corev1.ServicePort{Port: 80}),
		linked("shop", "portless", "10.96.0.9"),
		{Metadata: &metav1.ObjectMeta{Namespace: "shop", Name: "elsewhere"}, Spec: &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "example.com"}},
	}
	services := func(_ context.Context, namespace string) []*corev1.Service {
		return slices.DeleteFunc(slices.Clone(all), func(s *corev1.Service) bool { return s.GetMetadata().GetNamespace() != namespace })
	}
	kubernetes := []variable{
		{"KUBERNETES_SERVICE_HOST", "10.96.0.1"}, {"KUBERNETES_SERVICE_PORT", "443"}, {"KUBERNETES_SERVICE_PORT_HTTPS", "443"},
		{"KUBERNETES_PORT", "tcp://10.96.0.1:443"}, {"KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"},
		{"KUBERNETES_PORT_443_TCP_PROTO", "tcp"}, {"KUBERNETES_PORT_443_TCP_PORT", "443"}, {"KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"},
	}
	front := []variable{
		{"WEB_FRONT_SERVICE_HOST", "fd00:10:96::7"}, {"WEB_FRONT_SERVICE_PORT", "80"},
		{"WEB_FRONT_SERVICE_PORT_HTTP", "80"}, {"WEB_FRONT_SERVICE_PORT_DNS_UDP", "53"},
		{"WEB_FRONT_PORT", "tcp://[fd00:10:96::7]:80"},
		{"WEB_FRONT_PORT_80_TCP", "tcp://[fd00:10:96::7]:80"}, {"WEB_FRONT_PORT_80_TCP_PROTO", "tcp"},
		{"WEB_FRONT_PORT_80_TCP_PORT", "80"}, {"WEB_FRONT_PORT_80_TCP_ADDR", "fd00:10:96::7"},
		{"WEB_FRONT_PORT_53_UDP", "udp://[fd00:10:96::7]:53"}, {"WEB_FRONT_PORT_53_UDP_PROTO", "udp"},
		{"WEB_FRONT_PORT_53_UDP_PORT", "53"}, {"WEB_FRONT_PORT_53_UDP_ADDR", "fd00:10:96::7"},
	}
	for _, tt := range []struct {
		name, namespace string
		enabled         *bool
		want            []variable
	}{
		{"links", "shop", nil, slices.Concat(kubernetes, front)},
		{"no links", "shop", proto.Bool(false), kubernetes},
		{"no services of its own", "empty", proto.Bool(true), kubernetes},
	} {
		got := Links(t.Context(), services, &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Namespace: tt.namespace}, Spec: &corev1.PodSpec{EnableServiceLinks: tt.enabled},
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got\n%v\nwant\n%v", tt.name, got, tt.want)
		}
	}
}

// TestLinksComeFirst checks that what the spec says can use links, and replaces them.
func TestLinksComeFirst(t *testing.T) {
	c := &corev1.Container{Env: []*corev1.EnvVar{{Name: "URL", Value: "https://$(WEB_SERVICE_HOST)"}, {Name: "WEB_PORT", Value: "mine"}}}
	got, _, err := Build(t.Context(), c, Surroundings{}, []variable{{"WEB_SERVICE_HOST", "10.96.0.7"}, {"WEB_PORT", "tcp://10.96.0.7:80"}}, known{})
	if want := []string{"WEB_SERVICE_HOST=10.96.0.7", "WEB_PORT=mine", "URL=https://10.96.0.7"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}
