package eviction

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics count the pods that a node ended. They may be counted concurrently.
type Metrics struct {
	evictions *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil. Every signal is told
// from the beginning: one can see that nothing was evicted.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{evictions: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: metrics.Evictions, Help: "Pods that were ended because the node ran short, or because they used more disk than they may.",
	}, []string{metrics.LabelSignal})}
	for _, s := range slices.Concat(signals, limits) {
		m.evictions.WithLabelValues(string(s))
	}
	return m
}

// Count counts a pod that is ended. Nil metrics count nothing.
func (m *Metrics) Count(why Signal) {
	if m != nil {
		m.evictions.WithLabelValues(string(why)).Inc()
	}
}
