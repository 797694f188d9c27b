package dns

import (
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are a DNS server's. One serves all servers that follow one another.
type Metrics struct {
	queries  *prometheus.CounterVec
	upstream *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.DNSQueries, Help: "Answers that the node's DNS server gave.",
		}, []string{metrics.LabelRcode}),
		upstream: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: metrics.DNSUpstreamSeconds, Help: "How long questions to the node's resolvers took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // to 4 s
		}, []string{metrics.LabelResult}),
	}
}

func (m *Metrics) answered(rcode int) {
	name, ok := miekg.RcodeToString[rcode]
	if !ok {
		name = "other" // what a resolver makes up must not become a label
	}
	m.queries.WithLabelValues(name).Inc()
}

func (m *Metrics) asked(began time.Time, err error) {
	m.upstream.WithLabelValues(metrics.Result(err)).Observe(time.Since(began).Seconds())
}
