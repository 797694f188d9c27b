package write

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/manifest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// ManifestOptions say how manifests are written to the cluster.
type ManifestOptions struct {
	// atomic writes all objects in one transaction.
	Atomic   bool
	validate string
}

// Values of --validate.
const (
	validateTrue   = "true"
	validateStrict = "strict"
)

// Flags adds the flags of these options to a command.
func (o *ManifestOptions) Flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.Atomic, "atomic", false, fmt.Sprintf("write all objects, at most %d, in one transaction", client.MaxOperations))
	cmd.Flags().
		StringVar(&o.validate, "validate", validateTrue,
			"true: unknown fields are errors and duplicate keys are warnings; strict: duplicate keys are errors too")
	cmd.Flags().Lookup("validate").NoOptDefVal = validateStrict
}

// Manifests reads the objects to write. When some are not in order it returns the others with
// Errors.
func Manifests(s *session.Session, c resolve.Choice, o ManifestOptions) ([]manifest.Document, error) {
	if o.validate != validateTrue && o.validate != validateStrict {
		return nil, exit.Usagef("invalid --validate value %q: want true or strict", o.validate)
	}
	docs, err := resolve.Manifests(s, c.Files, c.Recursive)
	errs, bad := errors.AsType[manifest.Errors](err)
	if err != nil && !bad {
		return nil, err
	}
	if o.validate == validateStrict {
		docs = slices.DeleteFunc(docs, func(d manifest.Document) bool {
			errs = append(errs, d.Warnings...)
			return len(d.Warnings) > 0
		})
	}
	if len(errs) > 0 {
		return docs, errs
	}
	return docs, nil
}

// Warn prints what is odd about a manifest, and what the server says of its object, each with its
// place.
func Warn(s *session.Session, d manifest.Document, said []string) {
	for _, w := range d.Warnings {
		s.WarnOnce(fmt.Sprintf("%s:%d: %s: %v", w.Source, w.Line, resolve.Of(d.Object), w.Err))
	}
	for _, text := range said {
		path, _, _ := strings.Cut(text, ": ")
		s.WarnOnce(fmt.Sprintf("%s:%d: %s: %s", d.Source, d.LineOf(path), resolve.Of(d.Object), text))
	}
}

// EachManifest does something with every document, namespaces first so that what lives in them
// finds them. It goes on after objects that the server refuses, which it prints with their place,
// but not after a cluster that it can't reach. What is wrong with the other documents of the
// manifests comes last.
func EachManifest(s *session.Session, docs []manifest.Document, wrong error, do func(manifest.Document) error) error {
	failed := wrong != nil
	for _, d := range namespacesFirst(docs) {
		err := do(d)
		if err == nil {
			continue
		}
		if apierr.IsUnavailable(err) || apierr.IsUnauthenticated(err) || apierr.Code(err) == codes.Canceled {
			return err
		}
		failed = true
		s.PrintError(fmt.Errorf("%s:%d: %w", d.Source, lineOfError(d, err, ""), err))
	}
	if wrong != nil {
		s.PrintError(wrong)
	}
	if failed {
		return exit.Some
	}
	return nil
}

func namespacesFirst(docs []manifest.Document) []manifest.Document {
	var first, rest []manifest.Document
	for _, d := range docs {
		if isNamespace(d) {
			first = append(first, d)
		} else {
			rest = append(rest, d)
		}
	}
	return append(first, rest...)
}

func isNamespace(d manifest.Document) bool {
	_, ok := d.Object.(*corev1.Namespace)
	return ok
}

// lineOfError is the line of the fields that an error is about, or, when they are on several or on
// none, that of the object. prefix is what stands before their paths.
func lineOfError(d manifest.Document, err error, prefix string) int {
	line := 0
	for _, v := range apierr.Violations(err) {
		at := d.LineOf(strings.TrimPrefix(v.Field, prefix))
		if line != 0 && at != line {
			return d.Line
		}
		line = at
	}
	return max(line, d.Line)
}

// Together makes one write of every document in one transaction and reports the results. operation
// makes the write; refused may change it after an error, and says whether it did; outcome words the
// result.
func Together(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	docs []manifest.Document,
	o *Options,
	operation func(i int, d manifest.Document) client.Operation,
	refused func(i int, err error) bool,
	outcome func(apiv1.ApplyResult) string,
) error {
	if len(docs) > client.MaxOperations {
		return fmt.Errorf("too many objects for --atomic: %d, at most %d", len(docs), client.MaxOperations)
	}
	docs = namespacesFirst(docs)
	transact := client.Transact
	if o.Dry() {
		transact = client.TryTransact
	}
	for {
		ops := make([]client.Operation, len(docs))
		for i, d := range docs {
			ops[i] = operation(i, d)
		}
		result, err := transact(ctx, cl, ops...)
		if err == nil {
			return reportTogether(s, docs, o, result, outcome)
		}
		i, named := operationOf(err)
		if !named || i >= len(docs) {
			return err
		}
		if refused(i, err) {
			continue
		}
		s.PrintError(fmt.Errorf("%s:%d: %w", docs[i].Source, lineOfError(docs[i], err, fmt.Sprintf("operations[%d].", i)), err))
		hint := ""
		if ns := docs[i].Object.GetMetadata().GetNamespace(); slices.ContainsFunc(docs, func(d manifest.Document) bool {
			return isNamespace(d) && d.Object.GetMetadata().GetName() == ns
		}) {
			hint = fmt.Sprintf(" A transaction cannot create a namespace and objects in it: apply namespace %s first.", ns)
		}
		s.Notef("  Nothing was written because of --atomic.%s", hint)
		return exit.Some
	}
}

func reportTogether(
	s *session.Session,
	docs []manifest.Document,
	o *Options,
	result *client.Result,
	outcome func(apiv1.ApplyResult) string,
) error {
	for i, d := range docs {
		applied, warnings := result.Applied(i)
		Warn(s, d, warnings)
		obj, err := result.ObjectLike(i, d.Object)
		if err == nil {
			err = Report(s, o, obj, outcome(applied))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var operationPath = regexp.MustCompile(`^operations\[(\d+)\]`)

// operationOf is the operation that an error of a transaction names.
func operationOf(err error) (int, bool) {
	m := operationPath.FindStringSubmatch(apierr.Message(err))
	if m == nil {
		return 0, false
	}
	i, convErr := strconv.Atoi(m[1])
	return i, convErr == nil
}
