package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestWalk is the README's walk, as a user does it, and what a user tries next.
func TestWalk(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	for _, image := range []string{"echo.tar", "client.tar", "echo-2.tar"} {
		out := p.do(t, "image", "load", filepath.Join(s.products.images, image))
		if !strings.Contains(out, "node-1") || !strings.Contains(out, "node-2") {
			t.Errorf("image load %s: %s", image, out)
		}
	}
	samples := filepath.Join(sources(t), "samples")
	out := p.do(t, "apply", "-f", samples)
	for _, want := range []string{"deployment.apps/echo created", "service/echo created", "pod/client created"} {
		if !strings.Contains(out, want) {
			t.Errorf("apply does not say %q:\n%s", want, out)
		}
	}
	p.do(t, "wait", "--for=condition=Available", "deployment/echo", "--timeout=60s")
	p.do(t, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	if out := p.do(t, "apply", "-f", samples); strings.Contains(out, "created") {
		t.Errorf("a second apply created something:\n%s", out)
	}
	p.spread(t, 3)

	t.Run("get", p.walkGet)
	t.Run("service", p.walkService)
	t.Run("service without endpoints", p.walkEmptyService)
	t.Run("node services", p.walkNodeServices)
	t.Run("logs", p.walkLogs)
	t.Run("exec", p.walkExec)
	t.Run("rollout", p.walkRollout)
	t.Run("scale", p.walkScale)
	t.Run("drain", p.walkDrain)
	t.Run("delete", p.walkDelete)
}

// awaitEcho waits until n pods of the sample deployment are ready and no other is left, and returns
// them.
func (p *person) awaitEcho(t *testing.T, n int) []*corev1.Pod {
	t.Helper()
	pods := await(t, p.client, p.namespace, fmt.Sprintf("%d echo pods ready and no other", n), waitLimit, func(pods []*corev1.Pod) bool {
		leaving := slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return pod.GetMetadata().GetDeletionTimestamp() != nil })
		return !leaving && allReady(pods, "echo", n)
	})
	return labelled(pods, "echo")
}

func names(pods []*corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.GetMetadata().GetName())
	}
	slices.Sort(names)
	return names
}

// clusterIP is the address of the sample service.
func (p *person) clusterIP(t *testing.T) string {
	t.Helper()
	address := strings.TrimSpace(p.do(t, "get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"))
	if _, err := netip.ParseAddr(address); err != nil {
		t.Fatalf("cluster IP: %v", err)
	}
	return address
}

func (p *person) walkGet(t *testing.T) {
	for what, want := range map[string][]string{
		"nodes -o wide":              {"node-1", "node-2", "Ready", "containerd://"},
		"pods -o wide":               {"client", "Running", "node-1", "node-2", "10.244."},
		"deployment echo -o yaml":    {"kind: Deployment", "apiVersion: apps/v1", "image: xebec/echo:1"},
		"deployment,service -o name": {"deployment.apps/echo", "service/echo"},
		"pods -l app=client -o name": {"pod/client"},
		"pods -A":                    {p.namespace, "client"},
		"endpointslices":             {"echo"},
		"deployment/echo -o json":    {`"kind": "Deployment"`},
		"events":                     {"Scheduled", "Started"},
		"pods --field-selector=status.phase=Running -o name": {"pod/client"},
	} {
		// Events and endpoints follow what they tell of.
		p.says(t, want, append([]string{"get"}, strings.Fields(what)...)...)
	}
	p.says(t, []string{"ScalingReplicaSet"}, "describe", "deployment", "echo")
	p.says(t, []string{"node-1", "node-2"}, "why", "client")
	p.says(t, []string{"master-3", "scheduler"}, "cluster", "status")
}

// The service answers at each of its names, and each of its backends does.
func (p *person) walkService(t *testing.T) {
	want := names(p.awaitEcho(t, 3))
	for _, host := range []string{p.clusterIP(t), "echo", "echo." + p.namespace, "echo." + p.namespace + ".svc", "echo." + p.namespace + ".svc.cluster.local"} {
		seen := make(map[string]bool)
		eventually(t, "every backend answers at "+host, waitLimit, func() error {
			o := p.try(t, "exec", "client", "--", "/client", "get", "http://"+host+"/name", "--count", "12", "--interval", "1ms")
			if o.code != 0 || strings.Contains(o.stdout, "error:") {
				// The client's node may not have heard of the service, or of its endpoints, yet.
				return fmt.Errorf("%s", o)
			}
			for name := range strings.FieldsSeq(o.stdout) {
				if !slices.Contains(want, name) {
					t.Fatalf("%s: %q answers", host, o.stdout)
				}
				seen[name] = true
			}
			if len(seen) < len(want) {
				return fmt.Errorf("only %v of %v", seen, want)
			}
			return nil
		})
	}
	p.says(t, []string{"over-udp"}, "exec", "client", "--", "/client", "udp", "echo:80", "over-udp")
	if out := p.do(t, "exec", "client", "--", "/client", "dns", "echo"); strings.TrimSpace(out) != p.clusterIP(t) {
		t.Errorf("echo is at %q", out)
	}
	if out := p.do(t, "exec", "client", "--", "/client", "dns", p.clusterIP(t)); !strings.Contains(out, "echo."+p.namespace+".svc.cluster.local") {
		t.Errorf("the name of the cluster IP is %q", out)
	}
	// On one connection after the other, over both nodes, none fails.
	if out := p.do(t, "exec", "client", "--", "/client", "load", "http://echo/name", "--for", "2s", "--workers", "4"); !strings.Contains(out, " 0 failed") {
		t.Error(out)
	}
}

// A service without endpoints refuses at once, by address and by name.
func (p *person) walkEmptyService(t *testing.T) {
	p.apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec:\n  selector: {app: none}\n  ports: [{port: 80}]\n")
	// The client's own limit: how long the command takes to start in the pod does not count. A call
	// that is not refused by then ends with another error.
	eventually(t, "refused at once", waitLimit, func() error {
		o := p.try(t, "exec", "client", "--", "/client", "get", "http://empty/", "--timeout", "5s")
		if o.code != 1 || !strings.Contains(o.stderr, "connection refused") {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
	p.do(t, "delete", "service", "empty")
}

// What the nodes' maps hold is what they should.
func (p *person) walkNodeServices(t *testing.T) {
	backends := make([]string, 0, 3)
	for _, pod := range p.awaitEcho(t, 3) {
		backends = append(backends, pod.GetStatus().GetPodIp()+":8080")
	}
	slices.Sort(backends)
	for _, node := range []string{"node-1", "node-2"} {
		eventually(t, "the maps of "+node, waitLimit, func() error {
			out := p.do(t, "node", "services", node)
			rows := 0
			for line := range strings.Lines(out) {
				fields := strings.Fields(line)
				if len(fields) != 6 || !strings.HasPrefix(fields[0], p.namespace+"/echo:") {
					continue
				}
				rows++
				wanted, actual := strings.Split(fields[4], ","), strings.Split(fields[5], ",")
				slices.Sort(wanted)
				slices.Sort(actual)
				if fields[3] != "ok" || !slices.Equal(wanted, backends) || !slices.Equal(actual, backends) {
					return fmt.Errorf("want %v, the maps are\n%s", backends, out)
				}
			}
			if rows != 2 {
				return fmt.Errorf("%d rows of the service in\n%s", rows, out)
			}
			return nil
		})
	}
}

func (p *person) walkLogs(t *testing.T) {
	pod := p.awaitEcho(t, 3)[0].GetMetadata().GetName()
	p.says(t, []string{pod + " serves on :8080"}, "logs", pod)
	if out := p.do(t, "logs", pod, "--tail=0"); out != "" {
		t.Errorf("no lines were asked for: %q", out)
	}
	if out := p.do(t, "logs", pod, "--timestamps"); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT[^ ]+Z `).MatchString(out) {
		t.Errorf("no time before %q", out)
	}

	// A pod that counts: a line every 50 ms, and an end after which it is started again.
	p.apply(t, `apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: counter
      image: xebec/client:1
      args: [get, "http://echo/name", --count, "40", --interval, 50ms]
`)
	await(t, p.client, p.namespace, "the counter began", waitLimit, func(pods []*corev1.Pod) bool {
		return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
			return pod.GetMetadata().GetName() == "counter" && len(pod.GetStatus().GetContainerStatuses()) == 1 &&
				pod.GetStatus().GetContainerStatuses()[0].GetContainerId() != ""
		})
	})
	lines := 0
	for range p.tailing(t, "logs", "-f", "counter") {
		lines++
	}
	if lines != 40 {
		t.Errorf("followed to the end the log has %d lines, not 40", lines)
	}
	// Which time it runs for by now is not said: it ends again soon.
	p.podIs(t, "counter", "it was started again", func(pod *corev1.Pod) bool {
		return pod.GetStatus().GetContainerStatuses()[0].GetRestartCount() > 0
	})
	if out := p.do(t, "logs", "counter", "--previous"); strings.Count(out, "\n") != 40 {
		t.Errorf("the previous log has %d lines, not 40", strings.Count(out, "\n"))
	}
	if out := p.do(t, "logs", "counter", "--previous", "--tail=3"); strings.Count(out, "\n") != 3 {
		t.Errorf("its last three lines are %q", out)
	}
	p.says(t, []string{"echo-"}, "logs", "counter", "--since=1h")
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if out := p.do(t, "logs", "counter", "--since-time="+later); out != "" {
		t.Errorf("logged later than in an hour: %q", out)
	}
	p.do(t, "delete", "pod", "counter")
}

func (p *person) walkExec(t *testing.T) {
	if o := p.try(t, "exec", "client", "--", "/client", "nonsense"); o.code != 2 || !strings.Contains(o.stderr, "usage:") {
		t.Errorf("exec ends with the command's code and what it said: %s", o)
	}
	if o := p.try(t, "exec", "client", "--", "/no/such/program"); o.code == 0 || !strings.Contains(o.stderr, "/no/such/program") {
		t.Errorf("a command that does not exist: %s", o)
	}
	if o := p.try(t, "exec", "nonesuch", "--", "/client"); o.code != 1 || !strings.Contains(o.stderr, `"nonesuch" not found`) {
		t.Errorf("a pod that does not exist: %s", o)
	}
}

// A new image reaches every pod while the service goes on, and undo brings the old one back.
func (p *person) walkRollout(t *testing.T) {
	image := func() string {
		return strings.TrimSpace(p.do(t, "get", "deployment", "echo", "-o", "jsonpath={.spec.template.spec.containers[0].image}"))
	}
	loaded := make(chan outcome, 1)
	go func() {
		loaded <- p.try(t, "exec", "client", "--", "/client", "load", "http://echo/name", "--for", "8s", "--workers", "2")
	}()
	p.do(t, "set", "image", "deployment/echo", "echo=xebec/echo:2")
	p.do(t, "rollout", "status", "deployment/echo", "--timeout=60s")
	if got := image(); got != "xebec/echo:2" {
		t.Errorf("the image is %s", got)
	}
	for _, pod := range p.awaitEcho(t, 3) {
		if got := pod.GetSpec().GetContainers()[0].GetImage(); got != "xebec/echo:2" {
			t.Errorf("%s has image %s", pod.GetMetadata().GetName(), got)
		}
	}
	if o := <-loaded; o.code != 0 || !strings.Contains(o.stdout, " 0 failed") {
		t.Errorf("under load during the rollout: %s", o)
	}
	if out := p.do(t, "rollout", "history", "deployment/echo"); !strings.Contains(out, "1") || !strings.Contains(out, "2") {
		t.Errorf("history:\n%s", out)
	}
	p.do(t, "rollout", "undo", "deployment/echo")
	p.do(t, "rollout", "status", "deployment/echo", "--timeout=60s")
	if got := image(); got != "xebec/echo:1" {
		t.Errorf("after undo the image is %s", got)
	}
	p.awaitEcho(t, 3)
}

func (p *person) walkScale(t *testing.T) {
	for _, n := range []int{5, 2} {
		p.do(t, "scale", "deployment/echo", "--replicas="+strconv.Itoa(n))
		want := names(p.awaitEcho(t, n))
		eventually(t, "exactly the pods that are there answer", waitLimit, func() error {
			o := p.try(t, "exec", "client", "--", "/client", "get", "http://echo/name", "--count", strconv.Itoa(8*n), "--interval", "1ms")
			got := strings.Fields(o.stdout)
			slices.Sort(got)
			if got = slices.Compact(got); o.code != 0 || !slices.Equal(got, want) {
				return fmt.Errorf("%v answer, want %v: %s", got, want, o.stderr)
			}
			return nil
		})
	}
}

// A cordoned node gets no new pod, a drained one loses those it has, and uncordoned it takes part
// again.
func (p *person) walkDrain(t *testing.T) {
	p.do(t, "cordon", "node-2")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if o := run(t, p.command(ctx, "uncordon", "node-2")); o.code != 0 {
			t.Error(o)
		}
	})
	if out := p.do(t, "get", "nodes"); !strings.Contains(out, "SchedulingDisabled") {
		t.Errorf("nodes:\n%s", out)
	}
	eventually(t, "pods are on the other node alone", waitLimit, func() error {
		// A pod may still come that the scheduler placed before it had heard.
		p.do(t, "drain", "node-2", "--force", "--timeout=60s")
		if nodes := nodesOf(p.awaitEcho(t, 2)); !slices.Equal(nodes, []string{"node-1"}) {
			return fmt.Errorf("they are on %v", nodes)
		}
		return nil
	})
	p.do(t, "uncordon", "node-2")
	p.do(t, "scale", "deployment/echo", "--replicas=4")
	p.spread(t, 4)
}

func (p *person) walkDelete(t *testing.T) {
	pods, _, err := client.List[*corev1.Pod](t.Context(), p.client, client.ListOptions{Namespace: p.namespace})
	if err != nil {
		t.Fatal(err)
	}
	// The drain may have evicted the pod client, which no controller creates again.
	p.do(t, "delete", "--ignore-not-found", "-f", filepath.Join(sources(t), "samples"))
	await(t, p.client, p.namespace, "no pod is left", waitLimit, func(pods []*corev1.Pod) bool { return len(pods) == 0 })
	sets, err := awaitObjects(t.Context(), p.client, p.namespace, waitLimit, func(sets []*appsv1.ReplicaSet) bool { return len(sets) == 0 })
	if err != nil {
		t.Errorf("%d replica sets are left: %v", len(sets), err)
	}
	for _, node := range []string{"node-1", "node-2"} {
		eventually(t, "no process is left on "+node, waitLimit, func() error {
			running := p.containers(t, node)
			for _, pod := range pods {
				if left := running[pod.GetMetadata().GetUid()]; len(left) > 0 {
					return fmt.Errorf("%s: %v", pod.GetMetadata().GetName(), left)
				}
			}
			return nil
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	services, _, err := client.List[*corev1.Service](ctx, p.client, client.ListOptions{Namespace: p.namespace})
	if err != nil || len(services) != 0 {
		t.Errorf("%d services are left, %v", len(services), err)
	}
}
