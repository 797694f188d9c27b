package session

import (
	"os"
	"strings"
)

// Program returns the command line in the first of some environment variables that is set, without
// spaces around it; empty when none is.
func Program(variables ...string) string {
	for _, name := range variables {
		if value := strings.TrimSpace(os.Getenv(name)); value != "" {
			return value
		}
	}
	return ""
}
