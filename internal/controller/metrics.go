package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are the metrics of controllers, which the terms of a process share.
type Metrics struct {
	depth    *prometheus.GaugeVec
	waited   *prometheus.HistogramVec
	took     *prometheus.HistogramVec
	failures *prometheus.CounterVec
	retries  *prometheus.CounterVec
}

// NewMetrics returns metrics that are registered, unless r is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	by := []string{metrics.LabelController}
	// Two buckets a decade show whether a loop takes milliseconds or seconds; more would be many
	// series.
	buckets := []float64{.0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}
	return &Metrics{
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
	}
}

func (m *Metrics) of(controller string) observers {
	return observers{
		depth:    m.depth.WithLabelValues(controller),
		waited:   m.waited.WithLabelValues(controller),
		took:     m.took.WithLabelValues(controller),
		failures: m.failures.WithLabelValues(controller),
		retries:  m.retries.WithLabelValues(controller),
	}
}
