// Package top holds the commands that show resource usage.
package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

const (
	// topWindow lies between the two readings of which the CPU in use is the difference.
	topWindow = time.Second
	// topParallel is how many nodes are asked at once.
	topParallel = 16
)

// Command returns the command top.
func Command(s *session.Session) *cobra.Command {
	return command.Family("top", "Show CPU and memory usage of nodes and pods", nodesCommand(s), podsCommand(s))
}

func nodesCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "nodes [NAME...]", Aliases: []string{"node", "no"},
		Short:             "Show CPU and memory usage of nodes",
		Example:           "  xebec top nodes\n  xebec top nodes node-1 node-2",
		ValidArgsFunction: resolve.CompleteOf(s, "nodes"),
		RunE:              func(cmd *cobra.Command, args []string) error { return topNodes(cmd.Context(), s, args) },
	}
}

type topOptions struct {
	all, containers bool
	labels          string
}

func podsCommand(s *session.Session) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use: "pods [NAME...]", Aliases: []string{"pod", "po"},
		Short:             "Show CPU and memory usage of pods, highest first",
		Example:           "  xebec top pods -A\n  xebec top pods -l app=web --containers",
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		RunE:              func(cmd *cobra.Command, args []string) error { return topPods(cmd.Context(), s, args, o) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.all, "all-namespaces", "A", false, "pods in all namespaces")
	flags.BoolVar(&o.containers, "containers", false, "one row per container")
	flags.StringVarP(&o.labels, "selector", "l", "", "label selector of pods")
	return cmd
}

// reading is two stats of one node, from which rates follow.
type reading struct {
	node          string
	before, after *nodev1.StatsResponse
	err           error
}

// cpus returns how many thousandths of CPUs were in use between two readings.
func (r reading) cpus(before, after *nodev1.Usage) int64 {
	window := r.after.GetTime().AsTime().Sub(r.before.GetTime().AsTime())
	if before == nil || window <= 0 {
		return 0
	}
	return max(after.GetCpuNanoseconds()-before.GetCpuNanoseconds(), 0) * 1000 / window.Nanoseconds()
}

// readings asks the nodes twice. A node that does not answer has the error in its reading.
func readings(ctx context.Context, s *session.Session, nodes []string) ([]reading, error) {
	out := make([]reading, len(nodes))
	service := nodev1.NewNodeServiceClient(s)
	ask := func(into func(i int) **nodev1.StatsResponse) {
		var group errgroup.Group
		group.SetLimit(topParallel)
		for i, name := range nodes {
			group.Go(func() error {
				if out[i].node = name; out[i].err == nil {
					*into(i), out[i].err = service.Stats(ctx, &nodev1.StatsRequest{Target: &nodev1.Target{Node: name}})
				}
				return nil
			})
		}
		_ = group.Wait()
	}
	ask(func(i int) **nodev1.StatsResponse { return &out[i].before })
	timer := time.NewTimer(topWindow)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
	}
	ask(func(i int) **nodev1.StatsResponse { return &out[i].after })
	return out, nil
}

func topNodes(ctx context.Context, s *session.Session, names []string) error {
	cl := s.Client()
	all, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
	if err != nil {
		return err
	}
	nodes := map[string]*corev1.Node{}
	for _, n := range all {
		nodes[n.GetMetadata().GetName()] = n
	}
	if len(names) == 0 {
		for _, n := range all {
			names = append(names, n.GetMetadata().GetName())
		}
	}
	list, err := readings(ctx, s, names)
	if err != nil {
		return err
	}
	t := &printer.Table{Heads: []string{"NAME", "CPU", "CPU%", "MEMORY", "MEMORY%"}, Keep: 1}
	var failed error
	for _, r := range list {
		if r.err != nil {
			t.Add(r.node, "<unknown>", "", "<unknown>", "")
			failed = cmp.Or(failed, fmt.Errorf("read usage of node %s: %w", r.node, r.err))
			continue
		}
		room := nodes[r.node].GetStatus().GetCapacity()
		cpu, memory := r.cpus(r.before.GetNode(), r.after.GetNode()), r.after.GetNode().GetMemoryBytes()
		haveCPU, _ := object.Amount(room[core.ResourceCPU])
		haveMemory, _ := object.Amount(room[core.ResourceMemory])
		t.Add(r.node, fmt.Sprintf("%dm", cpu), percent(cpu, haveCPU.MilliValue()), mebibytes(memory), percent(memory, haveMemory.Value()))
	}
	t.Print(s.Out)
	return failed
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}

func mebibytes(n int64) string { return fmt.Sprintf("%dMi", n>>20) }

func topPods(ctx context.Context, s *session.Session, names []string, o topOptions) error {
	cl := s.Client()
	namespace := ""
	if !o.all {
		var err error
		if namespace, err = s.DefaultNamespace(); err != nil {
			return err
		}
	}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: namespace, LabelSelector: o.labels})
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	var nodes []string
	for _, name := range names {
		if !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.GetMetadata().GetName() == name }) {
			return fmt.Errorf("pod %q not found", name)
		}
	}
	for _, p := range pods {
		if len(names) > 0 && !slices.Contains(names, p.GetMetadata().GetName()) {
			continue
		}
		wanted[p.GetMetadata().GetUid()] = true
		if n := p.GetSpec().GetNodeName(); n != "" && !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	list, err := readings(ctx, s, nodes)
	if err != nil {
		return err
	}
	var rows []topRow
	var failed error
	for _, r := range list {
		if r.err != nil {
			failed = cmp.Or(failed, fmt.Errorf("read pod usage from node %s: %w", r.node, r.err))
			continue
		}
		rows = append(rows, r.rows(wanted, o.containers)...)
	}
	if len(rows) == 0 && failed == nil {
		s.Notef("No running pods found.")
		return nil
	}
	slices.SortFunc(rows, func(a, b topRow) int {
		return cmp.Or(
			cmp.Compare(b.cpu, a.cpu),
			cmp.Compare(b.memory, a.memory),
			cmp.Compare(a.namespace, b.namespace),
			cmp.Compare(a.pod, b.pod),
			cmp.Compare(a.container, b.container),
		)
	})
	t := &printer.Table{Heads: []string{"NAME"}, Keep: 2}
	if o.all {
		t.Heads = []string{"NAMESPACE", "NAME"}
	}
	if o.containers {
		t.Heads = append(t.Heads, "CONTAINER")
	}
	t.Heads = append(t.Heads, "CPU", "MEMORY")
	for _, r := range rows {
		cells := []string{r.pod}
		if o.all {
			cells = []string{r.namespace, r.pod}
		}
		if o.containers {
			cells = append(cells, r.container)
		}
		t.Add(append(cells, fmt.Sprintf("%dm", r.cpu), mebibytes(r.memory))...)
	}
	t.Print(s.Out)
	return failed
}

// topRow is what one pod or container uses.
type topRow struct {
	namespace, pod, container string
	cpu, memory               int64
}

// rows are those of the wanted pods, by UID.
func (r reading) rows(wanted map[string]bool, containers bool) []topRow {
	before := map[string]*nodev1.Usage{}
	for _, p := range r.before.GetPods() {
		before[p.GetUid()] = p.GetUsage()
		for _, c := range p.GetContainers() {
			before[p.GetUid()+"/"+c.GetName()] = c.GetUsage()
		}
	}
	var out []topRow
	for _, p := range r.after.GetPods() {
		if !wanted[p.GetUid()] {
			continue
		}
		if !containers {
			out = append(out, topRow{p.GetNamespace(), p.GetName(), "", r.cpus(before[p.GetUid()], p.GetUsage()), p.GetUsage().GetMemoryBytes()})
			continue
		}
		for _, c := range p.GetContainers() {
			out = append(
				out,
				topRow{
					p.GetNamespace(),
					p.GetName(),
					c.GetName(),
					r.cpus(before[p.GetUid()+"/"+c.GetName()], c.GetUsage()),
					c.GetUsage().GetMemoryBytes(),
				},
			)
		}
	}
	return out
}
