// Package describe holds the command describe: objects in detail, with their events.
package describe

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// Command returns the command describe.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	events := true
	cmd := &cobra.Command{
		Use:   "describe KIND [NAME...] | KIND/NAME...",
		Short: "Show objects in detail, with their events",
		Example: "  xebec describe pod web-0\n" +
			"  xebec describe node/node-1\n" +
			"  xebec describe deployments -l app=web",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			return describe(cmd.Context(), s, args, c, events)
		},
	}
	c.FileFlags(cmd, "that identify the objects")
	c.SelectorFlags(cmd)
	c.NamespacesFlag(cmd)
	cmd.Flags().BoolVar(&events, "show-events", true, "show the events of the objects")
	return cmd
}

func describe(ctx context.Context, s *session.Session, args []string, c resolve.Choice, events bool) error {
	refs, err := resolve.References(s, args, c)
	if err != nil {
		return err
	}
	cl := s.Client()
	sections, failures := resolve.Fetch(ctx, cl, refs, resolve.FetchOptions{Choice: c})
	if len(failures) > 0 && resolve.Count(sections) == 0 && len(failures) == 1 {
		return failures[0]
	}
	first := true
	for _, f := range sections {
		for _, obj := range f.Objects {
			if !first {
				s.Printf("\n\n")
			}
			first = false
			if err := describeOne(ctx, s, cl, obj, events); err != nil {
				return err
			}
		}
	}
	for _, err := range failures {
		s.PrintError(err)
	}
	switch {
	case len(failures) > 0:
		return exit.Some
	case first:
		s.Notef("%s", resolve.NoneFound(refs))
	}
	return nil
}

func describeOne(ctx context.Context, s *session.Session, cl *client.Client, obj scheme.Object, events bool) error {
	r := newReport(s.Out, s.Now())
	if err := r.object(ctx, cl, obj); err != nil {
		return err
	}
	if _, isEvent := obj.(*corev1.Event); events && !isEvent {
		switch found, err := resolve.Events(ctx, cl, obj); {
		case apierr.IsForbidden(err):
			r.field("Events", "<not permitted to list events>")
		case err != nil:
			return err
		default:
			r.events(found)
		}
	}
	return r.flush()
}

// describer writes an object of one type to a report.
type describer func(ctx context.Context, cl *client.Client, r *report, obj scheme.Object) error

// describers has the kinds that are described in a form of their own, by message. Others get the
// generic form.
var describers = map[protoreflect.FullName]describer{
	messageOf[*corev1.ConfigMap]():             of((*report).configMap),
	messageOf[*corev1.Node]():                  reading(describeNode),
	messageOf[*corev1.PersistentVolume]():      reading(describePersistentVolume),
	messageOf[*corev1.ReplicationController](): reading(describeReplicationController),
	messageOf[*corev1.Pod]():                   of((*report).pod),
	messageOf[*corev1.Secret]():                of((*report).secret),
	messageOf[*corev1.Service]():               reading(describeService),
	messageOf[*appsv1.DaemonSet]():             reading(describeDaemonSet),
	messageOf[*appsv1.Deployment]():            reading(describeDeployment),
	messageOf[*appsv1.ReplicaSet]():            of((*report).replicaSet),
	messageOf[*networkingv1.NetworkPolicy]():   of((*report).networkPolicy),
	messageOf[*policyv1.PodDisruptionBudget](): of((*report).podDisruptionBudget),
	messageOf[*batchv1.CronJob]():              of((*report).cronJob),
	messageOf[*batchv1.Job]():                  of((*report).job),
}

func messageOf[T scheme.Object]() protoreflect.FullName {
	var none T
	return none.ProtoReflect().Descriptor().FullName()
}

// of makes a describer of a method that needs the object alone.
func of[T scheme.Object](write func(*report, T)) describer {
	return reading(func(_ context.Context, _ *client.Client, r *report, obj T) error {
		write(r, obj)
		return nil
	})
}

// reading makes a describer of a function that reads other objects too. A dynamic object of the
// same message gets the generic form.
func reading[T scheme.Object](write func(context.Context, *client.Client, *report, T) error) describer {
	return func(ctx context.Context, cl *client.Client, r *report, obj scheme.Object) error {
		if typed, ok := obj.(T); ok {
			return write(ctx, cl, r, typed)
		}
		return r.generic(obj)
	}
}

// object writes an object in the form of its kind.
func (r *report) object(ctx context.Context, cl *client.Client, obj scheme.Object) error {
	if write := describers[obj.ProtoReflect().Descriptor().FullName()]; write != nil {
		return write(ctx, cl, r, obj)
	}
	return r.generic(obj)
}

// report is a description: lines of names and values, aligned within each stretch of lines.
type report struct {
	w   *tabwriter.Writer
	now time.Time
	// level is how deep the next line is indented.
	level int
}

func newReport(w io.Writer, now time.Time) *report {
	return &report{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.DiscardEmptyColumns), now: now}
}

func (r *report) flush() error { return r.w.Flush() }

// line writes cells at the current level.
func (r *report) line(cells ...string) {
	for i, c := range cells {
		cells[i] = terminal.OneLine(c)
	}
	fmt.Fprintf(r.w, "%s%s\n", strings.Repeat("  ", r.level), strings.Join(cells, "\t"))
}

// field writes a name and its value.
func (r *report) field(name, value string) { r.line(name+":", value) }

// optional writes a field unless its value is empty.
func (r *report) optional(name, value string) {
	if value != "" {
		r.field(name, value)
	}
}

// group writes a heading and what body writes below it, one level deeper.
func (r *report) group(name string, body func()) {
	r.line(name + ":")
	r.level++
	body()
	r.level--
}

// list writes several values under one name, one to a line.
func (r *report) list(name string, values []string) {
	if len(values) == 0 {
		r.field(name, "<none>")
		return
	}
	for i, v := range values {
		if i == 0 {
			r.field(name, v)
		} else {
			r.line("", v)
		}
	}
}

// sub writes a table of its own alignment, one level deeper than the current one.
func (r *report) sub(heads []string, rows [][]string) {
	_ = r.w.Flush()
	indent := strings.Repeat("  ", r.level+1)
	rule := make([]string, len(heads))
	for i, h := range heads {
		rule[i] = strings.Repeat("-", len(h))
	}
	for _, row := range slices.Concat([][]string{heads, rule}, rows) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = terminal.OneLine(c)
		}
		fmt.Fprintf(r.w, "%s%s\n", indent, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
	}
	_ = r.w.Flush()
}

func (r *report) time(name string, t *timestamppb.Timestamp) {
	if t != nil {
		r.field(name, t.AsTime().UTC().Format(time.RFC1123))
	}
}

// metadata writes what every object has.
func (r *report) metadata(obj scheme.Object) {
	m := obj.GetMetadata()
	r.field("Name", m.GetName())
	if kinds.Of(obj).Namespaced {
		r.field("Namespace", m.GetNamespace())
	}
}

func (r *report) labels(obj scheme.Object) {
	m := obj.GetMetadata()
	r.list("Labels", printer.Lines(m.GetLabels(), "="))
	annotations := make(map[string]string, len(m.GetAnnotations()))
	for key, value := range m.GetAnnotations() {
		annotations[key] = terminal.Shorten(terminal.OneLine(value), 200)
	}
	r.list("Annotations", printer.Lines(annotations, ": "))
}

func (r *report) ends(obj scheme.Object) {
	m := obj.GetMetadata()
	if m.GetDeletionTimestamp() != nil {
		r.field("Deleted", column.Age(m.GetDeletionTimestamp(), r.now)+" ago, waiting for finalizers")
	}
	if len(m.GetFinalizers()) > 0 {
		r.list("Finalizers", m.GetFinalizers())
	}
	if owner := kinds.ControllerOf(obj); owner != nil {
		r.field("Controlled By", owner.GetKind()+"/"+owner.GetName())
	}
}

// conditionRow is what conditions of all kinds share.
type conditionRow interface {
	GetType() string
	GetStatus() string
	GetReason() string
	GetMessage() string
	GetLastTransitionTime() *timestamppb.Timestamp
}

func conditions[T conditionRow](r *report, all []T) {
	if len(all) == 0 {
		return
	}
	r.line("Conditions:")
	var rows [][]string
	for _, c := range all {
		rows = append(rows, []string{c.GetType(), c.GetStatus(), column.Age(c.GetLastTransitionTime(), r.now), c.GetReason(), c.GetMessage()})
	}
	r.sub([]string{"Type", "Status", "Since", "Reason", "Message"}, rows)
}

func (r *report) events(all []scheme.Object) {
	if len(all) == 0 {
		r.field("Events", "<none>")
		return
	}
	r.line("Events:")
	var rows [][]string
	for _, o := range all {
		e := o.(*corev1.Event)
		age := column.Age(core.EventLastSeen(e), r.now)
		if n := core.EventCount(e); n > 1 && e.GetFirstTimestamp() != nil {
			age = fmt.Sprintf("%s (x%d over %s)", age, n, column.Age(e.GetFirstTimestamp(), r.now))
		}
		from := e.GetReportingComponent()
		if from == "" {
			from = e.GetSource().GetComponent()
		}
		rows = append(rows, []string{e.GetType(), e.GetReason(), age, from, e.GetMessage()})
	}
	r.sub([]string{"Type", "Reason", "Age", "From", "Message"}, rows)
}
