package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/kinds/column"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	controlv1 "github.com/xebec-project/xebec/proto/xebec/control/v1"
)

// ControllersCommand returns the command controllers.
func ControllersCommand(s *session.Session) *cobra.Command {
	var resync bool
	var controller string
	cmd := &cobra.Command{
		Use:   "controllers [SERVICE...]",
		Short: "Show controllers: queues, failures, last errors",
		Example: "  xebec controllers\n" +
			"  xebec controllers workloads\n" +
			"  xebec controllers workloads --resync --controller=deployment",
		RunE: func(cmd *cobra.Command, args []string) error {
			if resync && len(args) == 0 {
				return exit.Usagef("--resync requires a service, such as: xebec controllers workloads --resync")
			}
			if resync {
				return resyncAll(cmd.Context(), s, args, controller)
			}
			return controllers(cmd.Context(), s, args)
		},
	}
	cmd.Flags().BoolVar(&resync, "resync", false, "queue every object of the controllers again")
	cmd.Flags().StringVar(&controller, "controller", "", "resync only this controller")
	return cmd
}

func resyncAll(ctx context.Context, s *session.Session, services []string, controller string) error {
	for _, service := range services {
		resp, err := controlv1.NewControllerServiceClient(s).Resync(ctx, &controlv1.ResyncRequest{Service: service, Controller: controller})
		if err != nil {
			return fmt.Errorf("resync %s: %w", service, err)
		}
		s.Printf("service/%s resynced: %d keys queued\n", service, resp.GetKeys())
	}
	return nil
}

// elected lists the services that have a leader, which are those with controllers to ask.
func elected(ctx context.Context, s *session.Session) ([]string, error) {
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

func controllers(ctx context.Context, s *session.Session, services []string) error {
	if len(services) == 0 {
		var err error
		if services, err = elected(ctx, s); err != nil {
			return err
		}
	}
	answers := make([]*controlv1.ListControllersResponse, len(services))
	failures := make([]error, len(services))
	var group errgroup.Group
	for i, service := range services {
		group.Go(func() error {
			answers[i], failures[i] = controlv1.NewControllerServiceClient(s).
				ListControllers(ctx, &controlv1.ListControllersRequest{Service: service})
			return nil
		})
	}
	_ = group.Wait()
	t := &printer.Table{Heads: []string{"SERVICE", "CONTROLLER", "LEADER", "QUEUE", "ACTIVE", "RECONCILES", "FAILURES"}, Keep: 2}
	errs := &printer.Table{Heads: []string{"CONTROLLER", "AGE", "KEY", "LAST ERRORS"}, Keep: 1}
	failed := false
	for i, service := range services {
		if failures[i] != nil {
			failed = true
			s.PrintError(fmt.Errorf("service %s: %w", service, failures[i]))
			continue
		}
		for _, c := range answers[i].GetControllers() {
			t.Add(service, c.GetName(), cmp.Or(answers[i].GetLeader(), "-"), strconv.FormatInt(c.GetQueueDepth(), 10),
				strconv.FormatInt(c.GetActive(), 10), strconv.FormatInt(c.GetReconciles(), 10), strconv.FormatInt(c.GetFailures(), 10))
			for _, e := range c.GetLastErrors() {
				errs.Add(c.GetName(), column.Age(e.GetTime(), s.Now()), e.GetKey(), terminal.OneLine(e.GetMessage()))
			}
		}
	}
	if len(t.Rows) > 0 {
		t.Print(s.Out)
	}
	if len(errs.Rows) > 0 {
		s.Printf("\n")
		errs.Print(s.Out)
	}
	if failed {
		return exit.Some
	}
	return nil
}
