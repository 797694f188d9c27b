package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

type getOptions struct {
	choice
	output         string
	form           form
	watch          bool
	watchOnly      bool
	noHeaders      bool
	showLabels     bool
	labelColumns   []string
	sortBy         string
	ignoreNotFound bool
	managedFields  bool
	atText         string
	at             client.At
}

func (s *shell) getCommand() *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND...] [NAME...] | KIND/NAME...",
		Short: "Show objects",
		Example: "  xebec get pods -o wide\n" +
			"  xebec get pods,svc -l app=web\n" +
			"  xebec get deployment/web -o yaml\n" +
			"  xebec get pods -A --field-selector spec.nodeName=node-1\n" +
			"  xebec get pods -w\n" +
			"  xebec get deployment/web -o yaml --at 10m\n" +
			"  xebec get nodes -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
		ValidArgsFunction: s.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.form, err = parseForm(o.output); err != nil {
				return err
			}
			o.form.managedFields = o.managedFields
			if o.at, err = parseAt(o.atText, time.Now()); err != nil {
				return err
			}
			return s.get(cmd.Context(), args, o)
		},
	}
	o.fileFlags(cmd, "that name the objects")
	o.selectorFlags(cmd)
	o.namespacesFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", "", "wide, name, json, yaml, or jsonpath=TEMPLATE")
	flags.BoolVarP(&o.watch, "watch", "w", false, "go on with every change, until interrupted")
	flags.BoolVar(&o.watchOnly, "watch-only", false, "show only changes from now on")
	flags.BoolVar(&o.noHeaders, "no-headers", false, "leave the headings of tables out")
	flags.BoolVar(&o.showLabels, "show-labels", false, "add a column with all labels")
	flags.StringSliceVarP(&o.labelColumns, "label-columns", "L", nil, "labels to show as columns")
	flags.StringVar(&o.sortBy, "sort-by", "", "field to sort by, such as .metadata.creationTimestamp")
	flags.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "an object that does not exist is no error")
	flags.StringVar(&o.atText, "at", "", "show what was: at a time such as 2026-11-21T15:04:05Z, so long ago such as 10m, or at a resourceVersion")
	flags.BoolVar(&o.managedFields, "show-managed-fields", false, "with json and yaml, show who owns which field")
	return cmd
}

// parseAt reads a moment of the past, the zero At when text is empty.
func parseAt(text string, now time.Time) (client.At, error) {
	if text == "" {
		return client.At{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return client.At{Revision: text}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return client.At{Time: now.Add(-ago)}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return client.At{Time: at}, nil
	}
	return client.At{}, usagef("invalid --at %q: want an RFC 3339 time such as 2026-11-21T15:04:05Z, how long ago such as 10m, or a resourceVersion", text)
}

// found is what a get found of one kind.
type found struct {
	kind     *kind.Kind
	objects  []kind.Object
	revision string
}

func (s *shell) get(ctx context.Context, args []string, o getOptions) error {
	refs, err := s.references(args, o.choice)
	if err != nil {
		return err
	}
	cl := s.client()
	if o.watch || o.watchOnly {
		return s.watch(ctx, cl, refs, o)
	}
	sections, failures := s.fetch(ctx, cl, refs, o)
	if len(failures) > 0 && countOf(sections) == 0 && len(failures) == 1 {
		return failures[0]
	}
	if o.sortBy != "" {
		if err := sortObjects(sections, o.sortBy); err != nil {
			return err
		}
	}
	if err := s.printFound(sections, refs, o, len(failures) > 0); err != nil {
		return err
	}
	for _, err := range failures {
		s.printError(err)
	}
	if len(failures) > 0 {
		return errSome
	}
	return nil
}

// fetch reads what the references mean, by kind in the order of their first mention. It goes on after objects that it
// can't read, but not after a cluster that it can't reach.
func (s *shell) fetch(ctx context.Context, cl *client.Client, refs []reference, o getOptions) ([]*found, []error) {
	var sections []*found
	var failures []error
	for _, r := range refs {
		at := slices.IndexFunc(sections, func(f *found) bool { return f.kind == r.kind })
		if at < 0 {
			at = len(sections)
			sections = append(sections, &found{kind: r.kind})
		}
		section := sections[at]
		var err error
		if r.name == "" {
			list := o.list(r)
			list.At = o.at
			section.objects, section.revision, err = client.ListKind(ctx, cl, r.kind, list)
			if r.kind.Name == "Event" && o.sortBy == "" {
				sortEvents(section.objects)
			}
		} else {
			var obj kind.Object
			if obj, err = client.GetKindAt(ctx, cl, r.kind, r.namespace, r.name, o.at); err == nil {
				section.objects = append(section.objects, obj)
			}
		}
		if err == nil || (apierr.IsNotFound(err) && o.ignoreNotFound) {
			continue
		}
		failures = append(failures, err)
		if apierr.IsUnavailable(err) || ctx.Err() != nil {
			break
		}
	}
	return sections, failures
}

func countOf(sections []*found) int {
	n := 0
	for _, f := range sections {
		n += len(f.objects)
	}
	return n
}

// sortEvents puts what happened last at the end.
func sortEvents(objects []kind.Object) {
	slices.SortStableFunc(objects, func(a, b kind.Object) int {
		return cmp.Or(
			kind.EventLastSeen(a.(*corev1.Event)).AsTime().Compare(kind.EventLastSeen(b.(*corev1.Event)).AsTime()),
			// Times are in seconds, in which much happens to a pod; events are written in their order.
			cmp.Compare(revision(a), revision(b)),
		)
	})
}

// revision is the object's resource version as a number, 0 when it has none.
func revision(o kind.Object) int64 {
	n, _ := strconv.ParseInt(o.GetMetadata().GetResourceVersion(), 10, 64)
	return n
}

// sortObjects orders the objects of each kind by a field; those that do not have it come first.
func sortObjects(sections []*found, by string) error {
	p, err := parsePath(strings.Trim(by, "{}"))
	if err != nil {
		return usagef("--sort-by %s: %w", by, err)
	}
	for _, f := range sections {
		type keyed struct {
			key    any
			object kind.Object
		}
		rows := make([]keyed, len(f.objects))
		for i, o := range f.objects {
			value, err := codec.ValueWhole(o)
			if err != nil {
				return err
			}
			rows[i].object = o
			if found, err := p.find(value); err == nil && len(found) > 0 {
				rows[i].key = found[0]
			}
		}
		slices.SortStableFunc(rows, func(a, b keyed) int {
			if a.key == nil || b.key == nil {
				return cmp.Compare(boolInt(a.key != nil), boolInt(b.key != nil))
			}
			order, _ := compareValues(a.key, b.key)
			return order
		})
		for i, r := range rows {
			f.objects[i] = r.object
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *shell) printFound(sections []*found, refs []reference, o getOptions, failed bool) error {
	if o.form.structured() {
		var all []kind.Object
		for _, f := range sections {
			all = append(all, f.objects...)
		}
		single := len(refs) == 1 && refs[0].name != ""
		if single && len(all) == 0 {
			return nil
		}
		return o.form.print(s.Out, all, single)
	}
	if countOf(sections) == 0 {
		if !failed && !o.ignoreNotFound {
			s.notef("%s", emptiness(refs))
		}
		return nil
	}
	first := true
	for _, f := range sections {
		if len(f.objects) == 0 {
			continue
		}
		if !first {
			s.printf("\n")
		}
		first = false
		s.objectTable(f, o, len(sections) > 1).print(s.Out)
	}
	return nil
}

// emptiness says where nothing was found.
func emptiness(refs []reference) string {
	for _, r := range refs {
		if r.kind.Namespaced && r.namespace != "" {
			return fmt.Sprintf("No resources found in %s namespace.", r.namespace)
		}
	}
	return "No resources found."
}

// objectTable makes the table of one kind's objects. Where kinds are mixed, names are qualified.
func (s *shell) objectTable(f *found, o getOptions, mixed bool) *table {
	columns := columnsOf(f.kind, o, mixed)
	t := &table{noHeads: o.noHeaders}
	for _, c := range columns {
		t.heads = append(t.heads, c.Name)
		if c.Name == "NAMESPACE" || c.Name == "NAME" {
			t.keep++
		}
	}
	now := s.now()
	for _, obj := range f.objects {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.Value(obj, now)
		}
		t.add(row...)
	}
	return t
}

func columnsOf(k *kind.Kind, o getOptions, mixed bool) []kind.Column {
	var columns []kind.Column
	add := func(name string, value func(kind.Object) string) {
		columns = append(columns, kind.Column{Name: name, Value: func(obj kind.Object, _ time.Time) string { return value(obj) }})
	}
	if o.everywhere && k.Namespaced {
		add("NAMESPACE", func(obj kind.Object) string { return obj.GetMetadata().GetNamespace() })
	}
	if !k.HideName {
		add("NAME", func(obj kind.Object) string {
			if mixed {
				return referenceOf(obj).String()
			}
			return obj.GetMetadata().GetName()
		})
	}
	for _, c := range k.Columns {
		if !c.Wide || o.form.name == formWide {
			columns = append(columns, c)
		}
	}
	for _, label := range o.labelColumns {
		add(strings.ToUpper(label[strings.LastIndexByte(label, '/')+1:]), func(obj kind.Object) string { return obj.GetMetadata().GetLabels()[label] })
	}
	if o.showLabels {
		add("LABELS", func(obj kind.Object) string { return pairs(obj.GetMetadata().GetLabels(), ",") })
	}
	return columns
}

// pairs writes a map as key=value, sorted; <none> when it is empty.
func pairs(m map[string]string, separator string) string {
	if len(m) == 0 {
		return "<none>"
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+m[key])
	}
	return strings.Join(out, separator)
}

// watch shows the state and then every change until interrupted. It resumes after a lost connection.
func (s *shell) watch(ctx context.Context, cl *client.Client, refs []reference, o getOptions) error {
	if o.at != (client.At{}) {
		return usagef("--at shows what was, and -w what is to come: leave one out")
	}
	if len(refs) != 1 {
		return usagef("-w shows one kind, or one object, at a time")
	}
	r := refs[0]
	options := client.WatchOptions{Namespace: r.namespace, LabelSelector: o.labels, FieldSelector: o.fields}
	if r.name != "" {
		options.FieldSelector = "metadata.name=" + r.name
	}
	state := &found{kind: r.kind}
	list := client.ListOptions{Namespace: options.Namespace, LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector}
	var err error
	if state.objects, options.ResourceVersion, err = client.ListKind(ctx, cl, r.kind, list); err != nil {
		return err
	}
	if r.name != "" && len(state.objects) == 0 && !o.ignoreNotFound {
		return apierr.NotFound(r.kind, r.name)
	}
	rows := s.liveTable(o)
	if !o.watchOnly {
		if err := rows(state); err != nil {
			return err
		}
	}
	err = s.follow(ctx, cl, r.kind, options, func() {}, func(ev client.Event[kind.Object]) (bool, error) {
		if ev.Type == apiv1.EventType_EVENT_TYPE_BOOKMARK {
			return false, nil
		}
		return false, rows(&found{kind: r.kind, objects: []kind.Object{ev.Object}})
	})
	if errors.Is(err, context.Canceled) || apierr.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// liveTable returns a function that prints objects as they come: rows under headings printed once, each column as wide
// as it had to be so far.
func (s *shell) liveTable(o getOptions) func(*found) error {
	var widths []int
	return func(f *found) error {
		if o.form.structured() {
			for _, obj := range f.objects {
				if o.form.name == formYAML {
					s.printf("---\n")
				}
				if err := o.form.print(s.Out, []kind.Object{obj}, true); err != nil {
					return err
				}
			}
			return nil
		}
		if len(f.objects) == 0 {
			return nil
		}
		t := s.objectTable(f, o, false)
		needed := t.widths(width(s.Out))
		if widths == nil {
			widths = needed
		} else {
			t.noHeads = true
		}
		for i := range widths {
			widths[i] = max(widths[i], needed[i])
		}
		t.printWidths(s.Out, widths)
		return nil
	}
}

// Waits between attempts to watch again.
const (
	minRetry = 200 * time.Millisecond
	maxRetry = 2 * time.Second
)

// follow calls see with each event of a watch until it says that it is done, resuming after lost connections. When the
// changes in between are no longer known it starts over with the state; whenever it begins with the state it calls
// begin first.
func (s *shell) follow(ctx context.Context, cl *client.Client, k *kind.Kind, o client.WatchOptions, begin func(), see func(client.Event[kind.Object]) (done bool, err error)) error {
	wait, lost := minRetry, false
	for {
		if o.ResourceVersion == "" {
			begin()
		}
		var failure error
		for ev, err := range client.WatchKind(ctx, cl, k, o) {
			if err != nil {
				failure = err
				break
			}
			wait, lost = minRetry, false
			if ev.ResourceVersion != "" && (o.ResourceVersion != "" || ev.InitialStateEnd) {
				o.ResourceVersion = ev.ResourceVersion
			}
			done, err := see(ev)
			if done || err != nil {
				return err
			}
		}
		asked, busy := apierr.Busy(failure)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case apierr.IsTooOld(failure):
			o.ResourceVersion = ""
			continue
		case !apierr.IsRetryable(failure) && !busy:
			return failure
		case s.unreachable(failure) && !lost:
			lost = true
			s.labelf(yellow, "Warning:", "the connection is lost, trying again: %s", connectionCause(failure))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wait, asked)):
			wait = min(2*wait, maxRetry)
		}
	}
}

// observe calls see with the state of one object, nil while it does not exist, now and after every change.
func (s *shell) observe(ctx context.Context, cl *client.Client, r reference, see func(kind.Object) (done bool, err error)) error {
	var present kind.Object
	o := client.WatchOptions{Namespace: r.namespace, FieldSelector: "metadata.name=" + r.name}
	return s.follow(ctx, cl, r.kind, o, func() { present = nil }, func(ev client.Event[kind.Object]) (bool, error) {
		switch ev.Type {
		case apiv1.EventType_EVENT_TYPE_BOOKMARK:
			if !ev.InitialStateEnd || present != nil {
				return false, nil
			}
		case apiv1.EventType_EVENT_TYPE_DELETED:
			present = nil
		default:
			present = ev.Object
		}
		return see(present)
	})
}
