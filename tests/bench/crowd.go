package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// crowdOptions say what a crowd is.
type crowdOptions struct {
	nodes, masters int
	hold           time.Duration
	rate           float64
}

const (
	// crowdPatience is how long a crowd may take to register, besides the time that its nodes' starts
	// are spread over, and to connect again.
	crowdPatience = 5 * time.Minute
	// crowdCIDR has 8,192 ranges of 256 addresses, and is apart from the services' range.
	crowdCIDR = "10.64.0.0/11"
	// settleAfter is how long a crowd is watched after all have connected again: longer than leases
	// live, so that each must have been renewed.
	settleAfter = 15 * time.Second
	// healthPatience is how long a server may take to say how it is.
	healthPatience = 5 * time.Second
)

func (o crowdOptions) starts() time.Duration {
	return time.Duration(float64(o.nodes) / o.rate * float64(time.Second))
}

// crowdLimit is how long the row may take.
func crowdLimit(b *bench) time.Duration {
	return b.crowd.starts() + b.crowd.hold + 2*crowdPatience + time.Minute
}

// measureCrowd starts simulated nodes, watches them for a while, and restarts a gateway under them.
func measureCrowd(ctx context.Context, b *bench) (result, error) {
	o := b.crowd
	mask := 24
	for 1<<(mask-11) < o.nodes+1 && mask < 28 {
		mask++
	}
	c, err := b.startWith(ctx, o.masters, func(service string, settings map[string]any) {
		switch service {
		case "nodes":
			settings["clusterCIDR"], settings["nodeMaskSize"] = crowdCIDR, mask
		case "cloud":
			settings["clusterCIDR"] = crowdCIDR
		}
	})
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	conn, err := c.Dial("gateway")
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	var group errgroup.Group
	watching, end := context.WithCancel(ctx)
	defer func() {
		end()
		_ = group.Wait() // they end by the context alone
	}()
	w := newCrowdWatch(client.New(conn), o.nodes)
	group.Go(func() error { return w.nodes.Run(watching) })
	group.Go(func() error { return w.leases.Run(watching) })
	group.Go(func() error { return w.probe(watching) })
	for _, p := range c.Processes() {
		if p.Service == "gateway" || p.Service == "apiserver" {
			group.Go(func() error { return w.askHealth(watching, c, p) })
		}
	}
	if err := errors.Join(w.nodes.WaitForSync(ctx), w.leases.WaitForSync(ctx)); err != nil {
		return result{}, err
	}

	r := result{}
	defer func() { b.keepLogs(append(c.Processes(), w.agent...), "crowd") }()
	before, err := usages(c.Processes())
	if err != nil {
		return result{}, err
	}
	m, err := newMeter(c.Processes())
	if err != nil {
		return result{}, err
	}
	w.phase("registration")
	began := time.Now()
	agent, err := c.StartHollow(o.nodes, map[string]any{"hollowStartsPerSecond": o.rate, "profiles": b.profiles != ""})
	if err != nil {
		return result{}, err
	}
	w.agent = append(w.agent, agent)
	profiled := b.profile(ctx, c, "crowd-start", 30*time.Second)
	if err := w.await(ctx, o.starts()+crowdPatience, "all nodes are Ready", func() bool { return w.ready() == o.nodes }); err != nil {
		r.notes = append(r.notes, w.notes()...)
		return r, errors.Join(err, profiled())
	}
	registered := time.Since(began)
	total, note, err := m.read()
	if err := errors.Join(err, profiled()); err != nil {
		return r, err
	}
	calls, err := callsPerNode(ctx, c, o.nodes)
	if err != nil {
		return r, err
	}
	r.notes = append(
		r.notes,
		fmt.Sprintf("registration: %.1f CPU-s without the nodes' own; %s; calls per node: %s", total.Seconds(), note, calls),
	)

	held := append(slices.Clone(c.Processes()), agent)
	if m, err = newMeter(held); err != nil {
		return r, err
	}
	w.phase("hold")
	profiled = b.profile(ctx, c, "crowd-hold", 30*time.Second, agent)
	pause(ctx, o.hold)
	if err := errors.Join(ctx.Err(), profiled()); err != nil {
		return r, err
	}
	costs, err := m.costs(before, o)
	if err != nil {
		return r, err
	}
	r.notes = append(r.notes, costs)
	unready := w.unready()
	gets := w.latencies("hold")

	w.phase("restart")
	gateway := c.Masters()[0].Process("gateway")
	gateway.Kill()
	killed := time.Now()
	if err := errors.Join(gateway.Start(), gateway.WaitServing(ctx)); err != nil {
		return r, err
	}
	serving := time.Since(killed)
	profiled = b.profile(ctx, c, "crowd-restart", 15*time.Second, agent)
	err = w.await(ctx, crowdPatience, "all nodes are connected to the gateway that was restarted", func() bool {
		callers, err := gauge(ctx, c.HTTPClient(), gateway, metrics.RPCCallers)
		return err == nil && int(callers) >= o.nodes
	})
	connected := time.Since(killed)
	if err == nil {
		pause(ctx, settleAfter)
	}
	r.notes = append(r.notes, w.notes()...)
	if err := errors.Join(err, ctx.Err(), profiled()); err != nil {
		return r, err
	}
	r.figure = fmt.Sprintf(
		"%d nodes Ready after %.0f s (started over %.0f s); %d not Ready at some time in %s; "+
			"get p50 %s, p99 %s, max %s; connected again %.1f s after kill -9 of a gateway, which served after %.1f s, %d not Ready, %d leases lost",
		o.nodes,
		registered.Seconds(),
		o.starts().Seconds(),
		unready,
		o.hold,
		milliseconds(quantile(gets, .5)),
		milliseconds(quantile(gets, .99)),
		milliseconds(quantile(gets, 1)),
		connected.Seconds(),
		serving.Seconds(),
		w.unready(),
		w.lost(),
	)
	return r, nil
}

// crowdWatch watches a crowd as an administrator does.
type crowdWatch struct {
	api    *client.Client
	want   int
	nodes  *client.Informer[*corev1.Node]
	leases *client.Informer[*coordinationv1.Lease]
	// agent is the process of the nodes, once it was started.
	agent []*cluster.Process

	mu      sync.Mutex
	current string
	phases  map[string]*crowdPhase
	order   []string
	isReady map[string]bool
}

// crowdPhase is what was seen in a phase.
type crowdPhase struct {
	// gets took so long each, of the calls that were answered.
	gets []time.Duration
	// failed are the errors of the others, by code.
	failed map[string]int
	// unready are the nodes that were not Ready at some time, and lost is how many leases were.
	unready map[string]bool
	lost    int
	// unhealthy counts the answers of servers other than that they serve, by server.
	unhealthy map[string]int
	asked     int
}

func newCrowdWatch(api *client.Client, want int) *crowdWatch {
	w := &crowdWatch{api: api, want: want, phases: map[string]*crowdPhase{}, isReady: map[string]bool{}}
	w.phase("beforehand")
	w.nodes = client.NewInformer(api, client.InformerOptions[*corev1.Node]{Transform: func(n *corev1.Node) {
		n.Spec, n.Status = nil, &corev1.NodeStatus{Conditions: n.GetStatus().GetConditions()}
	}})
	w.nodes.OnChange(func(old, now *corev1.Node) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if now == nil {
			delete(w.isReady, old.GetMetadata().GetName())
			return
		}
		name, ready := now.GetMetadata().GetName(), core.NodeCondition(now, core.NodeReady).GetStatus() == condition.True
		if ready {
			w.isReady[name] = true
			return
		}
		if w.isReady[name] {
			delete(w.isReady, name)
			w.phases[w.current].unready[name] = true
		}
	})
	w.leases = client.NewInformer(api, client.InformerOptions[*coordinationv1.Lease]{Namespace: "kube-node-lease", MetadataOnly: true})
	w.leases.OnChange(func(_, now *coordinationv1.Lease) {
		if now == nil {
			w.mu.Lock()
			w.phases[w.current].lost++
			w.mu.Unlock()
		}
	})
	return w
}

// phase begins one.
func (w *crowdWatch) phase(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = name
	w.order = append(w.order, name)
	w.phases[name] = &crowdPhase{failed: map[string]int{}, unready: map[string]bool{}, unhealthy: map[string]int{}}
}

func (w *crowdWatch) ready() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.isReady)
}

func (w *crowdWatch) unready() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.phases[w.current].unready)
}

func (w *crowdWatch) lost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phases[w.current].lost
}

func (w *crowdWatch) latencies(phase string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(slices.Values(w.phases[phase].gets))
}

// await waits until something holds, and fails after the time that it may take.
func (w *crowdWatch) await(ctx context.Context, most time.Duration, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for !holds() {
		if pause(ctx, 250*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("waited %s in vain until %s: %d of %d nodes are Ready", most, what, w.ready(), w.want)
		}
	}
	return nil
}

// probe gets an object once a second, as people do, until ctx ends.
func (w *crowdWatch) probe(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		_, err := client.Get[*corev1.Namespace](ctx, w.api, "", "default")
		took := time.Since(began)
		if ctx.Err() != nil {
			break
		}
		w.mu.Lock()
		if p := w.phases[w.current]; err == nil {
			p.gets = append(p.gets, took)
		} else {
			p.failed[apierr.Code(err).String()]++
		}
		w.mu.Unlock()
		pause(ctx, time.Second-took)
	}
	return ctx.Err()
}

// askHealth asks a server once a second whether it serves. A connection whose server says that it
// does not is not used: then the call fails.
func (w *crowdWatch) askHealth(ctx context.Context, c *cluster.Cluster, p *cluster.Process) error {
	conn, err := c.Dial(p.Service, p.Master)
	if err != nil {
		return err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, healthPatience)
		answer, err := healthpb.NewHealthClient(conn).Check(call, &healthpb.HealthCheckRequest{})
		cancel()
		if ctx.Err() != nil {
			break
		}
		w.mu.Lock()
		phase := w.phases[w.current]
		phase.asked++
		if err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			phase.unhealthy[p.Name()]++
		}
		w.mu.Unlock()
		pause(ctx, time.Second)
	}
	return ctx.Err()
}

// notes tell what was seen in each phase.
func (w *crowdWatch) notes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var notes []string
	for _, name := range w.order {
		p := w.phases[name]
		gets := slices.Sorted(slices.Values(p.gets))
		note := fmt.Sprintf(
			"%s: %d gets, p50 %s, p99 %s, max %s",
			name,
			len(gets),
			milliseconds(quantile(gets, .5)),
			milliseconds(quantile(gets, .99)),
			milliseconds(quantile(gets, 1)),
		)
		note += counts(", failed", p.failed)
		note += fmt.Sprintf("; %d nodes not Ready after they had been, %d leases lost; health asked %d times", len(p.unready), p.lost, p.asked)
		notes = append(notes, note+counts(", not serving", p.unhealthy))
	}
	return notes
}

func counts(what string, of map[string]int) string {
	if len(of) == 0 {
		return what + " none"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d", key, of[key]))
	}
	return what + " " + strings.Join(parts, " and ")
}

// usages returns what processes use now, by name.
func usages(processes []*cluster.Process) (map[string]cluster.Usage, error) {
	all := map[string]cluster.Usage{}
	for _, p := range processes {
		u, err := p.Usage()
		if err != nil {
			return nil, err
		}
		all[p.Name()] = u
	}
	return all, nil
}

// costs tells what a thousand nodes cost each process: processor time since the meter was made, and
// memory since before.
func (m *meter) costs(before map[string]cluster.Usage, o crowdOptions) (string, error) {
	var parts []string
	for i, p := range m.processes {
		u, err := p.Usage()
		if err != nil {
			return "", err
		}
		thousands := float64(o.nodes) / 1000
		parts = append(parts, fmt.Sprintf("%s %.2f and %+.0f (%d)", p.Name(), (u.CPU-m.before[i].CPU).Seconds()/o.hold.Minutes()/thousands,
			float64(u.RSS-before[p.Name()].RSS)/mebibyte/thousands, u.RSS/mebibyte))
	}
	return "CPU-s a minute and MiB of RSS (and all of it) per 1,000 nodes: " + strings.Join(parts, ", "), nil
}

// gauge reads a metric without labels of a process.
func gauge(ctx context.Context, web *http.Client, p *cluster.Process, name string) (float64, error) {
	values, err := scrape(ctx, web, p, name)
	if value, ok := values[""]; ok || err != nil {
		return value, err
	}
	return 0, fmt.Errorf("%s has no metric %s", p.Name(), name)
}

// scrape reads a metric of a process: its value for each combination of labels, as they are
// written.
func scrape(ctx context.Context, web *http.Client, p *cluster.Process, name string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.Diagnostics()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		i := strings.LastIndexByte(rest, ' ')
		if !ok || i < 0 || i > 0 && rest[0] != '{' {
			continue
		}
		if values[rest[:i]], err = strconv.ParseFloat(rest[i+1:], 64); err != nil {
			return nil, err
		}
	}
	return values, lines.Err()
}

// callsPerNode tells which calls the apiservers have answered most often, and how often for each
// node.
func callsPerNode(ctx context.Context, c *cluster.Cluster, nodes int) (string, error) {
	calls := map[string]float64{}
	for _, m := range c.Masters() {
		values, err := scrape(ctx, c.HTTPClient(), m.Process("apiserver"), metrics.RPCHandled)
		if err != nil {
			return "", err
		}
		for labels, n := range values {
			calls[handledLabels.ReplaceAllString(labels, "$2 $1")] += n
		}
	}
	most := slices.SortedFunc(maps.Keys(calls), func(a, b string) int { return cmp.Compare(calls[b], calls[a]) })
	var parts []string
	for _, name := range most[:min(len(most), 16)] {
		parts = append(parts, fmt.Sprintf("%s %.2f", name, calls[name]/float64(nodes)))
	}
	return strings.Join(parts, ", "), nil
}

// handledLabels finds the code and the method of a call in the labels of its metric.
var handledLabels = regexp.MustCompile(`^{code="([^"]*)",.*method="(?:[^"]*/)?([^"/]*)".*}$`)
