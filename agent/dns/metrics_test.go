package dns

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
)

func TestMetrics(t *testing.T) {
	broken := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) { reply(w, req, miekg.RcodeServerFailure) })
	good := upstream(t, func(w miekg.ResponseWriter, req *miekg.Msg) { reply(w, req, miekg.RcodeSuccess) })
	registry := prometheus.NewPedanticRegistry()
	s, err := New(Config{
		Domain: "cluster.local", Address: loopbacktest.Address(t), Upstreams: []netip.AddrPort{broken, good}, Metrics: NewMetrics(registry),
	}, exampleRecords(), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	addr := start(t, s)
	client := miekg.Client{Timeout: 20 * time.Second}
	for _, name := range []string{"web.default.svc.cluster.local.", "none.default.svc.cluster.local.", "none.default.svc.cluster.local.", "www.example.org."} {
		if _, _, err := client.Exchange(question(name, miekg.TypeA).SetEdns0(1232, false), addr); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]map[string]float64{
		metrics.DNSQueries:         {"NOERROR": 2, "NXDOMAIN": 2},
		metrics.DNSUpstreamSeconds: {"failed": 1, "ok": 1},
	} {
		if got := metricstest.Values(t, registry, name); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
