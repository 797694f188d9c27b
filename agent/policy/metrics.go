package policy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/internal/metrics"
)

// Metrics are an enforcer's. One serves all enforcers that follow one another.
type Metrics struct {
	pods     *prometheus.GaugeVec
	drops    *prometheus.CounterVec
	pressure *prometheus.GaugeVec
	writes   *prometheus.CounterVec
	delay    prometheus.Histogram
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		pods: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.PolicyPods, Help: "Pods on the node that are selected by policies.",
		}, []string{metrics.LabelDirection}),
		drops: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.PolicyDrops, Help: "Packets from or to pods that were dropped by policies.",
		}, []string{metrics.LabelNamespace, metrics.LabelPod, metrics.LabelDirection, metrics.LabelReason}),
		pressure: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.PolicyMapPressure, Help: "Fill level of a map, from 0 to 1.",
		}, []string{metrics.LabelMap}),
		writes: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.PolicyWrites, Help: "Writes of changes to the policy maps.",
		}, []string{metrics.LabelResult}),
		delay: f.NewHistogram(prometheus.HistogramOpts{
			Name: metrics.PolicyDelaySeconds, Help: "Time from receiving a change to enforcing it.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 12), // to 42 s
		}),
	}
}

// wrote tells of a write and, when it brought changes that were heard of at a
// time, of their delay.
func (m *Metrics) wrote(heard time.Time, err error) {
	m.writes.WithLabelValues(metrics.Result(err)).Inc()
	if err == nil && !heard.IsZero() {
		m.delay.Observe(time.Since(heard).Seconds())
	}
}

// hold tells what the kernel holds.
func (m *Metrics) hold(k *Kernel) {
	ingress, egress, peers, ports := 0, 0, 0, 0
	for _, p := range k.pods {
		if p.Ingress != 0 {
			ingress++
		}
		if p.Egress != 0 {
			egress++
		}
	}
	for _, set := range k.sets {
		peers += len(set)
	}
	for _, keys := range k.classes {
		ports += len(keys)
	}
	m.pods.WithLabelValues(Ingress.String()).Set(float64(ingress))
	m.pods.WithLabelValues(Egress.String()).Set(float64(egress))
	m.press(k, bpf.PolicyMapPolicyPods, len(k.pods))
	m.press(k, bpf.PolicyMapPolicyPeers, peers)
	m.press(k, bpf.PolicyMapPolicyPorts, ports)
}

func (m *Metrics) press(k *Kernel, name string, n int) {
	m.pressure.WithLabelValues(name).Set(float64(n) / float64(k.objects.Maps[name].MaxEntries()))
}
