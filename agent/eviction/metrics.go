package eviction

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are an evictor's.
type Metrics struct {
	evictions *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil. Every signal is told from the beginning: one
// can see that nothing was evicted.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{evictions: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: metrics.Evictions, Help: "Pods that were ended because the node ran short.",
	}, []string{metrics.LabelSignal})}
	for _, s := range signals {
		m.evictions.WithLabelValues(string(s))
	}
	return m
}
