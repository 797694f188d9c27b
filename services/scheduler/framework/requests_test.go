package framework_test

import (
	"testing"

	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
)

// TestResizedPodsCountForTheMost counts a pod that is being resized for what it requests or has
// been granted, whichever is more, and only for the latter while the resize is infeasible.
func TestResizedPodsCountForTheMost(t *testing.T) {
	whole := func(conditions string) string {
		return `"resources":{"requests":{"cpu":"2","memory":"1Gi"}},
			"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}]},
			"status":{"allocatedResources":{"cpu":"1500m","memory":"3Gi"},"conditions":[` + conditions + `]`
	}
	container := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"containerStatuses":[{"name":"a","allocatedResources":{"cpu":"1500m","memory":"3Gi"}}],"conditions":[` + conditions + `]`
	}
	sidecar := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a"}],"initContainers":[{"name":"s","image":"a","restartPolicy":"Always",
				"resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"initContainerStatuses":[{"name":"s","allocatedResources":{"cpu":"1","memory":"1Gi"},
				"resources":{"requests":{"cpu":"1500m","memory":"3Gi"}}}],"conditions":[` + conditions + `]`
	}
	inForce := func(conditions string) string {
		return `"containers":[{"name":"a","image":"a","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}]},
			"status":{"containerStatuses":[{"name":"a","allocatedResources":{"cpu":"1","memory":"1Gi"},
				"resources":{"requests":{"cpu":"1500m","memory":"3Gi"}}}],"conditions":[` + conditions + `]`
	}
	const infeasible = `{"type":"PodResizePending","status":"True","reason":"Infeasible"}`
	for name, c := range map[string]struct {
		spec string
		cpu  int64
	}{
		"the pod":                          {whole(""), 2000},
		"the pod, infeasible":              {whole(infeasible), 1500},
		"a container":                      {container(""), 2000},
		"a container, infeasible":          {container(infeasible), 1500},
		"a sidecar":                        {sidecar(""), 2000},
		"a sidecar, infeasible":            {sidecar(infeasible), 1500},
		"a container that is still larger": {inForce(""), 2000},
		"a container that is still larger, infeasible": {inForce(infeasible), 1500},
	} {
		if got := frameworktest.Pod(t, "a", "n", c.spec); got.Request("cpu") != c.cpu || got.Request("memory") != 3<<30 {
			t.Errorf("%s: %v", name, got.Requests)
		}
	}
}
