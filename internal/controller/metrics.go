package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// vectors are the metrics of a group, by controller.
type vectors struct {
	depth    *prometheus.GaugeVec
	waited   *prometheus.HistogramVec
	took     *prometheus.HistogramVec
	failures *prometheus.CounterVec
	retries  *prometheus.CounterVec
	leading  prometheus.Gauge
	terms    prometheus.Counter
}

// newVectors makes the metrics, and registers them unless r is nil.
func newVectors(r prometheus.Registerer) *vectors {
	f := promauto.With(r)
	by := []string{metrics.LabelController}
	// A third of a millisecond to ten seconds, four buckets a decade would be many series: these are enough to see
	// whether a loop is a matter of milliseconds or of seconds.
	buckets := []float64{.0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}
	return &vectors{
		depth: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.QueueDepth, Help: "Keys that wait to be reconciled.",
		}, by),
		waited: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.QueueSeconds, Help: "Time from a key's being due to its reconcile.", Buckets: buckets,
		}, by),
		took: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.ReconcileSeconds, Help: "Duration of reconciles.", Buckets: buckets,
		}, by),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.ReconcileFailures, Help: "Reconciles that failed.",
		}, by),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.QueueRetries, Help: "Keys queued again with backoff.",
		}, by),
		leading: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.ElectionLeading, Help: "1 while this instance leads its service.",
		}),
		terms: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.ElectionTerms, Help: "Terms that this instance began to lead.",
		}),
	}
}

func (v *vectors) of(controller string) observers {
	return observers{
		depth:    v.depth.WithLabelValues(controller),
		waited:   v.waited.WithLabelValues(controller),
		took:     v.took.WithLabelValues(controller),
		failures: v.failures.WithLabelValues(controller),
		retries:  v.retries.WithLabelValues(controller),
	}
}
