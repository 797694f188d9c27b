package cli

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	"github.com/xebec-project/xebec/internal/object"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
)

const webManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: echo, image: "echo:1"}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`

func meta(name string) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Name: name, Namespace: "default", Uid: "uid-" + name, CreationTimestamp: ago(5 * time.Minute), Labels: map[string]string{"app": "web"}}
}

func webDeployment() *appsv1.Deployment {
	m := meta("web")
	m.Generation = 2
	m.Annotations = map[string]string{apps.AnnotationRevision: "2"}
	return &appsv1.Deployment{
		Metadata: m,
		Spec: &appsv1.DeploymentSpec{
			Replicas: proto.Int32(2), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Strategy: &appsv1.DeploymentStrategy{Type: apps.StrategyRollingUpdate, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: object.Text("25%"), MaxUnavailable: object.Count(0)}},
			Template: webTemplate("echo:2"),
		},
		Status: &appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2,
			Conditions: []*appsv1.DeploymentCondition{{Type: apps.DeploymentAvailable, Status: condition.True, Reason: "MinimumReplicasAvailable", Message: "Deployment has minimum availability.", LastTransitionTime: ago(4 * time.Minute)}}},
	}
}

func webTemplate(image string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "echo", Image: image}}},
	}
}

func webSet(revision, image string, replicas int32, d *appsv1.Deployment) *appsv1.ReplicaSet {
	m := meta("web-" + revision)
	m.Annotations = map[string]string{apps.AnnotationRevision: revision, "kubernetes.io/change-cause": "image " + image}
	m.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(d)}
	template := webTemplate(image)
	template.Metadata.Labels[apps.LabelPodTemplateHash] = revision
	return &appsv1.ReplicaSet{
		Metadata: m,
		Spec:     &appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: d.GetSpec().GetSelector(), Template: template},
		Status:   &appsv1.ReplicaSetStatus{Replicas: replicas, ReadyReplicas: replicas},
	}
}

func webPod(name, node string) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: meta(name),
		Spec: &corev1.PodSpec{
			NodeName: node, ServiceAccountName: "default",
			Containers: []*corev1.Container{{
				Name: "echo", Image: "echo:1", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}},
				Env: []*corev1.EnvVar{{Name: "MODE", Value: "fast"}, {Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: &corev1.LocalObjectReference{Name: "db"}, Key: "password"}}}},
				Resources:      &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"cpu": {String_: "50m"}, "memory": {String_: "16Mi"}}},
				ReadinessProbe: &corev1.Probe{Handler: &corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{Path: "/readyz", Port: object.Text("http")}}, TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3},
			}},
			Volumes: []*corev1.Volume{{Name: "scratch", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
		Status: &corev1.PodStatus{Phase: core.PodPending},
	}
	if node == "" {
		return p
	}
	p.Status = &corev1.PodStatus{
		Phase: core.PodRunning, PodIp: "10.244.1.5", HostIp: "192.0.2.7", StartTime: ago(5 * time.Minute), QosClass: core.QOSBurstable,
		Conditions: []*corev1.PodCondition{{Type: core.PodReady, Status: condition.True, LastTransitionTime: ago(4 * time.Minute)}},
		ContainerStatuses: []*corev1.ContainerStatus{{
			Name: "echo", Ready: true, Image: "echo:1", ContainerId: "containerd://abc", RestartCount: 1,
			State:     &corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(4 * time.Minute)}},
			LastState: &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", FinishedAt: ago(4 * time.Minute)}},
		}},
	}
	return p
}

func testNode(name string, ready bool) *corev1.Node {
	status := condition.True
	if !ready {
		status = condition.False
	}
	amounts := map[string]*metav1.Quantity{"cpu": {String_: "2"}, "memory": {String_: "4Gi"}}
	return &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: name, Uid: "uid-" + name, CreationTimestamp: ago(time.Hour), Labels: map[string]string{"kubernetes.io/hostname": name}},
		Spec:     &corev1.NodeSpec{PodCidr: "10.244.1.0/24"},
		Status: &corev1.NodeStatus{
			Capacity: amounts, Allocatable: amounts,
			Conditions: []*corev1.NodeCondition{{Type: core.NodeReady, Status: status, Reason: "AgentReady", Message: "the agent is ready", LastTransitionTime: ago(time.Hour)}},
			Addresses:  []*corev1.NodeAddress{{Type: core.NodeInternalIP, Address: "192.0.2.7"}},
			NodeInfo:   &corev1.NodeSystemInfo{KernelVersion: "6.18", ContainerRuntimeVersion: "containerd://2.0", KubeletVersion: "v0.1.0", OsImage: "Linux", Architecture: "amd64"},
		},
	}
}

func podEvent(pod *corev1.Pod, name, reason, message string, at time.Duration) *corev1.Event {
	return &corev1.Event{
		Metadata:       &metav1.ObjectMeta{Name: name, Namespace: "default", CreationTimestamp: ago(at)},
		InvolvedObject: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: pod.GetMetadata().GetName(), Uid: pod.GetMetadata().GetUid()},
		Reason:         reason, Message: message, Type: core.EventWarning, Count: 3, FirstTimestamp: ago(2 * at), LastTimestamp: ago(at), ReportingComponent: "agent",
	}
}

func TestApply(t *testing.T) {
	c := startCluster(t)
	file := writeFile(t, "web.yaml", webManifest)
	// Namespaces come first, whatever their place.
	c.run(t, "apply", "-f", file, "--dry-run=server").want(t, exit.OK, "namespace/shop created (server dry run)\ndeployment.apps/web created (server dry run)\n")
	c.run(t, "get", "deployments").want(t, exit.OK, "", "No resources found in default namespace.")
	c.run(t, "apply", "-f", file).want(t, exit.OK, "namespace/shop created\ndeployment.apps/web created\n")
	c.runInput(t, webManifest, "apply", "-f", "-", "--server-side").want(t, exit.OK, "namespace/shop unchanged\ndeployment.apps/web unchanged\n")
	c.runInput(t, strings.Replace(webManifest, "replicas: 2", "replicas: 3", 1), "apply", "-f", "-").
		want(t, exit.OK, "namespace/shop unchanged\ndeployment.apps/web configured\n")
	c.run(t, "apply", "-f", file, "-o", "name").want(t, exit.OK, "namespace/shop\ndeployment.apps/web\n")

	c.warnings = []string{"spec.x: has no effect yet"}
	c.runInput(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n", "apply", "-f", "-").
		want(t, exit.OK, "namespace/b created\n", "Warning: stdin:1: namespace/b: spec.x: has no effect yet")
	c.warnings = []string{"spec.replicas: says little", "spec.replicas: says little"}
	r := c.runInput(t, strings.Replace(webManifest, "name: web}", "name: other}", 1), "apply", "-f", "-")
	r.want(t, exit.OK, "namespace/shop unchanged\ndeployment.apps/other created\n", "Warning: stdin:5: deployment.apps/other: spec.replicas: says little\n")
	if strings.Count(r.err, "Warning:") != 1 {
		t.Errorf("a warning was repeated:\n%s", r.err)
	}
	twice := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twice}\ndata: {a: '1'}\ndata: {a: '2'}\n"
	c.warnings = nil
	c.runInput(t, twice, "create", "-f", "-").want(t, exit.OK, "configmap/twice created\n", "Warning: stdin:5: configmap/twice: data: duplicate key, first written on line 4: the last one counts\n")
	c.run(t, "get", "cm/twice", "-o", "jsonpath={.data.a}").want(t, exit.OK, "2")
	c.runInput(t, twice, "apply", "-f", "-", "--validate=strict").want(t, exit.Failed, "", "error: stdin:5: data: duplicate key")
	c.runInput(t, twice, "apply", "-f", "-", "--validate=maybe").want(t, exit.Usage, "", "want true or strict")
}

// TestEventOrder lists events of the same second in the order in which they were written.
func TestEventOrder(t *testing.T) {
	c := startCluster(t)
	pod := webPod("web-1", "node-1")
	for _, name := range []string{"c", "a", "b"} {
		clienttest.Seed(c.Server, podEvent(pod, name, "Reason"+name, "", time.Minute))
	}
	out := c.run(t, "get", "events", "--no-headers").out
	var order []string
	for line := range strings.Lines(out) {
		order = append(order, strings.Fields(line)[2])
	}
	if want := []string{"Reasonc", "Reasona", "Reasonb"}; !slices.Equal(order, want) {
		t.Errorf("the order is %q, want %q\n%s", order, want, out)
	}
}

// TestSomeManifestsAreBad writes what is good, as kubectl does, and lists the rest; with --atomic
// it writes nothing.
func TestSomeManifestsAreBad(t *testing.T) {
	good := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {a: b}\n---\n"
	}
	other := func(apiVersion, kind string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: x}\n---\n"
	}
	text := good("a") + other("autoscaling/v2", "HorizontalPodAutoscaler") + other("cert-manager.io/v1", "Certificate") + strings.Replace(good("typo"), "\ndata", "\ndta", 1) +
		other("autoscaling/v2", "HorizontalPodAutoscaler") + other("policy/v1beta1", "PodSecurityPolicy") + strings.Replace(good("Bad_Name"), "{a: b}", "{}", 1) + good("b")
	errs := []string{
		"error: stdin:7: kind: Xebec does not serve HorizontalPodAutoscaler of autoscaling/v2 yet (also at stdin:20)\n",
		"error: stdin:11: kind: Certificate of cert-manager.io/v1 is a custom kind",
		"error: stdin:17: dta: unknown field, did you mean data?\n",
		"error: stdin:24: kind: PodSecurityPolicy of policy/v1beta1 was removed in Kubernetes 1.25",
	}
	for _, verb := range []string{"create", "apply"} {
		c := startCluster(t)
		r := c.runInput(t, text, verb, "-f", "-")
		r.want(t, exit.Failed, "configmap/a created\nconfigmap/b created\n", append(errs, "error: stdin:29: ", "metadata.name")...)
		if n := strings.Count(r.err, "HorizontalPodAutoscaler"); n != 1 {
			t.Errorf("a kind is named %d times:\n%s", n, r.err)
		}
		c.run(t, "get", "cm", "-o", "name").want(t, exit.OK, "configmap/a\nconfigmap/b\n")

		c = startCluster(t)
		c.runInput(t, text, verb, "-f", "-", "--atomic").want(t, exit.Failed, "", errs...)
		c.run(t, "get", "cm").want(t, exit.OK, "", "No resources found")
		c.runInput(t, good("a")+good("Bad_Name")+good("b"), verb, "-f", "-", "--atomic").
			want(t, exit.Failed, "", "error: stdin:8: ", "metadata.name", "Nothing was written because of --atomic.")
		c.run(t, "get", "cm").want(t, exit.OK, "", "No resources found")
		c.runInput(t, good("a")+good("b"), verb, "-f", "-", "--atomic", "--dry-run=server").
			want(t, exit.OK, "configmap/a created (server dry run)\nconfigmap/b created (server dry run)\n")
		c.runInput(t, good("a")+good("b"), verb, "-f", "-", "--atomic").want(t, exit.OK, "configmap/a created\nconfigmap/b created\n")
		if n := c.Calls("Create") + c.Calls("Apply"); n > 0 {
			t.Errorf("%d objects were written by themselves", n)
		}
	}
	// Commands that take the objects from manifests go on as well.
	c := startCluster(t)
	c.runInput(t, text, "apply", "-f", "-")
	c.runInput(t, good("a")+other("autoscaling/v2", "HorizontalPodAutoscaler"), "delete", "-f", "-").want(t, exit.Failed, "configmap/a deleted\n", "does not serve HorizontalPodAutoscaler")
	c.run(t, "get", "horizontalpodautoscalers").want(t, exit.Usage, "", "kind HorizontalPodAutoscaler.autoscaling is not served yet")
}

func TestApplyConflicts(t *testing.T) {
	c := startCluster(t)
	file := writeFile(t, "web.yaml", webManifest)
	c.owner = "autoscaler"
	c.run(t, "apply", "-f", file).want(t, exit.Failed, "", "web.yaml:1: ", `.spec.replicas is owned by "autoscaler"`, "--force-conflicts")
	c.run(t, "apply", "-f", file, "--force-conflicts").want(t, exit.OK, "namespace/shop created\ndeployment.apps/web created\n")
	// What one's own scale or label has set is not held against one's manifest.
	c.owner = session.FieldManager
	c.run(t, "apply", "-f", file).want(t, exit.OK, "namespace/shop unchanged\ndeployment.apps/web unchanged\n")
}

func TestBadManifests(t *testing.T) {
	c := startCluster(t)
	typo := writeFile(t, "web.yaml", strings.Replace(webManifest, `image: "echo:1"`, `imagee: "echo:1"`, 1)+"---\nkind: Nonsense\napiVersion: v1\n")
	c.run(t, "apply", "-f", typo).want(t, exit.Failed, "namespace/shop created\n", `web.yaml:9: spec.template.spec.containers[0].imagee: unknown field`, `did you mean`, "web.yaml:")
	c.run(t, "get", "ns", "-o", "name").want(t, exit.OK, "namespace/shop\n")
	c.run(t, "apply", "-f", "nowhere.yaml").want(t, exit.Failed, "", "nowhere.yaml: no such file")
	c.run(t, "apply").want(t, exit.Usage, "", "-f is required")
	c.run(t, "apply", "-f", typo, "--dry-run=client").want(t, exit.Usage, "", "want none or server")
	c.runInput(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: a}\n", "apply", "-n", "b", "-f", "-").
		want(t, exit.Failed, "", "stdin:1: ", "is \"a\" in the manifest but \"b\" by -n")
	invalid := strings.Replace(webManifest, "replicas: 2", "replicas: -2", 1)
	c.runInput(t, invalid, "apply", "-f", "-").want(t, exit.Failed, "namespace/shop unchanged\n", "stdin:5: ", "spec.replicas")
	c.runInput(t, strings.Replace(invalid, "app: web}}}", "app: other}}}", 1)+"---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}, {port: 65536}]}\n", "create", "-f", "-").
		want(t, exit.Failed, "", `Service "s" is invalid:`, "\n  spec.ports[0].name", "\n  spec.ports[0].port", "\n  spec.ports[1].port")
}

func TestGet(t *testing.T) {
	c := startCluster(t)
	c.run(t, "get", "pods").want(t, exit.OK, "", "No resources found in default namespace.")
	other := webPod("far", "node-2")
	other.Metadata.Namespace, other.Metadata.Labels = "shop", nil
	clienttest.Seed(c.Server, webPod("web-1", "node-1"), webPod("web-2", ""), other)
	clienttest.Seed(c.Server, webDeployment())
	clienttest.Seed(c.Server, testNode("node-1", true))

	for name, args := range map[string]string{
		"get-pods":         "get pods",
		"get-pods-wide":    "get po -o wide",
		"get-pods-all":     "get pods -A --show-labels",
		"get-mixed":        "get pods,deploy,nodes",
		"get-yaml":         "get pod/web-1 -o yaml",
		"get-json-list":    "get nodes -o json",
		"get-label-column": "get pods -L app --no-headers --sort-by .status.phase",
	} {
		t.Run(name, func(t *testing.T) { c.run(t, strings.Fields(args)...).golden(t, name) })
	}
	c.run(t, "get", "pods", "-o", "name").want(t, exit.OK, "pod/web-1\npod/web-2\n")
	c.run(t, "get", "deploy/web", "pod/web-1", "-o", "name").want(t, exit.OK, "deployment.apps/web\npod/web-1\n")
	c.run(t, "get", "pods", "-A", "--field-selector", "spec.nodeName=node-2", "-o", "name").want(t, exit.OK, "pod/far\n")
	c.run(t, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name}={.spec.nodeName}{"\n"}{end}`).want(t, exit.OK, "web-1=node-1\nweb-2=\n")
	c.run(t, "get", "pod", "web-1", "gone").want(t, exit.Failed, c.run(t, "get", "pod", "web-1").out, `"gone" not found`)
	c.run(t, "get", "pod", "gone").want(t, exit.Failed, "", `error: pods "gone" not found`)
	c.run(t, "get", "pod", "gone", "--ignore-not-found").want(t, exit.OK, "")
	c.run(t, "get", "poods").want(t, exit.Usage, "", `unknown kind "poods", did you mean "pods"?`)
	c.run(t, "get", "pods", "-l", "app in (").want(t, exit.Failed, "", "selector")
	c.run(t, "get").want(t, exit.Usage, "", "at least one object is required")
	c.run(t, "get", "pods", "web-1", "-l", "app=web").want(t, exit.Usage, "", "cannot be combined")
	c.run(t, "get", "pods", "-o", "xml").want(t, exit.Usage, "", "invalid -o value")
	c.run(t, "get", "pods", "--nonsense").want(t, exit.Usage, "", "unknown flag", "--help")
}

// lineChannel passes on what a command writes, line by line.
type lineChannel struct {
	rest  string
	lines chan string
}

func (l *lineChannel) Write(p []byte) (int, error) {
	l.rest += string(p)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		l.lines <- line
	}
}

func TestGetWatch(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", ""))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := &lineChannel{lines: make(chan string, 100)}
	s := session.New(session.Streams{In: strings.NewReader(""), Out: out, Err: io.Discard})
	s.Dial = c.dialer()
	done := make(chan int)
	go func() { done <- RunSession(ctx, s, []string{"get", "pods", "-w", "-o", "name"}) }()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-out.lines:
			if got != want {
				t.Fatalf("line %q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("no line %q", want)
		}
	}
	expect("pod/web-1")
	clienttest.Seed(c.Server, webPod("web-2", ""))
	expect("pod/web-2")
	c.Disconnect()
	clienttest.Seed(c.Server, webPod("web-3", ""))
	expect("pod/web-3")
	cancel()
	if code := <-done; code != exit.OK {
		t.Errorf("exit code %d after an interrupt of a watch, want 0", code)
	}
}

func TestDescribe(t *testing.T) {
	c := startCluster(t)
	d := webDeployment()
	pod := webPod("web-1", "node-1")
	clienttest.Seed(c.Server, pod)
	clienttest.Seed(c.Server, d)
	clienttest.Seed(c.Server, webSet("1", "echo:1", 0, d), webSet("2", "echo:2", 2, d))
	clienttest.Seed(c.Server, testNode("node-1", true))
	clienttest.Seed(c.Server, &coordinationv1.Lease{Metadata: &metav1.ObjectMeta{Namespace: "kube-node-lease", Name: "node-1"}, Spec: &coordinationv1.LeaseSpec{HolderIdentity: proto.String("node-1")}})
	clienttest.Seed(c.Server, podEvent(pod, "e1", "BackOff", "Back-off restarting failed container", time.Minute), podEvent(pod, "e2", "Unhealthy", "Readiness probe failed", 2*time.Minute),
		podEvent(webPod("other", ""), "e3", "Other", "of another pod", time.Minute))
	clienttest.Seed(c.Server, &corev1.Service{Metadata: meta("web"), Spec: &corev1.ServiceSpec{Type: core.ServiceClusterIP, ClusterIp: "10.96.0.12", SessionAffinity: "None",
		Selector: map[string]string{"app": "web"}, Ports: []*corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP", TargetPort: object.Text("http")}}}})
	slice := &discoveryv1.EndpointSlice{Metadata: meta("web-x"), AddressType: discovery.AddressIPv4, Ports: []*discoveryv1.EndpointPort{{Name: proto.String("http"), Port: proto.Int32(8080)}},
		Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}}, {Addresses: []string{"10.244.2.6"}, Conditions: &discoveryv1.EndpointConditions{Ready: proto.Bool(false)}}}}
	slice.Metadata.Labels = map[string]string{discovery.LabelServiceName: "web"}
	clienttest.Seed(c.Server, slice)
	clienttest.Seed(c.Server, &corev1.ConfigMap{Metadata: meta("settings"), Data: map[string]string{"mode": "fast", "file": "a\nb\n"}})
	clienttest.Seed(c.Server, &corev1.Secret{Metadata: meta("db"), Type: core.SecretOpaque, Data: map[string][]byte{"password": []byte("s3cret")}})

	for _, what := range []string{"pod/web-1", "deployment/web", "node/node-1", "service/web", "rs/web-1", "cm/settings", "secret/db", "endpointslice/web-x"} {
		t.Run(what, func(t *testing.T) {
			r := c.run(t, "describe", what)
			r.golden(t, "describe-"+strings.ReplaceAll(what, "/", "-"))
			if strings.Contains(r.out, "s3cret") {
				t.Error("a secret was shown")
			}
		})
	}
	c.run(t, "describe", "pod", "gone").want(t, exit.Failed, "", "not found")

	ending := webPod("ending", "node-1")
	ending.Metadata.DeletionTimestamp, ending.Metadata.DeletionGracePeriodSeconds = ago(5*time.Second), proto.Int64(30)
	clienttest.Seed(c.Server, ending)
	if r := c.run(t, "describe", "pod", "ending"); !regexp.MustCompile(`Status: +Terminating \(lasts 5s\)\nTermination Grace Period: +30s\n`).MatchString(r.out) {
		t.Errorf("a pod that ends is described as\n%s%s", r.out, r.err)
	}
	c.Intercept(func(_ string, req proto.Message) error {
		if list, ok := req.(*apiv1.ListRequest); ok && list.GetKind() == "Event" {
			return apierr.New(codes.PermissionDenied, apierr.ReasonForbidden, "no right to it")
		}
		return nil
	})
	if r := c.run(t, "describe", "pod", "web-1"); r.code != exit.OK || !strings.Contains(r.out, "<not permitted to list events>") {
		t.Errorf("without a right to events a pod is described as\n%s%s", r.out, r.err)
	}
	// Only the absence of its lease says that a node is silent.
	for want, refuse := range map[string]error{
		"Alive: +yes, lease current\n":                          nil,
		"Alive: +unknown, lease not readable: no right to it\n": apierr.New(codes.PermissionDenied, apierr.ReasonForbidden, "no right to it"),
		"Alive: +no, lease expired\n":                           apierr.NotFound(kinds.Of(&coordinationv1.Lease{}), "node-1"),
	} {
		c.Intercept(func(_ string, req proto.Message) error {
			if get, ok := req.(*apiv1.GetRequest); ok && get.GetObject().GetKind() == "Lease" {
				return refuse
			}
			return nil
		})
		if r := c.run(t, "describe", "node", "node-1"); !regexp.MustCompile(want).MatchString(r.out) {
			t.Errorf("a node is described as\n%s%s\nwant %s", r.out, r.err, want)
		}
	}
}

func TestDelete(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("a", ""), webPod("b", ""), webPod("c", "node-1"))
	c.run(t, "delete", "pods").want(t, exit.Usage, "", "are required to select pods")
	c.run(t, "delete", "pod", "a", "--dry-run=server").want(t, exit.OK, "pod/a deleted (server dry run)\n")
	c.run(t, "delete", "pod", "a", "gone").want(t, exit.Failed, "pod/a deleted\n", `"gone" not found`)
	c.run(t, "delete", "pod", "a", "--ignore-not-found").want(t, exit.OK, "")
	// A pod on a node is only marked; it is gone when its node says so.
	r := c.run(t, "delete", "pod", "c", "--timeout=100ms")
	r.want(t, exit.Timeout, "pod/c deleted\n", "timed out waiting for deletion of pod/c")
	done := make(chan result)
	watches := c.Calls("Watch")
	go func() { done <- c.runContext(t, t.Context(), "", "delete", "pod/c", "pod/b") }()
	for c.Calls("Watch") == watches {
		select {
		case <-t.Context().Done():
			t.Fatal("no watch")
		case <-time.After(time.Millisecond):
		}
	}
	clienttest.Remove(c.Server, webPod("c", ""))
	(<-done).want(t, exit.OK, "pod/c deleted\npod/b deleted\n")
	c.run(t, "get", "pods").want(t, exit.OK, "", "No resources found")
	clienttest.Seed(c.Server, webPod("d", "node-1"), webPod("e", ""))
	c.run(t, "delete", "pods", "-l", "app=web", "--grace-period=0", "--force").want(t, exit.OK, "pod/d force deleted\npod/e force deleted\n", "Warning:")
	file := writeFile(t, "web.yaml", webManifest)
	c.run(t, "create", "-f", file).want(t, exit.OK, "namespace/shop created\ndeployment.apps/web created\n")
	c.run(t, "delete", "-f", file, "--wait=false").want(t, exit.OK, "deployment.apps/web deleted\nnamespace/shop deleted\n")
	c.run(t, "delete", "pod", "x", "--cascade=sometimes").want(t, exit.Usage, "", "invalid --cascade value")
}

func TestCreate(t *testing.T) {
	c := startCluster(t)
	c.run(t, "create", "namespace", "shop").want(t, exit.OK, "namespace/shop created\n")
	c.run(t, "create", "ns", "shop").want(t, exit.Failed, "", `namespaces "shop" already exists`)
	c.run(t, "create", "namespace", "Not_A_Name").want(t, exit.Failed, "", "metadata.name")
	file := writeFile(t, "app.conf", "x=1\n")
	c.run(t, "create", "configmap", "settings", "--from-literal=mode=fast", "--from-file="+file).want(t, exit.OK, "configmap/settings created\n")
	c.run(t, "get", "cm", "settings", "-o", `jsonpath={.data.mode} {.data.app\.conf}`).want(t, exit.OK, "fast x=1\n")
	c.run(t, "create", "secret", "generic", "db", "--from-literal=password=s3cret").want(t, exit.OK, "secret/db created\n")
	c.run(t, "create", "deployment", "web", "--image=reg/echo:1", "--replicas=3", "--", "serve", "-v").want(t, exit.OK, "deployment.apps/web created\n")
	c.run(t, "get", "deploy/web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].name} {.spec.template.spec.containers[0].command}").
		want(t, exit.OK, `3 echo ["serve","-v"]`)
	c.run(t, "get", "deploy/web", "--at", "1").want(t, exit.Failed, "", "not found")
	c.run(t, "get", "deploy", "--at", "1", "-o", "name").want(t, exit.OK, "")
	c.run(t, "get", "deploy", "--at", "yesterday").want(t, exit.Usage, "", "10m")
	c.run(t, "get", "deploy", "-w", "--at", "1").want(t, exit.Usage, "", "cannot be combined")
	c.run(t, "create", "deployment", "web").want(t, exit.Usage, "", "--image is required")
	c.run(t, "create", "configmap", "x", "--from-literal=mode").want(t, exit.Usage, "", "want KEY=VALUE")
	c.run(t, "create", "spaceship", "x").want(t, exit.Usage, "", "unknown command")
}

func TestChanges(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webDeployment())
	clienttest.Seed(c.Server, testNode("node-1", true))
	c.run(t, "scale", "deployment/web", "--replicas=5").want(t, exit.OK, "deployment.apps/web scaled\n")
	c.run(t, "scale", "deploy", "web", "--current-replicas=2", "--replicas=9").want(t, exit.Failed, "", "does not have 2 replicas")
	c.run(t, "scale", "deploy/web", "--replicas=-1").want(t, exit.Usage, "", "--replicas is required")
	c.run(t, "scale", "node/node-1", "--replicas=1").want(t, exit.Usage, "", "kind node has no replicas")
	c.run(t, "set", "image", "deployment/web", "echo=echo:3").want(t, exit.OK, "deployment.apps/web image updated\n")
	c.run(t, "set", "image", "deployment/web", "eco=echo:3").want(t, exit.Failed, "", "no container eco: want one of echo")
	c.run(t, "get", "deploy/web", "-o", "jsonpath={.spec.replicas} {.spec.template.spec.containers[*].image}").want(t, exit.OK, "5 echo:3")
	c.run(t, "label", "node", "node-1", "disk=ssd").want(t, exit.OK, "node/node-1 labeled\n")
	c.run(t, "label", "node", "node-1", "disk=hdd").want(t, exit.Failed, "", "--overwrite replaces it")
	c.run(t, "label", "node", "node-1", "disk=hdd", "--overwrite").want(t, exit.OK, "node/node-1 labeled\n")
	c.run(t, "label", "node", "node-1", "disk=hdd").want(t, exit.OK, "node/node-1 not labeled\n")
	c.run(t, "label", "node", "node-1", "disk-").want(t, exit.OK, "node/node-1 unlabeled\n")
	c.run(t, "label", "node", "node-1").want(t, exit.Usage, "", "at least one KEY=VALUE")
	c.run(t, "annotate", "deploy/web", "note=hello world").want(t, exit.OK, "deployment.apps/web annotated\n")
	c.run(t, "patch", "deployment", "web", "-p", "spec: {replicas: 2}").want(t, exit.OK, "deployment.apps/web patched\n")
	c.run(t, "patch", "deployment", "web", "-p", `{"spec":{"replicas":2}}`).want(t, exit.OK, "deployment.apps/web patched (no change)\n")
	c.run(t, "patch", "deployment", "web", "--type=apply", "-p", "{}").want(t, exit.Usage, "", "want merge, json or strategic")
	c.run(t, "taint", "node", "node-1", "gpu=true:NoSchedule").want(t, exit.OK, "node/node-1 tainted\n")
	c.run(t, "taint", "node", "node-1", "gpu=false:NoSchedule").want(t, exit.Failed, "", "--overwrite")
	c.run(t, "taint", "nodes", "node-1", "gpu:NoSchedule-").want(t, exit.OK, "node/node-1 untainted\n")
	c.run(t, "taint", "nodes", "node-1", "gpu-").want(t, exit.Failed, "", "has no taint")
	c.run(t, "taint", "node", "node-1", "gpu=true:Sometimes").want(t, exit.Usage, "", "NoSchedule, PreferNoSchedule, NoExecute")
	c.run(t, "cordon", "node-1").want(t, exit.OK, "node/node-1 cordoned\n")
	c.run(t, "cordon", "node-1").want(t, exit.OK, "node/node-1 already cordoned\n")
	c.run(t, "uncordon", "node/node-1").want(t, exit.OK, "node/node-1 uncordoned\n")
}

func TestDrain(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, testNode("node-1", true))
	bare, owned := webPod("bare", "node-1"), webPod("owned", "node-1")
	bare.Spec.Volumes = nil
	owned.Metadata.OwnerReferences = []*metav1.OwnerReference{{ApiVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", Uid: "u", Controller: proto.Bool(true)}}
	clienttest.Seed(c.Server, bare, owned)
	c.run(t, "drain", "node-1").want(t, exit.Failed, "node/node-1 cordoned\n", "default/bare has no controller", "default/owned has an emptyDir", "stays cordoned")
	if c.Calls("Evict") > 0 {
		t.Error("pods were evicted although others could not be")
	}
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		for c.Calls("Evict") < 2 {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		clienttest.Remove(c.Server, bare)
		clienttest.Remove(c.Server, owned)
	}()
	c.run(t, "drain", "node-1", "--force", "--delete-emptydir-data", "--ignore-daemonsets").
		want(t, exit.OK, "node/node-1 already cordoned\npod/bare evicted\npod/owned evicted\nnode/node-1 drained\n", "evicting pod default/bare")
	<-removed
}

func TestRollout(t *testing.T) {
	c := startCluster(t)
	d := webDeployment()
	clienttest.Seed(c.Server, d)
	clienttest.Seed(c.Server, webSet("1", "echo:1", 0, d), webSet("2", "echo:2", 2, d))
	c.run(t, "rollout", "status", "deployment/web").want(t, exit.OK, "deployment \"web\" successfully rolled out\n")
	c.run(t, "rollout", "history", "deployment", "web").golden(t, "rollout-history")
	c.run(t, "rollout", "history", "deploy/web", "--revision=1").golden(t, "rollout-history-1")
	c.run(t, "rollout", "undo", "deployment/web", "--to-revision=7").want(t, exit.Failed, "", "no revision 7: want one of [1 2]")
	c.run(t, "rollout", "undo", "web").want(t, exit.OK, "deployment.apps/web rolled back\n")
	c.run(t, "get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.metadata.labels}").want(t, exit.OK, `echo:1 {"app":"web"}`)
	c.run(t, "rollout", "pause", "deployment/web").want(t, exit.OK, "deployment.apps/web paused\n")
	c.run(t, "rollout", "restart", "deployment/web").want(t, exit.Failed, "", "is paused")
	c.run(t, "rollout", "resume", "deployment/web").want(t, exit.OK, "deployment.apps/web resumed\n")
	c.run(t, "rollout", "restart", "deployment/web").want(t, exit.OK, "deployment.apps/web restarted\n")
	c.run(t, "rollout", "status", "deployment/web", "--watch=false").want(t, exit.OK, "Waiting for deployment spec update to be observed...\n")
	c.run(t, "rollout", "status", "deployment/web", "--timeout=1s").want(t, exit.Timeout, "Waiting for deployment spec update to be observed...\n", "timed out")
	stuck := webDeployment()
	stuck.Metadata.Name = "stuck"
	stuck.Status.Conditions[0] = &appsv1.DeploymentCondition{Type: apps.DeploymentProgressing, Status: condition.False, Reason: "ProgressDeadlineExceeded"}
	clienttest.Seed(c.Server, stuck)
	c.run(t, "rollout", "status", "deployment/stuck").want(t, exit.Failed, "", "exceeded its progress deadline")
	// A rollout that hangs tells what its newest pod waits for.
	pulling := webDeployment()
	pulling.Metadata.Name, pulling.Metadata.Uid, pulling.Status.AvailableReplicas = "pulling", "uid-pulling", 1
	set := webSet("2", "none:1", 2, pulling)
	set.Metadata.Name, set.Metadata.Uid = "pulling-2", "uid-pulling-2"
	healthy, hangs := webPod("pulling-2-a", "node-1"), webPod("pulling-2-b", "node-1")
	for _, p := range []*corev1.Pod{healthy, hangs} {
		p.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(set)}
		p.Metadata.Labels = set.GetSpec().GetSelector().GetMatchLabels()
	}
	hangs.Status.Conditions[0].Status = condition.False
	hangs.Status.ContainerStatuses[0].Ready = false
	hangs.Status.ContainerStatuses[0].LastState = nil
	hangs.Status.ContainerStatuses[0].State = &corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: `back-off pulling image "none:1"`}}
	clienttest.Seed(c.Server, pulling)
	clienttest.Seed(c.Server, set)
	clienttest.Seed(c.Server, healthy, hangs)
	const waits = `pod pulling-2-b: container echo is waiting: ImagePullBackOff: back-off pulling image "none:1"`
	const state = "Waiting for deployment \"pulling\" rollout to finish: 1 of 2 updated replicas are available...\n  " + waits + "\n"
	c.run(t, "rollout", "status", "deployment/pulling", "--watch=false").want(t, exit.OK, state)
	c.run(t, "rollout", "status", "deployment/pulling", "--timeout=500ms").want(t, exit.Timeout, state, "timed out waiting for the rollout of deployment.apps/pulling: "+waits)
	c.run(t, "rollout", "status", "deployment/pulling", "--timeout=5s").want(t, exit.Timeout, state, waits)
	c.verdict = &schedulerv1.ExplainResponse{NodeName: "node-1"}
	c.run(t, "why", "deployment/pulling").want(t, exit.OK, "Waiting for deployment \"pulling\" rollout to finish: 1 of 2 updated replicas are available...\n"+
		"pod/pulling-2-b is ImagePullBackOff on node node-1.\n  container echo is waiting: ImagePullBackOff: back-off pulling image \"none:1\"\n", "explaining pod/pulling-2-b, which is not ready")
	refused := webDeployment()
	refused.Metadata.Name, refused.Status = "refused", &appsv1.DeploymentStatus{ObservedGeneration: 2, Conditions: []*appsv1.DeploymentCondition{
		{Type: apps.DeploymentReplicaFailure, Status: condition.True, Reason: "FailedCreate", Message: "no service account"}}}
	refused.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "refused"}}
	clienttest.Seed(c.Server, refused)
	c.run(t, "rollout", "status", "deployment/refused", "--watch=false").want(t, exit.OK,
		"Waiting for deployment \"refused\" rollout to finish: 0 out of 2 new replicas have been updated...\n  cannot create pods: FailedCreate: no service account\n")
	c.run(t, "why", "deployment/refused").want(t, exit.Failed,
		"Waiting for deployment \"refused\" rollout to finish: 0 out of 2 new replicas have been updated...\n", "no pods found for deployment.apps/refused: cannot create pods: FailedCreate")
	c.run(t, "rollout", "status", "pod/x").want(t, exit.Usage, "", "want a deployment, a daemonset or a statefulset")
}

func TestWait(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("up", "node-1"), webPod("waits", ""))
	c.run(t, "wait", "--for=condition=Ready", "pod/up").want(t, exit.OK, "pod/up condition met\n")
	c.run(t, "wait", "--for=condition=ready=true", "pod", "up").want(t, exit.OK, "pod/up condition met\n")
	c.run(t, "wait", "--for=jsonpath={.status.phase}=Running", "pod/up").want(t, exit.OK, "pod/up condition met\n")
	c.run(t, "wait", "--for=jsonpath={.status.podIP}", "pod/up").want(t, exit.OK, "pod/up condition met\n")
	c.run(t, "wait", "--for=condition=Ready", "pod/waits", "--timeout=0").want(t, exit.Timeout, "", "timed out waiting for the condition on pod/waits")
	c.run(t, "wait", "--for=condition=Ready", "pod/gone").want(t, exit.Failed, "", "not found")
	c.run(t, "wait", "--for=delete", "pod/gone").want(t, exit.OK, "pod/gone condition met\n")
	c.run(t, "wait", "--for=sunshine", "pod/up").want(t, exit.Usage, "", "invalid --for value")
	c.run(t, "wait", "pod/up").want(t, exit.Usage, "", "invalid --for value")

	done := make(chan result)
	go func() { done <- c.runContext(t, t.Context(), "", "wait", "--for=condition=Ready", "pod", "--all") }()
	for c.Calls("Watch") == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("no watch")
		case <-time.After(time.Millisecond):
		}
	}
	clienttest.Seed(c.Server, webPod("waits", "node-1"))
	(<-done).want(t, exit.OK, "pod/up condition met\npod/waits condition met\n")
}

func TestLogs(t *testing.T) {
	c := startCluster(t)
	pod := webPod("web-1", "node-1")
	clienttest.Seed(c.Server, pod, webPod("web-2", "node-1"))
	clienttest.Seed(c.Server, webDeployment())
	var requests []*nodev1.LogsRequest
	c.logs = func(req *nodev1.LogsRequest, stream grpc.ServerStreamingServer[nodev1.LogsResponse]) error {
		requests = append(requests, req)
		return stream.Send(&nodev1.LogsResponse{Data: []byte("hello from " + req.GetTarget().GetPod() + "\n")})
	}
	c.run(t, "logs", "web-1", "--tail=5", "--since=1m").want(t, exit.OK, "hello from web-1\n")
	if r := requests[0]; r.GetTailLines() != 5 || !r.GetSinceTime().AsTime().Equal(testNow.Add(-time.Minute)) || r.GetContainer() != "echo" || r.GetFollow() {
		t.Errorf("request %v", r)
	}
	c.run(t, "logs", "deployment/web").want(t, exit.OK, "hello from web-1\n", "Found 2 pods, using pod/web-1")
	c.run(t, "logs", "-l", "app=web", "--prefix").want(t, exit.OK, "[pod/web-1/echo] hello from web-1\n[pod/web-2/echo] hello from web-2\n")
	if got := requests[len(requests)-1].GetTailLines(); got != 10 {
		t.Errorf("%d lines of many pods, want 10", got)
	}
	c.run(t, "logs", "web-1", "-c", "nope").want(t, exit.Failed, "", `no container "nope": want one of echo`)
	c.run(t, "logs").want(t, exit.Usage, "", "exactly one of a pod and -l")
	c.run(t, "logs", "-l", "app=none").want(t, exit.Failed, "", "no pods match")
	c.run(t, "logs", "web-1", "--since-time=yesterday").want(t, exit.Usage, "", "--since-time")
	c.run(t, "logs", "node/node-1").want(t, exit.Failed, "", "not found")
}

// TestLogsResume: a followed log goes on after its gateway was lost, with every line once.
func TestLogsResume(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	attempts := 0
	c.logs = func(req *nodev1.LogsRequest, stream grpc.ServerStreamingServer[nodev1.LogsResponse]) error {
		attempts++
		if !req.GetTimestamps() {
			t.Error("a followed log is asked for without times")
		}
		if attempts == 1 {
			_ = stream.Send(&nodev1.LogsResponse{Data: []byte("2026-05-04T12:00:01Z one\n2026-05-04T12:00:02Z two\n2026-05-04T12:00:03Z th")})
			return apierr.Unavailable("the gateway stops")
		}
		if got := req.GetSinceTime().AsTime().Second(); got != 2 {
			t.Errorf("resumed at second %d, want 2", got)
		}
		return stream.Send(&nodev1.LogsResponse{Data: []byte("2026-05-04T12:00:02Z two\n2026-05-04T12:00:03Z three\n")})
	}
	c.run(t, "logs", "-f", "web-1").want(t, exit.OK, "one\ntwo\nthree\n")
}

func TestExec(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	c.exec = func(stream grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		start := first.GetStart()
		out := strings.Join(start.GetCommand(), " ") + ":"
		for start.GetStdin() {
			req, err := stream.Recv()
			if err != nil {
				return err
			}
			if req.GetCloseStdin() {
				break
			}
			out += string(req.GetStdin())
		}
		_ = stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stdout{Stdout: []byte(out)}})
		_ = stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_Stderr{Stderr: []byte("complaint")}})
		return stream.Send(&nodev1.ExecResponse{Response: &nodev1.ExecResponse_ExitCode{ExitCode: int32(len(start.GetCommand()))}})
	}
	c.run(t, "exec", "web-1", "--", "false", "-x").want(t, 2, "false -x:", "complaint")
	c.runInput(t, "typed", "exec", "-i", "web-1", "--", "cat").want(t, 1, "cat:typed", "complaint")
	c.run(t, "exec", "web-1", "ls").want(t, exit.Usage, "", "-- is required before the command: xebec exec web-1 -- ls")
	c.run(t, "exec", "web-1").want(t, exit.Usage, "", "after --, a command")
	c.run(t, "exec", "gone", "--", "ls").want(t, exit.Failed, "", `"gone" not found`)
	c.exec = func(grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]) error {
		return apierr.BadRequest("there is no command %q in the image", "lss")
	}
	c.run(t, "exec", "web-1", "--", "lss").want(t, exit.Failed, "", `no command "lss" in the image`)
}

func TestImageLoad(t *testing.T) {
	c := startCluster(t)
	content := strings.Repeat("0123456789", 100_000)
	archive := writeFile(t, "echo.tar", content)
	c.run(t, "image", "load", archive).want(t, exit.Failed, "", "no nodes registered")
	clienttest.Seed(c.Server, testNode("node-1", true), testNode("node-2", true))
	c.run(t, "image", "load", archive).want(t, exit.OK, "image/docker.io/library/echo:1 loaded into node-1, node-2\n")
	for _, node := range []string{"node-1", "node-2"} {
		if c.loaded[node] != content {
			t.Errorf("%s got %d bytes, want %d", node, len(c.loaded[node]), len(content))
		}
	}
	c.run(t, "image", "load", archive, "--nodes=node-1,full").want(t, exit.Failed, "image/docker.io/library/echo:1 loaded into node-1\n", "into full: no space left on the node")
	c.run(t, "image", "load", "nowhere.tar").want(t, exit.Failed, "", "nowhere.tar: no such file")
}

func TestWhy(t *testing.T) {
	c := startCluster(t)
	crashing := webPod("crashing", "node-1")
	crashing.Status.Conditions[0].Status = condition.False
	crashing.Status.ContainerStatuses[0].State = &corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 20s"}}
	clienttest.Seed(c.Server, webPod("waits", ""), crashing)
	clienttest.Seed(c.Server, podEvent(crashing, "e1", "BackOff", "Back-off restarting failed container", time.Minute))
	c.verdict = &schedulerv1.ExplainResponse{WaitsFor: "a change in one of the nodes below", Nodes: []*schedulerv1.NodeVerdict{
		{NodeName: "node-1", Total: 7.5, Scores: []*schedulerv1.Score{{Name: "LeastAllocated", Score: 8, Weight: 1}, {Name: "Spread", Score: 7, Weight: 1}}},
		{NodeName: "node-2", RefusedBy: "NodeResources", Reason: "insufficient cpu: 1500m requested, 400m free"},
	}}
	c.run(t, "why", "waits").golden(t, "why-waits")
	preempting := &schedulerv1.ExplainResponse{
		WaitsFor: "a change of a node", Preemption: "it makes room on node node-1 by deleting default/low, default/lower",
		Nodes: []*schedulerv1.NodeVerdict{
			{NodeName: "node-1", RefusedBy: "NodeResources", Reason: "insufficient cpu", Victims: []string{"default/low", "default/lower"}},
			{NodeName: "node-2", RefusedBy: "NodeResources", Reason: "insufficient cpu", NoVictims: "No preemption victims found for incoming pod"},
		},
	}
	was := c.verdict
	c.verdict = preempting
	c.run(t, "why", "waits").golden(t, "why-preemption")
	preempting.Preemption, preempting.Nodes[0].Victims = "no room is made: not eligible due to preemptionPolicy=Never.", nil
	c.run(t, "why", "waits").golden(t, "why-preemption-never")
	c.verdict = was
	c.verdict.NodeName, c.verdict.WaitsFor = "node-1", ""
	c.run(t, "why", "pod/crashing").golden(t, "why-crashing")
	gated := webPod("gated", "node-1")
	gated.Spec.ReadinessGates = []*corev1.PodReadinessGate{{ConditionType: "example.com/lb"}, {ConditionType: "example.com/dns"}, {ConditionType: "example.com/ok"}}
	gated.Status.Conditions = []*corev1.PodCondition{{Type: core.PodReady, Status: condition.False, Reason: "ReadinessGatesNotReady"},
		{Type: "example.com/dns", Status: condition.False, Reason: "NoRecord", Message: "not there yet"}, {Type: "example.com/ok", Status: condition.True}}
	clienttest.Seed(c.Server, gated)
	c.verdict.Nodes = nil
	c.run(t, "why", "gated").want(t, exit.OK, "pod/gated is Running on node node-1.\n"+
		"  readiness gate example.com/lb is not met: the pod has no such condition\n"+
		"  readiness gate example.com/dns is not met: the condition is False: NoRecord: not there yet\n")
}

func TestClusterStatus(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, testNode("node-1", true))
	c.status = &clusterv1.StatusResponse{
		EtcdMembers: []*clusterv1.EtcdMember{
			{Name: "master-1", Endpoint: "https://192.0.2.1:2379", Healthy: true, Leader: true, DbSizeBytes: 1 << 20, RaftIndex: 100},
			{Name: "master-2", Endpoint: "https://192.0.2.2:2379", Healthy: true, DbSizeBytes: 1 << 20, RaftIndex: 100},
		},
		Services: []*clusterv1.ServiceInstance{
			{Service: "scheduler", Host: "master-1", Endpoint: "192.0.2.1:7003", Healthy: true, Version: "v0.1.0"},
			{Service: "scheduler", Host: "master-2", Endpoint: "192.0.2.2:7003", Healthy: true, Leader: true, Version: "v0.1.0"},
			{Service: "gateway", Host: "master-1", Endpoint: "192.0.2.1:6443", Healthy: true, Version: "v0.1.0"},
			{Service: "gateway", Host: "master-2", Endpoint: "192.0.2.2:6443", Healthy: true, Version: "v0.1.0"},
		},
	}
	c.run(t, "cluster", "status", "--check").golden(t, "cluster-status")
	c.status.Services[3].Healthy, c.status.Services[3].Error = false, "connection refused"
	c.status.EtcdMembers[1].Healthy, c.status.EtcdMembers[1].Error = false, "context deadline exceeded"
	c.status.Problems = []string{"list the elections: no leader"}
	c.run(t, "cluster", "status").golden(t, "cluster-status-ill")
	c.run(t, "cluster", "status", "-o", "wide").golden(t, "cluster-status-wide")
	if r := c.run(t, "cluster", "status", "--check"); r.code != exit.Failed {
		t.Errorf("exit code %d of an unhealthy cluster, want 1", r.code)
	}
	c.run(t, "cluster", "status", "-o", "jsonpath={.etcdMembers[?(@.leader==true)].name}").want(t, exit.OK, "master-1")
}

func TestControllers(t *testing.T) {
	c := startCluster(t)
	c.control = &controlv1.ListControllersResponse{Instance: "workloads@master-1", Leader: "workloads@master-1", Controllers: []*controlv1.Controller{
		{Name: "deployment", QueueDepth: 3, Active: 1, Reconciles: 40, Failures: 2, LastErrors: []*controlv1.ReconcileError{{Key: "default/web", Message: "conflict", Time: ago(time.Minute)}}},
	}}
	c.run(t, "controllers", "workloads").golden(t, "controllers")
	c.run(t, "controllers", "workloads", "--resync", "--controller=deployment").want(t, exit.OK, "service/workloads resynced: 10 keys queued\n")
	c.run(t, "controllers", "--resync").want(t, exit.Usage, "", "requires a service")
}

func TestNodeServices(t *testing.T) {
	c := startCluster(t)
	c.services = &nodev1.ListServicesResponse{ResourceVersion: "42", Services: []*nodev1.ServiceEntry{
		{Service: "default/web", Frontend: "10.96.0.12:80", Protocol: "TCP", WantedBackends: []string{"10.244.1.5:8080"}, ActualBackends: []string{"10.244.1.5:8080"}},
		{Service: "default/lag", Frontend: "10.96.0.13:80", Protocol: "TCP", WantedBackends: []string{"10.244.1.6:8080"}, ActualBackends: []string{"10.244.1.7:8080"}},
		{Frontend: "10.96.0.14:80", Protocol: "UDP", ActualBackends: []string{"10.244.1.8:53"}},
	}}
	r := c.run(t, "node", "services", "node-1")
	r.golden(t, "node-services")
	if !strings.Contains(r.err, "revision 42") {
		t.Errorf("no note on the difference: %s", r.err)
	}
	if r := c.run(t, "node", "services", "node-1", "--check"); r.code != exit.Failed {
		t.Errorf("exit code %d when maps differ, want 1", r.code)
	}
}

func TestNodeFeatures(t *testing.T) {
	c := startCluster(t)
	c.services = &nodev1.ListServicesResponse{ResourceVersion: "42", Features: []*nodev1.KernelFeature{
		{Name: "stale_sockets", Method: "none", Missing: "UDP sockets stay connected", Reason: "closing a socket: operation not supported"},
		{Name: "refusal_error", Method: "ECONNREFUSED"},
	}}
	c.run(t, "node", "features", "node-1").golden(t, "node-features")
	// What is missing is also reported with the maps.
	c.run(t, "node", "services", "node-1").want(t, exit.OK, "", "UDP sockets stay connected (closing a socket: operation not supported)")
	c.services.Features = nil
	c.run(t, "node", "features", "node-1").want(t, exit.OK, "", "does not report")
}

func TestExplain(t *testing.T) {
	c := startCluster(t)
	r := c.run(t, "explain", "deployment.spec.strategy")
	for _, want := range []string{"GROUP:    apps", "FIELD:    spec.strategy <DeploymentStrategy>", "rollingUpdate <RollingUpdateDeployment>"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("lacks %q:\n%s", want, r.out)
		}
	}
	for field, wants := range map[string][]string{
		"pod.spec":                                {"containers <[]Container> -required-", "restartPolicy <string>\n  enum: Always", "default: Always", "Not supported."},
		"pod.spec.containers.ports":               {"hostPort <integer>\n  range: 1 to 65535", "protocol <string>\n  enum: TCP, UDP\n  default: TCP"},
		"pod.spec.restartPolicy":                  {"ENUM:     Always", "DEFAULT:  Always"},
		"pod.spec.containers.name":                {"FIELD:    spec.containers.name <string> -required-"},
		"service.spec.ports.port":                 {"FIELD:    spec.ports.port <integer> -required-"},
		"pod.spec.containers.ports.containerPort": {"RANGE:    1 to 65535"},
		"pod.spec.volumes.rbd":                    {"Not supported: "},
		"deployment.spec":                         {"selector <LabelSelector> -required-", "template <PodTemplateSpec> -required-"},
		"pod.status.containerStatuses":            {"image <string> -required-"},
	} {
		r := c.run(t, "explain", field)
		for _, want := range wants {
			if !strings.Contains(r.out, want) {
				t.Errorf("explain %s lacks %q:\n%s", field, want, r.out)
			}
		}
	}
	// Embedded messages that JSON inlines have no name of their own.
	if r := c.run(t, "explain", "pod.spec.containers.livenessProbe"); !strings.Contains(r.out, "httpGet <HTTPGetAction>") {
		t.Errorf("inlined fields are not shown:\n%s", r.out)
	}
	c.run(t, "explain", "pod.spec.containers.imag").want(t, exit.Usage, "", `did you mean "image"?`)
	c.run(t, "explain", "pod.metadata.name.x").want(t, exit.Usage, "", "has no fields")
	for _, k := range kinds.All() {
		if r := c.run(t, "explain", k.Plural, "--recursive"); r.code != exit.OK || len(r.out) < 100 {
			t.Errorf("explain %s: code %d, %d bytes", k.Plural, r.code, len(r.out))
		}
	}
}

func TestVersionAndIdentity(t *testing.T) {
	c := startCluster(t)
	if r := c.run(t, "version"); r.code != exit.OK || !strings.Contains(r.out, "server   v0.1.0    0123456789ab…   go1.26") {
		t.Errorf("code %d, output:\n%s", r.code, r.out)
	}
	c.run(t, "version", "-o", "jsonpath={.server.version}").want(t, exit.OK, "v0.1.0")
	c.run(t, "auth", "whoami").want(t, exit.OK, "USER   GROUPS\nann    system:masters\n")
}

func TestAPIResources(t *testing.T) {
	c := startCluster(t)
	r := c.run(t, "api-resources", "-o", "name", "--namespaced=false")
	if !strings.Contains(r.out, "nodes\n") || strings.Contains(r.out, "pods\n") {
		t.Errorf("cluster-wide kinds:\n%s", r.out)
	}
}

func TestErrors(t *testing.T) {
	c := startCluster(t)
	c.Intercept(func(method string, _ proto.Message) error {
		if method == "List" {
			return apierr.Denied("ann may not list")
		}
		return nil
	})
	if r := c.run(t, "get", "pods"); r.code != exit.Failed || !strings.Contains(r.err, "ann may not list") {
		t.Errorf("code %d: %s", r.code, r.err)
	}
	c.run(t, "gett").want(t, exit.Usage, "", `unknown command "gett"`, "get")
	c.run(t, "rollout", "stat").want(t, exit.Usage, "", "unknown command")
	c.run(t, "get", "pods", "--context", "nowhere").want(t, exit.Failed, "", `no context "nowhere"`, "test")

	t.Setenv("XEBECCONFIG", writeFile(t, "config", "current-context: a\ncontexts:\n- name: a\n  endpoint: [x]\n"))
	c.run(t, "get", "pods").want(t, exit.Failed, "", "config:4: unknown key \"endpoint\"")
	t.Setenv("XEBECCONFIG", "/nonexistent/config")
	c.run(t, "get", "pods").want(t, exit.Failed, "", "no contexts in", "lab up")
}
