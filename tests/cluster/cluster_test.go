package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// TestOneMaster brings a control plane up, kills a process and starts it again.
func TestOneMaster(t *testing.T) {
	binaries, remove, err := cluster.Build(t.Context(), "xebecd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := c.Dial("gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	api := client.New(conn)
	if _, err := client.Get[*corev1.Namespace](ctx, api, "", "default"); err != nil && !apierr.IsNotFound(err) {
		t.Fatal(err)
	}

	apiserver := c.Masters()[0].Process("apiserver")
	before, err := apiserver.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if before.CPU == 0 || before.RSS == 0 || before.PSS > before.RSS {
		t.Errorf("a process that serves has used %+v", before)
	}
	apiserver.Kill()
	if apiserver.Running() {
		t.Error("a killed process runs")
	}
	if err := apiserver.Start(); err != nil {
		t.Fatal(err)
	}
	if err := apiserver.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := apiserver.Usage(); err != nil || after.CPU <= before.CPU {
		t.Errorf("the CPU time of a process that was restarted went from %s to %s, %v", before.CPU, after.CPU, err)
	}
	if leader, err := c.EtcdLeader(ctx); err != nil || leader != c.Masters()[0] {
		t.Errorf("the leader of a single etcd is %v, %v", leader, err)
	}
}
