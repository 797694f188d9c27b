package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/spelling"
)

// reference is an object by kind and name, or, with an empty name, all objects of the kind.
type reference struct {
	kind *kind.Kind
	// namespace is empty where the kind has none, and in references to all objects in all namespaces.
	namespace, name string
}

// String is the reference as messages name it: pod/web, deployment.apps/web.
func (r reference) String() string { return qualified(r.kind) + "/" + r.name }

// qualified is the singular with the group, as results of writes name kinds.
func qualified(k *kind.Kind) string {
	if k.Group == "" {
		return k.Singular
	}
	return k.Singular + "." + k.Group
}

func referenceOf(obj kind.Object) reference {
	return reference{kind.Of(obj), obj.GetMetadata().GetNamespace(), obj.GetMetadata().GetName()}
}

// everything is what "all" stands for.
var everything = []string{"pods", "services", "deployments", "replicasets"}

// parseKind finds a kind by what a person typed.
func parseKind(name string) (*kind.Kind, error) {
	if k, ok := kind.ByName(name); ok {
		return k, nil
	}
	var known []string
	if unserved, group, ok := kind.Unserved(name); ok {
		return nil, usagef("Xebec does not serve %s yet; 'xebec api-resources' lists what it does", strings.Trim(unserved+"."+group, "."))
	}
	for _, k := range kind.All() {
		known = append(append(known, k.Plural, k.Singular), k.ShortNames...)
	}
	if near := nearest(strings.ToLower(name), known); near != "" {
		return nil, usagef("unknown kind %q, did you mean %q?", name, near)
	}
	return nil, usagef("unknown kind %q; 'xebec api-resources' lists them", name)
}

func parseKinds(names string) ([]*kind.Kind, error) {
	var kinds []*kind.Kind
	for name := range strings.SplitSeq(names, ",") {
		list := []string{name}
		if name == "all" {
			list = everything
		}
		for _, name := range list {
			k, err := parseKind(name)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds, nil
}

// parseReferences reads the arguments that say which objects: KIND[,KIND] [NAME...] or KIND/NAME....
func parseReferences(args []string) ([]reference, error) {
	if len(args) == 0 {
		return nil, usagef("which objects? Say KIND [NAME...] or KIND/NAME..., such as: pods web")
	}
	var refs []reference
	if strings.Contains(args[0], "/") {
		for _, arg := range args {
			name, object, ok := strings.Cut(arg, "/")
			if !ok || object == "" || strings.Contains(object, "/") {
				return nil, usagef("%q is not KIND/NAME", arg)
			}
			k, err := parseKind(name)
			if err != nil {
				return nil, err
			}
			refs = append(refs, reference{kind: k, name: object})
		}
		return refs, nil
	}
	kinds, err := parseKinds(args[0])
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if len(args) == 1 {
			refs = append(refs, reference{kind: k})
		}
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return nil, usagef("%q: after a kind come names without one", name)
			}
			refs = append(refs, reference{kind: k, name: name})
		}
	}
	return refs, nil
}

// parseOne reads arguments that name exactly one object; a lone NAME is of the kind taken, unless that is nil.
func parseOne(args []string, taken *kind.Kind) (reference, error) {
	if len(args) == 1 && !strings.Contains(args[0], "/") && taken != nil {
		return reference{kind: taken, name: args[0]}, nil
	}
	refs, err := parseReferences(args)
	if err != nil {
		return reference{}, err
	}
	if len(refs) != 1 || refs[0].name == "" {
		return reference{}, usagef("name one object, such as: pod/web")
	}
	return refs[0], nil
}

// choice says which objects a command is about: by references, by files, or by selectors.
type choice struct {
	files     []string
	recursive bool
	labels    string
	fields    string
	all       bool
	// everywhere stands for all namespaces.
	everywhere bool
}

func (c *choice) fileFlags(cmd *cobra.Command, purpose string) {
	cmd.Flags().StringArrayVarP(&c.files, "filename", "f", nil, "file or directory with manifests "+purpose+"; - for standard input")
	cmd.Flags().BoolVarP(&c.recursive, "recursive", "R", false, "go into the subdirectories of directories given by -f")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

func (c *choice) selectorFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.labels, "selector", "l", "", "label selector, such as app=web,tier!=cache")
	cmd.Flags().StringVar(&c.fields, "field-selector", "", "field selector, such as spec.nodeName=node-1")
}

func (c *choice) namespacesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.everywhere, "all-namespaces", "A", false, "all namespaces")
}

func (c *choice) allFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.all, "all", false, "all objects of the kind in the namespace")
}

// load reads the manifests that the files hold. It gives every object that lives in a namespace one: what it says, else
// the flag's, else the context's. When some objects are not in order it returns the others with manifest.Errors.
func (s *shell) load(files []string, recursive bool) ([]manifest.Document, error) {
	for _, f := range files {
		if f == "" {
			return nil, usagef("-f needs a file, a directory, or - for standard input")
		}
	}
	all, err := manifest.Load(files, recursive, s.In)
	errs, bad := errors.AsType[manifest.Errors](err)
	switch {
	case err != nil && !bad:
		return nil, err
	case len(all) == 0 && len(errs) == 0:
		return nil, fmt.Errorf("no objects in %s", strings.Join(files, ", "))
	}
	var docs []manifest.Document
	for _, d := range all {
		meta, k := d.Object.GetMetadata(), kind.Of(d.Object)
		switch {
		case meta == nil:
			errs = append(errs, &manifest.Error{Source: d.Source, Line: d.Line, Err: errors.New("the object has no metadata: metadata.name is required")})
			continue
		case !k.Namespaced:
		case meta.GetNamespace() == "":
			if meta.Namespace, err = s.defaultNamespace(); err != nil {
				return nil, err
			}
		case s.namespace != "" && meta.GetNamespace() != s.namespace:
			errs = append(errs, &manifest.Error{Source: d.Source, Line: d.Line, Err: fmt.Errorf(
				"%s is in namespace %s by its manifest and in %s by -n: leave one of them out", referenceOf(d.Object), meta.GetNamespace(), s.namespace)})
			continue
		}
		docs = append(docs, d)
	}
	if len(errs) > 0 {
		return docs, errs
	}
	return docs, nil
}

// references resolves what a command line chooses into references with namespaces. Only references by name or file are
// sure to name one object each.
func (s *shell) references(args []string, c choice) ([]reference, error) {
	if len(c.files) > 0 {
		if len(args) > 0 || c.labels != "" || c.all {
			return nil, usagef("-f takes the objects from files: leave kinds, names, -l and --all out")
		}
		docs, err := s.load(c.files, c.recursive)
		if err != nil && len(docs) == 0 {
			return nil, err
		}
		if err != nil {
			s.printError(err)
			s.fail()
		}
		refs := make([]reference, len(docs))
		for i, d := range docs {
			refs[i] = referenceOf(d.Object)
		}
		return refs, nil
	}
	refs, err := parseReferences(args)
	if err != nil {
		return nil, err
	}
	for i := range refs {
		if refs[i].name != "" && (c.labels != "" || c.fields != "" || c.all) {
			return nil, usagef("give names, or a selector, or --all: not both")
		}
		if refs[i].name != "" && c.everywhere && refs[i].kind.Namespaced {
			return nil, usagef("an object can't be named across all namespaces: use -n")
		}
		if refs[i].kind.Namespaced && !c.everywhere {
			if refs[i].namespace, err = s.defaultNamespace(); err != nil {
				return nil, err
			}
		}
	}
	return refs, nil
}

// resolve is references with those to all of a kind replaced by the objects they stand for. One of the two ways to
// choose must have been used, so that nothing happens to all by accident.
func (s *shell) resolve(ctx context.Context, cl *client.Client, args []string, c choice) ([]reference, error) {
	refs, err := s.references(args, c)
	if err != nil {
		return nil, err
	}
	var out []reference
	for _, r := range refs {
		if r.name != "" {
			out = append(out, r)
			continue
		}
		if c.labels == "" && c.fields == "" && !c.all {
			return nil, usagef("which %s? Give names, -l, or --all", r.kind.Plural)
		}
		objects, _, err := client.ListKind(ctx, cl, r.kind, c.list(r))
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			out = append(out, referenceOf(o))
		}
	}
	return out, nil
}

func (c choice) list(r reference) client.ListOptions {
	return client.ListOptions{Namespace: r.namespace, LabelSelector: c.labels, FieldSelector: c.fields}
}

// nearest is the known word that a mistyped one is closest to, empty when none is close.
func nearest(word string, known []string) string {
	best, limit := "", max(1, len(word)/3)
	for _, k := range known {
		if d := spelling.Distance(word, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// completeKinds completes KIND and then names.
func (s *shell) completeKinds() cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			k, ok := kind.ByName(args[0])
			if !ok {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return s.completeNames(cmd.Context(), k, "", typed)
		}
		if name, _, ok := strings.Cut(typed, "/"); ok {
			if k, ok := kind.ByName(name); ok {
				return s.completeNames(cmd.Context(), k, name+"/", typed)
			}
		}
		var names []string
		for _, k := range kind.All() {
			names = append(names, k.Plural)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeOf completes names of one kind.
func (s *shell) completeOf(name string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		k, _ := kind.ByName(name)
		return s.completeNames(cmd.Context(), k, "", typed)
	}
}

// completionTimeout is how long somebody who pressed the tabulator is willing to wait.
const completionTimeout = 2 * time.Second

func (s *shell) completeNames(ctx context.Context, k *kind.Kind, prefix, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	cl := s.client()
	o := client.ListOptions{}
	if k.Namespaced {
		o.Namespace, _ = s.defaultNamespace()
	}
	objects, _, err := client.ListKind(ctx, cl, k, o)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, obj := range objects {
		if name := prefix + obj.GetMetadata().GetName(); strings.HasPrefix(name, typed) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
