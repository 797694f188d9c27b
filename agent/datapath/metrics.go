package datapath

import (
	"time"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are a datapath's. One serves all datapaths that follow one another.
type Metrics struct {
	services prometheus.Gauge
	backends prometheus.Gauge
	pressure *prometheus.GaugeVec
	writes   *prometheus.CounterVec
	took     prometheus.Histogram
	delay    prometheus.Histogram
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		services: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathServices, Help: "Addresses that the service maps hold.",
		}),
		backends: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathBackends, Help: "Endpoints in the service maps.",
		}),
		pressure: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.DatapathMapPressure, Help: "How full a map is, from 0 to 1.",
		}, []string{metrics.LabelMap}),
		writes: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.DatapathWrites, Help: "Writes of changes to the service maps.",
		}, []string{metrics.LabelResult}),
		took: f.NewHistogram(prometheus.HistogramOpts{
			Name: metrics.DatapathWriteSeconds, Help: "How long successful writes of changes to the service maps took.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 10), // to 2.6 s
		}),
		delay: f.NewHistogram(prometheus.HistogramOpts{
			Name: metrics.DatapathDelaySeconds, Help: "Time from hearing of a change to having it in the service maps.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 12), // to 42 s
		}),
	}
}

// hold tells what the maps hold.
func (m *Metrics) hold(services, backends int, maps map[string]*ebpf.Map) {
	m.services.Set(float64(services))
	m.backends.Set(float64(backends))
	m.press(bpf.SocketLBMapServices, services, maps)
	m.press(bpf.SocketLBMapBackends, backends, maps)
}

func (m *Metrics) press(name string, n int, maps map[string]*ebpf.Map) {
	m.pressure.WithLabelValues(name).Set(float64(n) / float64(maps[name].MaxEntries()))
}

// wrote tells of a write and, when it brought changes that were heard of at a
// time, of their delay.
func (m *Metrics) wrote(began, heard time.Time, err error) {
	m.writes.WithLabelValues(metrics.Result(err)).Inc()
	if err != nil {
		return
	}
	m.took.Observe(time.Since(began).Seconds())
	if !heard.IsZero() {
		m.delay.Observe(time.Since(heard).Seconds())
	}
}
