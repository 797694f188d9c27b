package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xebec-project/xebec/agent/pods/resources"
	"github.com/xebec-project/xebec/internal/failpoint"
)

func (d Dir) allotted() string { return filepath.Join(string(d), "allotted.json") }

// LoadAllotted returns what the node granted to the pod, by container, and to the pod as a whole
// under wholePod; empty when nothing is stored.
func (d Dir) LoadAllotted() (map[string]resources.Allotment, error) {
	out := map[string]resources.Allotment{}
	b, err := os.ReadFile(d.allotted())
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the allocated resources: %w", err)
	}
	return out, nil
}

// SaveAllotted stores what the node granted to the pod.
func (d Dir) SaveAllotted(all map[string]resources.Allotment) error {
	if err := writeJSON(d.allotted(), all); err != nil {
		return fmt.Errorf("saving the allocated resources: %w", err)
	}
	failpoint.Hit("allotment-recorded")
	return nil
}
