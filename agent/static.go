package agent

import (
	"context"

	"github.com/xebec-project/xebec/agent/component"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/static"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// staticPods are the static pods of the node and their mirror pods.
type staticPods struct {
	set     *pods.Set
	source  *static.Source
	mirrors *static.Mirrors
}

// newStaticPods prepares the mirrors, which the set's statuses go by; start gives them their pods.
// It returns nil for a node without a directory of static pods.
func (a *Agent) newStaticPods(w *watches) *staticPods {
	if a.cfg.StaticPods == "" {
		return nil
	}
	return &staticPods{mirrors: &static.Mirrors{
		Client: a.client, Node: a.cfg.Node, Log: a.log, Wake: make(chan struct{}, 1), Stored: w.pods.List,
		NodeUID: func() string {
			node, _ := w.nodes.Get("", a.cfg.Node)
			return node.GetMetadata().GetUid()
		},
	}}
}

// start runs the pods of the directory, and reports what is wrong with it in the node's conditions
// and events.
func (s *staticPods) start(ctx context.Context, tasks *component.Tasks, n *node) {
	object := &corev1.Node{Metadata: &metav1.ObjectMeta{Name: n.cfg.Node, Uid: n.cfg.Node}}
	s.source = static.New(static.Config{
		Dir: n.cfg.StaticPods, Node: n.cfg.Node, Pods: n.pods, Changed: s.mirrors.Nudge, Log: n.log,
		Problems: func(text string) {
			n.registrar.setStaticProblems(text)
			if text != "" {
				n.recorder.Event(object, "Warning", "InvalidStaticPod", "%s", text)
			}
		},
	})
	s.set, s.mirrors.Source = n.pods, s.source
	tasks.Go(func() error { return s.source.Run(ctx) })
	tasks.Go(func() error {
		if err := n.watches.pods.WaitForSync(ctx); err != nil {
			return err
		}
		return s.mirrors.Run(ctx)
	})
}

// cluster is pods.Cluster for pods of both origins.
type cluster struct {
	controlPlane
	static *staticPods
}

// UpdateStatus implements pods.Cluster.
func (c cluster) UpdateStatus(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	if c.static != nil && static.IsStatic(pod) {
		return c.static.mirrors.UpdateStatus(ctx, pod)
	}
	return c.controlPlane.UpdateStatus(ctx, pod)
}

// Delete implements pods.Cluster.
func (c cluster) Delete(ctx context.Context, pod *corev1.Pod) error {
	if static.IsStatic(pod) {
		return nil
	}
	return c.controlPlane.Delete(ctx, pod)
}

// mirrored reports whether a pod that the control plane knows only shows what runs here by a file.
func (s *staticPods) mirrored(pod *corev1.Pod) bool {
	if !core.IsMirrorPod(pod) {
		return false
	}
	if s == nil {
		return true
	}
	s.mirrors.Nudge()
	// A mirror pod that was created again has no status, which is then written again.
	if shown := s.mirrors.Shown(pod); shown != nil && pod.GetMetadata().GetDeletionTimestamp() == nil {
		s.set.Update(shown)
	}
	return true
}

// known adds the uids of static pods to those of the pods that are not to be stopped.
func (s *staticPods) known(set *pods.Set, uids map[string]bool) {
	if s == nil {
		return
	}
	for _, p := range set.Pods() {
		if static.IsStatic(p) {
			uids[p.GetMetadata().GetUid()] = true
		}
	}
}
