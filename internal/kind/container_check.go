package kind

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func (c *checker) containers(p *field.Path, s *corev1.PodSpec, volumes names) {
	seen, hostPorts := names{}, names{}
	for i, container := range s.GetContainers() {
		at := p.Child("containers").Index(i)
		c.container(at, container, volumes, seen)
		c.hostPorts(at.Child("ports"), container.GetPorts(), hostPorts)
		c.restartPolicy(at, container)
	}
	for i, container := range s.GetInitContainers() {
		at := p.Child("initContainers").Index(i)
		c.container(at, container, volumes, seen)
		c.restartPolicy(at, container)
		if container.GetRestartPolicy() == RestartAlways {
			continue
		}
		const why = "may not be set for init containers without restartPolicy=Always"
		if container.GetLivenessProbe() != nil {
			c.forbidden(at.Child("livenessProbe"), why)
		}
		if container.GetReadinessProbe() != nil {
			c.forbidden(at.Child("readinessProbe"), why)
		}
		if container.GetStartupProbe() != nil {
			c.forbidden(at.Child("startupProbe"), why)
		}
		if container.GetLifecycle() != nil {
			c.forbidden(at.Child("lifecycle"), why)
		}
	}
	c.ephemeral(p.Child("ephemeralContainers"), s, volumes, seen)
}

func (c *checker) container(p *field.Path, x *corev1.Container, volumes, seen names) {
	if c.dnsLabel(p.Child("name"), x.GetName()) {
		c.unique(p.Child("name"), seen, x.GetName())
	}
	switch image := x.GetImage(); {
	case image == "":
		c.required(p.Child("image"), "")
	case strings.TrimSpace(image) != image:
		c.invalid(p.Child("image"), image, "must not have leading or trailing whitespace")
	}
	c.containerPorts(p.Child("ports"), x.GetPorts())
	c.env(p.Child("env"), x.GetEnv())
	c.envFrom(p.Child("envFrom"), x.GetEnvFrom())
	c.mounts(p.Child("volumeMounts"), x.GetVolumeMounts(), volumes)
	for i, m := range x.GetVolumeMounts() {
		if m.GetMountPropagation() == "Bidirectional" && !x.GetSecurityContext().GetPrivileged() {
			c.forbidden(p.Child("volumeMounts").Index(i).Child("mountPropagation"),
				"Bidirectional mount propagation is available only to privileged containers")
		}
	}
	c.resources(p.Child("resources"), x.GetResources())

	c.probe(p.Child("livenessProbe"), x.GetLivenessProbe(), true)
	c.probe(p.Child("readinessProbe"), x.GetReadinessProbe(), false)
	c.probe(p.Child("startupProbe"), x.GetStartupProbe(), true)
	if x.GetReadinessProbe() != nil && x.ReadinessProbe.TerminationGracePeriodSeconds != nil {
		c.invalid(p.Child("readinessProbe", "terminationGracePeriodSeconds"), x.GetReadinessProbe().GetTerminationGracePeriodSeconds(),
			"must not be set for readinessProbes")
	}
	c.hook(p.Child("lifecycle", "postStart"), x.GetLifecycle().GetPostStart())
	c.hook(p.Child("lifecycle", "preStop"), x.GetLifecycle().GetPreStop())
	c.containerSecurity(p.Child("securityContext"), x.GetSecurityContext())
}

func (c *checker) containerPorts(p *field.Path, ports []*corev1.ContainerPort) {
	seen := names{}
	for i, port := range ports {
		at := p.Index(i)
		if port.GetName() != "" {
			if wrong := validation.IsValidPortName(port.GetName()); len(wrong) > 0 {
				c.each(at.Child("name"), port.GetName(), wrong)
			} else {
				c.unique(at.Child("name"), seen, port.GetName())
			}
		}
		if port.GetHostIp() != "" {
			c.ip(at.Child("hostIP"), port.GetHostIp())
		}
	}
}

// hostPorts refuses two containers of a pod that use the same port of the node.
func (c *checker) hostPorts(p *field.Path, ports []*corev1.ContainerPort, seen names) {
	for i, port := range ports {
		if port.GetHostPort() != 0 {
			c.unique(p.Index(i).Child("hostPort"), seen, fmt.Sprintf("%s/%s/%d", port.GetProtocol(), port.GetHostIp(), port.GetHostPort()))
		}
	}
}

func (c *checker) env(p *field.Path, all []*corev1.EnvVar) {
	for i, e := range all {
		if e.GetValueFrom() != nil {
			c.envSource(p.Index(i).Child("valueFrom"), e)
		}
	}
}

// envFields are what the downward API can put into an environment variable.
var envFields = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
}

func (c *checker) envSource(p *field.Path, e *corev1.EnvVar) {
	s := e.GetValueFrom()
	set := sources(s)
	switch {
	case len(set) == 0:
		c.invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
		return
	case len(set) > 1:
		c.invalid(p, "", "may not have more than one field specified at a time")
	}
	if e.GetValue() != "" {
		c.invalid(p, "", "may not be specified when `value` is not empty")
	}
	if r := s.GetFieldRef(); r != nil {
		c.fieldRef(p.Child("fieldRef"), r, envFields)
	}
	if r := s.GetResourceFieldRef(); r != nil {
		c.resourceField(p.Child("resourceFieldRef"), r)
	}
	if r := s.GetConfigMapKeyRef(); r != nil {
		c.objectName(p.Child("configMapKeyRef", "name"), r.GetLocalObjectReference().GetName())
	}
	if r := s.GetSecretKeyRef(); r != nil {
		c.objectName(p.Child("secretKeyRef", "name"), r.GetLocalObjectReference().GetName())
	}
}

func (c *checker) resourceField(p *field.Path, r *corev1.ResourceFieldSelector) {
	name, ok := strings.CutPrefix(r.GetResource(), "limits.")
	if !ok {
		name, ok = strings.CutPrefix(r.GetResource(), "requests.")
	}
	switch {
	case r.GetResource() == "":
		c.required(p.Child("resource"), "")
	case !ok || !standardResource(name):
		c.notSupportedResource(p.Child("resource"), r.GetResource())
	}
	if v, err := Amount(r.GetDivisor()); err == nil && !v.IsZero() && ok && !slices.Contains(divisors(name), v.String()) {
		c.invalid(p.Child("divisor"), r.GetDivisor().GetString_(),
			"only divisor's values "+divisorText(name)+" are supported with the "+name+" resource")
	}
}

// divisors are the units in which an amount of a resource can be shown.
func divisors(resource string) []string {
	if resource == ResourceCPU {
		return []string{"1m", "1"}
	}
	return []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
}

func divisorText(resource string) string {
	if resource == ResourceCPU {
		return "1m and 1"
	}
	return strings.Join(divisors(resource), ", ")
}

func (c *checker) notSupportedResource(p *field.Path, value string) {
	c.add(field.NotSupported(p, value, []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}))
}

func (c *checker) fieldRef(p *field.Path, r *corev1.ObjectFieldSelector, allowed []string) {
	if v := r.GetApiVersion(); v != "" && v != "v1" {
		c.invalid(p.Child("apiVersion"), v, "must be v1")
	}
	at, name := p.Child("fieldPath"), r.GetFieldPath()
	if name == "" {
		c.required(at, "")
		return
	}
	// One label or annotation is named by its key: metadata.labels['app'].
	if head, rest, ok := strings.Cut(name, "['"); ok {
		key, ok := strings.CutSuffix(rest, "']")
		switch {
		case !ok:
			c.invalid(at, name, "a subscript must be closed with ']")
		case head == "metadata.labels":
			c.each(at, name, validation.IsQualifiedName(key))
		case head == "metadata.annotations":
			c.each(at, name, validation.IsQualifiedName(strings.ToLower(key)))
		default:
			c.invalid(at, name, "does not support subscript")
		}
		return
	}
	c.oneOf(at, name, allowed...)
}

func (c *checker) envFrom(p *field.Path, all []*corev1.EnvFromSource) {
	for i, e := range all {
		at := p.Index(i)
		switch {
		case e.GetConfigMapRef() != nil && e.GetSecretRef() != nil:
			c.invalid(at, "", "may not have more than one field specified at a time")
		case e.GetConfigMapRef() != nil:
			c.objectName(at.Child("configMapRef", "name"), e.GetConfigMapRef().GetLocalObjectReference().GetName())
		case e.GetSecretRef() != nil:
			c.objectName(at.Child("secretRef", "name"), e.GetSecretRef().GetLocalObjectReference().GetName())
		default:
			c.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
		}
	}
}

func (c *checker) mounts(p *field.Path, mounts []*corev1.VolumeMount, volumes names) {
	seen := names{}
	for i, m := range mounts {
		at := p.Index(i)
		if m.GetName() != "" && !volumes[m.GetName()] {
			c.add(field.NotFound(at.Child("name"), m.GetName()))
		}
		if m.GetMountPath() != "" && seen[m.GetMountPath()] {
			c.invalid(at.Child("mountPath"), m.GetMountPath(), "must be unique")
		}
		seen[m.GetMountPath()] = true
		if m.GetSubPath() != "" && m.GetSubPathExpr() != "" {
			c.invalid(at.Child("subPathExpr"), m.GetSubPathExpr(), "subPathExpr and subPath are mutually exclusive")
		}
		c.recursiveReadOnly(at.Child("recursiveReadOnly"), m)
	}
}

// recursiveReadOnly checks the mode of mounts below a read-only mount. Mounts that appear later by
// propagation would keep their own mode, so propagation is refused.
func (c *checker) recursiveReadOnly(p *field.Path, m *corev1.VolumeMount) {
	if m.RecursiveReadOnly == nil ||
		!c.oneOf(p, m.GetRecursiveReadOnly(), ReadOnlyBelowDisabled, ReadOnlyBelowEnabled, ReadOnlyBelowIfPossible) {
		return
	}
	if m.GetRecursiveReadOnly() == ReadOnlyBelowDisabled {
		return
	}
	if !m.GetReadOnly() {
		c.forbidden(p, "may only be specified when readOnly is true")
	}
	if m.MountPropagation != nil && m.GetMountPropagation() != "None" {
		c.forbidden(p, "may only be specified when mountPropagation is None or not specified")
	}
}

// probe checks an optional probe. A probe that restarts the container on failure must have a
// success threshold of 1.
func (c *checker) probe(p *field.Path, x *corev1.Probe, restarts bool) {
	if x == nil {
		return
	}
	h := x.GetHandler()
	switch c.exactlyOne(p, h, "must specify a handler type", "may not specify more than 1 handler type") {
	case "http_get":
		c.httpGet(p.Child("httpGet"), h.GetHttpGet())
	case "tcp_socket":
		c.portOrName(p.Child("tcpSocket", "port"), h.GetTcpSocket().GetPort())
	}
	if restarts && x.GetSuccessThreshold() != 1 {
		c.invalid(p.Child("successThreshold"), x.GetSuccessThreshold(), "must be 1")
	}
}

func (c *checker) httpGet(p *field.Path, h *corev1.HTTPGetAction) {
	if h.GetPath() == "" {
		c.required(p.Child("path"), "")
	}
	c.portOrName(p.Child("port"), orZero(h.GetPort()))
	for i, header := range h.GetHttpHeaders() {
		c.each(p.Child("httpHeaders").Index(i).Child("name"), header.GetName(), validation.IsHTTPHeaderName(header.GetName()))
	}
}

func orZero(v *metav1.IntOrString) *metav1.IntOrString {
	if v == nil {
		return &metav1.IntOrString{}
	}
	return v
}

func (c *checker) hook(p *field.Path, h *corev1.LifecycleHandler) {
	if h == nil {
		return
	}
	switch c.exactlyOne(p, h, "must specify a handler type", "may not specify more than 1 handler type") {
	case "http_get":
		c.httpGet(p.Child("httpGet"), h.GetHttpGet())
	case "tcp_socket":
		c.portOrName(p.Child("tcpSocket", "port"), h.GetTcpSocket().GetPort())
	}
}

func (c *checker) containerSecurity(p *field.Path, s *corev1.SecurityContext) {
	if s == nil {
		return
	}
	if s.AllowPrivilegeEscalation != nil && !s.GetAllowPrivilegeEscalation() {
		if s.GetPrivileged() {
			c.invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		for _, cap := range s.GetCapabilities().GetAdd() {
			if cap == "CAP_SYS_ADMIN" {
				c.invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
			}
		}
	}
	c.seccomp(p.Child("seccompProfile"), s.GetSeccompProfile())
	c.appArmor(p.Child("appArmorProfile"), s.GetAppArmorProfile())
}
