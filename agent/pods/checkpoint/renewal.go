package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xebec-project/xebec/internal/failpoint"
)

// Renewal is the decision to restart all of a pod's containers, the initializing ones too, in the
// sandbox and with the volumes that there are. It is written down before anything is ended for it:
// how the containers end then would otherwise be taken for how they ended by themselves, and the
// pod for one that has failed.
type Renewal struct {
	// Container and Code are who asked for it, and the exit code by which it did.
	Container string
	Code      int32
}

// String is the message of the condition of the restart.
func (r *Renewal) String() string {
	return fmt.Sprintf("Container %s exited with code %d, all containers will be restarted", r.Container, r.Code)
}

func (d Dir) renewal() string { return filepath.Join(string(d), "renewing.json") }

// LoadRenewal returns nil where there is none.
func (d Dir) LoadRenewal() *Renewal {
	var r Renewal
	b, err := os.ReadFile(d.renewal())
	if err != nil || json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// SaveRenewal stores the decision.
func (d Dir) SaveRenewal(r *Renewal) error {
	if err := writeJSON(d.renewal(), r); err != nil {
		return fmt.Errorf("storing the restart of all containers: %w", err)
	}
	failpoint.Hit("renewal-recorded")
	return nil
}

// ForgetRenewal removes the decision once it is carried out. Without one it does nothing.
func (d Dir) ForgetRenewal() error {
	if err := os.Remove(d.renewal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the restart of all containers: %w", err)
	}
	failpoint.Hit("renewal-over")
	return nil
}
