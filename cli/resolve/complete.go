package resolve

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
)

// CompleteKinds completes KIND and then names.
func CompleteKinds(s *session.Session) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			k, ok := s.Kinds.ByName(args[0])
			if !ok {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeNames(cmd.Context(), s, k, "", typed)
		}
		if name, _, ok := strings.Cut(typed, "/"); ok {
			if k, ok := s.Kinds.ByName(name); ok {
				return completeNames(cmd.Context(), s, k, name+"/", typed)
			}
		}
		var names []string
		for _, k := range s.Kinds.Kinds() {
			names = append(names, k.Plural)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteOf completes names of one kind.
func CompleteOf(s *session.Session, name string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		k, _ := s.Kinds.ByName(name)
		return completeNames(cmd.Context(), s, k, "", typed)
	}
}

// completionTimeout bounds the calls of one completion.
const completionTimeout = 2 * time.Second

func completeNames(ctx context.Context, s *session.Session, k *scheme.Kind, prefix, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	cl := s.Client()
	o := client.ListOptions{}
	if k.Namespaced {
		o.Namespace, _ = s.DefaultNamespace()
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
