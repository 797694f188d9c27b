// Package get holds the command get: objects as tables or in other formats, once or as they change.
package get

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

type getOptions struct {
	resolve.Choice
	table          printer.TableOptions
	output         string
	form           printer.Format
	watch          bool
	watchOnly      bool
	sortBy         string
	ignoreNotFound bool
	managedFields  bool
	atText         string
	at             client.At
}

// Command returns the command get.
func Command(s *session.Session) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND...] [NAME...] | KIND/NAME...",
		Short: "List objects",
		Example: "  xebec get pods -o wide\n" +
			"  xebec get pods,svc -l app=web\n" +
			"  xebec get deployment/web -o yaml\n" +
			"  xebec get pods -A --field-selector spec.nodeName=node-1\n" +
			"  xebec get pods -w\n" +
			"  xebec get deployment/web -o yaml --at 10m\n" +
			"  xebec get nodes -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.form, err = printer.ParseFormat(o.output); err != nil {
				return err
			}
			o.form.ManagedFields = o.managedFields
			o.table.Wide, o.table.Everywhere = o.form.Name == printer.Wide, o.Everywhere
			if o.at, err = parseAt(o.atText, time.Now()); err != nil {
				return err
			}
			return get(cmd.Context(), s, args, o)
		},
	}
	o.FileFlags(cmd, "that identify the objects")
	o.SelectorFlags(cmd)
	o.NamespacesFlag(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&o.output, "output", "o", "", "output format: wide, name, json, yaml or jsonpath=TEMPLATE")
	flags.BoolVarP(&o.watch, "watch", "w", false, "after listing, watch for changes until interrupted")
	flags.BoolVar(&o.watchOnly, "watch-only", false, "watch for changes without listing first")
	flags.BoolVar(&o.table.NoHeaders, "no-headers", false, "omit table headers")
	flags.BoolVar(&o.table.ShowLabels, "show-labels", false, "add a column of all labels")
	flags.StringSliceVarP(&o.table.LabelColumns, "label-columns", "L", nil, "labels to show as columns")
	flags.StringVar(&o.sortBy, "sort-by", "", "field path to sort by, such as .metadata.creationTimestamp")
	flags.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "ignore an object that does not exist")
	flags.StringVar(&o.atText, "at", "", "show the past state: at an RFC 3339 time, a duration ago such as 10m, or a resourceVersion")
	flags.BoolVar(&o.managedFields, "show-managed-fields", false, "with json and yaml, show managedFields")
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
	return client.At{}, exit.Usagef(
		"invalid --at value %q: want an RFC 3339 time such as 2026-11-21T15:04:05Z, a duration such as 10m, or a resourceVersion",
		text,
	)
}

func get(ctx context.Context, s *session.Session, args []string, o getOptions) error {
	refs, err := resolve.References(s, args, o.Choice)
	if err != nil {
		return err
	}
	cl := s.Client()
	if o.watch || o.watchOnly {
		return follow(ctx, s, cl, refs, o)
	}
	sections, failures := resolve.Fetch(ctx, cl, refs, resolve.FetchOptions{Choice: o.Choice, At: o.at, IgnoreNotFound: o.ignoreNotFound})
	if len(failures) > 0 && resolve.Count(sections) == 0 && len(failures) == 1 {
		return failures[0]
	}
	if o.sortBy != "" {
		if err := printer.Sort(sections, o.sortBy); err != nil {
			return err
		}
	}
	if err := printFound(s, sections, refs, o, len(failures) > 0); err != nil {
		return err
	}
	for _, err := range failures {
		s.PrintError(err)
	}
	if len(failures) > 0 {
		return exit.Some
	}
	return nil
}

func printFound(s *session.Session, sections []*resolve.Found, refs []resolve.Reference, o getOptions, failed bool) error {
	if o.form.Structured() {
		var all []scheme.Object
		for _, f := range sections {
			all = append(all, f.Objects...)
		}
		single := len(refs) == 1 && refs[0].Name != ""
		if single && len(all) == 0 {
			return nil
		}
		return o.form.Print(s.Out, all, single)
	}
	if resolve.Count(sections) == 0 {
		if !failed && !o.ignoreNotFound {
			s.Notef("%s", resolve.NoneFound(refs))
		}
		return nil
	}
	first := true
	for _, f := range sections {
		if len(f.Objects) == 0 {
			continue
		}
		if !first {
			s.Printf("\n")
		}
		first = false
		printer.ObjectTable(f, o.table, len(sections) > 1, s.Now()).Print(s.Out)
	}
	return nil
}

// follow shows the state and then every change until interrupted. It resumes after a lost
// connection.
func follow(ctx context.Context, s *session.Session, cl *client.Client, refs []resolve.Reference, o getOptions) error {
	if o.at != (client.At{}) {
		return exit.Usagef("--at and -w cannot be combined")
	}
	if len(refs) != 1 {
		return exit.Usagef("-w accepts one kind or one object")
	}
	r := refs[0]
	options := client.WatchOptions{Namespace: r.Namespace, LabelSelector: o.Labels, FieldSelector: o.Fields}
	if r.Name != "" {
		options.FieldSelector = "metadata.name=" + r.Name
	}
	state := &resolve.Found{Kind: r.Kind}
	list := client.ListOptions{Namespace: options.Namespace, LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector}
	var err error
	if state.Objects, options.ResourceVersion, err = client.ListKind(ctx, cl, r.Kind, list); err != nil {
		return err
	}
	if r.Name != "" && len(state.Objects) == 0 && !o.ignoreNotFound {
		return apierr.NotFound(r.Kind, r.Name)
	}
	rows := liveTable(s, o)
	if !o.watchOnly {
		if err := rows(state); err != nil {
			return err
		}
	}
	err = watch.Follow(ctx, s, cl, r.Kind, options, func() {}, func(ev client.Event[scheme.Object]) (bool, error) {
		if ev.Type == apiv1.EventType_EVENT_TYPE_BOOKMARK {
			return false, nil
		}
		return false, rows(&resolve.Found{Kind: r.Kind, Objects: []scheme.Object{ev.Object}})
	})
	if errors.Is(err, context.Canceled) || apierr.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// liveTable returns a function that prints objects as they come: rows under headings printed once,
// each column as wide as it had to be so far.
func liveTable(s *session.Session, o getOptions) func(*resolve.Found) error {
	var widths []int
	return func(f *resolve.Found) error {
		if o.form.Structured() {
			for _, obj := range f.Objects {
				if o.form.Name == printer.YAML {
					s.Printf("---\n")
				}
				if err := o.form.Print(s.Out, []scheme.Object{obj}, true); err != nil {
					return err
				}
			}
			return nil
		}
		if len(f.Objects) == 0 {
			return nil
		}
		t := printer.ObjectTable(f, o.table, false, s.Now())
		needed := t.Widths(terminal.Width(s.Out))
		if widths == nil {
			widths = needed
		} else {
			t.NoHeads = true
		}
		for i := range widths {
			widths[i] = max(widths[i], needed[i])
		}
		t.PrintWidths(s.Out, widths)
		return nil
	}
}
