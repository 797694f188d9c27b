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

// Labels of nodes that name their failure domain.
const (
	labelRegion = "topology.kubernetes.io/region"
	labelZone   = "topology.kubernetes.io/zone"
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
// together, and must not evict all of their pods. In none is a node tainted while all zones are
// completely disrupted: then the control plane is more likely to be cut off.
type zones struct {
	cfg ZoneConfig
	log *zap.Logger

	mu     sync.Mutex
	byName map[string]*zone
}

// zone is the nodes with the same labels of region and zone.
type zone struct {
	nodes, notReady int
	disruption      disruption
	limiter         *rate.Limiter
	// explained has the nodes whose users know of the present disruption.
	explained map[string]bool
}

func newZones(cfg ZoneConfig, log *zap.Logger) *zones {
	return &zones{cfg: cfg, log: log, byName: map[string]*zone{}}
}

// zoneOf names the zone of a node: "region/zone", with empty parts where the node has no label.
func zoneOf(n *corev1.Node) string {
	labels := n.GetMetadata().GetLabels()
	return labels[labelRegion] + "/" + labels[labelZone]
}

func isReady(n *corev1.Node) bool {
	return core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
}

// observe counts a change of a node. Either is nil for a node that did not exist, or does not
// anymore.
func (z *zones) observe(old, now *corev1.Node) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.count(old, -1)
	z.count(now, 1)
	for name, one := range z.byName {
		if one.nodes == 0 {
			delete(z.byName, name)
			continue
		}
		if d := z.assess(one); d != one.disruption {
			one.disruption, one.explained = d, map[string]bool{}
			z.log.Info("Disruption of zone changed", zap.String(metrics.KeyZone, name), zap.String(metrics.KeyDisruption, string(d)),
				zap.Int(metrics.KeyNodes, one.nodes), zap.Int(metrics.KeyNotReady, one.notReady))
		}
	}
}

func (z *zones) count(n *corev1.Node, by int) {
	if n == nil {
		return
	}
	name := zoneOf(n)
	one := z.byName[name]
	if one == nil {
		one = &zone{disruption: undisrupted, limiter: rate.NewLimiter(rate.Limit(z.cfg.EvictionRate), 1), explained: map[string]bool{}}
		z.byName[name] = one
	}
	one.nodes += by
	if !isReady(n) {
		one.notReady += by
	}
}

// assess returns the disruption of a zone.
func (z *zones) assess(one *zone) disruption {
	switch {
	case one.notReady == one.nodes:
		return completelyDisrupted
	case one.notReady > 2 && float64(one.notReady) >= z.cfg.UnhealthyZoneThreshold*float64(one.nodes):
		return partiallyDisrupted
	}
	return undisrupted
}

// recheck is after what time a node is looked at again in whose zone evictions have stopped.
const recheck = 5 * time.Second

// admit returns 0 when a node may be tainted NoExecute now, which counts against the rate of its
// zone, and otherwise when to ask again. why is the reason for users when evictions have stopped,
// and empty when the node was given it before.
func (z *zones) admit(n *corev1.Node) (wait time.Duration, why string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := zoneOf(n)
	one := z.byName[name]
	if one == nil {
		return recheck, "" // the informer does not have the node anymore
	}
	limit, why := z.limit(name, one)
	if limit == 0 {
		node := n.GetMetadata().GetName()
		if one.explained[node] {
			why = ""
		}
		one.explained[node] = true
		return recheck, why
	}
	now := time.Now()
	one.limiter.SetLimitAt(now, limit)
	reservation := one.limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return wait, ""
	}
	return 0, ""
}

// limit returns the rate of a zone, and the reason when it is 0.
func (z *zones) limit(name string, one *zone) (limit rate.Limit, why string) {
	switch {
	case z.allDisrupted():
		return 0, "No node of any zone is ready"
	case one.disruption != partiallyDisrupted:
		limit = rate.Limit(z.cfg.EvictionRate)
	case one.nodes > z.cfg.LargeZoneSize:
		limit = rate.Limit(z.cfg.SecondaryEvictionRate)
	default:
		return 0, fmt.Sprintf("%d of %d nodes of zone %q are not ready", one.notReady, one.nodes, name)
	}
	if limit == 0 {
		why = "The rate of evictions is configured to be 0"
	}
	return limit, why
}

func (z *zones) allDisrupted() bool {
	for _, one := range z.byName {
		if one.disruption != completelyDisrupted {
			return false
		}
	}
	return true
}
