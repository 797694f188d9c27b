package datapath

import (
	"sync/atomic"
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
	closed   prometheus.Counter
	features *prometheus.GaugeVec

	flows    prometheus.Gauge
	capacity prometheus.Gauge
	evicted  atomic.Uint64

	// source is the datapath that is at work; nil: none is.
	source atomic.Pointer[Datapath]
	// name returns the name of the service that has a frontend; nil: names are unknown.
	name atomic.Pointer[func(Frontend) string]
}

// NewMetrics makes the metrics and registers them, unless the registry is nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		flows: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathFlows, Help: "Entries in the connection tracking table of the uplink, two for each flow.",
		}),
		capacity: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathFlowsCapacity, Help: "Maximum number of entries of the connection tracking table.",
		}),
		services: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathServices, Help: "Frontends (address, port and protocol) in the service maps.",
		}),
		backends: f.NewGauge(prometheus.GaugeOpts{
			Name: metrics.DatapathBackends, Help: "Endpoints in the service maps.",
		}),
		pressure: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.DatapathMapPressure, Help: "Fill level of a map, from 0 to 1.",
		}, []string{metrics.LabelMap}),
		writes: f.NewCounterVec(prometheus.CounterOpts{
			Name: metrics.DatapathWrites, Help: "Writes of changes to the service maps.",
		}, []string{metrics.LabelResult}),
		took: f.NewHistogram(prometheus.HistogramOpts{
			Name: metrics.DatapathWriteSeconds, Help: "Duration of successful writes of changes to the service maps.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 10), // to 2.6 s
		}),
		delay: f.NewHistogram(prometheus.HistogramOpts{
			Name: metrics.DatapathDelaySeconds, Help: "Time from receiving a change to writing it to the service maps.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 4, 12), // to 42 s
		}),
		closed: f.NewCounter(prometheus.CounterOpts{
			Name: metrics.DatapathSocketsClosed, Help: "Connected UDP sockets that were closed after the removal of their endpoint.",
		}),
		features: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: metrics.DatapathFeature, Help: "1 for the method by which the node provides a feature that depends on its kernel.",
		}, []string{metrics.LabelFeature, metrics.LabelMethod}),
	}
	if r != nil {
		r.MustRegister((*counted)(m))
	}
	return m
}

// fill is how many entries a map has, and how many it takes.
type fill struct{ entries, capacity int }

func fillOf(entries int, m *ebpf.Map) fill { return fill{entries, int(m.MaxEntries())} }

// provide tells how the node provides what depends on its kernel.
func (m *Metrics) provide(all []Feature) {
	m.features.Reset()
	for _, f := range all {
		m.features.WithLabelValues(f.Name, f.Method).Set(1)
	}
}

// swept tells how full the tables of flows are after they were looked through. A full table
// forgets without counting, so that what was forgotten is what is missing.
func (m *Metrics) swept(tables map[string]fill, sums [countersTotal]uint64) {
	var all fill
	for name, t := range tables {
		all.entries, all.capacity = all.entries+t.entries, all.capacity+t.capacity
		m.press(name, t)
	}
	m.flows.Set(float64(all.entries))
	m.capacity.Set(float64(all.capacity))
	if here := sums[countRemoved] + uint64(all.entries); sums[countEntered] > here {
		m.evicted.Store(max(m.evicted.Load(), sums[countEntered]-here))
	}
}

// counted are the metrics that the programs count, read when they are asked for.
type counted Metrics

var (
	dropsDesc = prometheus.NewDesc(
		metrics.DatapathDrops,
		"Dropped packets from or to external clients, and refused connections of sockets.",
		[]string{metrics.LabelReason},
		nil,
	)
	enteredDesc = prometheus.NewDesc(
		metrics.DatapathFlowsEntered,
		"Entries added to the connection tracking table since its creation.",
		nil,
		nil,
	)
	removedDesc = prometheus.NewDesc(
		metrics.DatapathFlowsRemoved,
		"Entries of expired flows removed from the connection tracking table since its creation.",
		nil,
		nil,
	)
	evictedDesc = prometheus.NewDesc(
		metrics.DatapathFlowsEvicted,
		"Entries evicted from a full connection tracking table since its creation.",
		nil,
		nil,
	)
	connectionsDesc = prometheus.NewDesc(
		metrics.DatapathConnections,
		"Connections and UDP flows to a service.",
		[]string{metrics.LabelService, metrics.LabelBackend},
		nil,
	)
	packetsDesc = prometheus.NewDesc(
		metrics.DatapathPackets,
		"Packets between external clients and a service, in both directions.",
		[]string{metrics.LabelService, metrics.LabelBackend},
		nil,
	)
)

// Describe is part of prometheus.Collector.
func (c *counted) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{dropsDesc, enteredDesc, removedDesc, evictedDesc, connectionsDesc, packetsDesc} {
		to <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *counted) Collect(to chan<- prometheus.Metric) {
	d := c.source.Load()
	if d == nil {
		return
	}
	send := func(desc *prometheus.Desc, value uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	sums, err := d.counters()
	if err != nil {
		to <- prometheus.NewInvalidMetric(dropsDesc, err)
		return
	}
	for i, reason := range dropReasons {
		send(dropsDesc, sums[i], reason)
	}
	send(enteredDesc, sums[countEntered])
	send(removedDesc, sums[countRemoved])
	send(evictedDesc, c.evicted.Load())
	traffic, err := d.Traffic()
	if err != nil {
		to <- prometheus.NewInvalidMetric(connectionsDesc, err)
		return
	}
	for pair, sum := range c.sums(traffic) {
		send(connectionsDesc, sum.Connections, pair.service, pair.backend)
		send(packetsDesc, sum.Packets, pair.service, pair.backend)
	}
}

// pair is a pair of labels of traffic metrics.
type pair struct{ service, backend string }

// maxPairs bounds the series of traffic.
const maxPairs = 1000

var otherPairs = pair{"other", "other"}

// sums adds traffic up by service, whichever of its addresses it went to, and backend.
func (c *counted) sums(all []Traffic) map[pair]Traffic {
	name := c.name.Load()
	out := make(map[pair]Traffic)
	for _, t := range all {
		p := pair{backend: t.Backend.String()}
		if name != nil {
			p.service = (*name)(t.Frontend)
		}
		if _, known := out[p]; p.service == "" || !known && len(out) >= maxPairs {
			p = otherPairs // a service that is gone, or one too many
		}
		sum := out[p]
		sum.Connections += t.Connections
		sum.Packets += t.Packets
		out[p] = sum
	}
	return out
}

// hold tells what the maps hold.
func (m *Metrics) hold(families []*family) {
	services, backends := 0, 0
	for _, f := range families {
		c := &f.contents
		services, backends = services+len(c.services), backends+c.backends
		m.press(bpf.SocketLBMapServices+f.suffix, fillOf(len(c.services), f.table(bpf.SocketLBMapServices)))
		m.press(bpf.SocketLBMapBackends+f.suffix, fillOf(c.backends, f.table(bpf.SocketLBMapBackends)))
	}
	m.services.Set(float64(services))
	m.backends.Set(float64(backends))
}

func (m *Metrics) press(name string, f fill) {
	m.pressure.WithLabelValues(name).Set(float64(f.entries) / float64(f.capacity))
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
