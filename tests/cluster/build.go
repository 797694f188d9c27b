package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build returns a directory with the project's programs: the one that XEBEC_BIN names or, when it
// names none, a new one with what is built from this source tree. Remove it by remove, when no
// cluster runs any more.
func Build(ctx context.Context, programs ...string) (dir string, remove func(), err error) {
	remove = func() {}
	if dir := os.Getenv("XEBEC_BIN"); dir != "" {
		for _, program := range programs {
			if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
				return "", remove, fmt.Errorf("XEBEC_BIN: %w", err)
			}
		}
		dir, err = filepath.Abs(dir)
		return dir, remove, err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", remove, fmt.Errorf("find the source tree: %w", err)
	}
	if dir, err = os.MkdirTemp("", "xebec-bin-"); err != nil {
		return "", remove, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	// Others run them too: a test may, as a user without rights.
	if err := os.Chmod(dir, 0o755); err != nil {
		remove()
		return "", func() {}, err
	}
	arguments := []string{"build", "-trimpath", "-o", dir + "/"}
	for _, program := range programs {
		arguments = append(arguments, "./cmd/"+program)
	}
	build := exec.CommandContext(ctx, "go", arguments...)
	build.Dir, build.Env = strings.TrimSpace(string(root)), append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		remove()
		return "", func() {}, fmt.Errorf("build %s: %w\n%s", strings.Join(programs, ", "), err, output)
	}
	return dir, remove, nil
}
