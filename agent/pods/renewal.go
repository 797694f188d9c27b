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

// renewal is the decision to start all of a pod's containers anew, the initializing ones too, in the sandbox and with the
// volumes that there are. It is written down before anything is ended for it: how the containers end then would otherwise
// be taken for how they ended by themselves, and the pod for one that has failed.
type renewal struct {
	// Container and Code are who asked for it, and the exit code by which it did.
	Container string
	Code      int32
}

func (r *renewal) String() string {
	return fmt.Sprintf("Container %s exited with code %d: all containers are restarted", r.Container, r.Code)
}

func (d dir) renewal() string { return filepath.Join(string(d), "renewing.json") }

// loadRenewal returns nil where there is none.
func (d dir) loadRenewal() *renewal {
	var r renewal
	b, err := os.ReadFile(d.renewal())
	if err != nil || json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

func (d dir) saveRenewal(r *renewal) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = writeFile(d.renewal(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("noting that all containers are restarted: %w", err)
	}
	failpoint.Hit("renewal-recorded")
	return nil
}

func (d dir) forgetRenewal() error {
	if err := os.Remove(d.renewal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("noting that all containers were restarted: %w", err)
	}
	failpoint.Hit("renewal-over")
	return nil
}
