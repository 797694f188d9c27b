package core

import "github.com/xebec-project/xebec/internal/scheme"

var podSubresources = []scheme.Subresource{
	{Name: "attach", Verbs: []string{"create"}},
	{Name: "binding", Verbs: []string{"create"}},
	{Name: "ephemeralcontainers", Verbs: []string{"get", "patch", "update"}, Part: podEphemeralContainers},
	{Name: "eviction", Verbs: []string{"create"}},
	{Name: "exec", Verbs: []string{"create"}},
	{Name: "explain", Verbs: []string{"get"}},
	{Name: "log", Verbs: []string{"get"}},
	{Name: "portforward", Verbs: []string{"create"}},
	{Name: "resize", Verbs: []string{"get", "patch", "update"}, Part: podResize},
	scheme.StatusSubresource,
	{Name: "summary", Verbs: []string{"watch"}},
}

var nodeSubresources = []scheme.Subresource{
	{Name: "connections", Verbs: []string{"get"}},
	{Name: "drops", Verbs: []string{"get"}},
	{Name: "images", Verbs: []string{"create", "get"}},
	{Name: "reachability", Verbs: []string{"get"}},
	{Name: "services", Verbs: []string{"get"}},
	{Name: "stats", Verbs: []string{"get"}},
	scheme.StatusSubresource,
}

var serviceAccountSubresources = []scheme.Subresource{{Name: "token", Verbs: []string{"create"}}}
