package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// writer writes a numbered ConfigMap every 50 ms through the gateways and remembers which writes
// were acknowledged.
type writer struct {
	client    *client.Client
	namespace string
	prefix    string
	stop      context.CancelFunc
	done      chan struct{}

	mu    sync.Mutex
	acked map[string]time.Time
	last  error // of the latest write that failed
	fails int
}

const (
	writeEvery = 50 * time.Millisecond
	writeLimit = 10 * time.Second
)

// write starts a writer, which finish ends.
func (p *person) write(t *testing.T) *writer {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{
		client: p.client, namespace: p.namespace, prefix: "w-" + strings.ToLower(randomName()) + "-",
		stop: stop, done: make(chan struct{}), acked: make(map[string]time.Time),
	}
	t.Cleanup(func() { stop(); <-w.done })
	go func() {
		defer close(w.done)
		var calls sync.WaitGroup
		defer calls.Wait()
		ticker := time.NewTicker(writeEvery)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			// A write that hangs does not keep the next ones from showing that others pass.
			calls.Go(func() { w.one(ctx, i) })
		}
	}()
	return w
}

func (w *writer) one(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
	defer cancel()
	name := w.prefix + strconv.Itoa(i)
	_, err := client.Create(ctx, w.client, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.last, w.fails = err, w.fails+1
		return
	}
	w.acked[name] = time.Now()
}

// awaitWrites returns once n more writes were acknowledged.
func (w *writer) awaitWrites(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acked)
	}
	want := count() + n
	eventually(t, fmt.Sprintf("%d writes through the gateways", n), waitLimit, func() error {
		if got := count(); got < want {
			return fmt.Errorf("%d of them are still to come; last error: %v", want-got, w.last)
		}
		return nil
	})
}

// finish stops writing, checks that all that was acknowledged is there, and returns the longest
// time without an acknowledged write.
func (w *writer) finish(t *testing.T) time.Duration {
	t.Helper()
	w.stop()
	<-w.done
	objects, _, err := client.List[*corev1.ConfigMap](t.Context(), w.client, client.ListOptions{Namespace: w.namespace})
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, o := range objects {
		there[o.GetMetadata().GetName()] = true
	}
	lost := 0
	for name := range w.acked {
		if !there[name] {
			lost++
			t.Errorf("the acknowledged write %s is lost", name)
		}
	}
	times := slices.SortedFunc(maps.Values(w.acked), time.Time.Compare)
	var gap time.Duration
	for i := range max(len(times)-1, 0) {
		gap = max(gap, times[i+1].Sub(times[i]))
	}
	t.Logf("%d writes acknowledged, %d failed (last: %v), %d lost, longest gap %s", len(w.acked), w.fails, w.last, lost, gap.Round(time.Millisecond))
	return gap
}

// A prober is a pod on node-1 that calls the sample service without end, and whose log tells what
// failed: byAddress at its cluster IP, byName at its name.
const (
	byAddress = "by-address"
	byName    = "by-name"
)

// probe starts the probers and waits until they run. Their limit for a call is longer than the 5 s
// after which a resolver repeats a lookup that went unanswered.
func (p *person) probe(t *testing.T) {
	t.Helper()
	for name, host := range map[string]string{byAddress: p.clusterIP(t), byName: "echo"} {
		p.apply(t, strings.NewReplacer("NAME", name, "HOST", host).Replace(`apiVersion: v1
kind: Pod
metadata:
  name: NAME
  labels: {app: NAME}
spec:
  terminationGracePeriodSeconds: 1
  nodeName: node-1
  containers:
    - name: NAME
      image: xebec/client:1
      args: [get, "http://HOST/name", --count, "1000000", --interval, 20ms, --timeout, 7s]
`))
	}
	await(t, p.client, p.namespace, "the probers run", waitLimit, func(pods []*corev1.Pod) bool {
		return allReady(pods, byAddress, 1) && allReady(pods, byName, 1)
	})
}

// proberLog reads a prober's log from the node's own disk, for masters may be down.
func (p *person) proberLog(t *testing.T, prober string) []string {
	t.Helper()
	node := p.Spec.Hosts()[p.Spec.Masters]
	files, err := filepath.Glob(filepath.Join(node.Disk, "agent", "pods", "*", "logs", prober, "0.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the log of prober %s is %v (%v)", prober, files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

// failures are the lines that tell of calls that failed.
func failures(log []string) []string {
	return slices.DeleteFunc(slices.Clone(log), func(line string) bool { return !strings.Contains(line, " error:") })
}

var podCgroup = regexp.MustCompile(`/pod([0-9a-f-]{36})/`)

// containers are the processes in containers on a node by their pods' uids, each with its id and
// start time: as long as these are the same it is the very same process.
func (s *ship) containers(t *testing.T, node string) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		cgroup, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(cgroup), "/xb-"+s.Spec.Name+"/"+node+"/") {
			continue
		}
		uid := podCgroup.FindStringSubmatch(string(cgroup))
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if uid == nil || err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if fields[0] == "Z" {
			continue
		}
		pid := filepath.Base(filepath.Dir(file))
		found[uid[1]] = append(found[uid[1]], pid+" since "+fields[19]) // field 22 of the file, counted from 1
	}
	for _, processes := range found {
		slices.Sort(processes)
	}
	return found
}

// crew is what runs: each pod's node, containers and restarts, and the processes themselves.
type crew map[string]string

// crew of the namespace on the given nodes.
func (p *person) crew(t *testing.T, nodes ...string) crew {
	t.Helper()
	pods, _, err := client.List[*corev1.Pod](t.Context(), p.client, client.ListOptions{Namespace: p.namespace})
	if err != nil {
		t.Fatal(err)
	}
	out := make(crew)
	for _, node := range nodes {
		processes := p.containers(t, node)
		for _, pod := range pods {
			if pod.GetSpec().GetNodeName() != node {
				continue
			}
			text := fmt.Sprintf("on %s, processes %v", node, processes[pod.GetMetadata().GetUid()])
			for _, c := range pod.GetStatus().GetContainerStatuses() {
				text += fmt.Sprintf(", %s %s restarted %d times, started at %s", c.GetName(), c.GetContainerId(), c.GetRestartCount(),
					c.GetState().GetRunning().GetStartedAt().AsTime())
			}
			if len(processes[pod.GetMetadata().GetUid()]) != 1 {
				t.Errorf("%s has not one process: %s", pod.GetMetadata().GetName(), text)
			}
			out[pod.GetMetadata().GetName()] = text
		}
	}
	return out
}

// same fails the test when anything of the crew has changed.
func (c crew) same(t *testing.T, now crew) {
	t.Helper()
	for name, before := range c {
		if now[name] != before {
			t.Errorf("%s was %s\n\tand is %s", name, before, now[name])
		}
	}
	for name := range now {
		if c[name] == "" {
			t.Errorf("%s is new: %s", name, now[name])
		}
	}
}

// leader waits until a service has a leader that will do, and returns the uid of the lease that
// makes it so and the leader's host.
func (s *ship) leader(t *testing.T, service string, do func(uid, host string) bool) (uid, host string) {
	t.Helper()
	await(t, s.client, "kube-system", "another leader of "+service, waitLimit, func(leases []*coordinationv1.Lease) bool {
		for _, l := range leases {
			if l.GetMetadata().GetName() != service {
				continue
			}
			uid = l.GetMetadata().GetUid()
			_, host, _ = strings.Cut(l.GetSpec().GetHolderIdentity(), "@")
			return do(uid, host)
		}
		return false
	})
	return uid, host
}

// etcdLeader is the master whose etcd member leads.
func (s *ship) etcdLeader(t *testing.T) string {
	t.Helper()
	var name string
	eventually(t, "etcd has a leader", waitLimit, func() error {
		status, err := s.status(t.Context())
		if err != nil {
			return err
		}
		for _, m := range status.GetEtcdMembers() {
			if m.GetLeader() {
				name = m.GetName()
				return nil
			}
		}
		return fmt.Errorf("%v", status.GetEtcdMembers())
	})
	return name
}

func (s *ship) status(ctx context.Context) (*clusterv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return clusterv1.NewClusterServiceClient(s.conn).Status(ctx, &clusterv1.StatusRequest{})
}

// elected are the services with one leader each.
var elected = []string{"scheduler", "workloads", "nodes", "endpoints", "collector", "cloud"}

// awaitWhole waits until every member of etcd and every instance of every service is healthy, each
// elected service has a leader, and the nodes are ready.
func (s *ship) awaitWhole(t *testing.T) {
	t.Helper()
	eventually(t, "the cluster is whole", waitLimit, func() error {
		status, err := s.status(t.Context())
		if err != nil {
			return err
		}
		if len(status.GetProblems()) > 0 {
			return fmt.Errorf("%v", status.GetProblems())
		}
		if got := len(status.GetEtcdMembers()); got != s.Spec.Masters {
			return fmt.Errorf("%d members of etcd", got)
		}
		for _, m := range status.GetEtcdMembers() {
			if !m.GetHealthy() {
				return fmt.Errorf("etcd %v", m)
			}
		}
		count, leaders := make(map[string]int), make(map[string]int)
		for _, i := range status.GetServices() {
			if !i.GetHealthy() {
				return fmt.Errorf("%v", i)
			}
			count[i.GetService()]++
			if i.GetLeader() {
				leaders[i.GetService()]++
			}
		}
		for _, service := range append([]string{"apiserver", "gateway"}, elected...) {
			if count[service] != s.Spec.Masters {
				return fmt.Errorf("%d instances of %s", count[service], service)
			}
		}
		for _, service := range elected {
			if leaders[service] != 1 {
				return fmt.Errorf("%d leaders of %s", leaders[service], service)
			}
		}
		return nil
	})
	await(t, s.client, "", "the nodes are ready", waitLimit, func(nodes []*corev1.Node) bool {
		for _, h := range s.Spec.Hosts()[s.Spec.Masters:] {
			if !usable(nodes, h.Name) {
				return false
			}
		}
		return true
	})
}
