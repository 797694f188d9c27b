package dns

import (
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are those of a DNS server. Successive servers share one value.
type Metrics struct {
	queries  *prometheus.CounterVec
	upstream *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.DNSQueries, Help: "Responses of the node's DNS server.",
		}, []string{metrics.LabelRcode}),
		upstream: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.DNSUpstreamSeconds, Help: "Duration of queries to the node's resolvers.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // to 4 s
		}, []string{metrics.LabelResult}),
	}
}

func (m *Metrics) answered(rcode int) {
	name, ok := miekg.RcodeToString[rcode]
	if !ok {
		name = "other" // unknown codes of a resolver must not become labels
	}
	m.queries.WithLabelValues(name).Inc()
}

func (m *Metrics) asked(began time.Time, err error) {
	m.upstream.WithLabelValues(metrics.Result(err)).Observe(time.Since(began).Seconds())
}
