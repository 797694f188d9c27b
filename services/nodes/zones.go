package nodes

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// ZoneConfig limits how fast the pods of a zone's nodes are evicted. Names and defaults are those
// of Kubernetes' controller manager.
type ZoneConfig struct {
	// EvictionRate is how many nodes of a zone per second get a NoExecute taint because they are not
	// ready or unreachable.
	EvictionRate float64 `yaml:"evictionRate" help:"nodes of a zone per second that lose their pods because they are not ready"`
	// SecondaryEvictionRate replaces it in a large zone of which a part is disrupted. In other zones
	// evictions stop then.
	SecondaryEvictionRate float64 `yaml:"secondaryEvictionRate" help:"the same in large zones that are disrupted"`
	// UnhealthyZoneThreshold is the part of a zone's nodes, and at least three, that are not ready
	// when the zone counts as disrupted in part.
	UnhealthyZoneThreshold float64 `yaml:"unhealthyZoneThreshold" help:"part of a zone's nodes that are not ready when it is disrupted"`
	// LargeZoneSize is how many nodes a zone has at most that is not large.
	LargeZoneSize int `yaml:"largeZoneSize" help:"a zone with more nodes is large"`
}

func (c ZoneConfig) validate() error {
	var problems []error
	for _, r := range []struct {
		key  string
		rate float64
	}{{"evictionRate", c.EvictionRate}, {"secondaryEvictionRate", c.SecondaryEvictionRate}} {
		if r.rate < 0 {
			problems = append(problems, fmt.Errorf("%s: must not be negative, is %g", r.key, r.rate))
		}
	}
	if c.UnhealthyZoneThreshold < 0 || c.UnhealthyZoneThreshold > 1 {
		problems = append(problems, fmt.Errorf("unhealthyZoneThreshold: must be 0 to 1, is %g", c.UnhealthyZoneThreshold))
	}
	if c.LargeZoneSize < 0 {
		problems = append(problems, fmt.Errorf("largeZoneSize: must not be negative, is %d", c.LargeZoneSize))
	}
	return errors.Join(problems...)
}

// disruption is how many nodes of a zone are not ready.
type disruption string

const (
	undisrupted         disruption = "none"
	partiallyDisrupted  disruption = "partial"
	completelyDisrupted disruption = "full"
)

// zones limits the rate at which nodes are tainted NoExecute in each zone, as Kubernetes' node
// lifecycle controller does: a failure of the network looks as if the nodes of a zone had failed
// together, and must not evict all of their pods. Where evictions stop, nodes also lose the taint
// that they have already, because pods stay for seconds on a node with it: Kubernetes, where they
// stay for five minutes, does that only when no node of any zone is ready.
type zones struct {
	cfg ZoneConfig
	log *zap.Logger

	mu     sync.Mutex
	byName map[string]*zone
}

// zone is the nodes with the same labels of region and zone.
type zone struct {
	// ready says of each node whether it is ready.
	ready      map[string]bool
	notReady   int
	disruption disruption
	limiter    *rate.Limiter
	// explained has the nodes that got an event about the present disruption.
	explained map[string]bool
}

func newZones(cfg ZoneConfig, log *zap.Logger) *zones {
	return &zones{cfg: cfg, log: log, byName: map[string]*zone{}}
}

// zoneOf names the zone of a node: "region/zone", with empty parts where the node has no label.
func zoneOf(n *corev1.Node) string {
	labels := n.GetMetadata().GetLabels()
	return labels[core.LabelRegion] + "/" + labels[core.LabelZone]
}

func isReady(n *corev1.Node) bool {
	return core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
}

// observe counts a change of a node, of which old or now is nil when it did not exist, or does not
// anymore. It reports whether the disruption of a zone changed.
func (z *zones) observe(old, now *corev1.Node) (changed bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	var names []string
	if old != nil {
		z.count(old, false)
		names = append(names, zoneOf(old))
	}
	if now != nil {
		z.count(now, true)
		names = append(names, zoneOf(now))
	}
	for _, name := range names {
		one := z.byName[name]
		if one == nil {
			continue
		}
		if len(one.ready) == 0 {
			delete(z.byName, name)
			changed = true
			continue
		}
		if d := z.assess(one, 0); d != one.disruption {
			one.disruption, one.explained, changed = d, map[string]bool{}, true
			z.log.Info("Disruption of zone changed", zap.String(metrics.KeyZone, name), zap.String(metrics.KeyDisruption, string(d)),
				zap.Int(metrics.KeyNodes, len(one.ready)), zap.Int(metrics.KeyNotReady, one.notReady))
		}
	}
	return changed
}

// count counts a node in its zone, or not anymore.
func (z *zones) count(n *corev1.Node, counts bool) {
	one, node := z.byName[zoneOf(n)], n.GetMetadata().GetName()
	if one == nil {
		if !counts {
			return
		}
		one = &zone{
			ready: map[string]bool{}, disruption: undisrupted, explained: map[string]bool{},
			limiter: rate.NewLimiter(rate.Limit(z.cfg.EvictionRate), 1),
		}
		z.byName[zoneOf(n)] = one
	}
	if ready, known := one.ready[node]; known && !ready {
		one.notReady--
	}
	if !counts {
		delete(one.ready, node)
		return
	}
	one.ready[node] = isReady(n)
	if !one.ready[node] {
		one.notReady++
	}
}

// assess returns the disruption of a zone of which more nodes than counted are not ready.
func (z *zones) assess(one *zone, more int) disruption {
	switch notReady := one.notReady + more; {
	case notReady == len(one.ready):
		return completelyDisrupted
	case notReady > 2 && float64(notReady) >= z.cfg.UnhealthyZoneThreshold*float64(len(one.ready)):
		return partiallyDisrupted
	}
	return undisrupted
}

// stopped reports whether evictions have stopped in the zone of a node that is not ready. why is
// the reason for users, empty when the node got it before.
func (z *zones) stopped(n *corev1.Node) (stopped bool, why string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	one, limit, why := z.limit(n)
	if one == nil || limit > 0 {
		return false, ""
	}
	node := n.GetMetadata().GetName()
	if one.explained[node] {
		why = ""
	}
	one.explained[node] = true
	return true, why
}

// reserve returns 0 when a node that is not ready may be tainted NoExecute now, which counts
// against the rate of its zone, and otherwise when to ask again.
func (z *zones) reserve(n *corev1.Node) time.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	one, limit, _ := z.limit(n)
	if one == nil {
		return 0
	}
	now := time.Now()
	one.limiter.SetLimitAt(now, limit)
	reservation := one.limiter.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// limit returns the zone of a node that is not ready, nil if it is unknown, with its rate and, when
// that is 0, the reason.
func (z *zones) limit(n *corev1.Node) (one *zone, limit rate.Limit, why string) {
	name := zoneOf(n)
	if one = z.byName[name]; one == nil {
		return nil, 0, ""
	}
	// The informer may not have seen yet that the node is not ready.
	more := 0
	if one.ready[n.GetMetadata().GetName()] {
		more = 1
	}
	d := z.assess(one, more)
	switch {
	case d == completelyDisrupted && z.othersDisrupted(name):
		return one, 0, "No node of any zone is ready"
	case d != partiallyDisrupted:
		limit = rate.Limit(z.cfg.EvictionRate)
	case len(one.ready) > z.cfg.LargeZoneSize:
		limit = rate.Limit(z.cfg.SecondaryEvictionRate)
	default:
		return one, 0, fmt.Sprintf("%d of %d nodes of zone %q are not ready", one.notReady+more, len(one.ready), name)
	}
	if limit == 0 {
		why = "The rate of evictions is configured to be 0"
	}
	return one, limit, why
}

// othersDisrupted reports whether all other zones are completely disrupted.
func (z *zones) othersDisrupted(name string) bool {
	for other, one := range z.byName {
		if other != name && one.disruption != completelyDisrupted {
			return false
		}
	}
	return true
}
