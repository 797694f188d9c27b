package elected

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/metrics"
)

// electionMetrics are the metrics of an election and of its terms' controllers.
type electionMetrics struct {
	leading     prometheus.Gauge
	terms       prometheus.Counter
	controllers *controller.Metrics
}

// newElectionMetrics makes the metrics, and registers them unless r is nil.
func newElectionMetrics(r prometheus.Registerer) *electionMetrics {
	f := promauto.With(r)
	return &electionMetrics{
		leading: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.ElectionLeading, Help: "1 while this instance leads its service.",
		}),
		terms: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.ElectionTerms, Help: "Terms that this instance began to lead.",
		}),
		controllers: controller.NewMetrics(r),
	}
}
