package core

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// MirrorAnnotation marks the mirror pod in the API of a static pod, which a node runs from a file.
// Its value identifies the file's content.
const MirrorAnnotation = "kubernetes.io/config.mirror"

// IsMirrorPod reports whether a pod mirrors a static pod.
func IsMirrorPod(p *corev1.Pod) bool { return p.GetMetadata().GetAnnotations()[MirrorAnnotation] != "" }

// EphemeralContainers returns the pod's ephemeral containers as containers, without their targets.
func EphemeralContainers(s *corev1.PodSpec) []*corev1.Container {
	out := make([]*corev1.Container, 0, len(s.GetEphemeralContainers()))
	for _, e := range s.GetEphemeralContainers() {
		c := &corev1.Container{}
		convert(e.GetEphemeralContainerCommon(), c)
		out = append(out, c)
	}
	return out
}

// NewEphemeralContainer makes an ephemeral container of a container.
func NewEphemeralContainer(c *corev1.Container, target string) *corev1.EphemeralContainer {
	e := &corev1.EphemeralContainer{EphemeralContainerCommon: &corev1.EphemeralContainerCommon{}, TargetContainerName: target}
	convert(c, e.EphemeralContainerCommon)
	return e
}

// convert copies between Container and EphemeralContainerCommon, whose fields have the same numbers
// and types.
func convert(from, to proto.Message) {
	b, err := proto.Marshal(from)
	if err == nil {
		err = proto.Unmarshal(b, to)
	}
	if err != nil {
		// A string that is not UTF-8 cannot have been received; the empty message is refused by
		// validation.
		proto.Reset(to)
	}
}

func defaultEphemeral(e *corev1.EphemeralContainer) {
	c := &corev1.Container{}
	convert(e.GetEphemeralContainerCommon(), c)
	defaultContainer(c, false)
	e.EphemeralContainerCommon = &corev1.EphemeralContainerCommon{}
	convert(c, e.EphemeralContainerCommon)
}

// checkEphemeral checks the pod's ephemeral containers; seen holds the names of the others.
func checkEphemeral(c *rules.Checker, p *field.Path, s *corev1.PodSpec, volumes, seen rules.Names) {
	const why = "cannot be set for an Ephemeral Container"
	targets := rules.Names{}
	for _, x := range slices.Concat(s.GetInitContainers(), s.GetContainers()) {
		targets[x.GetName()] = true
	}
	for i, x := range EphemeralContainers(s) {
		at := p.Index(i)
		checkContainer(c, at, x, volumes, seen)
		r := x.GetResources()
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"ports", len(x.GetPorts()) > 0}, {"livenessProbe", x.GetLivenessProbe() != nil}, {"readinessProbe", x.GetReadinessProbe() != nil},
			{"startupProbe", x.GetStartupProbe() != nil}, {"lifecycle", x.GetLifecycle() != nil}, {"resizePolicy", len(x.GetResizePolicy()) > 0},
			{"resources", len(r.GetLimits())+len(r.GetRequests())+len(r.GetClaims()) > 0},
			{"restartPolicy", x.RestartPolicy != nil}, {"restartPolicyRules", len(x.GetRestartPolicyRules()) > 0},
		} {
			if f.set {
				c.Forbidden(at.Child(f.name), why)
			}
		}
		for j, m := range x.GetVolumeMounts() {
			if m.GetSubPath() != "" {
				c.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), why)
			}
			if m.GetSubPathExpr() != "" {
				c.Forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), why)
			}
		}
		if target := s.GetEphemeralContainers()[i].GetTargetContainerName(); target != "" && !targets[target] {
			c.Add(field.NotFound(at.Child("targetContainerName"), target))
		}
	}
}

// checkNoEphemeral refuses ephemeral containers in a pod that does not exist yet.
func checkNoEphemeral(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	if len(s.GetEphemeralContainers()) > 0 {
		c.Forbidden(p.Child("ephemeralContainers"), "cannot be set on create: they are added to pods that exist")
	}
}

// podEphemeralContainers is the subresource by which ephemeral containers are added to a pod.
var podEphemeralContainers = &scheme.Part{
	Fields: []string{".spec.ephemeralContainers"},
	Restrict: func(new, old scheme.Object) {
		p := new.(*corev1.Pod)
		added := p.GetSpec().GetEphemeralContainers()
		p.Spec = proto.CloneOf(old.(*corev1.Pod).GetSpec())
		p.Spec.EphemeralContainers = added
	},
	Validate: func(new, old scheme.Object) field.ErrorList {
		c := &rules.Checker{}
		checkAddEphemeral(c, new.(*corev1.Pod), old.(*corev1.Pod))
		return c.List
	},
}

// checkAddEphemeral lets ephemeral containers be added, and nothing else.
func checkAddEphemeral(c *rules.Checker, new, old *corev1.Pod) {
	if IsMirrorPod(old) {
		c.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")
		return
	}
	p := field.NewPath("spec", "ephemeralContainers")
	now, was := new.GetSpec().GetEphemeralContainers(), old.GetSpec().GetEphemeralContainers()
	byName := make(map[string]*corev1.EphemeralContainer, len(now))
	for _, e := range now {
		byName[e.GetEphemeralContainerCommon().GetName()] = e
	}
	for _, e := range was {
		name := e.GetEphemeralContainerCommon().GetName()
		switch same := byName[name]; {
		case same == nil:
			c.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be removed", name))
		case !proto.Equal(same, e):
			c.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be changed", name))
		}
	}
	if len(now) > len(was) && IsPodFinished(old) {
		c.Forbidden(p, "the pod has ended: it is "+old.GetStatus().GetPhase())
	}
}
