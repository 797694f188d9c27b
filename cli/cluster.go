package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kind"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func (s *shell) clusterCommand() *cobra.Command {
	var check bool
	var output string
	status := &cobra.Command{
		Use:   "status",
		Short: "Show masters, etcd, services with their leaders, and nodes",
		Example: "  xebec cluster status\n" +
			"  xebec cluster status --check && deploy",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := parseForm(output)
			if err != nil {
				return err
			}
			return s.clusterStatus(cmd.Context(), f, check)
		},
	}
	status.Flags().BoolVar(&check, "check", false, "end with exit code 1 when anything is not healthy")
	status.Flags().StringVarP(&output, "output", "o", "", "wide, json, yaml, or jsonpath=TEMPLATE")
	return family("cluster", "Look at the cluster as a whole", status, s.accessCommand())
}

func (s *shell) clusterStatus(ctx context.Context, f form, check bool) error {
	cl := s.client()
	status, err := clusterv1.NewClusterServiceClient(s).Status(ctx, &clusterv1.StatusRequest{})
	if err != nil {
		return err
	}
	nodes, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
	if err != nil {
		// A cluster whose etcd has no quorum still has a status.
		status.Problems = append(status.Problems, fmt.Sprintf("list nodes: %v", err))
	}
	if f.structured() {
		data, err := protojson.Marshal(status)
		if err != nil {
			return err
		}
		n, err := tree.ParseJSON(data)
		if err != nil {
			return err
		}
		if err := f.printTree(s.Out, n); err != nil {
			return err
		}
	} else {
		s.printStatus(status, nodes, f.name == formWide)
	}
	if check && !healthy(status, nodes) {
		return &exitError{code: ExitError}
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
	return kind.NodeCondition(n, kind.NodeReady).GetStatus() == kind.ConditionTrue
}

func health(ok bool) string {
	if ok {
		return "healthy"
	}
	return "down"
}

func (s *shell) printStatus(status *clusterv1.StatusResponse, nodes []*corev1.Node, wide bool) {
	s.masters(status).print(s.Out)
	s.printf("\n")
	members := &table{heads: []string{"ETCD", "HEALTH", "ROLE", "DB SIZE", "RAFT INDEX", "ENDPOINT", "ERROR"}, keep: 1}
	for _, m := range status.GetEtcdMembers() {
		role := "follower"
		switch {
		case m.GetLeader():
			role = "leader"
		case !m.GetHealthy():
			role = ""
		}
		members.add(m.GetName(), health(m.GetHealthy()), role, bytesText(m.GetDbSizeBytes()), strconv.FormatUint(m.GetRaftIndex(), 10), m.GetEndpoint(), oneLine(m.GetError()))
	}
	members.print(s.Out)
	s.printf("\n")
	s.services(status, wide).print(s.Out)
	s.printf("\n")
	if len(nodes) > 0 {
		k, _ := kind.ByName("nodes")
		f := &found{kind: k}
		for _, n := range nodes {
			f.objects = append(f.objects, n)
		}
		t := objectTable(f, tableOptions{wide: wide}, false, s.now())
		t.heads[0] = "NODE"
		t.print(s.Out)
	} else {
		s.printf("No nodes.\n")
	}
	if len(status.GetProblems()) > 0 {
		s.printf("\nProblems:\n")
		for _, p := range status.GetProblems() {
			s.printf("  %s\n", p)
		}
	}
}

// masters sums up each master: how many of its services are well and which it leads.
func (s *shell) masters(status *clusterv1.StatusResponse) *table {
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
	t := &table{heads: []string{"MASTER", "SERVICES", "ETCD", "LEADS"}, keep: 1}
	for _, host := range slices.Sorted(maps.Keys(all)) {
		m := all[host]
		slices.Sort(m.leads)
		t.add(host, fmt.Sprintf("%d/%d", m.healthy, m.services), cmp.Or(etcd[host], "-"), cmp.Or(strings.Join(m.leads, ","), "-"))
	}
	return t
}

// services has a row per service, or, when wide, one per instance.
func (s *shell) services(status *clusterv1.StatusResponse, wide bool) *table {
	instances := slices.Clone(status.GetServices())
	slices.SortFunc(instances, func(a, b *clusterv1.ServiceInstance) int {
		return cmp.Or(cmp.Compare(a.GetService(), b.GetService()), cmp.Compare(a.GetHost(), b.GetHost()))
	})
	if wide {
		t := &table{heads: []string{"SERVICE", "MASTER", "HEALTH", "LEADER", "ENDPOINT", "VERSION", "ERROR"}, keep: 2}
		for _, i := range instances {
			leader := ""
			if i.GetLeader() {
				leader = "leader"
			}
			t.add(i.GetService(), i.GetHost(), health(i.GetHealthy()), leader, i.GetEndpoint(), i.GetVersion(), oneLine(i.GetError()))
		}
		return t
	}
	t := &table{heads: []string{"SERVICE", "HEALTHY", "LEADER", "NOT HEALTHY"}, keep: 1}
	for start := 0; start < len(instances); {
		name := instances[start].GetService()
		end := start
		var ok int
		leader := "-"
		var ill []string
		for ; end < len(instances) && instances[end].GetService() == name; end++ {
			i := instances[end]
			if i.GetHealthy() {
				ok++
			} else {
				ill = append(ill, fmt.Sprintf("%s: %s", i.GetHost(), oneLine(i.GetError())))
			}
			if i.GetLeader() {
				leader = i.GetHost()
			}
		}
		t.add(name, fmt.Sprintf("%d/%d", ok, end-start), leader, strings.Join(ill, "; "))
		start = end
	}
	return t
}

func (s *shell) controllersCommand() *cobra.Command {
	var resync bool
	var controller string
	cmd := &cobra.Command{
		Use:   "controllers [SERVICE...]",
		Short: "Show the controllers of services: queues, failures, last errors",
		Example: "  xebec controllers\n" +
			"  xebec controllers workloads\n" +
			"  xebec controllers workloads --resync --controller=deployment",
		RunE: func(cmd *cobra.Command, args []string) error {
			if resync && len(args) == 0 {
				return usagef("--resync needs a service, such as: xebec controllers workloads --resync")
			}
			if resync {
				return s.resync(cmd.Context(), args, controller)
			}
			return s.controllers(cmd.Context(), args)
		},
	}
	cmd.Flags().BoolVar(&resync, "resync", false, "put every object of the service's controllers into their queues again")
	cmd.Flags().StringVar(&controller, "controller", "", "with --resync, only this controller")
	return cmd
}

func (s *shell) resync(ctx context.Context, services []string, controller string) error {
	for _, service := range services {
		resp, err := controlv1.NewControllerServiceClient(s).Resync(ctx, &controlv1.ResyncRequest{Service: service, Controller: controller})
		if err != nil {
			return fmt.Errorf("resync %s: %w", service, err)
		}
		s.printf("service/%s resynced: %d keys queued\n", service, resp.GetKeys())
	}
	return nil
}

// elected lists the services that have a leader, which are those with controllers to ask.
func (s *shell) elected(ctx context.Context) ([]string, error) {
	status, err := clusterv1.NewClusterServiceClient(s).Status(ctx, &clusterv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	var services []string
	for _, i := range status.GetServices() {
		// The scheduler elects as well, but places pods by a queue of its own.
		if i.GetLeader() && !slices.Contains(services, i.GetService()) {
			services = append(services, i.GetService())
		}
	}
	slices.Sort(services)
	return services, nil
}

func (s *shell) controllers(ctx context.Context, services []string) error {
	if len(services) == 0 {
		var err error
		if services, err = s.elected(ctx); err != nil {
			return err
		}
	}
	answers := make([]*controlv1.ListControllersResponse, len(services))
	failures := make([]error, len(services))
	var group errgroup.Group
	for i, service := range services {
		group.Go(func() error {
			answers[i], failures[i] = controlv1.NewControllerServiceClient(s).ListControllers(ctx, &controlv1.ListControllersRequest{Service: service})
			return nil
		})
	}
	_ = group.Wait()
	t := &table{heads: []string{"SERVICE", "CONTROLLER", "LEADER", "QUEUE", "ACTIVE", "RECONCILES", "FAILURES"}, keep: 2}
	errs := &table{heads: []string{"CONTROLLER", "AGE", "KEY", "LAST ERRORS"}, keep: 1}
	failed := false
	for i, service := range services {
		if failures[i] != nil {
			failed = true
			s.printError(fmt.Errorf("service %s: %w", service, failures[i]))
			continue
		}
		for _, c := range answers[i].GetControllers() {
			t.add(service, c.GetName(), cmp.Or(answers[i].GetLeader(), "-"), strconv.FormatInt(c.GetQueueDepth(), 10),
				strconv.FormatInt(c.GetActive(), 10), strconv.FormatInt(c.GetReconciles(), 10), strconv.FormatInt(c.GetFailures(), 10))
			for _, e := range c.GetLastErrors() {
				errs.add(c.GetName(), kind.Age(e.GetTime(), s.now()), e.GetKey(), oneLine(e.GetMessage()))
			}
		}
	}
	if len(t.rows) > 0 {
		t.print(s.Out)
	}
	if len(errs.rows) > 0 {
		s.printf("\n")
		errs.print(s.Out)
	}
	if failed {
		return errSome
	}
	return nil
}
