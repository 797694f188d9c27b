package structure

import (
	"slices"
	"strings"
	"testing"
)

// layer is a part of the tree within which packages may import each other freely.
//
//	cmd -> cli, lab, agent, each of services -> internal -> proto
//
// A service is a layer of its own, so that services meet in protos and nowhere else.
func layer(dir string) string {
	parts := strings.Split(dir, "/")
	switch parts[0] {
	case "services", "cmd":
		if len(parts) > 1 {
			return parts[0] + "/" + parts[1]
		}
	}
	return parts[0]
}

// allowed reports whether a package of one layer may import one of another.
func allowed(from, to string) bool {
	if from == to || from == "tests" {
		return true
	}
	group, _, _ := strings.Cut(from, "/")
	target, _, _ := strings.Cut(to, "/")
	switch group {
	case "cmd":
		return slices.Contains([]string{"cli", "lab", "agent", "services", "internal", "proto"}, target)
	case "cli", "lab", "agent", "services":
		return target == "internal" || target == "proto"
	case "internal":
		return target == "proto"
	}
	return false
}

func TestAllowed(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"cmd/xebecd", "services/nodes", true},
		{"cmd/xebecd", "cmd/xebec", false},
		{"services/nodes/liveness", "services/nodes", true},
		{"services/nodes", "services/apiserver/storage", false},
		{"services/nodes", "internal/client", true},
		{"internal/client", "services/nodes", false},
		{"internal/client", "internal/kinds", true},
		{"internal/client", "proto/xebec/core/v1", true},
		{"agent/pods", "services/nodes", false},
		{"cli", "lab", false},
		{"lab", "cli", false},
		{"proto/xebec/core/v1", "proto/xebec/meta/v1", true},
		{"proto/xebec/core/v1", "internal/kinds", false},
		{"tests/e2e", "services/nodes", true},
		{"hack", "internal/kinds", false},
	} {
		if got := allowed(layer(tt.from), layer(tt.to)); got != tt.want {
			t.Errorf("%s may import %s: %t, want %t", tt.from, tt.to, got, tt.want)
		}
	}
}

// TestImports holds the one-way imports of the whole tree, tests included.
func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		own, foreign := s.imports()
		for _, imported := range own {
			if !allowed(layer(s.dir()), layer(imported)) {
				t.Errorf("%s imports %s: imports run cmd -> cli, lab, agent, services -> internal -> proto, and only tests/ may import all", s.path, imported)
			}
		}
		for _, imported := range foreign {
			if strings.HasPrefix(imported, "k8s.io/api/") && !s.test() {
				t.Errorf("%s imports %s: Kubernetes' own types are for tests to compare with", s.path, imported)
			}
			if strings.HasPrefix(imported, "github.com/google/gnostic-models/") && !s.test() && s.dir() != "internal/schema/openapi/generate" {
				t.Errorf("%s imports %s: only the generator of OpenAPI documents requires it, no program", s.path, imported)
			}
		}
	}
}
