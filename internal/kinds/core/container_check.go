package core

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func checkContainers(c *rules.Checker, p *field.Path, s *corev1.PodSpec, volumes rules.Names) {
	seen, hostPorts := rules.Names{}, rules.Names{}
	for i, container := range s.GetContainers() {
		at := p.Child("containers").Index(i)
		checkContainer(c, at, container, volumes, seen)
		checkHostPorts(c, at.Child("ports"), container.GetPorts(), hostPorts)
		checkRestartPolicy(c, at, container)
	}
	for i, container := range s.GetInitContainers() {
		at := p.Child("initContainers").Index(i)
		checkContainer(c, at, container, volumes, seen)
		checkRestartPolicy(c, at, container)
		if container.GetRestartPolicy() == RestartAlways {
			continue
		}
		const why = "may not be set for init containers without restartPolicy=Always"
		if container.GetLivenessProbe() != nil {
			c.Forbidden(at.Child("livenessProbe"), why)
		}
		if container.GetReadinessProbe() != nil {
			c.Forbidden(at.Child("readinessProbe"), why)
		}
		if container.GetStartupProbe() != nil {
			c.Forbidden(at.Child("startupProbe"), why)
		}
		if container.GetLifecycle() != nil {
			c.Forbidden(at.Child("lifecycle"), why)
		}
	}
	checkEphemeral(c, p.Child("ephemeralContainers"), s, volumes, seen)
	checkFileVolumes(c, p, s)
}

// checkFileVolumes refuses files of variables on other volumes than those of type emptyDir.
func checkFileVolumes(c *rules.Checker, p *field.Path, s *corev1.PodSpec) {
	sources := make(map[string]*corev1.VolumeSource, len(s.GetVolumes()))
	for _, v := range s.GetVolumes() {
		sources[v.GetName()] = v.GetVolumeSource()
	}
	check := func(p *field.Path, env []*corev1.EnvVar) {
		for i, e := range env {
			ref := e.GetValueFrom().GetFileKeyRef()
			if ref == nil {
				continue
			}
			at := p.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			source, found := sources[ref.GetVolumeName()]
			switch {
			case !found:
				c.Add(field.NotFound(at, ref.GetVolumeName()))
			case source.GetEmptyDir() == nil:
				c.Invalid(at, ref.GetVolumeName(), "referenced volume must be of type emptyDir")
			}
		}
	}
	for i, x := range s.GetInitContainers() {
		check(p.Child("initContainers").Index(i), x.GetEnv())
	}
	for i, x := range s.GetContainers() {
		check(p.Child("containers").Index(i), x.GetEnv())
	}
	for i, x := range s.GetEphemeralContainers() {
		check(p.Child("ephemeralContainers").Index(i), x.GetEphemeralContainerCommon().GetEnv())
	}
}

func checkContainer(c *rules.Checker, p *field.Path, x *corev1.Container, volumes, seen rules.Names) {
	if c.DNSLabel(p.Child("name"), x.GetName()) {
		c.Unique(p.Child("name"), seen, x.GetName())
	}
	switch image := x.GetImage(); {
	case image == "":
		c.Required(p.Child("image"), "")
	case strings.TrimSpace(image) != image:
		c.Invalid(p.Child("image"), image, "must not have leading or trailing whitespace")
	}
	checkContainerPorts(c, p.Child("ports"), x.GetPorts())
	checkEnv(c, p.Child("env"), x.GetEnv())
	checkEnvFrom(c, p.Child("envFrom"), x.GetEnvFrom())
	checkMounts(c, p.Child("volumeMounts"), x.GetVolumeMounts(), volumes)
	for i, m := range x.GetVolumeMounts() {
		if m.GetMountPropagation() == "Bidirectional" && !x.GetSecurityContext().GetPrivileged() {
			c.Forbidden(p.Child("volumeMounts").Index(i).Child("mountPropagation"),
				"Bidirectional mount propagation is available only to privileged containers")
		}
	}
	CheckResources(c, p.Child("resources"), x.GetResources())

	checkProbe(c, p.Child("livenessProbe"), x.GetLivenessProbe(), true)
	checkProbe(c, p.Child("readinessProbe"), x.GetReadinessProbe(), false)
	checkProbe(c, p.Child("startupProbe"), x.GetStartupProbe(), true)
	if x.GetReadinessProbe() != nil && x.ReadinessProbe.TerminationGracePeriodSeconds != nil {
		c.Invalid(p.Child("readinessProbe", "terminationGracePeriodSeconds"), x.GetReadinessProbe().GetTerminationGracePeriodSeconds(),
			"must not be set for readinessProbes")
	}
	checkHandler(c, p.Child("lifecycle", "postStart"), x.GetLifecycle().GetPostStart())
	checkHandler(c, p.Child("lifecycle", "preStop"), x.GetLifecycle().GetPreStop())
	checkContainerSecurity(c, p.Child("securityContext"), x.GetSecurityContext())
}

func checkContainerPorts(c *rules.Checker, p *field.Path, ports []*corev1.ContainerPort) {
	seen := rules.Names{}
	for i, port := range ports {
		at := p.Index(i)
		if port.GetName() != "" {
			if wrong := validation.IsValidPortName(port.GetName()); len(wrong) > 0 {
				c.Each(at.Child("name"), port.GetName(), wrong)
			} else {
				c.Unique(at.Child("name"), seen, port.GetName())
			}
		}
		if port.GetHostIp() != "" {
			c.IP(at.Child("hostIP"), port.GetHostIp())
		}
	}
}

// checkHostPorts refuses two containers of a pod that use the same port of the node.
func checkHostPorts(c *rules.Checker, p *field.Path, ports []*corev1.ContainerPort, seen rules.Names) {
	for i, port := range ports {
		if port.GetHostPort() != 0 {
			c.Unique(p.Index(i).Child("hostPort"), seen, fmt.Sprintf("%s/%s/%d", port.GetProtocol(), port.GetHostIp(), port.GetHostPort()))
		}
	}
}

func checkEnv(c *rules.Checker, p *field.Path, all []*corev1.EnvVar) {
	for i, e := range all {
		if e.GetValueFrom() != nil {
			checkEnvSource(c, p.Index(i).Child("valueFrom"), e)
		}
	}
}

// envFields are what the downward API can put into an environment variable.
var envFields = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
}

func checkEnvSource(c *rules.Checker, p *field.Path, e *corev1.EnvVar) {
	s := e.GetValueFrom()
	set := sources(s)
	switch {
	case len(set) == 0:
		c.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
		return
	case len(set) > 1:
		c.Invalid(p, "", "may not have more than one field specified at a time")
	}
	if e.GetValue() != "" {
		c.Invalid(p, "", "may not be specified when `value` is not empty")
	}
	if r := s.GetFieldRef(); r != nil {
		checkFieldRef(c, p.Child("fieldRef"), r, envFields)
	}
	if r := s.GetResourceFieldRef(); r != nil {
		checkResourceField(c, p.Child("resourceFieldRef"), r)
	}
	if r := s.GetConfigMapKeyRef(); r != nil {
		c.ObjectName(p.Child("configMapKeyRef", "name"), r.GetLocalObjectReference().GetName())
	}
	if r := s.GetSecretKeyRef(); r != nil {
		c.ObjectName(p.Child("secretKeyRef", "name"), r.GetLocalObjectReference().GetName())
	}
	if r := s.GetFileKeyRef(); r != nil && slices.Contains(strings.Split(r.GetPath(), "/"), "..") {
		c.Invalid(p.Child("fileKeyRef", "path"), r.GetPath(), "must not contain '..'")
	}
}

func checkResourceField(c *rules.Checker, p *field.Path, r *corev1.ResourceFieldSelector) {
	name, ok := strings.CutPrefix(r.GetResource(), "limits.")
	if !ok {
		name, ok = strings.CutPrefix(r.GetResource(), "requests.")
	}
	switch {
	case r.GetResource() == "":
		c.Required(p.Child("resource"), "")
	case !ok || !standardResource(name):
		checkNotSupportedResource(c, p.Child("resource"), r.GetResource())
	}
	if v, err := object.Amount(r.GetDivisor()); err == nil && !v.IsZero() && ok && !slices.Contains(divisors(name), v.String()) {
		c.Invalid(p.Child("divisor"), r.GetDivisor().GetString_(),
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

func checkNotSupportedResource(c *rules.Checker, p *field.Path, value string) {
	c.Add(field.NotSupported(p, value, []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}))
}

func checkFieldRef(c *rules.Checker, p *field.Path, r *corev1.ObjectFieldSelector, allowed []string) {
	if v := r.GetApiVersion(); v != "" && v != "v1" {
		c.Invalid(p.Child("apiVersion"), v, "must be v1")
	}
	at, name := p.Child("fieldPath"), r.GetFieldPath()
	if name == "" {
		c.Required(at, "")
		return
	}
	// One label or annotation is named by its key: metadata.labels['app'].
	if head, rest, ok := strings.Cut(name, "['"); ok {
		key, ok := strings.CutSuffix(rest, "']")
		switch {
		case !ok:
			c.Invalid(at, name, "a subscript must be closed with ']")
		case head == "metadata.labels":
			c.Each(at, name, validation.IsQualifiedName(key))
		case head == "metadata.annotations":
			c.Each(at, name, validation.IsQualifiedName(strings.ToLower(key)))
		default:
			c.Invalid(at, name, "does not support subscript")
		}
		return
	}
	c.OneOf(at, name, allowed...)
}

func checkEnvFrom(c *rules.Checker, p *field.Path, all []*corev1.EnvFromSource) {
	for i, e := range all {
		at := p.Index(i)
		switch {
		case e.GetConfigMapRef() != nil && e.GetSecretRef() != nil:
			c.Invalid(at, "", "may not have more than one field specified at a time")
		case e.GetConfigMapRef() != nil:
			c.ObjectName(at.Child("configMapRef", "name"), e.GetConfigMapRef().GetLocalObjectReference().GetName())
		case e.GetSecretRef() != nil:
			c.ObjectName(at.Child("secretRef", "name"), e.GetSecretRef().GetLocalObjectReference().GetName())
		default:
			c.Invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
		}
	}
}

func checkMounts(c *rules.Checker, p *field.Path, mounts []*corev1.VolumeMount, volumes rules.Names) {
	seen := rules.Names{}
	for i, m := range mounts {
		at := p.Index(i)
		if m.GetName() != "" && !volumes[m.GetName()] {
			c.Add(field.NotFound(at.Child("name"), m.GetName()))
		}
		if m.GetMountPath() != "" && seen[m.GetMountPath()] {
			c.Invalid(at.Child("mountPath"), m.GetMountPath(), "must be unique")
		}
		seen[m.GetMountPath()] = true
		if m.GetSubPath() != "" && m.GetSubPathExpr() != "" {
			c.Invalid(at.Child("subPathExpr"), m.GetSubPathExpr(), "subPathExpr and subPath are mutually exclusive")
		}
		checkRecursiveReadOnly(c, at.Child("recursiveReadOnly"), m)
	}
}

// checkRecursiveReadOnly checks the mode of mounts below a read-only mount. Mounts that appear
// later by propagation would keep their own mode, so propagation is refused.
func checkRecursiveReadOnly(c *rules.Checker, p *field.Path, m *corev1.VolumeMount) {
	if m.RecursiveReadOnly == nil ||
		!c.OneOf(p, m.GetRecursiveReadOnly(), ReadOnlyBelowDisabled, ReadOnlyBelowEnabled, ReadOnlyBelowIfPossible) {
		return
	}
	if m.GetRecursiveReadOnly() == ReadOnlyBelowDisabled {
		return
	}
	if !m.GetReadOnly() {
		c.Forbidden(p, "may only be specified when readOnly is true")
	}
	if m.MountPropagation != nil && m.GetMountPropagation() != "None" {
		c.Forbidden(p, "may only be specified when mountPropagation is None or not specified")
	}
}

// checkProbe checks an optional probe. A probe that restarts the container on failure must have a
// success threshold of 1.
func checkProbe(c *rules.Checker, p *field.Path, x *corev1.Probe, restarts bool) {
	if x == nil {
		return
	}
	checkHandler(c, p, x.GetHandler())
	if restarts && x.GetSuccessThreshold() != 1 {
		c.Invalid(p.Child("successThreshold"), x.GetSuccessThreshold(), "must be 1")
	}
}

func checkHttpGet(c *rules.Checker, p *field.Path, h *corev1.HTTPGetAction) {
	if h.GetPath() == "" {
		c.Required(p.Child("path"), "")
	}
	checkPortOrName(c, p.Child("port"), orZero(h.GetPort()))
	for i, header := range h.GetHttpHeaders() {
		c.Each(p.Child("httpHeaders").Index(i).Child("name"), header.GetName(), validation.IsHTTPHeaderName(header.GetName()))
	}
}

func orZero(v *metav1.IntOrString) *metav1.IntOrString {
	if v == nil {
		return &metav1.IntOrString{}
	}
	return v
}

// handler is what hooks and probes have in common.
type handler interface {
	GetExec() *corev1.ExecAction
	GetHttpGet() *corev1.HTTPGetAction
	GetTcpSocket() *corev1.TCPSocketAction
}

// checkHandler checks the first of the actions of a handler: the options in the protos refuse
// others.
func checkHandler(c *rules.Checker, p *field.Path, h handler) {
	switch {
	case h.GetExec() != nil:
	case h.GetHttpGet() != nil:
		checkHttpGet(c, p.Child("httpGet"), h.GetHttpGet())
	case h.GetTcpSocket() != nil:
		checkPortOrName(c, p.Child("tcpSocket", "port"), h.GetTcpSocket().GetPort())
	}
}

func checkContainerSecurity(c *rules.Checker, p *field.Path, s *corev1.SecurityContext) {
	if s == nil {
		return
	}
	if s.AllowPrivilegeEscalation != nil && !s.GetAllowPrivilegeEscalation() {
		if s.GetPrivileged() {
			c.Invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		for _, cap := range s.GetCapabilities().GetAdd() {
			if cap == "CAP_SYS_ADMIN" {
				c.Invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
			}
		}
	}
	checkSeccomp(c, p.Child("seccompProfile"), s.GetSeccompProfile())
	checkAppArmor(c, p.Child("appArmorProfile"), s.GetAppArmorProfile())
}
