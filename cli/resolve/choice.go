package resolve

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
)

// Choice says which objects a command is about: by references, by files, or by selectors.
type Choice struct {
	Files     []string
	Recursive bool
	Labels    string
	Fields    string
	all       bool
	// everywhere stands for all namespaces.
	Everywhere bool
}

// FileFlags adds -f and -R; purpose completes the sentence about the manifests.
func (c *Choice) FileFlags(cmd *cobra.Command, purpose string) {
	cmd.Flags().StringArrayVarP(&c.Files, "filename", "f", nil, "file or directory with manifests "+purpose+", or - for standard input")
	cmd.Flags().BoolVarP(&c.Recursive, "recursive", "R", false, "read the subdirectories of directories given by -f too")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

// RequireFiles returns an error unless -f was given.
func (c *Choice) RequireFiles() error {
	if len(c.Files) == 0 {
		return exit.Usagef("-f is required: a file, a directory or - for standard input")
	}
	return nil
}

// SelectorFlags adds -l and --field-selector.
func (c *Choice) SelectorFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.Labels, "selector", "l", "", "label selector, such as app=web,tier!=cache")
	cmd.Flags().StringVar(&c.Fields, "field-selector", "", "field selector, such as spec.nodeName=node-1")
}

// NamespacesFlag adds -A.
func (c *Choice) NamespacesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.Everywhere, "all-namespaces", "A", false, "all namespaces")
}

// AllFlag adds --all.
func (c *Choice) AllFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.all, "all", false, "all objects of the kind in the namespace")
}

// Manifests reads the manifests that the files hold; the cluster describes kinds that the program
// was not compiled with. Every namespaced object without a namespace gets the flag's or the
// context's. If some objects are invalid it returns the others with manifest.Errors.
func Manifests(s *session.Session, files []string, recursive bool) ([]manifest.Document, error) {
	for _, f := range files {
		if f == "" {
			return nil, exit.Usagef("empty -f value: want a file, a directory or - for standard input")
		}
	}
	reader := manifest.Reader{Kinds: s.Kinds, Discover: func() { Kinds(s) }}
	all, err := reader.Load(files, recursive, s.In)
	errs, bad := errors.AsType[manifest.Errors](err)
	switch {
	case err != nil && !bad:
		return nil, err
	case len(all) == 0 && len(errs) == 0:
		return nil, fmt.Errorf("no objects found in %s", strings.Join(files, ", "))
	}
	var docs []manifest.Document
	for _, d := range all {
		meta, k := d.Object.GetMetadata(), kinds.Of(d.Object)
		switch {
		case meta == nil:
			errs = append(errs, &manifest.Error{Source: d.Source, Line: d.Line, Err: errors.New("metadata.name is required")})
			continue
		case !k.Namespaced:
		case meta.GetNamespace() == "":
			if meta.Namespace, err = s.DefaultNamespace(); err != nil {
				return nil, err
			}
		case s.Namespace != "" && meta.GetNamespace() != s.Namespace:
			errs = append(errs, &manifest.Error{Source: d.Source, Line: d.Line, Err: fmt.Errorf(
				"namespace of %s is %q in the manifest but %q by -n: remove one of them", Of(d.Object), meta.GetNamespace(), s.Namespace)})
			continue
		}
		docs = append(docs, d)
	}
	if len(errs) > 0 {
		return docs, errs
	}
	return docs, nil
}

// References resolves what a command line chooses into references with namespaces. Only references
// by name or file are sure to name one object each.
func References(s *session.Session, args []string, c Choice) ([]Reference, error) {
	if len(c.Files) > 0 {
		if len(args) > 0 || c.Labels != "" || c.all {
			return nil, exit.Usagef("-f cannot be combined with kinds, names, -l or --all")
		}
		docs, err := Manifests(s, c.Files, c.Recursive)
		if err != nil && len(docs) == 0 {
			return nil, err
		}
		if err != nil {
			s.PrintError(err)
			s.Fail()
		}
		refs := make([]Reference, len(docs))
		for i, d := range docs {
			refs[i] = Of(d.Object)
		}
		return refs, nil
	}
	refs, err := parse(s, args)
	if err != nil {
		return nil, err
	}
	for i := range refs {
		if refs[i].Name != "" && (c.Labels != "" || c.Fields != "" || c.all) {
			return nil, exit.Usagef("names, selectors and --all cannot be combined")
		}
		if refs[i].Name != "" && c.Everywhere && refs[i].Kind.Namespaced {
			return nil, exit.Usagef("a name cannot be combined with -A: use -n")
		}
		if refs[i].Kind.Namespaced && !c.Everywhere {
			if refs[i].Namespace, err = s.DefaultNamespace(); err != nil {
				return nil, err
			}
		}
	}
	return refs, nil
}

// Objects is references with those to all of a kind replaced by the objects they stand for. One of
// the two ways to choose must have been used, so that nothing happens to all by accident.
func Objects(ctx context.Context, s *session.Session, cl *client.Client, args []string, c Choice) ([]Reference, error) {
	refs, err := References(s, args, c)
	if err != nil {
		return nil, err
	}
	var out []Reference
	for _, r := range refs {
		if r.Name != "" {
			out = append(out, r)
			continue
		}
		if err := c.Selects(r); err != nil {
			return nil, err
		}
		objects, _, err := client.ListKind(ctx, cl, r.Kind, c.List(r))
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			out = append(out, Of(o))
		}
	}
	return out, nil
}

// Selects returns an error if a reference to a whole kind comes without a selector and --all.
func (c Choice) Selects(r Reference) error {
	if c.Labels == "" && c.Fields == "" && !c.all {
		return exit.Usagef("names, -l or --all are required to select %s", r.Kind.Plural)
	}
	return nil
}

// List returns the options that list the objects of a reference to a whole kind.
func (c Choice) List(r Reference) client.ListOptions {
	return client.ListOptions{Namespace: r.Namespace, LabelSelector: c.Labels, FieldSelector: c.Fields}
}
