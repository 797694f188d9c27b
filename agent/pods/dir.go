package pods

import (
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

	"github.com/xebec-project/xebec/internal/failpoint"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"google.golang.org/protobuf/proto"
)

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

func (d dir) began() string { return filepath.Join(string(d), "began") }

// loadBegan returns when the pod came to the node, now for one that has just come.
func (d dir) loadBegan(pod *corev1.Pod) time.Time {
	if t := pod.GetStatus().GetStartTime(); t != nil {
		return t.AsTime()
	}
	if b, err := os.ReadFile(d.began()); err == nil {
		if at, err := time.Parse(time.RFC3339Nano, string(b)); err == nil {
			return at
		}
	}
	return time.Now()
}

// saveBegan stores when the pod came to the node, for an agent that starts before the control plane knows.
func (d dir) saveBegan(pod *corev1.Pod, at time.Time) error {
	if pod.GetStatus().GetStartTime() != nil {
		return nil
	}
	if _, err := os.Stat(d.began()); err == nil {
		return nil
	}
	if err := writeFile(d.began(), []byte(at.Format(time.RFC3339Nano)), 0o600); err != nil {
		return fmt.Errorf("noting when the pod began: %w", err)
	}
	return nil
}
