package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/failpoint"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// exit is how one attempt of a container ended.
type exit struct {
	ContainerID string
	Code        int32
	Reason      string
	Message     string
	StartedAt   time.Time
	FinishedAt  time.Time
}

// record is what must be known of a container after a crash of the agent and can't be asked of containerd.
type record struct {
	// Attempt is the number of the current attempt, which is also the count of restarts. Renewed is the one with which the pod
	// last began anew.
	Attempt, Renewed int
	// Image and ImageID are the full name and digest of the image of the current attempt, Asked the name in the spec.
	Image, ImageID, Asked string
	// StartedAt is when the current attempt was started, zero before.
	StartedAt time.Time
	// Exit is how the current attempt ended, nil before.
	Exit *exit
	// Last is how the attempt before the current one ended.
	Last *exit
	// Crashes counts the restarts since the container last ran for long.
	Crashes int
	// Applied is what the current attempt is bounded to, and Shared what it is by the pod's limits where it has none of its own;
	// both are nil where the agent that started it did not write that down.
	Applied *allotment
	Shared  map[string]string
}

// begun tells whether the container was started, or tried to, since the pod began.
func (r record) begun() bool { return r.Attempt > r.Renewed || !r.StartedAt.IsZero() || r.Exit != nil }

// next is the record of the attempt after one that has ended.
func (r record) next() record {
	if r.Exit.FinishedAt.Sub(r.Exit.StartedAt) >= stableAfter {
		r.Crashes = 0
	}
	r.Last, r.Exit, r.StartedAt = r.Exit, nil, time.Time{}
	r.Attempt++
	return r
}

// dir is a pod's directory.
type dir string

func (d dir) sandbox() string           { return filepath.Join(string(d), "ns") }
func (d dir) pod() string               { return filepath.Join(string(d), "pod.pb") }
func (d dir) termination() string       { return filepath.Join(string(d), "terminating") }
func (d dir) etc(name string) string    { return filepath.Join(string(d), "etc", name) }
func (d dir) volume(name string) string { return filepath.Join(string(d), "volumes", name) }
func (d dir) record(container string) string {
	return filepath.Join(string(d), "containers", container+".json")
}
func (d dir) log(container string, n int) string {
	return filepath.Join(string(d), "logs", container, strconv.Itoa(n)+".log")
}
func (d dir) streams(container string) string {
	return filepath.Join(string(d), "streams", container)
}
func (d dir) message(container string, n int) string {
	return filepath.Join(string(d), "messages", container+"-"+strconv.Itoa(n))
}

// writeFile replaces a file at once. It is not synced: after a power failure no container runs any more, and what an
// agent's crash must not lose is in the kernel's hands.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	failpoint.Hit("pod-file-written")
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	failpoint.Hit("pod-file-replaced")
	return nil
}

func (d dir) saveRecord(container string, r record) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = writeFile(d.record(container), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving the record of container %s: %w", container, err)
	}
	return nil
}

// loadRecord returns the zero record for a container that has none, or one that can't be read: such a container counts as
// never started, unless containerd knows better.
func (d dir) loadRecord(container string) record {
	var r record
	b, err := os.ReadFile(d.record(container))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return record{}
	}
	return r
}

func saveMessage(path string, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err == nil {
		err = writeFile(path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", path, err)
	}
	return nil
}

func loadMessage(path string, m proto.Message) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// terminatingSince returns when the pod's termination began, and notes that it does now when it had not yet. It survives
// the agent so that a restart does not give the pod its grace period anew.
func (d dir) terminatingSince(now time.Time) (time.Time, error) {
	b, err := os.ReadFile(d.termination())
	if err == nil {
		if at, err := time.Parse(time.RFC3339Nano, string(b)); err == nil && !at.After(now) {
			return at, nil
		}
	}
	return now, writeFile(d.termination(), []byte(now.Format(time.RFC3339Nano)), 0o600)
}

// forgetTermination lets the next termination begin anew.
func (d dir) forgetTermination() error {
	if err := os.Remove(d.termination()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removedPrefix begins the names of pods' directories on their way out.
const removedPrefix = ".removed-"

// remove removes the pod's directory. It goes at once, as far as the next agent sees: half a directory might hold a pod that
// is taken up again, or might not and stay for ever.
func (d dir) remove() error {
	if err := os.RemoveAll(d.secrets()); err != nil {
		return err
	}
	aside := filepath.Join(filepath.Dir(string(d)), removedPrefix+filepath.Base(string(d)))
	if err := os.Rename(string(d), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	failpoint.Hit("pod-directory-aside")
	return os.RemoveAll(aside)
}

// sweep finishes removals that were cut off.
func sweep(stateDir string) error {
	aside, err := filepath.Glob(filepath.Join(stateDir, removedPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range aside {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing what is left of a pod: %w", err)
		}
	}
	return nil
}

// podDirs returns the uids of the pods that have a directory, whole or not.
func podDirs(stateDir string) ([]string, error) {
	entries, err := os.ReadDir(stateDir)
	if err != nil {
		return nil, err
	}
	var uids []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			uids = append(uids, e.Name())
		}
	}
	return uids, nil
}

// loadPods returns the pods that have a directory.
func loadPods(stateDir string) (map[string]*corev1.Pod, []error) {
	var errs []error
	out := map[string]*corev1.Pod{}
	entries, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		pod := &corev1.Pod{}
		err := loadMessage(dir(filepath.Join(stateDir, e.Name())).pod(), pod)
		if err != nil || pod.GetMetadata().GetUid() != e.Name() {
			errs = append(errs, fmt.Errorf("reading the pod kept in %s: %w", e.Name(), errors.Join(err, errMismatch)))
			continue
		}
		out[e.Name()] = pod
	}
	return out, errs
}

// Known returns the uids of the pods that an agent before this one ran.
func Known(stateDir string) []string {
	known, _ := loadPods(stateDir)
	return slices.Collect(maps.Keys(known))
}

var errMismatch = errors.New("not a whole pod of that uid")
