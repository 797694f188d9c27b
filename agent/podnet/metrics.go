package podnet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are a pod network's. One serves all networks that follow one another.
type Metrics struct {
	addresses      prometheus.Gauge
	addressesFree  prometheus.Gauge
	routes         prometheus.Gauge
	repairFailures prometheus.Counter
	setup          *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		addresses: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.PodnetAddresses, Help: "Allocated pod addresses of the node.",
		}),
		addressesFree: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.PodnetAddressesFree, Help: "Free pod addresses of the node.",
		}),
		routes: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.PodnetRoutes, Help: "Other nodes to whose pods this node has routes.",
		}),
		repairFailures: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.PodnetRepairFailures, Help: "Repairs of routes that failed or were incomplete.",
		}),
		setup: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.PodnetSetupSeconds, Help: "Duration of the network setup of pods.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13), // to 4 s
		}, []string{metrics.LabelResult}),
	}
}

func (m *Metrics) hold(a *addresses) {
	taken, of := a.count()
	m.addresses.Set(float64(taken))
	m.addressesFree.Set(float64(of - taken))
}

func (m *Metrics) setUp(began time.Time, err error) {
	m.setup.WithLabelValues(metrics.Result(err)).Observe(time.Since(began).Seconds())
}
