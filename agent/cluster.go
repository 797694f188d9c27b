package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/pods/tokens"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// controlPlane is pods.Cluster on the API.
type controlPlane struct {
	c      *client.Client
	tokens authv1.TokenServiceClient
	root   rootCA
}

// Token implements pods.Cluster.
func (p controlPlane) Token(ctx context.Context, pod *corev1.Pod, r tokens.Request) (string, time.Time, error) {
	m := pod.GetMetadata()
	req := &authv1.CreateTokenRequest{
		Namespace: m.GetNamespace(), ServiceAccount: pod.GetSpec().GetServiceAccountName(), ExpirationSeconds: r.Seconds,
		BoundPod: &authv1.BoundPod{Name: m.GetName(), Uid: m.GetUid()},
	}
	if r.Audience != "" {
		req.Audiences = []string{r.Audience}
	}
	resp, err := p.tokens.CreateToken(ctx, req)
	return resp.GetToken(), resp.GetExpirationTimestamp().AsTime(), err
}

func (p controlPlane) UpdateStatus(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	stored, err := client.UpdateStatus(ctx, p.c, pod)
	if !apierr.IsConflict(err) {
		return stored, err
	}
	// Another client changed the pod since it was read. The agent owns its status, unless another pod
	// has the name by now.
	now, err := client.Get[*corev1.Pod](ctx, p.c, pod.GetMetadata().GetNamespace(), pod.GetMetadata().GetName())
	if err != nil {
		return nil, err
	}
	if now.GetMetadata().GetUid() != pod.GetMetadata().GetUid() {
		return nil, apierr.NotFound(kinds.Of(pod), pod.GetMetadata().GetName())
	}
	now = client.Clone(now)
	now.Status = pod.GetStatus()
	return client.UpdateStatus(ctx, p.c, now)
}

func (p controlPlane) Delete(ctx context.Context, pod *corev1.Pod) error {
	m := pod.GetMetadata()
	_, err := client.Delete[*corev1.Pod](ctx, p.c, m.GetNamespace(), m.GetName(), client.GracePeriod(0), client.IfUID(m.GetUid()))
	if apierr.IsConflict(err) {
		now, getErr := client.Get[*corev1.Pod](ctx, p.c, m.GetNamespace(), m.GetName())
		if getErr == nil && now.GetMetadata().GetUid() == m.GetUid() {
			return err
		}
		// Another pod has the name: this one is gone.
		err = getErr
	}
	if apierr.IsNotFound(err) {
		return nil
	}
	return err
}

func (p controlPlane) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	if name == core.RootCAConfigMap {
		return p.root.configMap(namespace), nil
	}
	return client.Get[*corev1.ConfigMap](ctx, p.c, namespace, name)
}

func (p controlPlane) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return client.Get[*corev1.Secret](ctx, p.c, namespace, name)
}

// RuntimeClass implements pods.Cluster.
func (p controlPlane) RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return client.Get[*nodev1.RuntimeClass](ctx, p.c, "", name)
}

// Follow implements pods.Cluster. A watch that is refused, as when the pod is not yet known to be
// this node's, is tried again by the informer.
func (p controlPlane) Follow(ctx context.Context, kind, namespace, name string, changed func()) {
	if isRootCA(kind, name) {
		p.root.follow(ctx, changed)
		return
	}
	if kind == "Secret" {
		follow[*corev1.Secret](ctx, p.c, namespace, name, changed)
		return
	}
	follow[*corev1.ConfigMap](ctx, p.c, namespace, name, changed)
}

func follow[T scheme.Object](ctx context.Context, c *client.Client, namespace, name string, changed func()) {
	i := client.NewInformer(c, client.InformerOptions[T]{Namespace: namespace, FieldSelector: "metadata.name=" + name, MetadataOnly: true})
	i.OnChange(func(T, T) { changed() })
	_ = i.Run(ctx)
}

// recorder is pods.Recorder on events.
type recorder struct{ r *events.Recorder }

func (r recorder) Event(pod *corev1.Pod, eventType, reason, message string) {
	r.r.Event(pod, eventType, reason, "%s", message)
}

// network is pods.Network on podnet and the policies' enforcer.
type network struct {
	n        *podnet.Network
	datapath *datapath.Datapath
	enforcer *policy.Enforcer
}

func (n network) Setup(ctx context.Context, pod *corev1.Pod, netns string) (netip.Addr, error) {
	r, err := n.n.Setup(ctx, pod.GetMetadata().GetUid(), netns)
	if err != nil {
		return netip.Addr{}, err
	}
	if err := n.datapath.GuardPod(r.Index); err != nil {
		return netip.Addr{}, fmt.Errorf("attaching the overlay filter: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, policyPatience)
	defer cancel()
	own := []netip.Addr{r.IP}
	if r.IP6.IsValid() {
		own = append(own, r.IP6)
	}
	return r.IP, n.enforcer.Admit(ctx, pod, own, policy.Endpoint{Index: r.Index, Netns: netns})
}

func (n network) Teardown(ctx context.Context, uid string) error {
	if err := n.n.Teardown(ctx, uid); err != nil {
		return err
	}
	return n.enforcer.Forget(uid)
}
