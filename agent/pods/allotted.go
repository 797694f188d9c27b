package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xebec-project/xebec/internal/failpoint"
)

func (d dir) allotted() string { return filepath.Join(string(d), "allotted.json") }

// loadAllotted returns what the node granted to the pod, by container, and to the pod as a whole under wholePod; empty when nothing is stored.
func (d dir) loadAllotted() (map[string]allotment, error) {
	out := map[string]allotment{}
	b, err := os.ReadFile(d.allotted())
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading what was granted to the pod: %w", err)
	}
	return out, nil
}

func (d dir) saveAllotted(all map[string]allotment) error {
	b, err := json.Marshal(all)
	if err == nil {
		err = writeFile(d.allotted(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving what is granted to the pod: %w", err)
	}
	failpoint.Hit("allotment-recorded")
	return nil
}
