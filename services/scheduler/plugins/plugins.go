// Package plugins lists the plug-ins of the scheduler's profiles. Each is a package below this one.
package plugins

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/xebec-project/xebec/internal/spelling"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins/defaultpreemption"
	"github.com/xebec-project/xebec/services/scheduler/plugins/imagelocality"
	"github.com/xebec-project/xebec/services/scheduler/plugins/interpodaffinity"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeaffinity"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeports"
	"github.com/xebec-project/xebec/services/scheduler/plugins/noderesources"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeunschedulable"
	"github.com/xebec-project/xebec/services/scheduler/plugins/podtopologyspread"
	"github.com/xebec-project/xebec/services/scheduler/plugins/tainttoleration"
)

// Config is what an operator can change of the plug-ins of a profile. The zero value is the default
// scheduler.
type Config struct {
	// Disabled are the names of plug-ins that neither refuse nor rate nodes nor make room on them.
	Disabled []string `yaml:"disabled"`
	// Weights are the weights of plug-ins in the score, 1 to 100, by name.
	Weights map[string]int `yaml:"weights"`
	// ScoringStrategy is how NodeResourcesFit rates nodes.
	ScoringStrategy noderesources.Strategy `yaml:"scoringStrategy"`
	// DefaultConstraints spread pods without constraints of their own. Absent for those of Kubernetes,
	// an empty list for none.
	DefaultConstraints *[]Constraint `yaml:"defaultConstraints"`
	// HardPodAffinityWeight is what it is worth in the score when another pod's required affinity
	// chooses the pod, 0 to 100; 1 when absent.
	HardPodAffinityWeight *int `yaml:"hardPodAffinityWeight"`
	// IgnorePreferredTermsOfExistingPods leaves preferred affinity of other pods out of the score of
	// pods without preferred affinity.
	IgnorePreferredTermsOfExistingPods bool `yaml:"ignorePreferredTermsOfExistingPods"`
}

// Constraint is a default topology spread constraint.
type Constraint struct {
	// MaxSkew is how many more pods a domain may have than the one with the fewest, at least 1.
	MaxSkew int `yaml:"maxSkew"`
	// TopologyKey is the node label whose values are the domains.
	TopologyKey string `yaml:"topologyKey"`
	// WhenUnsatisfiable is DoNotSchedule or ScheduleAnyway.
	WhenUnsatisfiable string `yaml:"whenUnsatisfiable"`
}

// Default returns the filters and scorers of the default scheduler.
func Default() framework.Plugins {
	p, _ := New(Config{}) // It has no errors.
	return p
}

// New returns the filters and scorers of a profile. The filters run in the order of Kubernetes, so
// that messages count nodes for the same reasons; the weights are its own, too.
func New(c Config) (framework.Plugins, error) {
	spread, err := c.spread()
	if err != nil {
		return framework.Plugins{}, err
	}
	if err := c.ScoringStrategy.Validate(); err != nil {
		return framework.Plugins{}, fmt.Errorf("scoringStrategy.%w", err)
	}
	near := interpodaffinity.Plugin{
		HardPodAffinityWeight:              interpodaffinity.DefaultHardPodAffinityWeight,
		IgnorePreferredTermsOfExistingPods: c.IgnorePreferredTermsOfExistingPods,
	}
	if w := c.HardPodAffinityWeight; w != nil {
		if near.HardPodAffinityWeight = *w; *w < 0 || *w > 100 {
			return framework.Plugins{}, fmt.Errorf("hardPodAffinityWeight: must be 0 to 100, is %d", *w)
		}
	}
	fit := noderesources.Fit{Strategy: c.ScoringStrategy}
	all := framework.Plugins{
		PreFilter: []framework.PreFilterPlugin{
			nodeunschedulable.Plugin{},
			tainttoleration.Plugin{},
			nodeaffinity.Plugin{},
			nodeports.Plugin{},
			fit,
			spread,
			near,
		},
		PostFilter: defaultpreemption.Plugin{},
		PreScore: []framework.WeightedPlugin{
			{Plugin: tainttoleration.Plugin{}, Weight: 3},
			{Plugin: nodeaffinity.Plugin{}, Weight: 2},
			{Plugin: fit, Weight: 1},
			{Plugin: spread, Weight: 2},
			{Plugin: near, Weight: 2},
			{Plugin: noderesources.BalancedAllocation{}, Weight: 1},
			{Plugin: imagelocality.Plugin{}, Weight: 1},
		},
	}
	err = c.change(&all)
	return all, err
}

// spread returns the plug-in for topology spread.
func (c Config) spread() (podtopologyspread.Plugin, error) {
	if c.DefaultConstraints == nil {
		return podtopologyspread.Default(), nil
	}
	var pl podtopologyspread.Plugin
	for i, d := range *c.DefaultConstraints {
		at := fmt.Sprintf("defaultConstraints[%d]", i)
		switch {
		case d.MaxSkew < 1:
			return pl, fmt.Errorf("%s.maxSkew: must be at least 1, is %d", at, d.MaxSkew)
		case d.TopologyKey == "":
			return pl, fmt.Errorf("%s.topologyKey: is required", at)
		case d.WhenUnsatisfiable != "DoNotSchedule" && d.WhenUnsatisfiable != "ScheduleAnyway":
			return pl, fmt.Errorf("%s.whenUnsatisfiable: want DoNotSchedule or ScheduleAnyway, not %q", at, d.WhenUnsatisfiable)
		}
		pl.Defaults = append(pl.Defaults, framework.SpreadConstraint{
			TopologyKey: d.TopologyKey, MaxSkew: d.MaxSkew, MinDomains: 1, HonorAffinity: true, Required: d.WhenUnsatisfiable == "DoNotSchedule",
		})
	}
	return pl, nil
}

// change disables plug-ins and sets weights.
func (c Config) change(all *framework.Plugins) error {
	var filters, scorers []string
	for _, pl := range all.PreFilter {
		filters = append(filters, pl.Name())
	}
	for _, w := range all.PreScore {
		scorers = append(scorers, w.Plugin.Name())
	}
	for i, name := range c.Disabled {
		if known := append(slices.Concat(filters, scorers), all.PostFilter.Name()); !slices.Contains(known, name) {
			return fmt.Errorf("disabled[%d]: %w", i, unknownPlugin(name, known))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Weights)) {
		at := slices.Index(scorers, name)
		switch weight := c.Weights[name]; {
		case at < 0 && slices.Contains(filters, name):
			return fmt.Errorf("weights: plug-in %s does not rate nodes", name)
		case at < 0:
			return fmt.Errorf("weights: %w", unknownPlugin(name, scorers))
		case weight < 1 || weight > 100:
			return fmt.Errorf("weights.%s: must be 1 to 100, is %d; a plug-in is disabled by the key disabled", name, weight)
		default:
			all.PreScore[at].Weight = float64(weight)
		}
	}
	if slices.Contains(c.Disabled, all.PostFilter.Name()) {
		all.PostFilter = nil
	}
	all.PreFilter = slices.DeleteFunc(all.PreFilter, func(pl framework.PreFilterPlugin) bool { return slices.Contains(c.Disabled, pl.Name()) })
	all.PreScore = slices.DeleteFunc(all.PreScore, func(w framework.WeightedPlugin) bool {
		return slices.Contains(c.Disabled, w.Plugin.Name())
	})
	return nil
}

// unknownPlugin is the error about a name, with the nearest one that is known.
func unknownPlugin(name string, known []string) error {
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Compare(spelling.Distance(name, a), spelling.Distance(name, b))
	})
	return fmt.Errorf("unknown plug-in %q, did you mean %s?", name, nearest)
}
