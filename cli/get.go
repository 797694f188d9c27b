package cli

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

type getOptions struct {
	choice
	table          tableOptions
	output         string
	form           form
	watch          bool
	watchOnly      bool
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
		ValidArgsFunction: s.completeKinds(),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.form, err = parseForm(o.output); err != nil {
				return err
			}
			o.form.managedFields = o.managedFields
			o.table.wide, o.table.everywhere = o.form.name == formWide, o.everywhere
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
	flags.BoolVar(&o.table.noHeaders, "no-headers", false, "leave the headings of tables out")
	flags.BoolVar(&o.table.showLabels, "show-labels", false, "add a column with all labels")
	flags.StringSliceVarP(&o.table.labelColumns, "label-columns", "L", nil, "labels to show as columns")
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

func (s *shell) get(ctx context.Context, args []string, o getOptions) error {
	refs, err := s.references(args, o.choice)
	if err != nil {
		return err
	}
	cl := s.client()
	if o.watch || o.watchOnly {
		return s.watch(ctx, cl, refs, o)
	}
	sections, failures := s.fetch(ctx, cl, refs, fetchOptions{choice: o.choice, at: o.at, ignoreNotFound: o.ignoreNotFound})
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
		objectTable(f, o.table, len(sections) > 1, s.now()).print(s.Out)
	}
	return nil
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
		t := objectTable(f, o.table, false, s.now())
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
