package controllers

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/nodes"
	"github.com/xebec-project/xebec/services/scheduler"
	"github.com/xebec-project/xebec/services/workloads"
)

// deaf loses the answers to every other write: it is done, and the caller does not know.
type deaf struct {
	grpc.ClientConnInterface
	calls, lost *atomic.Int64
}

func (d deaf) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := d.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	switch method[strings.LastIndexByte(method, '/')+1:] {
	case "Transact", "Update", "UpdateStatus", "Patch":
		if err == nil && d.calls.Add(1)%2 == 1 {
			d.lost.Add(1)
			return apierr.Unavailable("the answer was lost")
		}
	}
	return err
}

func (h *house) deafService(name string) (c *client.Client, lost *atomic.Int64) {
	lost = &atomic.Int64{}
	return client.New(as{ClientConnInterface: deaf{h.conn, &atomic.Int64{}, lost}, User: "xebec:" + name, Group: "xebec:services"}), lost
}

// TestUnanswered runs the controllers behind a connection that loses answers: nothing is done
// twice, nothing is left.
func TestUnanswered(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for n := range 5 {
		node(t, c, fmt.Sprint("node-", n))
		beat(t, h, fmt.Sprint("node-", n))
	}
	lost := map[string]*atomic.Int64{}
	deafly := func(name string) *client.Client {
		var d *client.Client
		d, lost[name] = h.deafService(name)
		return d
	}
	w, err := workloads.New(workloads.Config{}, workloads.Deps{Host: "master-1", Client: deafly("workloads")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := scheduler.DefaultConfig()
	cfg.BatchSize = 20
	s, err := scheduler.New(cfg, scheduler.Deps{Host: "master-1", Client: deafly("scheduler"), Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	n, err := nodes.New(nodes.DefaultConfig(), nodes.Deps{Deps: elected.Deps{Host: "master-1", Client: deafly("nodes")}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.Run)
	run(t, s.Run)
	run(t, n.Run)
	runAgents(t, h, false)

	var most atomic.Int64
	observe(t, h, "app=web", func(o *observer) {
		active, _ := o.count()
		most.Store(max(most.Load(), int64(active)))
	})
	// 20 cores hold 200 pods of 100m, and no more.
	d := deployment("default", "web", 200)
	d.Spec.Template.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: quantities("cpu", "100m")}
	create(t, c, d)
	rolledOut(t, c, "web")
	if most.Load() > 200 {
		t.Errorf("%d pods were active at once, want 200", most.Load())
	}
	on, ranges := map[string]int{}, map[string]string{}
	for _, p := range podsOf(t, c, "default", "app=web") {
		on[p.GetSpec().GetNodeName()]++
	}
	for node, n := range on {
		if n != 40 {
			t.Errorf("%s holds %d pods, want 40", node, n)
		}
	}
	for n := range 5 {
		name := fmt.Sprint("node-", n)
		eventually(t, name+" has a range", func() bool { return get[*corev1.Node](t, c, "", name).GetSpec().GetPodCidr() != "" })
		cidr := get[*corev1.Node](t, c, "", name).GetSpec().GetPodCidr()
		if other, twice := ranges[cidr]; twice {
			t.Errorf("%s and %s have the range %s", name, other, cidr)
		}
		ranges[cidr] = name
	}
	for name, n := range lost {
		if n.Load() == 0 {
			t.Errorf("no answer to %s was lost: this test tests nothing", name)
		}
		t.Logf("%s: %d answers lost", name, n.Load())
	}
}
