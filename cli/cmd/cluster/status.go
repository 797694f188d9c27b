// Package cluster holds the commands about the cluster as a whole: its status, the access to its
// gateways, its controllers.
package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Command returns the command cluster.
func Command(s *session.Session) *cobra.Command {
	var check bool
	var output string
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the status of masters, etcd, services and nodes",
		Example: "  xebec cluster status\n" +
			"  xebec cluster status --check && deploy",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := printer.ParseFormat(output)
			if err != nil {
				return err
			}
			return clusterStatus(cmd.Context(), s, f, check)
		},
	}
	status.Flags().BoolVar(&check, "check", false, "exit with code 1 if anything is unhealthy")
	status.Flags().StringVarP(&output, "output", "o", "", "output format: wide, json, yaml or jsonpath=TEMPLATE")
	return command.Family("cluster", "Inspect and configure the cluster", status, accessCommand(s))
}

func clusterStatus(ctx context.Context, s *session.Session, f printer.Format, check bool) error {
	cl := s.Client()
	status, err := clusterv1.NewClusterServiceClient(s).Status(ctx, &clusterv1.StatusRequest{})
	if err != nil {
		return err
	}
	nodes, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
	if err != nil {
		// A cluster whose etcd has no quorum still has a status.
		status.Problems = append(status.Problems, fmt.Sprintf("list nodes: %v", err))
	}
	if f.Structured() {
		data, err := protojson.Marshal(status)
		if err != nil {
			return err
		}
		n, err := tree.ParseJSON(data)
		if err != nil {
			return err
		}
		if err := f.PrintTree(s.Out, n); err != nil {
			return err
		}
	} else {
		printStatus(s, status, nodes, f.Name == printer.Wide)
	}
	if check && !healthy(status, nodes) {
		return &exit.Error{Code: exit.Failed}
	}
	return nil
}

func healthy(status *clusterv1.StatusResponse, nodes []*corev1.Node) bool {
	return len(status.GetProblems()) == 0 &&
		!slices.ContainsFunc(status.GetEtcdMembers(), func(m *clusterv1.EtcdMember) bool { return !m.GetHealthy() }) &&
		!slices.ContainsFunc(status.GetServices(), func(i *clusterv1.ServiceInstance) bool { return !i.GetHealthy() }) &&
		!slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return !nodeReady(n) })
}

func nodeReady(n *corev1.Node) bool {
	return core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
}

func health(ok bool) string {
	if ok {
		return "healthy"
	}
	return "down"
}

func printStatus(s *session.Session, status *clusterv1.StatusResponse, nodes []*corev1.Node, wide bool) {
	masters(status).Print(s.Out)
	s.Printf("\n")
	members := &printer.Table{Heads: []string{"ETCD", "HEALTH", "ROLE", "DB SIZE", "RAFT INDEX", "ENDPOINT", "ERROR"}, Keep: 1}
	for _, m := range status.GetEtcdMembers() {
		role := "follower"
		switch {
		case m.GetLeader():
			role = "leader"
		case !m.GetHealthy():
			role = ""
		}
		members.Add(
			m.GetName(),
			health(m.GetHealthy()),
			role,
			printer.Bytes(m.GetDbSizeBytes()),
			strconv.FormatUint(m.GetRaftIndex(), 10),
			m.GetEndpoint(),
			terminal.OneLine(m.GetError()),
		)
	}
	members.Print(s.Out)
	s.Printf("\n")
	services(status, wide).Print(s.Out)
	s.Printf("\n")
	if len(nodes) > 0 {
		f := &resolve.Found{Kind: kinds.Of(nodes[0])}
		for _, n := range nodes {
			f.Objects = append(f.Objects, n)
		}
		t := printer.ObjectTable(f, printer.TableOptions{Wide: wide}, false, s.Now())
		t.Heads[0] = "NODE"
		t.Print(s.Out)
	} else {
		s.Printf("No nodes.\n")
	}
	if len(status.GetProblems()) > 0 {
		s.Printf("\nProblems:\n")
		for _, p := range status.GetProblems() {
			s.Printf("  %s\n", p)
		}
	}
}

// masters sums up each master: how many of its services are well and which it leads.
func masters(status *clusterv1.StatusResponse) *printer.Table {
	type master struct {
		services, healthy int
		leads             []string
	}
	all := map[string]*master{}
	of := func(host string) *master {
		if all[host] == nil {
			all[host] = &master{}
		}
		return all[host]
	}
	for _, i := range status.GetServices() {
		m := of(i.GetHost())
		m.services++
		if i.GetHealthy() {
			m.healthy++
		}
		if i.GetLeader() {
			m.leads = append(m.leads, i.GetService())
		}
	}
	etcd := map[string]string{}
	for _, e := range status.GetEtcdMembers() {
		of(e.GetName())
		etcd[e.GetName()] = health(e.GetHealthy())
		if e.GetLeader() {
			all[e.GetName()].leads = append(all[e.GetName()].leads, "etcd")
		}
	}
	t := &printer.Table{Heads: []string{"MASTER", "SERVICES", "ETCD", "LEADS"}, Keep: 1}
	for _, host := range slices.Sorted(maps.Keys(all)) {
		m := all[host]
		slices.Sort(m.leads)
		t.Add(host, fmt.Sprintf("%d/%d", m.healthy, m.services), cmp.Or(etcd[host], "-"), cmp.Or(strings.Join(m.leads, ","), "-"))
	}
	return t
}

// services has a row per service, or, when wide, one per instance.
func services(status *clusterv1.StatusResponse, wide bool) *printer.Table {
	instances := slices.Clone(status.GetServices())
	slices.SortFunc(instances, func(a, b *clusterv1.ServiceInstance) int {
		return cmp.Or(cmp.Compare(a.GetService(), b.GetService()), cmp.Compare(a.GetHost(), b.GetHost()))
	})
	if wide {
		t := &printer.Table{Heads: []string{"SERVICE", "MASTER", "HEALTH", "LEADER", "ENDPOINT", "VERSION", "ERROR"}, Keep: 2}
		for _, i := range instances {
			leader := ""
			if i.GetLeader() {
				leader = "leader"
			}
			t.Add(i.GetService(), i.GetHost(), health(i.GetHealthy()), leader, i.GetEndpoint(), i.GetVersion(), terminal.OneLine(i.GetError()))
		}
		return t
	}
	t := &printer.Table{Heads: []string{"SERVICE", "HEALTHY", "LEADER", "UNHEALTHY"}, Keep: 1}
	for start := 0; start < len(instances); {
		name := instances[start].GetService()
		end := start
		var ok int
		leader := "-"
		var unhealthy []string
		for ; end < len(instances) && instances[end].GetService() == name; end++ {
			i := instances[end]
			if i.GetHealthy() {
				ok++
			} else {
				unhealthy = append(unhealthy, fmt.Sprintf("%s: %s", i.GetHost(), terminal.OneLine(i.GetError())))
			}
			if i.GetLeader() {
				leader = i.GetHost()
			}
		}
		t.Add(name, fmt.Sprintf("%d/%d", ok, end-start), leader, strings.Join(unhealthy, "; "))
		start = end
	}
	return t
}
