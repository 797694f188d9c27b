// Package resolve finds the kinds and objects that a command line names: by kind and name, by
// manifest or by selector.
package resolve

import (
	"slices"
	"strings"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/spelling"
)

// Reference is an object by kind and name, or, with an empty name, all objects of the kind.
type Reference struct {
	Kind *scheme.Kind
	// namespace is empty where the kind has none, and in references to all objects in all namespaces.
	Namespace, Name string
}

// String is the reference as messages name it: pod/web, deployment.apps/web.
func (r Reference) String() string { return qualified(r.Kind) + "/" + r.Name }

// qualified is the singular with the group, as results of writes name kinds.
func qualified(k *scheme.Kind) string {
	if k.Group == "" {
		return k.Singular
	}
	return k.Singular + "." + k.Group
}

// Of returns the reference to an object.
func Of(obj scheme.Object) Reference {
	return Reference{kinds.Of(obj), obj.GetMetadata().GetNamespace(), obj.GetMetadata().GetName()}
}

// Kind finds a kind by what a person typed. It asks the cluster for names that the program was not
// compiled with.
func Kind(s *session.Session, name string) (*scheme.Kind, error) {
	if k, ok := s.Kinds.ByName(name); ok {
		return k, nil
	}
	served := Kinds(s)
	if k, ok := s.Kinds.ByName(name); ok {
		return k, nil
	}
	var known []string
	if unserved, group, ok := kinds.Unserved(s.Kinds, name); ok {
		return nil, exit.Usagef("kind %s is not served yet: 'xebec api-resources' lists the served kinds", strings.Trim(unserved+"."+group, "."))
	}
	for _, k := range served {
		known = append(append(known, k.Plural, k.Singular), k.ShortNames...)
	}
	if near := Nearest(strings.ToLower(name), known); near != "" {
		return nil, exit.Usagef("unknown kind %q, did you mean %q?", name, near)
	}
	return nil, exit.Usagef("unknown kind %q: 'xebec api-resources' lists the kinds", name)
}

// KindOf finds the version of a kind that an apiVersion such as apps/v1 names; if it is empty, as
// Kind does.
func KindOf(s *session.Session, apiVersion, name string) (*scheme.Kind, error) {
	k, err := Kind(s, name)
	if err != nil || apiVersion == "" {
		return k, err
	}
	Kinds(s)
	version, ok := s.Kinds.ByAPIVersionKind(apiVersion, k.Name)
	if !ok {
		return nil, exit.Usagef("invalid --api-version value %q: kind %s is served in %s", apiVersion, k.Name, strings.Join(versions(s, k), ", "))
	}
	return version, nil
}

// versions lists the apiVersions of the kinds of the same name.
func versions(s *session.Session, k *scheme.Kind) []string {
	var all []string
	for _, served := range s.Kinds.Served() {
		if served.Name == k.Name {
			all = append(all, served.APIVersion())
		}
	}
	return all
}

// Kinds returns the kinds that the program was compiled with and, if the cluster answers, those
// that it serves besides.
func Kinds(s *session.Session) []*scheme.Kind {
	if err := discover(s); err != nil {
		s.Notef("kinds that this program was not compiled with are unknown: %v", err)
	}
	return s.Kinds.Kinds()
}

// parseKinds finds the kinds of a list of names of kinds and of categories such as all.
func parseKinds(s *session.Session, names string) ([]*scheme.Kind, error) {
	var kinds []*scheme.Kind
	for name := range strings.SplitSeq(names, ",") {
		found, err := kindsOf(s, name)
		if err != nil {
			return nil, err
		}
		for _, k := range found {
			if !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds, nil
}

func kindsOf(s *session.Session, name string) ([]*scheme.Kind, error) {
	if k, ok := s.Kinds.ByName(name); ok {
		return []*scheme.Kind{k}, nil
	}
	Kinds(s)
	if category := s.Kinds.ByCategory(name); len(category) > 0 {
		return category, nil
	}
	k, err := Kind(s, name)
	return []*scheme.Kind{k}, err
}

// parse reads the arguments that say which objects: KIND[,KIND] [NAME...] or KIND/NAME....
func parse(s *session.Session, args []string) ([]Reference, error) {
	if len(args) == 0 {
		return nil, exit.Usagef("at least one object is required: KIND [NAME...] or KIND/NAME..., such as: pods web")
	}
	var refs []Reference
	if strings.Contains(args[0], "/") {
		for _, arg := range args {
			name, object, ok := strings.Cut(arg, "/")
			if !ok || object == "" || strings.Contains(object, "/") {
				return nil, exit.Usagef("invalid argument %q: want KIND/NAME", arg)
			}
			k, err := Kind(s, name)
			if err != nil {
				return nil, err
			}
			refs = append(refs, Reference{Kind: k, Name: object})
		}
		return refs, nil
	}
	kinds, err := parseKinds(s, args[0])
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if len(args) == 1 {
			refs = append(refs, Reference{Kind: k})
		}
		for _, name := range args[1:] {
			if strings.Contains(name, "/") {
				return nil, exit.Usagef("invalid name %q: a name after KIND must not contain a kind", name)
			}
			refs = append(refs, Reference{Kind: k, Name: name})
		}
	}
	return refs, nil
}

// One reads arguments that name exactly one object, and adds the namespace. A NAME without a kind
// is of the default kind, unless that is nil.
func One(s *session.Session, args []string, defaultKind *scheme.Kind) (r Reference, err error) {
	if len(args) == 1 && !strings.Contains(args[0], "/") && defaultKind != nil {
		r = Reference{Kind: defaultKind, Name: args[0]}
	} else {
		refs, err := parse(s, args)
		if err != nil {
			return Reference{}, err
		}
		if len(refs) != 1 || refs[0].Name == "" {
			return Reference{}, exit.Usagef("exactly one object is required, such as: pod/web")
		}
		r = refs[0]
	}
	if r.Kind.Namespaced {
		r.Namespace, err = s.DefaultNamespace()
	}
	return r, err
}

// Nearest is the known word that a mistyped one is closest to, empty when none is close.
func Nearest(word string, known []string) string {
	best, limit := "", max(1, len(word)/3)
	for _, k := range known {
		if d := spelling.Distance(word, k); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}
