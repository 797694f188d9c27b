package static

import (
	"context"
	"maps"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// mirrorEvery is how often mirrors that could not be brought in order are tried again, and all are
// looked at.
const mirrorEvery = 5 * time.Second

// Mirrors shows static pods in the API, by a pod object for each. Such an object only shows: its
// deletion makes it come again.
type Mirrors struct {
	Source *Source
	Client *client.Client
	Node   string
	// Stored returns the pods of this node that the control plane knows.
	Stored func() []*corev1.Pod
	// NodeUID returns the uid of the node's object, empty while it is not known.
	NodeUID func() string
	Log     *zap.Logger

	// Wake makes Run look at once.
	Wake chan struct{}
}

// Nudge makes Run look at once.
func (m *Mirrors) Nudge() {
	select {
	case m.Wake <- struct{}{}:
	default:
	}
}

// Run keeps the mirrors in order until ctx ends. Stored must be complete when it is called.
func (m *Mirrors) Run(ctx context.Context) error {
	tick := time.NewTicker(mirrorEvery)
	defer tick.Stop()
	for {
		if pods, known := m.Source.Pods(); known && m.NodeUID() != "" {
			m.sync(ctx, pods)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.Wake:
		case <-tick.C:
		}
	}
}

func (m *Mirrors) sync(ctx context.Context, pods []*corev1.Pod) {
	missing := map[string]*corev1.Pod{}
	for _, p := range pods {
		missing[p.GetMetadata().GetNamespace()+"/"+p.GetMetadata().GetName()] = p
	}
	for _, stored := range m.Stored() {
		if !core.IsMirrorPod(stored) {
			continue
		}
		meta := stored.GetMetadata()
		name := meta.GetNamespace() + "/" + meta.GetName()
		static := missing[name]
		if static != nil && hashOf(stored) == static.GetMetadata().GetUid() && meta.GetDeletionTimestamp() == nil {
			delete(missing, name)
			continue
		}
		_, err := client.Delete[*corev1.Pod](
			ctx,
			m.Client,
			meta.GetNamespace(),
			meta.GetName(),
			client.GracePeriod(0),
			client.IfUID(meta.GetUid()),
		)
		if err != nil && !apierr.IsNotFound(err) {
			m.Log.Warn("Failed to delete mirror pod", zap.String(metrics.KeyPod, name), zap.Error(err))
			delete(missing, name)
		}
	}
	for name, static := range missing {
		if _, err := client.Create(ctx, m.Client, m.mirror(static)); err != nil && !apierr.IsAlreadyExists(err) {
			m.Log.Warn("Failed to create mirror pod", zap.String(metrics.KeyPod, name), zap.Error(err))
		}
	}
}

// hashOf identifies the static pod that a mirror shows.
func hashOf(pod *corev1.Pod) string {
	return pod.GetMetadata().GetAnnotations()[core.MirrorAnnotation]
}

// mirror is the object that shows a static pod.
func (m *Mirrors) mirror(static *corev1.Pod) *corev1.Pod {
	meta := static.GetMetadata()
	annotations := maps.Clone(meta.GetAnnotations())
	annotations[core.MirrorAnnotation] = meta.GetUid()
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: meta.GetName(), Namespace: meta.GetNamespace(), Labels: meta.GetLabels(), Annotations: annotations,
			OwnerReferences: []*metav1.OwnerReference{
				{ApiVersion: "v1", Kind: "Node", Name: m.Node, Uid: m.NodeUID(), Controller: proto.Bool(true)},
			},
		},
		Spec: proto.CloneOf(static.GetSpec()),
	}
}

// Shown is the static pod that a mirror shows, with the status that the mirror has; nil when there
// is no such pod any more.
func (m *Mirrors) Shown(mirror *corev1.Pod) *corev1.Pod {
	all, _ := m.Source.Pods()
	for _, p := range all {
		if p.GetMetadata().GetUid() == hashOf(mirror) {
			return withStatus(p, mirror)
		}
	}
	return nil
}

// withStatus is a static pod with what its mirror says of it.
func withStatus(static, mirror *corev1.Pod) *corev1.Pod {
	out := proto.CloneOf(static)
	out.Status, out.Metadata.ResourceVersion = mirror.GetStatus(), mirror.GetMetadata().GetResourceVersion()
	return out
}

// UpdateStatus tells a static pod's status by its mirror, and returns the static pod with the
// status as stored. Without a mirror it fails in a way that asks for another try.
func (m *Mirrors) UpdateStatus(ctx context.Context, static *corev1.Pod) (*corev1.Pod, error) {
	meta := static.GetMetadata()
	stored, err := client.Get[*corev1.Pod](ctx, m.Client, meta.GetNamespace(), meta.GetName())
	if apierr.IsNotFound(err) || err == nil && hashOf(stored) != meta.GetUid() {
		return nil, apierr.Unavailable("static pod %s has no mirror pod yet", meta.GetName())
	}
	if err != nil {
		return nil, err
	}
	stored = client.Clone(stored)
	stored.Status = static.GetStatus()
	if stored, err = client.UpdateStatus(ctx, m.Client, stored); err != nil {
		return nil, err
	}
	return withStatus(static, stored), nil
}
