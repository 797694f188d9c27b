// Package wait holds the command wait.
package wait

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/jsonpath"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Command returns the command wait.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	var what string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait KIND NAME... | KIND/NAME... --for=...",
		Short: "Wait for a condition of objects",
		Long: "Wait until objects have a status condition or a field value, exist or are deleted. The exit code is 4 if --timeout\n" +
			"expires first.",
		Example: "  xebec wait --for=condition=Ready pod/web-0\n" +
			"  xebec wait --for=condition=Available deployment --all --timeout=2m\n" +
			"  xebec wait --for=delete pod -l app=web\n" +
			"  xebec wait --for=jsonpath='{.status.phase}'=Running pod/web-0\n" +
			"  xebec wait --for=condition=Ready=false node/node-1",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := parseGoal(what)
			if err != nil {
				return err
			}
			return wait(cmd.Context(), s, args, c, g, timeout)
		},
	}
	c.FileFlags(cmd, "of the objects to wait for")
	c.SelectorFlags(cmd)
	c.NamespacesFlag(cmd)
	c.AllFlag(cmd)
	cmd.Flags().StringVar(&what, "for", "", "condition=TYPE[=VALUE], delete, create or jsonpath={PATH}[=VALUE]")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "time limit for waiting, negative for none")
	return cmd
}

// goal is what is waited for.
type goal struct {
	// met tells whether an object, nil for none, is as wanted.
	met func(scheme.Object) (bool, error)
	// says is what is printed of an object that is.
	says string
	// absent tells that an object which does not exist is no error.
	absent bool
}

func parseGoal(text string) (goal, error) {
	what, argument, _ := strings.Cut(text, "=")
	switch what {
	case "delete":
		return goal{met: func(o scheme.Object) (bool, error) { return o == nil, nil }, says: "condition met", absent: true}, nil
	case "create":
		return goal{met: func(o scheme.Object) (bool, error) { return o != nil, nil }, says: "condition met", absent: true}, nil
	case "condition":
		name, value, given := strings.Cut(argument, "=")
		if name == "" {
			return goal{}, exit.Usagef("invalid --for value: want condition=TYPE, such as condition=Ready")
		}
		if !given {
			value = condition.True
		}
		return goal{met: func(o scheme.Object) (bool, error) { return hasCondition(o, name, value) }, says: "condition met"}, nil
	case "jsonpath":
		return parsePathGoal(argument)
	}
	return goal{}, exit.Usagef("invalid --for value %q: want condition=TYPE[=VALUE], delete, create or jsonpath={PATH}[=VALUE]", text)
}

func parsePathGoal(text string) (goal, error) {
	shut := jsonpath.Closing(text, '{', '}')
	if !strings.HasPrefix(text, "{") || shut < 0 {
		return goal{}, exit.Usagef("invalid --for value: want a path in braces, such as jsonpath='{.status.phase}'=Running")
	}
	p, err := jsonpath.ParsePath(strings.TrimSpace(text[1:shut]))
	if err != nil {
		return goal{}, exit.Usagef("invalid --for value \"jsonpath=%s\": %w", text, err)
	}
	want, given := strings.CutPrefix(text[shut+1:], "=")
	if !given && text[shut+1:] != "" {
		return goal{}, exit.Usagef("invalid --for value \"jsonpath=%s\": want =VALUE or nothing after the path", text)
	}
	return goal{says: "condition met", met: func(o scheme.Object) (bool, error) {
		if o == nil {
			return false, nil
		}
		value, err := codec.ValueWhole(o)
		if err != nil {
			return false, err
		}
		found, err := p.Find(value)
		if err != nil {
			return false, nil //nolint:nilerr // a list that is still too short may grow
		}
		for _, v := range found {
			if v != nil && (!given || jsonpath.Text(v) == want) {
				return true, nil
			}
		}
		return false, nil
	}}, nil
}

// hasCondition tells whether a condition of the object's status has a value. A status of an older
// generation of the object does not count.
func hasCondition(o scheme.Object, name, want string) (bool, error) {
	if o == nil {
		return false, nil
	}
	value, err := codec.Value(o)
	if err != nil {
		return false, err
	}
	root, _ := value.(map[string]any)
	status, _ := root["status"].(map[string]any)
	if observed, ok := status["observedGeneration"].(int64); ok && observed < o.GetMetadata().GetGeneration() {
		return false, nil
	}
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		if typ, _ := c["type"].(string); strings.EqualFold(typ, name) {
			have, _ := c["status"].(string)
			return strings.EqualFold(have, want), nil
		}
	}
	return false, nil
}

func wait(ctx context.Context, s *session.Session, args []string, c resolve.Choice, g goal, timeout time.Duration) error {
	if timeout >= 0 {
		var cancel context.CancelFunc
		// 0 means to look once; the look itself needs time.
		ctx, cancel = context.WithTimeout(ctx, max(timeout, time.Second))
		defer cancel()
	}
	cl := s.Client()
	refs, err := resolve.Objects(ctx, s, cl, args, c)
	if err != nil {
		return err
	}
	if len(refs) == 0 && !g.absent {
		return errors.New("no matching objects found")
	}
	for _, r := range refs {
		err := watch.Observe(ctx, s, cl, r, func(o scheme.Object) (bool, error) {
			if o == nil && !g.absent {
				return false, apierr.NotFound(r.Kind, r.Name)
			}
			done, err := g.met(o)
			if err == nil && !done && timeout == 0 {
				err = context.DeadlineExceeded
			}
			return done, err
		})
		if errors.Is(err, context.DeadlineExceeded) {
			return exit.TimedOutf("the condition on %s", r)
		}
		if err != nil {
			return err
		}
		s.Printf("%s %s\n", r, g.says)
	}
	return nil
}
