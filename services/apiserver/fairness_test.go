package apiserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestWatchesTakeSeatsWhileTheyStart keeps more watches open than there are seats: each takes one
// and gives it back.
func TestWatchesTakeSeatsWhileTheyStart(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxInFlight = 5
	service, _ := startService(t, cfg, etcdtest.New(t, 1))
	cluster, registry := rpctest.NewCluster(t), prometheus.NewRegistry()
	server := rpc.ServerConfig{Metrics: registry}
	service.ConfigureServer(&server)
	address, _ := cluster.Serve(t, server, service.Register)
	c := client.New(cluster.Dial(t, address, cluster.Admin(t), rpc.ClientConfig{}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const watches = 20
	for range watches {
		informer := client.NewInformer(c, client.InformerOptions[*corev1.Namespace]{})
		ended := make(chan struct{})
		go func() { defer close(ended); _ = informer.Run(ctx) }()
		t.Cleanup(func() { <-ended })
		if err := informer.WaitForSync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := metricstest.Values(t, registry, metrics.RPCWaitSeconds)["people"]; n != watches {
		t.Errorf("%v seats were taken, want %d", n, watches)
	}
	if _, _, err := client.List[*corev1.Namespace](ctx, c, client.ListOptions{}); err != nil {
		t.Error(err)
	}
	if refused := metricstest.Values(t, registry, metrics.RPCOverloaded); len(refused) != 0 {
		t.Errorf("calls were refused: %v", refused)
	}
}

func TestSeatsAreValidated(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxInFlight, cfg.Queues.PerLevel = 3, -1
	err := cfg.Validate()
	for _, want := range []string{"maxInFlight: must be at least 5", "queues.perLevel: must not be negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
