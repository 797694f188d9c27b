package resolve

import (
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"pods", "services", "deployments", "po", "svc"}
	for word, want := range map[string]string{"pds": "pods", "deploymetns": "deployments", "servces": "services", "spaceships": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %s is %q, want %q", word, got, want)
		}
	}
}
