package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/pki"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// TestStatusShowsLapsedInstances takes instances off the list that still run, as when a master was
// cut off for a while: on a master, which is where an etcd member of the name is, they are missing,
// elsewhere they may have been moved.
func TestStatusShowsLapsedInstances(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	const master = "member-1"
	f.serve("apiserver", master, (&backend{}).register)
	f.serve("scheduler", master, (&backend{}).register)
	f.serve("scheduler", "elsewhere", (&backend{}).register)
	api := clusterv1.NewClusterServiceClient(f.dial(pki.AdminRequest("admin")))
	expect := func(what string, want ...string) {
		t.Helper()
		f.eventually(func() error {
			resp, err := api.Status(f.ctx, &clusterv1.StatusRequest{})
			if err != nil {
				return err
			}
			var got []string
			for _, i := range resp.GetServices() {
				if i.GetService() == "scheduler" {
					problem, _, _ := strings.Cut(i.GetError(), " for ")
					_, answers, _ := strings.Cut(i.GetError(), ": ")
					got = append(got, strings.TrimSpace(fmt.Sprint(i.GetHost(), " ", i.GetHealthy(), " ", problem, " ", answers)))
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Errorf("%s: %q, want %q", what, got, want)
			}
			return nil
		})
	}
	expect("at first", "elsewhere true", "member-1 true")
	if _, err := f.etcd.Delete(f.ctx, discovery.Prefix+"scheduler/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	expect("off the list", "member-1 false not registered but it answers")
	f.serve("scheduler", master, (&backend{}).register)
	expect("listed again", "member-1 true")
}
