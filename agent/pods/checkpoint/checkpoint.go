// Package checkpoint stores on disk what an agent must know of a pod after a crash and cannot ask
// containerd: the pod, the attempts of its containers and how they ended, and what was granted to
// it. Each file is replaced atomically.
package checkpoint

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

// Dir is a pod's directory.
type Dir string

// Sandbox is where the pod's namespaces are pinned.
func (d Dir) Sandbox() string { return filepath.Join(string(d), "ns") }

// Pod is the file of the pod itself.
func (d Dir) Pod() string { return filepath.Join(string(d), "pod.pb") }

func (d Dir) termination() string { return filepath.Join(string(d), "terminating") }

// Etc is the file of that name below /etc that all containers share.
func (d Dir) Etc(name string) string { return filepath.Join(string(d), "etc", name) }

// Volume is the directory of a volume; with an empty name, of all volumes.
func (d Dir) Volume(name string) string { return filepath.Join(string(d), "volumes", name) }

func (d Dir) record(container string) string {
	return filepath.Join(string(d), "containers", container+".json")
}

// Log is the log of the n-th attempt of a container.
func (d Dir) Log(container string, n int) string {
	return filepath.Join(string(d), "logs", container, strconv.Itoa(n)+".log")
}

// Streams is where the keeper of a container's standard streams listens.
func (d Dir) Streams(container string) string {
	return filepath.Join(string(d), "streams", container)
}

// Message is the termination message of the n-th attempt of a container.
func (d Dir) Message(container string, n int) string {
	return filepath.Join(string(d), "messages", container+"-"+strconv.Itoa(n))
}

// writeJSON stores a value as JSON by WriteFile, for the agent's user alone.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFile(path, b, 0o600)
}

// WriteFile replaces a file at once. It is not synced: after a power failure no container runs any
// more, and what an agent's crash must not lose is in the kernel's hands.
func WriteFile(path string, content []byte, mode fs.FileMode) error {
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

// SaveMessage replaces a file by an encoded message.
func SaveMessage(path string, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err == nil {
		err = WriteFile(path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", path, err)
	}
	return nil
}

// LoadMessage reads what SaveMessage wrote.
func LoadMessage(path string, m proto.Message) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// TerminatingSince returns when the pod's termination began, and notes that it does now when it had
// not yet. It survives the agent so that a restart does not give the pod its grace period again.
func (d Dir) TerminatingSince(now time.Time) (time.Time, error) {
	b, err := os.ReadFile(d.termination())
	if err == nil {
		if at, err := time.Parse(time.RFC3339Nano, string(b)); err == nil && !at.After(now) {
			return at, nil
		}
	}
	return now, WriteFile(d.termination(), []byte(now.Format(time.RFC3339Nano)), 0o600)
}

// ForgetTermination lets the next termination begin with a whole grace period.
func (d Dir) ForgetTermination() error {
	if err := os.Remove(d.termination()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removedPrefix begins the names of pods' directories on their way out.
const removedPrefix = ".removed-"

// Remove removes the pod's directory. It goes at once, as far as the next agent sees: half a
// directory might hold a pod that is taken up again, or might not and stay for ever.
func (d Dir) Remove() error {
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

// Sweep finishes removals that were cut off.
func Sweep(stateDir string) error {
	aside, err := filepath.Glob(filepath.Join(stateDir, removedPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range aside {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing the directory of a deleted pod: %w", err)
		}
	}
	return nil
}

// PodDirs returns the uids of the pods that have a directory, whole or not.
func PodDirs(stateDir string) ([]string, error) {
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

// LoadPods returns the pods that have a directory.
func LoadPods(stateDir string) (map[string]*corev1.Pod, []error) {
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
		err := LoadMessage(Dir(filepath.Join(stateDir, e.Name())).Pod(), pod)
		if err != nil || pod.GetMetadata().GetUid() != e.Name() {
			errs = append(errs, fmt.Errorf("reading the saved pod in %s: %w", e.Name(), errors.Join(err, errMismatch)))
			continue
		}
		out[e.Name()] = pod
	}
	return out, errs
}

// Known returns the uids of the pods that a previous agent ran.
func Known(stateDir string) []string {
	known, _ := LoadPods(stateDir)
	return slices.Collect(maps.Keys(known))
}

var errMismatch = errors.New("incomplete pod, or a pod with another UID")

func (d Dir) handler() string { return filepath.Join(string(d), "handler") }

// LoadHandler returns the runtime handler of the pod; false when none was stored.
func (d Dir) LoadHandler() (string, bool) {
	b, err := os.ReadFile(d.handler())
	return string(b), err == nil
}

// SaveHandler stores the runtime handler of the pod, which never changes.
func (d Dir) SaveHandler(name string) error {
	if err := WriteFile(d.handler(), []byte(name), 0o600); err != nil {
		return fmt.Errorf("storing the runtime handler of the pod: %w", err)
	}
	return nil
}

func (d Dir) began() string { return filepath.Join(string(d), "began") }

// LoadBegan returns when the pod came to the node, now for one that has just come.
func (d Dir) LoadBegan(pod *corev1.Pod) time.Time {
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

// SaveBegan stores when the pod came to the node, for an agent that starts before the control plane
// knows.
func (d Dir) SaveBegan(pod *corev1.Pod, at time.Time) error {
	if pod.GetStatus().GetStartTime() != nil {
		return nil
	}
	if _, err := os.Stat(d.began()); err == nil {
		return nil
	}
	if err := WriteFile(d.began(), []byte(at.Format(time.RFC3339Nano)), 0o600); err != nil {
		return fmt.Errorf("storing the start time of the pod: %w", err)
	}
	return nil
}
