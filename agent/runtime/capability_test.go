package runtime

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xebec-project/xebec/internal/kinds/core"
)

func TestCapabilities(t *testing.T) {
	all, err := cap.Current()
	if err != nil {
		t.Fatal(err)
	}
	usual := []string{"CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID"}
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(usual), func(n string) bool { return slices.Contains(names, n) })
	}
	for name, c := range map[string]struct {
		add, drop []string
		want      []string
		err       string
	}{
		"none":               {want: usual},
		"drop ALL":           {drop: []string{"ALL"}},
		"drop all":           {drop: []string{"all"}},
		"drop All":           {drop: []string{"All"}},
		"drop CAP_ALL":       {drop: []string{"CAP_ALL"}},
		"drop cap_all":       {drop: []string{"cap_all"}},
		"all but one":        {drop: []string{"all"}, add: []string{"net_bind_service"}, want: []string{"CAP_NET_BIND_SERVICE"}},
		"drop wins":          {drop: []string{"all"}, add: []string{"ALL"}},
		"add all":            {add: []string{"all"}, want: all},
		"add all, drop one":  {add: []string{"ALL"}, drop: []string{"chown"}, want: slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == "CAP_CHOWN" })},
		"drop with a prefix": {drop: []string{"CAP_NET_RAW", "cap_Setuid"}, want: without("CAP_NET_RAW", "CAP_SETUID")},
		"drop unknown":       {drop: []string{"NO_SUCH"}, err: `securityContext.capabilities.drop: unknown capability "NO_SUCH"`},
		"add unknown":        {add: []string{"SYS_TIME", "CAP_CAP_CHOWN"}, err: `securityContext.capabilities.add: unknown capability "CAP_CAP_CHOWN"`},
		"add empty":          {add: []string{""}, err: `unknown capability ""`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &oci.Spec{Root: &specs.Root{}, Linux: &specs.Linux{}, Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{
				Bounding: slices.Clone(usual), Effective: slices.Clone(usual), Permitted: slices.Clone(usual),
			}}}
			err := withSecurity(Security{AddCapabilities: c.add, DropCapabilities: c.drop})(t.Context(), nil, nil, s)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error is %v, want %q", err, c.err)
			}
			if err != nil {
				return
			}
			for set, got := range map[string][]string{"bounding": s.Process.Capabilities.Bounding, "effective": s.Process.Capabilities.Effective, "permitted": s.Process.Capabilities.Permitted} {
				if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(c.want))) {
					t.Errorf("%s set is %q, want %q", set, got, c.want)
				}
			}
		})
	}
}

// TestKnownCapabilities compares the names that a pod may use with those that the container runtime
// knows.
func TestKnownCapabilities(t *testing.T) {
	var want []string
	for _, n := range cap.Known() {
		want = append(want, strings.TrimPrefix(n, "CAP_"))
	}
	if got := core.Capabilities(); !slices.Equal(got, want) {
		t.Errorf("capabilities are %q, containerd's %q", got, want)
	}
}
