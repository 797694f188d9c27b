package kind

import "github.com/xebec-project/xebec/internal/scheme"

// replicas is where Deployments and ReplicaSets hold their number of replicas.
var replicas = &scheme.Scale{Replicas: ".spec.replicas", StatusReplicas: ".status.replicas", Selector: ".spec.selector"}

var (
	statusSubresource = scheme.Subresource{Name: "status", Verbs: []string{"patch", "update"}}
	scaleSubresource  = scheme.Subresource{Name: "scale", Verbs: []string{"get", "patch", "update"}}
	// status is for kinds whose status is their only subresource.
	status = []scheme.Subresource{statusSubresource}

	podSubresources = []scheme.Subresource{
		{Name: "attach", Verbs: []string{"create"}},
		{Name: "binding", Verbs: []string{"create"}},
		{Name: "exec", Verbs: []string{"create"}},
		{Name: "explain", Verbs: []string{"get"}},
		{Name: "log", Verbs: []string{"get"}},
		{Name: "portforward", Verbs: []string{"create"}},
		statusSubresource,
		{Name: "summary", Verbs: []string{"watch"}},
	}
	nodeSubresources = []scheme.Subresource{
		{Name: "connections", Verbs: []string{"get"}},
		{Name: "drops", Verbs: []string{"get"}},
		{Name: "images", Verbs: []string{"create", "get"}},
		{Name: "reachability", Verbs: []string{"get"}},
		{Name: "services", Verbs: []string{"get"}},
		{Name: "stats", Verbs: []string{"get"}},
		statusSubresource,
	}
	replicatedSubresources     = []scheme.Subresource{scaleSubresource, statusSubresource}
	serviceAccountSubresources = []scheme.Subresource{{Name: "token", Verbs: []string{"create"}}}
	endpointSliceSubresources  = []scheme.Subresource{{Name: "acknowledgement", Verbs: []string{"update"}}}
)
