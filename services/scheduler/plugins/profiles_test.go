package plugins_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
	"github.com/xebec-project/xebec/services/scheduler/plugins/noderesources"
)

// TestProfiles schedules a pod by profiles with other settings. Node a is half full of cpu, has a
// GPU in use and an untolerated taint that is only a preference; node b is empty, with two GPUs.
func TestProfiles(t *testing.T) {
	c := cache.New()
	for name, fields := range map[string]string{
		"a": `"spec":{"taints":[{"key":"k","effect":"PreferNoSchedule"}]},"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"9","example.com/gpu":"2"}}`,
		"b": `"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"9","example.com/gpu":"2"}}`,
	} {
		if _, err := c.SetNode(frameworktest.Node(t, name, fields)); err != nil {
			t.Fatal(err)
		}
	}
	c.SetPod(podOf(t, "x", "a", []string{"cpu=2", "memory=4Gi", "example.com/gpu=1", "label:app=web"}))
	most := noderesources.Strategy{Type: noderesources.MostAllocated}
	gpus := noderesources.Strategy{Type: noderesources.MostAllocated, Resources: []noderesources.Resource{{Name: "example.com/gpu", Weight: 1}}}
	full := noderesources.Strategy{
		Type:  noderesources.RequestedToCapacityRatio,
		Shape: []noderesources.ShapePoint{{Utilization: 0, Score: 0}, {Utilization: 50, Score: 10}, {Utilization: 100, Score: 10}},
	}
	quiet := []string{"PodTopologySpread", "TaintToleration", "InterPodAffinity", "ImageLocality", "NodeResourcesBalancedAllocation"}
	for _, tt := range []struct {
		name   string
		config plugins.Config
		pod    []string
		want   string
		score  float64 // of NodeResourcesFit on node a
	}{
		{"the default", plugins.Config{}, []string{"cpu=1", "memory=2Gi"}, "b", 2.5},
		{"most allocated", plugins.Config{ScoringStrategy: most, Disabled: quiet}, []string{"cpu=1", "memory=2Gi"}, "a", 7.5},
		{"the most GPUs", plugins.Config{ScoringStrategy: gpus, Disabled: quiet}, []string{"cpu=1", "example.com/gpu=1"}, "a", 10},
		{"GPUs do not count for other pods", plugins.Config{ScoringStrategy: gpus, Disabled: quiet}, []string{"cpu=1"}, "b", -1},
		{"half full is best", plugins.Config{ScoringStrategy: full, Disabled: quiet}, []string{"cpu=400m"}, "a", 10},
		{"by weight", plugins.Config{ScoringStrategy: most, Weights: map[string]int{"NodeResourcesFit": 100}}, []string{"cpu=1"}, "a", 6.25},
		{"taints do not count", plugins.Config{Disabled: []string{"TaintToleration"}, Weights: map[string]int{"NodeAffinity": 100}},
			[]string{`"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":` +
				`{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["a"]}]}}]}}`}, "a", 5},
		{"required defaults", plugins.Config{ScoringStrategy: most, Weights: map[string]int{"NodeResourcesFit": 100},
			DefaultConstraints: &[]plugins.Constraint{{MaxSkew: 1, TopologyKey: core.LabelHostname, WhenUnsatisfiable: "DoNotSchedule"}}},
			[]string{"cpu=1"}, "b", -1},
		{"overhead counts", plugins.Config{}, []string{`"overhead":{"cpu":"2"}`, "cpu=500m"}, "b", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enabled, err := plugins.New(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			profile, p := framework.NewProfile(enabled), podOf(t, "p", "", tt.pod)
			if got, err := profile.Schedule(c.Snapshot(), p); err != nil || got != tt.want {
				t.Errorf("on %q, %v, want %s", got, err, tt.want)
			}
			got := -1.0
			rows, _ := profile.Explain(c.Snapshot(), p)
			for _, v := range rows {
				for _, s := range v.Scores {
					if v.Node == "a" && s.Name == "NodeResourcesFit" {
						got = s.Score
					}
				}
			}
			if got != tt.score {
				t.Errorf("score %v, want %v", got, tt.score)
			}
		})
	}
}
