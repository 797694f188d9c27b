// Package static runs static pods, whose manifests are files in a directory of the node: they run,
// and are restarted, also while no master can be reached.
package static

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Annotations of static pods, the first two as Kubernetes has them.
const (
	hashAnnotation   = "kubernetes.io/config.hash"
	sourceAnnotation = "kubernetes.io/config.source"
	fileAnnotation   = "xebec.io/config.file"
)

// IsStatic reports that a pod of this node comes from a file.
func IsStatic(pod *corev1.Pod) bool {
	return pod.GetMetadata().GetAnnotations()[sourceAnnotation] == "file" && !core.IsMirrorPod(pod)
}

// Runner runs pods; pods.Set is the real one.
type Runner interface {
	Update(pod *corev1.Pod)
	Remove(uid string)
	// Confirm tells that a pod which a previous agent ran is still to run.
	Confirm(uid string)
	// Pods returns all pods that are not gone yet, those included that a previous agent ran.
	Pods() []*corev1.Pod
}

// Config says where the files are.
type Config struct {
	// Dir holds files of manifests, in YAML or JSON; it need not exist.
	Dir string
	// Node is this node's name.
	Node string
	// Every is how often the directory is looked at; default 1 s.
	Every time.Duration
	Pods  Runner
	// Problems is called with all that is wrong with the files, when that changes; with "" when
	// nothing is any more.
	Problems func(string)
	// Changed is called when there may be other static pods than before.
	Changed func()
	Log     *zap.Logger
}

// Source reads static pods. Its methods may be called concurrently.
type Source struct {
	cfg Config

	mu sync.Mutex
	// read tells that the directory was read; pods are those that are to run, by uid.
	read bool
	pods map[string]*corev1.Pod

	// What follows belongs to Run.
	files    map[string]*file
	problems string
}

// file is what was last read of a file.
type file struct {
	state string
	// pods are those of the last content that made sense.
	pods []*corev1.Pod
	// made tells that there was such a content.
	made bool
	err  error
}

// New returns a source. Only Run reads anything.
func New(cfg Config) *Source {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	return &Source{cfg: cfg, pods: map[string]*corev1.Pod{}, files: map[string]*file{}}
}

// Pods returns the static pods that are to run, and whether they are known yet.
func (s *Source) Pods() ([]*corev1.Pod, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.pods)), s.read
}

// Run follows the directory until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		s.Sync()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Sync reads the directory once and brings what runs to what it says. Run calls it; a test may,
// instead of Run.
func (s *Source) Sync() {
	names, err := s.list()
	var problems []error
	if err != nil {
		// What was read before stays: a directory that can't be read is no order to stop.
		problems = append(problems, err)
	} else {
		for name := range s.files {
			if !slices.Contains(names, name) {
				delete(s.files, name)
			}
		}
	}
	for _, name := range names {
		s.load(name)
	}
	wanted := map[string]*corev1.Pod{}
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[name]
		problems = append(problems, f.err)
		for _, pod := range f.pods {
			full := pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName()
			if other, ok := taken[full]; ok {
				problems = append(problems, fmt.Errorf("%s: pod %s is also in %s", name, full, other))
				continue
			}
			taken[full] = name
			wanted[pod.GetMetadata().GetUid()] = pod
		}
	}
	for _, pod := range s.cfg.Pods.Pods() {
		// A previous agent knew better what a file says that makes no sense now.
		f := s.files[pod.GetMetadata().GetAnnotations()[fileAnnotation]]
		if IsStatic(pod) && f != nil && f.err != nil && !f.made {
			wanted[pod.GetMetadata().GetUid()] = pod
		}
	}
	s.run(wanted, err == nil)
	s.report(errors.Join(problems...))
}

// run starts and ends pods. The next pod of a name begins when the one before has ended.
func (s *Source) run(wanted map[string]*corev1.Pod, sure bool) {
	s.mu.Lock()
	changed := !s.read || !maps.EqualFunc(s.pods, wanted, func(a, b *corev1.Pod) bool { return a == b })
	s.pods, s.read = wanted, s.read || sure
	s.mu.Unlock()
	running, names := map[string]bool{}, map[string]bool{}
	for _, pod := range s.cfg.Pods.Pods() {
		m := pod.GetMetadata()
		if !IsStatic(pod) {
			continue
		}
		running[m.GetUid()] = true
		names[m.GetNamespace()+"/"+m.GetName()] = true
		if wanted[m.GetUid()] == nil && sure {
			s.cfg.Pods.Remove(m.GetUid())
		}
	}
	for uid, pod := range wanted {
		if running[uid] {
			s.cfg.Pods.Confirm(uid)
			continue
		}
		if name := pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName(); !names[name] {
			s.cfg.Log.Info("Starting static pod", zap.String(metrics.KeyPod, name))
			s.cfg.Pods.Update(pod)
		}
	}
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}

func (s *Source) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.problems {
		return
	}
	s.problems = text
	if text != "" {
		s.cfg.Log.Warn("Invalid static pods", zap.Error(err))
	}
	if s.cfg.Problems != nil {
		s.cfg.Problems(text)
	}
}

// list returns the names of the files, which begin with no dot.
func (s *Source) list() ([]string, error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading static pods: %w", err)
	}
	var out []string
	for _, e := range entries {
		ending := filepath.Ext(e.Name())
		if !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, ending) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// load reads a file that has changed since it was last read. With a mistake in it, its pods stay
// those of before.
func (s *Source) load(name string) {
	path := filepath.Join(s.cfg.Dir, name)
	f := s.files[name]
	st, err := os.Stat(path)
	state := ""
	if err == nil {
		state = fmt.Sprint(st.Size(), st.ModTime().UnixNano(), st.Mode())
	}
	if f != nil && f.state == state && err == nil {
		return
	}
	if f == nil {
		f = &file{}
		s.files[name] = f
	}
	f.state = state
	var pods []*corev1.Pod
	if err == nil {
		pods, err = s.read1(path, name, st.ModTime())
	}
	if f.err = err; err == nil {
		f.pods, f.made = pods, true
	}
}

// read1 reads the pods of one file.
func (s *Source) read1(path, name string, changed time.Time) ([]*corev1.Pod, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	docs, err := manifest.Decode(name, r)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	var errs []error
	for _, d := range docs {
		pod, ok := d.Object.(*corev1.Pod)
		if !ok {
			errs = append(
				errs,
				&manifest.Error{Source: name, Line: d.Line, Err: fmt.Errorf("unsupported kind %s: want Pod", kinds.Of(d.Object).Name)},
			)
			continue
		}
		if err := s.complete(pod, name, changed); err != nil {
			errs = append(errs, &manifest.Error{Source: name, Line: d.Line, Err: err})
			continue
		}
		pods = append(pods, pod)
	}
	return pods, errors.Join(errs...)
}

// complete makes a pod of the node's of what a file says, and checks it as the control plane would.
func (s *Source) complete(pod *corev1.Pod, file string, changed time.Time) error {
	if pod.Metadata == nil {
		pod.Metadata = &metav1.ObjectMeta{}
	}
	m := pod.Metadata
	if m.GetName() == "" {
		return errors.New("metadata.name: required")
	}
	if m.GetNamespace() == "" {
		m.Namespace = "default"
	}
	if node := pod.GetSpec().GetNodeName(); node != "" && node != s.cfg.Node {
		return fmt.Errorf("spec.nodeName: this is node %s, not %s", s.cfg.Node, node)
	}
	m.Name += "-" + s.cfg.Node
	k := kinds.Of(pod)
	pod.Status = nil
	k.PrepareCreate(pod)
	k.Default(pod)
	pod.Spec.NodeName, pod.Spec.ServiceAccountName, pod.Spec.ServiceAccount = s.cfg.Node, "", ""
	// Nothing but its file ends it.
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, &corev1.Toleration{Operator: "Exists", Effect: "NoExecute"})
	if errs := append(k.Validate(pod), k.ValidateNew(pod)...); len(errs) > 0 {
		return errs.ToAggregate()
	}
	if refers := core.PodRefersTo(pod.GetSpec()); refers != "" {
		return fmt.Errorf("static pods must not reference objects of the control plane: %s", refers)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(pod)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(append([]byte(s.cfg.Node+"\x00"+file+"\x00"), b...))
	m.Uid = uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String()
	annotations := maps.Clone(m.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[hashAnnotation], annotations[sourceAnnotation], annotations[fileAnnotation] = m.Uid, "file", file
	m.Annotations, m.CreationTimestamp = annotations, timestamppb.New(changed.Truncate(time.Second))
	return nil
}
