package core_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var (
	v4   = []string{"IPv4"}
	v6   = []string{"IPv6"}
	both = []string{"IPv4", "IPv6"}
)

const four, six = "10.96.0.7", "fd00:10:96::7"

// spec is a service's policy ("" is none), families and addresses.
func spec(policy string, families []string, ips ...string) *corev1.ServiceSpec {
	s := &corev1.ServiceSpec{Type: "ClusterIP", IpFamilies: slices.Clone(families), ClusterIps: ips}
	if policy != "" {
		s.IpFamilyPolicy = proto.String(policy)
	}
	if len(ips) > 0 {
		s.ClusterIp = ips[0]
	}
	return s
}

func TestSettleFamilies(t *testing.T) {
	for _, test := range []struct {
		what     string
		new, old *corev1.ServiceSpec
		cluster  []string
		want     string // policy, families, addresses; or the beginning of an error
	}{
		{"nothing said", spec("", nil), nil, v4, "SingleStack [IPv4] []"},
		{"nothing said, dual stack", spec("", nil), nil, both, "SingleStack [IPv4] []"},
		{"IPv6", spec("", v6), nil, both, "SingleStack [IPv6] []"},
		{"IPv6 where there is none", spec("", v6), nil, v4, `spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`},
		{"both families", spec("", both), nil, both, "RequireDualStack [IPv4 IPv6] []"},
		{"both where there is one", spec("", both), nil, v4, "spec.ipFamilies[1]: Invalid value"},
		{"an address", spec("", nil, six), nil, both, "SingleStack [IPv6] [" + six + "]"},
		{"two addresses", spec("", nil, six, four), nil, both, "RequireDualStack [IPv6 IPv4] [" + six + " " + four + "]"},
		{"preference", spec("PreferDualStack", nil), nil, both, "PreferDualStack [IPv4 IPv6] []"},
		{"preference with an order", spec("PreferDualStack", v6), nil, both, "PreferDualStack [IPv6 IPv4] []"},
		{"preference for what is not there", spec("PreferDualStack", nil), nil, v4, "PreferDualStack [IPv4] []"},
		{"requirement", spec("RequireDualStack", nil), nil, both, "RequireDualStack [IPv4 IPv6] []"},
		{"requirement for what is not there", spec("RequireDualStack", nil), nil, v4, `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster`},
		{"headless", spec("PreferDualStack", nil, "None"), nil, both, "PreferDualStack [IPv4 IPv6] [None]"},
		{"headless, nothing said", spec("", nil, "None"), nil, both, "SingleStack [IPv4] [None]"},

		{"left out", spec("", nil, four), spec("RequireDualStack", both, four, six), both, "RequireDualStack [IPv4 IPv6] [" + four + " " + six + "]"},
		{"upgrade", spec("PreferDualStack", v4, four), spec("SingleStack", v4, four), both, "PreferDualStack [IPv4 IPv6] [" + four + "]"},
		{"upgrade, families left out", spec("RequireDualStack", nil, four), spec("SingleStack", v4, four), both, "RequireDualStack [IPv4 IPv6] [" + four + "]"},
		{"the cluster became dual-stack", spec("PreferDualStack", v4, four), spec("PreferDualStack", v4, four), both, "PreferDualStack [IPv4] [" + four + "]"},
		{"downgrade", spec("SingleStack", both, four, six), spec("PreferDualStack", both, four, six), both, "SingleStack [IPv4] [" + four + "]"},
		{"downgrade, all else left out", spec("SingleStack", nil, four), spec("RequireDualStack", both, four, six), both, "SingleStack [IPv4] [" + four + "]"},
		{"no longer a name", spec("", nil), &corev1.ServiceSpec{Type: "ExternalName"}, both, "SingleStack [IPv4] []"},
	} {
		errs := core.SettleFamilies(test.new, test.old, test.cluster)
		got := fmt.Sprint(test.new.GetIpFamilyPolicy(), " ", test.new.GetIpFamilies(), " ", test.new.GetClusterIps())
		if len(errs) > 0 {
			got = errs[0].Error()
		}
		if got != test.want && !(len(errs) > 0 && strings.HasPrefix(got, test.want)) {
			t.Errorf("%s: %s; want %s", test.what, got, test.want)
		}
		if len(errs) > 0 {
			continue
		}
		// It is settled now.
		again := proto.CloneOf(test.new)
		if errs := core.SettleFamilies(again, test.old, test.cluster); len(errs) > 0 || !proto.Equal(again, test.new) {
			t.Errorf("%s: once more: %v, %v", test.what, again, errs)
		}
	}
}

func TestFamiliesAreChecked(t *testing.T) {
	with := func(s *corev1.ServiceSpec) func(*corev1.Service) {
		return func(o *corev1.Service) {
			o.Spec.IpFamilyPolicy, o.Spec.IpFamilies, o.Spec.ClusterIps, o.Spec.ClusterIp = s.IpFamilyPolicy, s.IpFamilies, s.ClusterIps, s.ClusterIp
		}
	}
	kindtest.Validate(t, service, []kindtest.Bad[*corev1.Service]{
		{Name: "IPv6", Edit: with(spec("SingleStack", v6, six)), Want: nil},
		{Name: "both", Edit: with(spec("RequireDualStack", both, four, six)), Want: nil},
		{Name: "policy", Edit: with(spec("DualStack", v4)), Want: []string{`spec.ipFamilyPolicy: Unsupported value: "DualStack"`}},
		{Name: "family", Edit: with(spec("SingleStack", []string{"IPv5"})), Want: []string{`spec.ipFamilies[0]: Unsupported value: "IPv5"`}},
		{Name: "one twice", Edit: with(spec("RequireDualStack", []string{"IPv4", "IPv4"})), Want: []string{`spec.ipFamilies[1]: Duplicate value: "IPv4"`}},
		{Name: "too many for the policy", Edit: with(spec("SingleStack", both, four, six)), Want: []string{"spec.ipFamilyPolicy: Invalid value"}},
		{Name: "other family", Edit: with(spec("RequireDualStack", both, four, "10.96.0.8")), Want: []string{`spec.clusterIPs[1]: Invalid value: "10.96.0.8": expected an IPv6 value`}},
		{Name: "one family twice", Edit: with(spec("RequireDualStack", nil, four, "10.96.0.8")), Want: []string{"spec.clusterIPs: Invalid value: [\"10.96.0.7\",\"10.96.0.8\"]: may specify no more than one IP for each IP family"}},
		{Name: "three", Edit: with(spec("RequireDualStack", both, four, six, "10.96.0.8")), Want: []string{"spec.clusterIPs: Too many"}},
		{Name: "no address", Edit: with(spec("RequireDualStack", both, four, "x")), Want: []string{`spec.clusterIPs[1]: Invalid value: "x"`}},
		{Name: "headless and not", Edit: with(spec("RequireDualStack", both, "None", six)), Want: []string{`spec.clusterIPs[0]: Invalid value: "None": must be the only value`}},
	})
	base := func() *corev1.Service {
		s := service()
		with(spec("PreferDualStack", both, four, six))(s)
		return s
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.Service]{
		{Name: "nothing", Edit: func(*corev1.Service) {}, Want: nil},
		{Name: "downgrade", Edit: with(spec("SingleStack", v4, four)), Want: nil},
		{Name: "another second address", Edit: with(spec("PreferDualStack", both, four, "fd00:10:96::8")), Want: []string{`spec.clusterIPs[1]: Invalid value: "fd00:10:96::8": may not change once set`}},
		{Name: "another first family", Edit: with(spec("SingleStack", v6, six)), Want: []string{"spec.clusterIP: Invalid value", "spec.ipFamilies[0]: Invalid value"}},
		{Name: "giving up without saying so", Edit: with(spec("PreferDualStack", v4, four)), Want: []string{"spec.ipFamilyPolicy: Invalid value", "spec.ipFamilyPolicy: Invalid value"}},
	})
	kindtest.Update(t, func() *corev1.Service {
		s := service()
		with(spec("PreferDualStack", both, "None"))(s)
		return s
	}, []kindtest.Edit[*corev1.Service]{
		{Name: "families of a headless service", Edit: with(spec("PreferDualStack", v6, "None")), Want: nil},
	})
}

// Both families have an effect on every type.
func TestFamiliesWarn(t *testing.T) {
	s := service()
	s.Spec.IpFamilies, s.Spec.ExternalIps = both, []string{"198.51.100.1", "2001:db8::1"}
	for _, s.Spec.Type = range []string{"ClusterIP", "NodePort", "LoadBalancer"} {
		if w := kinds.Of(s).Warnings(s); len(w) != 0 {
			t.Errorf("a %s of both families warns: %q", s.Spec.Type, w)
		}
	}
}
