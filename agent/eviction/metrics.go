package eviction

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics count the pods that a node evicted. They are safe for concurrent use.
type Metrics struct {
	evictions *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil. Every signal has a
// series from the start, so that 0 evictions are visible.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{evictions: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: metrics.Evictions, Help: "Pods evicted because of node pressure, or because they exceeded their disk limits.",
	}, []string{metrics.LabelSignal})}
	for _, s := range slices.Concat(signals, limits) {
		m.evictions.WithLabelValues(string(s))
	}
	return m
}

// Count counts an evicted pod. Nil metrics count nothing.
func (m *Metrics) Count(why Signal) {
	if m != nil {
		m.evictions.WithLabelValues(string(why)).Inc()
	}
}
