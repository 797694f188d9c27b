// Package rollout holds the commands that follow and control rollouts. What a rollout of each kind
// is, cli/diagnose says.
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
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Annotations that rollouts go by; kubectl's names, so that either tool understands the other.
const (
	changeCause = "kubernetes.io/change-cause"
	restartedAt = "kubectl.kubernetes.io/restartedAt"
)

// Command returns the command rollout.
func Command(s *session.Session) *cobra.Command {
	return command.Family("rollout", "Manage rollouts of workloads", statusCommand(s), historyCommand(s),
		undoCommand(s),
		changeCommand(s, "restart", "Restart a workload by replacing its pods", "restarted", func(r resolve.Reference, o diagnose.Rollout) error {
			if isPaused(o) {
				return pausedError(r)
			}
			template := o.Template()
			if template.GetMetadata() == nil {
				template.Metadata = &metav1.ObjectMeta{}
			}
			if template.Metadata.Annotations == nil {
				template.Metadata.Annotations = map[string]string{}
			}
			template.Metadata.Annotations[restartedAt] = s.Now().Format(time.RFC3339)
			return nil
		}),
		changeCommand(s, "pause", "Pause the rollout of template changes", "paused", pause(true)),
		changeCommand(s, "resume", "Resume a paused deployment", "resumed", pause(false)))
}

// pause is the change that pauses or resumes a rollout.
func pause(paused bool) func(resolve.Reference, diagnose.Rollout) error {
	return func(r resolve.Reference, o diagnose.Rollout) error {
		p, ok := o.(diagnose.Pausable)
		switch {
		case !ok:
			return exit.Usagef("rollouts of %s cannot be paused: want a deployment", r.Kind.Plural)
		case *p.Paused() == paused && paused:
			return fmt.Errorf("%s is already paused", r)
		case *p.Paused() == paused:
			return fmt.Errorf("%s is not paused", r)
		}
		*p.Paused() = paused
		return nil
	}
}

func isPaused(o diagnose.Rollout) bool {
	p, ok := o.(diagnose.Pausable)
	return ok && *p.Paused()
}

func pausedError(r resolve.Reference) error {
	return fmt.Errorf("%s is paused: run 'xebec rollout resume' first", r)
}

// referenceOf finds the workload that NAME, KIND NAME or KIND/NAME means.
func referenceOf(s *session.Session, args []string) (resolve.Reference, error) {
	all := diagnose.RolloutKinds()
	r, err := resolve.One(s, args, all[0])
	if err == nil && !slices.Contains(all, r.Kind) {
		return r, exit.Usagef("rollouts of %s are not supported: want %s", r.Kind.Plural, diagnose.RolloutNames())
	}
	return r, err
}

// rolloutOf returns the rollout of an object of one of diagnose.RolloutKinds.
func rolloutOf(obj scheme.Object) diagnose.Rollout {
	o, ok := diagnose.RolloutOf(obj)
	if !ok {
		panic(fmt.Sprintf("rollout: kind %s is in RolloutKinds, but RolloutOf does not support it", kinds.Of(obj)))
	}
	return o
}

// changeCommand makes a command that changes workloads.
func changeCommand(
	s *session.Session, name, short, done string, change func(resolve.Reference, diagnose.Rollout) error,
) *cobra.Command {
	return &cobra.Command{
		Use:               name + " KIND/NAME",
		Short:             short,
		Example:           "  xebec rollout " + name + " deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := referenceOf(s, args)
			if err != nil {
				return err
			}
			cl := s.Client()
			apply := func(obj scheme.Object) error { return change(r, rolloutOf(obj)) }
			if _, err := write.Modify(cmd.Context(), cl, r, apply); err != nil {
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
		Use:   "status KIND/NAME",
		Short: "Wait until a rollout is complete",
		Long: "Wait until a rollout is complete and print what it waits for. The exit code is 0 if it completed, 1 if it exceeded its\n" +
			"progress deadline, 4 if --timeout expired.",
		Example:           "  xebec rollout status deployment/web --timeout=2m",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := referenceOf(s, args)
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
		o := rolloutOf(obj)
		text, done, err := o.State()
		if done {
			o = nil
		}
		reasons.of(o, text)
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
// without the workload.
type reasons struct {
	s  *session.Session
	cl *client.Client

	running sync.WaitGroup
	mu      sync.Mutex
	now     diagnose.Rollout // nil before the first and after the last look
	state   string
	last    string
}

func newReasons(s *session.Session, cl *client.Client) *reasons { return &reasons{s: s, cl: cl} }

// of sets the rollout as it is now, nil when there is nothing to wait for, and prints how far it is
// when that changed.
func (r *reasons) of(o diagnose.Rollout, state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = o
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
	text, err := r.now.Waits(ctx, r.cl)
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
		Use:   "history KIND/NAME",
		Short: "List the revisions of a workload",
		Example: "  xebec rollout history deployment/web\n" +
			"  xebec rollout history deployment/web --revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := referenceOf(s, args)
			if err != nil {
				return err
			}
			return rolloutHistory(cmd.Context(), s, r, revision)
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "show the pod template of a revision")
	return cmd
}

func rolloutHistory(ctx context.Context, s *session.Session, r resolve.Reference, number int64) error {
	cl := s.Client()
	obj, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
	if err != nil {
		return err
	}
	revisions, err := rolloutOf(obj).Revisions(ctx, cl)
	if err != nil {
		return err
	}
	if number > 0 {
		revision, err := numbered(r, revisions, number)
		if err != nil {
			return err
		}
		s.Printf("%s with revision #%d\n", r, number)
		return describe.Template(s.Out, s.Now(), revision.Template)
	}
	s.Printf("%s\n", r)
	t := &printer.Table{Heads: []string{"REVISION", "REPLICAS", "AGE", "CHANGE-CAUSE"}}
	for _, revision := range revisions {
		m := revision.Holder.GetMetadata()
		t.Add(strconv.FormatInt(revision.Number, 10), strconv.Itoa(int(revision.Replicas)),
			column.Age(m.GetCreationTimestamp(), s.Now()), printer.OrNone(m.GetAnnotations()[changeCause]))
	}
	t.Print(s.Out)
	return nil
}

func numbered(r resolve.Reference, revisions []diagnose.Revision, number int64) (diagnose.Revision, error) {
	var known []int64
	for _, revision := range revisions {
		if revision.Number == number {
			return revision, nil
		}
		known = append(known, revision.Number)
	}
	return diagnose.Revision{}, fmt.Errorf("%s has no revision %d: want one of %v", r, number, known)
}

func undoCommand(s *session.Session) *cobra.Command {
	var revision int64
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:   "undo KIND/NAME",
		Short: "Roll back to an earlier revision",
		Example: "  xebec rollout undo deployment/web\n" +
			"  xebec rollout undo deployment/web --to-revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			r, err := referenceOf(s, args)
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

func rolloutUndo(ctx context.Context, s *session.Session, r resolve.Reference, number int64, o *write.Options) error {
	cl := s.Client()
	what := "rolled back"
	var options []client.UpdateOption
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	_, err := write.Modify(ctx, cl, r, func(obj scheme.Object) error {
		rollout := rolloutOf(obj)
		if isPaused(rollout) {
			return pausedError(r)
		}
		revisions, err := rollout.Revisions(ctx, cl)
		if err != nil {
			return err
		}
		revision, err := earlier(r, revisions, number)
		if err != nil {
			return err
		}
		before := proto.CloneOf(rollout.Template())
		rollout.SetTemplate(revision.Template)
		if proto.Equal(before, rollout.Template()) {
			what = fmt.Sprintf("skipped rollback (current template already matches revision %d)", revision.Number)
			return nil
		}
		m := obj.GetMetadata()
		if cause := revision.Holder.GetMetadata().GetAnnotations()[changeCause]; cause != "" && m.GetAnnotations() != nil {
			m.Annotations[changeCause] = cause
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
func earlier(r resolve.Reference, revisions []diagnose.Revision, number int64) (diagnose.Revision, error) {
	if number > 0 {
		return numbered(r, revisions, number)
	}
	current := slices.IndexFunc(revisions, func(revision diagnose.Revision) bool { return revision.Current })
	if current < 0 {
		current = len(revisions)
	}
	if current == 0 {
		return diagnose.Revision{}, fmt.Errorf("%s has no earlier revision", r)
	}
	return revisions[current-1], nil
}
