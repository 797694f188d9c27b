package describe

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func (r *report) pod(p *corev1.Pod) {
	spec, status := p.GetSpec(), p.GetStatus()
	r.metadata(p)
	if v := spec.GetPriority(); v != 0 {
		r.field("Priority", strconv.Itoa(int(v)))
	}
	r.field("Service Account", printer.OrNone(spec.GetServiceAccountName()))
	node := spec.GetNodeName()
	if node != "" && status.GetHostIp() != "" {
		node += "/" + status.GetHostIp()
	}
	r.field("Node", printer.OrNone(node))
	r.time("Start Time", status.GetStartTime())
	r.labels(p)
	state, terminating := core.PodStatus(p), p.GetMetadata().GetDeletionTimestamp() != nil
	if state == "Terminating" {
		state = fmt.Sprintf("Terminating (lasts %s)", column.Age(p.GetMetadata().GetDeletionTimestamp(), r.now))
	}
	r.field("Status", state)
	if terminating && p.GetMetadata().DeletionGracePeriodSeconds != nil {
		r.field("Termination Grace Period", fmt.Sprintf("%ds", p.GetMetadata().GetDeletionGracePeriodSeconds()))
	}
	r.optional("Reason", status.GetReason())
	r.optional("Message", status.GetMessage())
	r.field("IP", printer.OrNone(status.GetPodIp()))
	r.ends(p)
	if len(spec.GetInitContainers()) > 0 {
		r.group("Init Containers", func() {
			for _, c := range spec.GetInitContainers() {
				r.container(c, statusOf(status.GetInitContainerStatuses(), c.GetName()))
			}
		})
	}
	r.group("Containers", func() {
		for _, c := range spec.GetContainers() {
			r.container(c, statusOf(status.GetContainerStatuses(), c.GetName()))
		}
	})
	conditions(r, status.GetConditions())
	r.volumes(spec.GetVolumes())
	r.quantities("Limits of the Pod", spec.GetResources().GetLimits())
	r.quantities("Requests of the Pod", spec.GetResources().GetRequests())
	r.field("QoS Class", printer.OrNone(status.GetQosClass()))
	r.list("Node-Selectors", printer.Lines(spec.GetNodeSelector(), "="))
	var tolerations []string
	for _, t := range spec.GetTolerations() {
		tolerations = append(tolerations, tolerationText(t))
	}
	r.list("Tolerations", tolerations)
}

func statusOf(all []*corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for _, s := range all {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

func (r *report) container(c *corev1.Container, s *corev1.ContainerStatus) {
	r.group(c.GetName(), func() {
		if s != nil {
			r.field("Container ID", printer.OrNone(s.GetContainerId()))
		}
		r.field("Image", c.GetImage())
		r.optional("Image ID", s.GetImageId())
		var ports []string
		for _, p := range c.GetPorts() {
			text := fmt.Sprintf("%d/%s", p.GetContainerPort(), p.GetProtocol())
			if p.GetName() != "" {
				text += " (" + p.GetName() + ")"
			}
			ports = append(ports, text)
		}
		r.field("Ports", printer.OrNone(strings.Join(ports, ", ")))
		if len(c.GetCommand()) > 0 {
			r.field("Command", strings.Join(c.GetCommand(), " "))
		}
		if len(c.GetArgs()) > 0 {
			r.field("Args", strings.Join(c.GetArgs(), " "))
		}
		if s != nil {
			r.containerState("State", s.GetState())
			if s.GetLastState() != nil {
				r.containerState("Last State", s.GetLastState())
			}
			r.field("Ready", printer.Title(strconv.FormatBool(s.GetReady())))
			r.field("Restart Count", strconv.Itoa(int(s.GetRestartCount())))
		}
		r.quantities("Limits", c.GetResources().GetLimits())
		r.quantities("Requests", c.GetResources().GetRequests())
		r.optional("Liveness", probeText(c.GetLivenessProbe()))
		r.optional("Readiness", probeText(c.GetReadinessProbe()))
		r.optional("Startup", probeText(c.GetStartupProbe()))
		r.environment(c)
		var mounts []string
		for _, m := range c.GetVolumeMounts() {
			mode := "rw"
			if m.GetReadOnly() {
				mode = "ro"
			}
			mounts = append(mounts, fmt.Sprintf("%s from %s (%s)", m.GetMountPath(), m.GetName(), mode))
		}
		r.list("Mounts", mounts)
	})
}

func (r *report) containerState(name string, s *corev1.ContainerState) {
	switch {
	case s.GetRunning() != nil:
		r.field(name, "Running")
		r.level++
		r.time("Started", s.GetRunning().GetStartedAt())
		r.level--
	case s.GetTerminated() != nil:
		t := s.GetTerminated()
		r.field(name, "Terminated")
		r.level++
		r.optional("Reason", t.GetReason())
		r.optional("Message", t.GetMessage())
		r.field("Exit Code", strconv.Itoa(int(t.GetExitCode())))
		if t.GetSignal() != 0 {
			r.field("Signal", strconv.Itoa(int(t.GetSignal())))
		}
		r.time("Started", t.GetStartedAt())
		r.time("Finished", t.GetFinishedAt())
		r.level--
	case s.GetWaiting() != nil:
		r.field(name, "Waiting")
		r.level++
		r.optional("Reason", s.GetWaiting().GetReason())
		r.optional("Message", s.GetWaiting().GetMessage())
		r.level--
	default:
		r.field(name, "Waiting")
	}
}

func (r *report) quantities(name string, all map[string]*metav1.Quantity) {
	if len(all) == 0 {
		return
	}
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		texts = append(texts, key+"="+all[key].GetString_())
	}
	r.field(name, strings.Join(texts, ", "))
}

func (r *report) environment(c *corev1.Container) {
	var all []string
	for _, from := range c.GetEnvFrom() {
		switch {
		case from.GetConfigMapRef() != nil:
			all = append(all, "all keys of configmap/"+from.GetConfigMapRef().GetLocalObjectReference().GetName())
		case from.GetSecretRef() != nil:
			all = append(all, "all keys of secret/"+from.GetSecretRef().GetLocalObjectReference().GetName())
		}
	}
	for _, e := range c.GetEnv() {
		value := e.GetValue()
		switch from := e.GetValueFrom(); {
		case from.GetFieldRef() != nil:
			value = "(" + from.GetFieldRef().GetFieldPath() + ")"
		case from.GetResourceFieldRef() != nil:
			value = "(" + from.GetResourceFieldRef().GetResource() + ")"
		case from.GetConfigMapKeyRef() != nil:
			ref := from.GetConfigMapKeyRef()
			value = fmt.Sprintf("<key %q of configmap/%s>", ref.GetKey(), ref.GetLocalObjectReference().GetName())
		case from.GetSecretKeyRef() != nil:
			ref := from.GetSecretKeyRef()
			value = fmt.Sprintf("<key %q of secret/%s>", ref.GetKey(), ref.GetLocalObjectReference().GetName())
		}
		all = append(all, e.GetName()+"="+value)
	}
	r.list("Environment", all)
}

func (r *report) volumes(all []*corev1.Volume) {
	if len(all) == 0 {
		r.field("Volumes", "<none>")
		return
	}
	r.group("Volumes", func() {
		for _, v := range all {
			r.field(v.GetName(), volumeText(v.GetVolumeSource()))
		}
	})
}

func volumeText(v *corev1.VolumeSource) string {
	switch {
	case v.GetEmptyDir() != nil:
		text := "emptyDir"
		if m := v.GetEmptyDir().GetMedium(); m != "" {
			text += " in " + strings.ToLower(m)
		}
		if l := v.GetEmptyDir().GetSizeLimit(); l != nil {
			text += ", at most " + l.GetString_()
		}
		return text
	case v.GetHostPath() != nil:
		return "hostPath " + v.GetHostPath().GetPath()
	case v.GetConfigMap() != nil:
		return "configmap/" + v.GetConfigMap().GetLocalObjectReference().GetName()
	case v.GetSecret() != nil:
		return "secret/" + v.GetSecret().GetSecretName()
	case v.GetDownwardApi() != nil:
		return "fields of the pod"
	case v.GetProjected() != nil:
		return fmt.Sprintf("projected from %d sources", len(v.GetProjected().GetSources()))
	}
	return "unknown type"
}

func probeText(p *corev1.Probe) string {
	if p == nil {
		return ""
	}
	h := p.GetHandler()
	var what string
	switch {
	case h.GetExec() != nil:
		what = "exec " + strings.Join(h.GetExec().GetCommand(), " ")
	case h.GetHttpGet() != nil:
		g := h.GetHttpGet()
		what = fmt.Sprintf(
			"%s get %s:%s%s",
			strings.ToLower(cmp.Or(g.GetScheme(), "http")),
			g.GetHost(),
			printer.IntOrString(g.GetPort()),
			g.GetPath(),
		)
	case h.GetTcpSocket() != nil:
		what = fmt.Sprintf("tcp %s:%s", h.GetTcpSocket().GetHost(), printer.IntOrString(h.GetTcpSocket().GetPort()))
	case h.GetGrpc() != nil:
		what = fmt.Sprintf("grpc :%d %s", h.GetGrpc().GetPort(), h.GetGrpc().GetService())
	}
	return fmt.Sprintf("%s delay=%ds timeout=%ds period=%ds success=%d failure=%d", strings.TrimSpace(what),
		p.GetInitialDelaySeconds(), p.GetTimeoutSeconds(), p.GetPeriodSeconds(), p.GetSuccessThreshold(), p.GetFailureThreshold())
}

func tolerationText(t *corev1.Toleration) string {
	text := t.GetKey()
	if t.GetOperator() != "Exists" && t.GetValue() != "" {
		text += "=" + t.GetValue()
	}
	if t.GetEffect() != "" {
		text += ":" + t.GetEffect()
	}
	if t.GetOperator() == "Exists" {
		text += " op=Exists"
	}
	if t.TolerationSeconds != nil {
		text += fmt.Sprintf(" for %ds", t.GetTolerationSeconds())
	}
	return strings.TrimSpace(text)
}
