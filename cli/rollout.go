package cli

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

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Annotations that rollouts go by; kubectl's names, so that either tool understands the other.
const (
	changeCause = "kubernetes.io/change-cause"
	restartedAt = "kubectl.kubernetes.io/restartedAt"
)

// deadlineExceeded is the reason of a rollout that stopped moving.
const deadlineExceeded = "ProgressDeadlineExceeded"

func (s *shell) rolloutCommand() *cobra.Command {
	return family("rollout", "Follow and steer the rollouts of deployments", s.rolloutStatusCommand(), s.rolloutHistoryCommand(),
		s.rolloutUndoCommand(),
		s.rolloutChange("restart", "Replace all pods, a few at a time", "restarted", func(d *appsv1.Deployment) error {
			if d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is paused: resume it first, with 'xebec rollout resume'", referenceOf(d))
			}
			template := d.GetSpec().GetTemplate()
			if template.GetMetadata() == nil {
				template.Metadata = &metav1.ObjectMeta{}
			}
			if template.Metadata.Annotations == nil {
				template.Metadata.Annotations = map[string]string{}
			}
			template.Metadata.Annotations[restartedAt] = s.now().Format(time.RFC3339)
			return nil
		}),
		s.rolloutChange("pause", "Let changes of the template wait", "paused", func(d *appsv1.Deployment) error {
			if d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is already paused", referenceOf(d))
			}
			d.Spec.Paused = true
			return nil
		}),
		s.rolloutChange("resume", "Go on after a pause", "resumed", func(d *appsv1.Deployment) error {
			if !d.GetSpec().GetPaused() {
				return fmt.Errorf("%s is not paused", referenceOf(d))
			}
			d.Spec.Paused = false
			return nil
		}))
}

// deploymentOf finds the deployment that NAME, KIND NAME or KIND/NAME means.
func (s *shell) deploymentOf(args []string) (reference, error) {
	k, _ := kind.ByName("deployments")
	r, err := parseOne(args, k)
	if err == nil && r.kind != k {
		return r, usagef("only deployments roll out, not %s", r.kind.Plural)
	}
	if err == nil {
		r.namespace, err = s.defaultNamespace()
	}
	return r, err
}

// modify changes an object as it is now, again when somebody else changed it meanwhile.
func modify[T kind.Object](ctx context.Context, cl *client.Client, r reference, change func(T) error, options ...client.UpdateOption) (stored T, err error) {
	for range 5 {
		var obj kind.Object
		if obj, err = client.GetKind(ctx, cl, r.kind, r.namespace, r.name); err != nil {
			return stored, err
		}
		t := obj.(T)
		before := client.Clone(t)
		if err = change(t); err != nil {
			return stored, err
		}
		if proto.Equal(before, t) {
			return t, nil
		}
		if stored, err = client.Update(ctx, cl, t, options...); !apierr.IsConflict(err) {
			return stored, err
		}
	}
	return stored, err
}

// rolloutChange makes a command that changes deployments.
func (s *shell) rolloutChange(name, short, done string, change func(*appsv1.Deployment) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " deployment/NAME",
		Short:             short,
		Example:           "  xebec rollout " + name + " deployment/web",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.deploymentOf(args)
			if err != nil {
				return err
			}
			cl := s.client()
			if _, err := modify(cmd.Context(), cl, r, change); err != nil {
				return err
			}
			s.happened(false, r, done)
			return nil
		},
	}
}

func (s *shell) rolloutStatusCommand() *cobra.Command {
	watch, timeout := true, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "status deployment/NAME",
		Short: "Wait until a rollout is done",
		Long: "Wait until a rollout is done, and say what it waits for. Ends with exit code 0 when it is, 1 when it exceeded its progress deadline, and 4\n" +
			"when --timeout passed.",
		Example:           "  xebec rollout status deployment/web --timeout=2m",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.deploymentOf(args)
			if err != nil {
				return err
			}
			return s.rolloutStatus(cmd.Context(), r, watch, timeout)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", true, "wait until the rollout is done")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "longest time to wait, 0 for no limit")
	return cmd
}

func (s *shell) rolloutStatus(ctx context.Context, r reference, follow bool, timeout time.Duration) error {
	cl := s.client()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	reasons := s.newReasons(cl)
	reporting, stop := context.WithCancel(ctx)
	defer stop()
	if follow {
		reasons.every(reporting, reasonInterval)
	}
	err := s.observe(ctx, cl, r, func(obj kind.Object) (bool, error) {
		if obj == nil {
			return false, apierr.NotFound(r.kind, r.name)
		}
		d := obj.(*appsv1.Deployment)
		text, done, err := rolloutState(d)
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
		return timedOut("the rollout of %s%s", r, reasons.because())
	}
	return err
}

// reasonInterval is how often a rollout that goes on is asked what it waits for.
const reasonInterval = 2 * time.Second

// reasons prints what a rollout waits for, whenever that changes. Its pods tell, which change without the deployment.
type reasons struct {
	s  *shell
	cl *client.Client

	running sync.WaitGroup
	mu      sync.Mutex
	now     *appsv1.Deployment // nil before the first and after the last look
	state   string
	last    string
}

func (s *shell) newReasons(cl *client.Client) *reasons { return &reasons{s: s, cl: cl} }

// of sets the deployment as it is now, nil when there is nothing to wait for, and prints how far it is when that changed.
func (r *reasons) of(d *appsv1.Deployment, state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = d
	if state != "" && state != r.state {
		r.state = state
		r.s.printf("%s\n", state)
	}
}

// look asks once. What can't be read is not told: the rollout itself is what counts.
func (r *reasons) look(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return
	}
	text, err := rolloutWaits(ctx, r.cl, r.now)
	if err != nil || text == "" || text == r.last {
		return
	}
	r.last = text
	r.s.printf("  %s\n", text)
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

// rolloutState says how far a rollout is, in kubectl's words, which scripts look for.
func rolloutState(d *appsv1.Deployment) (text string, done bool, err error) {
	name, want, status := d.GetMetadata().GetName(), d.GetSpec().GetReplicas(), d.GetStatus()
	if status.GetObservedGeneration() < d.GetMetadata().GetGeneration() {
		return "Waiting for deployment spec update to be observed...", false, nil
	}
	for _, c := range status.GetConditions() {
		if c.GetType() == kind.DeploymentProgressing && c.GetReason() == deadlineExceeded {
			return "", false, fmt.Errorf("deployment %q exceeded its progress deadline; 'xebec describe deployment %s' and its pods say why", name, name)
		}
	}
	waiting := fmt.Sprintf("Waiting for deployment %q rollout to finish: ", name)
	switch updated, available := status.GetUpdatedReplicas(), status.GetAvailableReplicas(); {
	case updated < want:
		return waiting + fmt.Sprintf("%d out of %d new replicas have been updated...", updated, want), false, nil
	case status.GetReplicas() > updated:
		return waiting + fmt.Sprintf("%d old replicas are pending termination...", status.GetReplicas()-updated), false, nil
	case available < updated:
		return waiting + fmt.Sprintf("%d of %d updated replicas are available...", available, updated), false, nil
	}
	return fmt.Sprintf("deployment %q successfully rolled out", name), true, nil
}

// revisionOf is the revision that a deployment is at, or that a replica set holds; 0 when it is not known.
func revisionOf(obj kind.Object) int64 {
	n, err := strconv.ParseInt(obj.GetMetadata().GetAnnotations()[kind.AnnotationRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// setsOf lists the replica sets of a deployment, oldest revision first.
func setsOf(ctx context.Context, cl *client.Client, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := kind.LabelSelector(d.GetSpec().GetSelector())
	if err != nil {
		return nil, err
	}
	all, _, err := client.List[*appsv1.ReplicaSet](ctx, cl, client.ListOptions{Namespace: d.GetMetadata().GetNamespace(), LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(rs *appsv1.ReplicaSet) bool { return !kind.IsControlledBy(rs, d) })
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int { return int(revisionOf(a) - revisionOf(b)) })
	return all, nil
}

func (s *shell) rolloutHistoryCommand() *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use:   "history deployment/NAME",
		Short: "List the revisions of a deployment",
		Example: "  xebec rollout history deployment/web\n" +
			"  xebec rollout history deployment/web --revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.deploymentOf(args)
			if err != nil {
				return err
			}
			return s.rolloutHistory(cmd.Context(), r, revision)
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "show the pod template of this revision")
	return cmd
}

func (s *shell) rolloutHistory(ctx context.Context, r reference, revision int64) error {
	cl := s.client()
	d, err := client.Get[*appsv1.Deployment](ctx, cl, r.namespace, r.name)
	if err != nil {
		return err
	}
	sets, err := setsOf(ctx, cl, d)
	if err != nil {
		return err
	}
	if revision > 0 {
		set, err := withRevision(r, sets, revision)
		if err != nil {
			return err
		}
		s.printf("%s with revision #%d\n", r, revision)
		return describeTemplate(s.Out, s.now(), set.GetSpec().GetTemplate())
	}
	s.printf("%s\n", r)
	t := &table{heads: []string{"REVISION", "REPLICAS", "AGE", "CHANGE-CAUSE"}}
	for _, set := range sets {
		cause := set.GetMetadata().GetAnnotations()[changeCause]
		t.add(strconv.FormatInt(revisionOf(set), 10), strconv.Itoa(int(set.GetSpec().GetReplicas())),
			kind.Age(set.GetMetadata().GetCreationTimestamp(), s.now()), orNone(cause))
	}
	t.print(s.Out)
	return nil
}

func withRevision(r reference, sets []*appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	var known []int64
	for _, set := range sets {
		if revisionOf(set) == revision {
			return set, nil
		}
		known = append(known, revisionOf(set))
	}
	return nil, fmt.Errorf("%s has no revision %d: it has %v", r, revision, known)
}

func (s *shell) rolloutUndoCommand() *cobra.Command {
	var revision int64
	o := &writeOptions{}
	cmd := &cobra.Command{
		Use:   "undo deployment/NAME",
		Short: "Go back to an earlier revision",
		Example: "  xebec rollout undo deployment/web\n" +
			"  xebec rollout undo deployment/web --to-revision=3",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeOf("deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			r, err := s.deploymentOf(args)
			if err != nil {
				return err
			}
			return s.rolloutUndo(cmd.Context(), r, revision, o)
		},
	}
	cmd.Flags().Int64Var(&revision, "to-revision", 0, "the revision to go back to, 0 for the one before")
	o.dryRunFlag(cmd)
	return cmd
}

func (s *shell) rolloutUndo(ctx context.Context, r reference, revision int64, o *writeOptions) error {
	cl := s.client()
	what := "rolled back"
	var options []client.UpdateOption
	if o.dry() {
		options = append(options, client.DryRun)
	}
	_, err := modify(ctx, cl, r, func(d *appsv1.Deployment) error {
		if d.GetSpec().GetPaused() {
			return fmt.Errorf("%s is paused: resume it first, with 'xebec rollout resume'", r)
		}
		sets, err := setsOf(ctx, cl, d)
		if err != nil {
			return err
		}
		set, err := earlier(r, d, sets, revision)
		if err != nil {
			return err
		}
		template := proto.CloneOf(set.GetSpec().GetTemplate())
		delete(template.GetMetadata().GetLabels(), kind.LabelPodTemplateHash)
		if proto.Equal(template, d.GetSpec().GetTemplate()) {
			what = fmt.Sprintf("skipped rollback (current template already matches revision %d)", revisionOf(set))
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
	s.happened(o.dry(), r, what)
	return nil
}

// earlier chooses the revision to go back to: the one asked for, or the latest before the present one.
func earlier(r reference, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, revision int64) (*appsv1.ReplicaSet, error) {
	if revision > 0 {
		return withRevision(r, sets, revision)
	}
	for _, set := range slices.Backward(sets) {
		if revisionOf(set) < revisionOf(d) {
			return set, nil
		}
	}
	return nil, fmt.Errorf("%s has no earlier revision to go back to", r)
}
