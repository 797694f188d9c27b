// Package plugins lists the plug-ins of the default scheduler. Each is a package below this one.
package plugins

import (
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins/imagelocality"
	"github.com/xebec-project/xebec/services/scheduler/plugins/interpodaffinity"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeaffinity"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeports"
	"github.com/xebec-project/xebec/services/scheduler/plugins/noderesources"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeunschedulable"
	"github.com/xebec-project/xebec/services/scheduler/plugins/podtopologyspread"
	"github.com/xebec-project/xebec/services/scheduler/plugins/tainttoleration"
)

// Default returns the filters and scorers of the default scheduler. The filters run in the order of
// Kubernetes, so that messages count nodes for the same reasons.
func Default() framework.Plugins {
	return framework.Plugins{
		PreFilter: []framework.PreFilterPlugin{
			nodeunschedulable.Plugin{},
			tainttoleration.Plugin{},
			nodeaffinity.Plugin{},
			nodeports.Plugin{},
			noderesources.Fit{},
			podtopologyspread.Default(),
			interpodaffinity.Plugin{},
		},
		PreScore: []framework.WeightedPlugin{
			{Plugin: noderesources.LeastAllocated{}, Weight: 1},
			{Plugin: noderesources.BalancedAllocation{}, Weight: 1},
			{Plugin: podtopologyspread.Default(), Weight: 2},
			{Plugin: tainttoleration.Plugin{}, Weight: 3},
			{Plugin: nodeaffinity.Plugin{}, Weight: 2},
			{Plugin: interpodaffinity.Plugin{HardPodAffinityWeight: interpodaffinity.DefaultHardPodAffinityWeight}, Weight: 2},
			{Plugin: imagelocality.Plugin{}, Weight: 1},
		},
	}
}
