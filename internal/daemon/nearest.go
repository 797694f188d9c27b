package daemon

import (
	"strings"

	"github.com/xebec-project/xebec/internal/spelling"
)

// nearest returns the key of known that a mistyped word is closest to, empty when none is close.
func nearest[V any](word string, known map[string]V) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for candidate := range known {
		d := spelling.Distance(strings.ToLower(word), strings.ToLower(candidate))
		if d < bestDistance || d == bestDistance && best != "" && candidate < best {
			best, bestDistance = candidate, d
		}
	}
	return best
}
