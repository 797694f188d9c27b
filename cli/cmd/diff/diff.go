// Package diff holds the command diff.
package diff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// programVariables name the program that compares two directories, the first one that is set.
var programVariables = []string{"XEBEC_EXTERNAL_DIFF", "KUBECTL_EXTERNAL_DIFF"}

// defaultProgram compares two directories.
const defaultProgram = "diff -u -N"

// codeFailed is the exit code of a failure, as with kubectl, since 1 stands for differences.
const codeFailed = 2

// Command returns the command diff.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	var manager string
	var managedFields bool
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: "Show what apply would change, as the server computes it. Values of secrets are hidden.\n\n" +
			"The directories with the live and the merged objects are compared by 'diff -u -N', or by the program that\n" +
			"XEBEC_EXTERNAL_DIFF or KUBECTL_EXTERNAL_DIFF names.\n\n" +
			"Exit codes: 0 no differences, 1 differences, 2 error, 3 cluster unreachable.",
		Example: "  xebec diff -f web.yaml\n" +
			"  cat web.yaml | xebec diff -f -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.RequireFiles(); err != nil {
				return err
			}
			err := diff(cmd.Context(), s, c, manager, managedFields)
			if _, coded := errors.AsType[*exit.Error](err); err == nil || coded || s.Unreachable(err) {
				return err
			}
			return &exit.Error{Code: codeFailed, Err: err}
		},
	}
	c.FileFlags(cmd, "to compare")
	cmd.Flags().StringVar(&manager, "field-manager", session.FieldManager, "name of the manager that would apply the manifests")
	cmd.Flags().BoolVar(&managedFields, "show-managed-fields", false, "compare managedFields too")
	return cmd
}

func diff(ctx context.Context, s *session.Session, c resolve.Choice, manager string, managedFields bool) error {
	docs, err := resolve.Manifests(s, c.Files, c.Recursive)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "xebec-diff-")
	if err != nil {
		return exit.FileError("create", err)
	}
	defer os.RemoveAll(dir)
	live, merged := filepath.Join(dir, "LIVE"), filepath.Join(dir, "MERGED")
	for _, d := range []string{live, merged} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return exit.FileError("create", err)
		}
	}
	cl := s.Client().WithFieldManager(manager)
	for _, d := range docs {
		before, after, err := compared(ctx, s, cl, d, managedFields)
		if err == nil {
			name := fileName(d.Object)
			err = errors.Join(writeYAML(filepath.Join(live, name), before), writeYAML(filepath.Join(merged, name), after))
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", d.Source, d.Line, err)
		}
	}
	return compare(ctx, s, dir)
}

// compared returns an object as it is, nil if it does not exist, and as an apply would make it.
func compared(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	d manifest.Document,
	managedFields bool,
) (before, after *tree.Node, err error) {
	r := resolve.Of(d.Object)
	var warnings []string
	applied, _, err := write.Apply(ctx, cl, d, client.DryRun, client.Force, client.Warnings(&warnings))
	write.Warn(s, d, warnings)
	if err != nil {
		return nil, nil, err
	}
	stored, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
	if err != nil && !apierr.IsNotFound(err) {
		return nil, nil, err
	}
	for _, obj := range []scheme.Object{stored, applied} {
		if obj != nil && !managedFields {
			obj.GetMetadata().ManagedFields = nil
		}
	}
	if after, err = codec.EncodeWhole(applied); err != nil {
		return nil, nil, err
	}
	if stored != nil {
		if before, err = codec.EncodeWhole(stored); err != nil {
			return nil, nil, err
		}
	}
	if _, secret := applied.(*corev1.Secret); secret {
		hide(before, after)
	}
	return before, after, nil
}

// hide replaces the values of two versions of a secret by texts that show which of them differ.
// before may be nil.
func hide(before, after *tree.Node) {
	old := dataOf(before)
	values := map[string]string{}
	for _, m := range old {
		values[m.Key], m.Value.Text = m.Value.Text, "*** (before)"
	}
	for _, m := range dataOf(after) {
		value, had := values[m.Key]
		same := had && value == m.Value.Text
		m.Value.Text = "*** (after)"
		if !same {
			continue
		}
		m.Value.Text = "***"
		for _, o := range old {
			if o.Key == m.Key {
				o.Value.Text = "***"
			}
		}
	}
}

// dataOf returns the keys and values of a secret; nil if it does not exist or has none.
func dataOf(secret *tree.Node) []tree.Member {
	if secret == nil || secret.Get("data") == nil {
		return nil
	}
	return secret.Get("data").Members
}

// fileName is the name of the file with an object: apps.v1.Deployment.default.web.
func fileName(obj scheme.Object) string {
	k, m := kinds.Of(obj), obj.GetMetadata()
	parts := []string{k.Group, k.Version, k.Name, m.GetNamespace(), cmp.Or(m.GetName(), m.GetGenerateName())}
	return strings.ReplaceAll(strings.Join(parts, "."), string(filepath.Separator), "_")
}

func writeYAML(file string, n *tree.Node) error {
	if n == nil {
		return nil
	}
	text, err := n.YAML()
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return exit.FileError("write", err)
	}
	return nil
}

// compare runs the program that compares the directories LIVE and MERGED in dir. Output of a
// program that the user chose is not changed, since it may have colours.
func compare(ctx context.Context, s *session.Session, dir string) error {
	var text bytes.Buffer
	program, out := defaultProgram, io.Writer(&text)
	if chosen := session.Program(programVariables...); chosen != "" {
		program, out = chosen, terminal.Raw(s.Out)
	}
	words := strings.Fields(program)
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], "LIVE", "MERGED")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, s.Err
	err := cmd.Run()
	s.Printf("%s", text.String())
	if exited, ok := errors.AsType[*exec.ExitError](err); ok && exited.ExitCode() == 1 {
		return &exit.Error{Code: exit.Failed}
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", program, err)
	}
	return nil
}
