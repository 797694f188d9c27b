package core_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func ephemeral(name, target string, edit ...func(*corev1.Container)) *corev1.EphemeralContainer {
	c := &corev1.Container{Name: name, Image: "busybox:1"}
	for _, e := range edit {
		e(c)
	}
	return core.NewEphemeralContainer(c, target)
}

func TestEphemeralContainers(t *testing.T) {
	const at = "spec.ephemeralContainers[0]."
	add := func(e *corev1.EphemeralContainer) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, e) }
	}
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "fine", Edit: add(ephemeral("debug", "web")), Want: nil},
		{Name: "name and target", Edit: add(ephemeral("web", "wab")), Want: []string{at + `name: Duplicate value: "web"`, at + `targetContainerName: Not found: "wab"`}},
		{Name: "what others have", Edit: add(ephemeral("debug", "", func(c *corev1.Container) {
			c.Ports = []*corev1.ContainerPort{{ContainerPort: 80}}
			c.LivenessProbe = probe(tcp(object.Count(80)))
			c.Resources = &corev1.ResourceRequirements{Limits: kindtest.Amounts("cpu", "1")}
			c.Lifecycle = &corev1.Lifecycle{}
		})), Want: []string{at + "ports: Forbidden", at + "livenessProbe: Forbidden", at + "lifecycle: Forbidden", at + "resources: Forbidden"}},
		{Name: "volumes", Edit: func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{{Name: "data"}}
			add(ephemeral("debug", "", func(c *corev1.Container) {
				c.VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "data", MountPath: "/x", SubPath: "x"}, {Name: "date", MountPath: "/y"}}
			}))(p)
		}, Want: []string{at + `volumeMounts[2].name: Not found: "date"`, at + "volumeMounts[1].subPath: Forbidden"}},
	})
	base := func() *corev1.Pod {
		p := pod()
		add(ephemeral("first", ""))(p)
		return p
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.Pod]{
		{Name: "added by a plain update", Edit: add(ephemeral("second", "web")), Want: []string{"spec: Forbidden: pod updates may not change fields other than"}},
	})
	kindtest.Part(t, "ephemeralcontainers", base, []kindtest.Edit[*corev1.Pod]{
		{Name: "added, with another change that is ignored", Edit: func(p *corev1.Pod) {
			add(ephemeral("second", "web"))(p)
			p.Spec.Hostname = "other"
		}, Want: nil},
		{Name: "added", Edit: add(ephemeral("second", "web")), Want: nil},
		{Name: "removed", Edit: func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil }, Want: []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "first" may not be removed`}},
		{Name: "changed", Edit: func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].EphemeralContainerCommon.Image = "other" },
			Want: []string{`spec.ephemeralContainers: Forbidden: existing ephemeral containers "first" may not be changed`}},
	})
}

func TestEphemeralContainersComeLater(t *testing.T) {
	p := pod()
	p.Spec.EphemeralContainers = []*corev1.EphemeralContainer{ephemeral("debug", "")}
	k := kinds.Of(p)
	k.Default(p)
	kindtest.Expect(t, k.Validate(p), nil)
	kindtest.Expect(t, k.ValidateNew(p), []string{"spec.ephemeralContainers: Forbidden: cannot be set on create"})
	if c := core.EphemeralContainers(p.Spec)[0]; c.GetImagePullPolicy() != "IfNotPresent" || c.GetTerminationMessagePath() != core.DefaultMessagePath {
		t.Errorf("defaults of an ephemeral container: %v", c)
	}
	was, now := proto.CloneOf(p), proto.CloneOf(p)
	was.Metadata.Annotations = map[string]string{core.MirrorAnnotation: "x"}
	was.Status = &corev1.PodStatus{Phase: "Failed"}
	now.Metadata = proto.CloneOf(was.Metadata)
	now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, ephemeral("more", ""))
	part := k.Part("ephemeralcontainers")
	kindtest.Expect(t, part.Validate(now, was), []string{"[]: Forbidden: static pods do not support ephemeral containers"})
	was.Metadata.Annotations = nil
	kindtest.Expect(t, part.Validate(now, was), []string{"spec.ephemeralContainers: Forbidden: the pod has ended: it is Failed"})
}

func TestBidirectionalMountsNeedPrivilege(t *testing.T) {
	mount := func(privileged bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{{Name: "data"}}
			p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data", MountPropagation: proto.String("Bidirectional")}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &privileged}
		}
	}
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "privileged", Edit: mount(true), Want: nil},
		{Name: "not privileged", Edit: mount(false), Want: []string{"spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"}},
	})
}
