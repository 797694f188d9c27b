// Package rollout holds the commands that follow and control rollouts of deployments.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/cmd/describe"
	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/diagnose"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Annotations that rollouts go by; kubectl's names, so that either tool understands the other.
const (
	changeCause = "kubernetes.io/change-cause"
	restartedAt = "kubectl.kubernetes.io/restartedAt"
)

// Command returns the command rollout.
func Command(s *session.Session) *cobra.Command {
	return command.Family("rollout", "Manage rollouts of deployments", statusCommand(s), historyCommand(s),
		undoCommand(s),
		rolloutChange(s, "restart", "Restart a deployment by replacing its pods", "restarted", func(d *appsv1.Deployment) error {
			if d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is paused: run 'xebec rollout resume' first", resolve.Of(d))
			}
			template := d.GetSpec().GetTemplate()
			if template.GetMetadata() == nil {
				template.Metadata = &metav1.ObjectMeta{}
			}
			if template.Metadata.Annotations == nil {
				template.Metadata.Annotations = map[string]string{}
			}
			template.Metadata.Annotations[restartedAt] = s.Now().Format(time.RFC3339)
			return nil
		}),
		rolloutChange(s, "pause", "Pause the rollout of template changes", "paused", func(d *appsv1.Deployment) error {
			if d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is already paused", resolve.Of(d))
			}
			d.Spec.Paused = true
			return nil
		}),
		rolloutChange(s, "resume", "Resume a paused deployment", "resumed", func(d *appsv1.Deployment) error {
			if !d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is not paused", resolve.Of(d))
			}
			d.Spec.Paused = false
			return nil
		}))
}

// deploymentOf finds the deployment that NAME, KIND NAME or KIND/NAME means.
func deploymentOf(s *session.Session, args []string) (resolve.Reference, error) {
	k := kinds.Of(&appsv1.Deployment{})
	r, err := resolve.One(s, args, k)
	if err == nil && r.Kind != k {
		return r, exit.Usagef("rollouts of %s are not supported: want a deployment", r.Kind.Plural)
	}
	return r, err
}

// rolloutChange makes a command that changes deployments.
func rolloutChange(s *session.Session, name, short, done string, change func(*appsv1.Deployment) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " deployment/NAME",
		Short:             short,
		Example:           "  xebec rollout " + name + " deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteOf(s, "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := deploymentOf(s, args)
			if err != nil {
				return err
			}
			cl := s.Client()
			if _, err := write.Modify(cmd.Context(), cl, r, change); err != nil {
				return err
			}
			write.Done(s, false, r, done)
			return nil
		},
	}
}

func statusCommand(s *session.Session) *cobra.Command {
	watch, timeout := true, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "status deployment/NAME",
		Short: "Wait until a rollout is complete",
		Long: "Wait until a rollout is complete and print what it waits for. The exit code is 0 if it completed, 1 if it exceeded its\n" +
			"progress deadline, 4 if --timeout expired.",
		Example:           "  xebec rollout status deployment/web --timeout=2m",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteOf(s, "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := deploymentOf(s, args)
			if err != nil {
				return err
			}
			return rolloutStatus(cmd.Context(), s, r, watch, timeout)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", true, "wait until the rollout is complete")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "time limit for waiting, 0 for none")
	return cmd
}

func rolloutStatus(ctx context.Context, s *session.Session, r resolve.Reference, follow bool, timeout time.Duration) error {
	cl := s.Client()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	reasons := newReasons(s, cl)
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	if follow {
		reasons.every(reporting, reasonInterval)
	}
	err := watch.Observe(ctx, s, cl, r, func(obj scheme.Object) (bool, error) {
		if obj == nil {
			return false, apierr.NotFound(r.Kind, r.Name)
		}
		d := obj.(*appsv1.Deployment)
		text, done, err := diagnose.RolloutState(d)
		if done {
			d = nil
		}
		reasons.of(d, text)
		if done {
			return true, nil
		}
		if err != nil || !follow {
			reasons.look(ctx)
		}
		return !follow, err
	})
	stop()
	reasons.wait()
	if errors.Is(err, context.DeadlineExceeded) {
		reasons.look(context.WithoutCancel(ctx))
		return exit.TimedOutf("the rollout of %s%s", r, reasons.because())
	}
	return err
}

// reasonInterval is how often a rollout that goes on is asked what it waits for.
const reasonInterval = 2 * time.Second

// reasons prints what a rollout waits for, whenever that changes. Its pods tell, which change
// without the deployment.
type reasons struct {
	s  *session.Session
	cl *client.Client

	running sync.WaitGroup
	mu      sync.Mutex
	now     *appsv1.Deployment // nil before the first and after the last look
	state   string
	last    string
}

func newReasons(s *session.Session, cl *client.Client) *reasons { return &reasons{s: s, cl: cl} }

// of sets the deployment as it is now, nil when there is nothing to wait for, and prints how far it
// is when that changed.
func (r *reasons) of(d *appsv1.Deployment, state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = d
	if state != "" && state != r.state {
		r.state = state
		r.s.Printf("%s\n", state)
	}
}

// look reads the reason once. It ignores errors, since they do not affect the rollout.
func (r *reasons) look(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return
	}
	text, err := diagnose.RolloutWaits(ctx, r.cl, r.now)
	if err != nil || text == "" || text == r.last {
		return
	}
	r.last = text
	r.s.Printf("  %s\n", text)
}

// every looks at intervals until ctx ends.
func (r *reasons) every(ctx context.Context, interval time.Duration) {
	r.running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				r.look(ctx)
			}
		}
	})
}

func (r *reasons) wait() { r.running.Wait() }

// because is the last reason as the end of a sentence.
func (r *reasons) because() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == "" {
		return ""
	}
	return ": " + r.last
}

func historyCommand(s *session.Session) *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use:   "history deployment/NAME",
		Short: "List the revisions of a deployment",
		Example: "  xebec rollout history deployment/web\n" +
			"  xebec rollout history deployment/web --revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteOf(s, "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := deploymentOf(s, args)
			if err != nil {
				return err
			}
			return rolloutHistory(cmd.Context(), s, r, revision)
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "show the pod template of a revision")
	return cmd
}

func rolloutHistory(ctx context.Context, s *session.Session, r resolve.Reference, revision int64) error {
	cl := s.Client()
	d, err := client.Get[*appsv1.Deployment](ctx, cl, r.Namespace, r.Name)
	if err != nil {
		return err
	}
	sets, err := diagnose.ReplicaSets(ctx, cl, d)
	if err != nil {
		return err
	}
	if revision > 0 {
		set, err := withRevision(r, sets, revision)
		if err != nil {
			return err
		}
		s.Printf("%s with revision #%d\n", r, revision)
		return describe.Template(s.Out, s.Now(), set.GetSpec().GetTemplate())
	}
	s.Printf("%s\n", r)
	t := &printer.Table{Heads: []string{"REVISION", "REPLICAS", "AGE", "CHANGE-CAUSE"}}
	for _, set := range sets {
		cause := set.GetMetadata().GetAnnotations()[changeCause]
		t.Add(strconv.FormatInt(diagnose.Revision(set), 10), strconv.Itoa(int(set.GetSpec().GetReplicas())),
			column.Age(set.GetMetadata().GetCreationTimestamp(), s.Now()), printer.OrNone(cause))
	}
	t.Print(s.Out)
	return nil
}

func withRevision(r resolve.Reference, sets []*appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	var known []int64
	for _, set := range sets {
		if diagnose.Revision(set) == revision {
			return set, nil
		}
		known = append(known, diagnose.Revision(set))
	}
	return nil, fmt.Errorf("%s has no revision %d: want one of %v", r, revision, known)
}

func undoCommand(s *session.Session) *cobra.Command {
	var revision int64
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:   "undo deployment/NAME",
		Short: "Roll back to an earlier revision",
		Example: "  xebec rollout undo deployment/web\n" +
			"  xebec rollout undo deployment/web --to-revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteOf(s, "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			r, err := deploymentOf(s, args)
			if err != nil {
				return err
			}
			return rolloutUndo(cmd.Context(), s, r, revision, o)
		},
	}
	cmd.Flags().Int64Var(&revision, "to-revision", 0, "revision to roll back to, 0 for the previous one")
	o.DryRunFlag(cmd)
	return cmd
}

func rolloutUndo(ctx context.Context, s *session.Session, r resolve.Reference, revision int64, o *write.Options) error {
	cl := s.Client()
	what := "rolled back"
	var options []client.UpdateOption
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	_, err := write.Modify(ctx, cl, r, func(d *appsv1.Deployment) error {
		if d.GetSpec().GetPaused() {
			return fmt.Errorf("%s is paused: run 'xebec rollout resume' first", r)
		}
		sets, err := diagnose.ReplicaSets(ctx, cl, d)
		if err != nil {
			return err
		}
		set, err := earlier(r, d, sets, revision)
		if err != nil {
			return err
		}
		template := proto.CloneOf(set.GetSpec().GetTemplate())
		delete(template.GetMetadata().GetLabels(), apps.LabelPodTemplateHash)
		if proto.Equal(template, d.GetSpec().GetTemplate()) {
			what = fmt.Sprintf("skipped rollback (current template already matches revision %d)", diagnose.Revision(set))
			return nil
		}
		d.Spec.Template = template
		if cause := set.GetMetadata().GetAnnotations()[changeCause]; cause != "" && d.GetMetadata().GetAnnotations() != nil {
			d.Metadata.Annotations[changeCause] = cause
		}
		return nil
	}, options...)
	if err != nil {
		return err
	}
	write.Done(s, o.Dry(), r, what)
	return nil
}

// earlier chooses the revision to go back to: the one asked for, or the latest before the present
// one.
func earlier(r resolve.Reference, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	if revision > 0 {
		return withRevision(r, sets, revision)
	}
	for _, set := range slices.Backward(sets) {
		if diagnose.Revision(set) < diagnose.Revision(d) {
			return set, nil
		}
	}
	return nil, fmt.Errorf("%s has no earlier revision", r)
}
