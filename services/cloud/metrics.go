package cloud

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// poolMetrics tell how full the pools are, while this instance leads.
type poolMetrics struct {
	allocated *prometheus.GaugeVec
	failures  prometheus.Counter
}

func newPoolMetrics(r prometheus.Registerer, pools []pool) *poolMetrics {
	f := promauto.With(r)
	m := &poolMetrics{
		allocated: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.CloudPoolAllocated, Help: "Addresses of a pool that services have, by family, as the leader knows.",
		}, []string{metrics.LabelPool, metrics.LabelFamily}),
		failures: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.CloudAllocationFailures, Help: "Times that a service's wish for an address could not be granted.",
		}),
	}
	size := f.NewGaugeVec(prometheus.GaugeOpts{
		Name: metrics.CloudPoolAddresses, Help: "Addresses that a pool has in all, by family.",
	}, []string{metrics.LabelPool, metrics.LabelFamily})
	for _, p := range pools {
		for _, family := range families {
			if p.has(family) {
				size.WithLabelValues(p.name, family).Set(float64(p.size(family)))
				m.allocated.WithLabelValues(p.name, family).Set(0)
			}
		}
	}
	return m
}
