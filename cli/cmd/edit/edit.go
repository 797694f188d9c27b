// Package edit holds the command edit.
package edit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
)

// editorVariables name the editor, the first one that is set.
var editorVariables = []string{"XEBEC_EDITOR", "KUBE_EDITOR", "VISUAL", "EDITOR"}

// defaultEditor is used if no variable is set.
const defaultEditor = "vi"

const header = `# Edit the object below. Lines that begin with '#' are ignored, and an empty file aborts the edit.
# If the object is invalid or refused, the file is opened again with the errors.
#
`

// Command returns the command edit.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:   "edit KIND NAME... | KIND/NAME...",
		Short: "Edit objects in an editor",
		Long: "Edit objects as YAML in the editor that XEBEC_EDITOR, KUBE_EDITOR, VISUAL or EDITOR names, by default vi.\n" +
			"Only the fields that you change are written, so that changes that others make meanwhile are kept.",
		Example: "  xebec edit deployment/web\n" +
			"  EDITOR='code --wait' xebec edit svc web",
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			cl := s.Client()
			refs, err := resolve.Objects(cmd.Context(), s, cl, args, c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, refs, o, func(r resolve.Reference) (scheme.Object, string, error) {
				return edit(cmd.Context(), s, cl, r, o)
			})
		},
	}
	c.FileFlags(cmd, "of the objects to edit")
	c.SelectorFlags(cmd)
	c.AllFlag(cmd)
	o.Flags(cmd)
	return cmd
}

// edit lets the user change one object, again and again until the server accepts it.
func edit(
	ctx context.Context, s *session.Session, cl *client.Client, r resolve.Reference, o *write.Options,
) (scheme.Object, string, error) {
	obj, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
	if err != nil {
		return nil, "", err
	}
	before, err := textOf(obj)
	if err != nil {
		return nil, "", err
	}
	for text, mistakes := before, ""; ; {
		edited, err := openEditor(ctx, s, header+mistakes+text)
		if err != nil {
			return nil, "", err
		}
		edited = withoutComments(edited)
		switch {
		case strings.TrimSpace(edited) == "", edited == before:
			return obj, "not changed", nil
		case edited == text && mistakes != "":
			return nil, "", errors.New("the edited object is still invalid:\n" + mistakes)
		}
		stored, err := store(ctx, s, cl, r, o, before, edited)
		if err == nil {
			return stored, "edited", nil
		}
		if apierr.IsUnavailable(err) || apierr.IsNotFound(err) || ctx.Err() != nil {
			return nil, "", err
		}
		text, mistakes = edited, commented(err)
	}
}

// textOf returns an object as YAML, without its managed fields.
func textOf(obj scheme.Object) (string, error) {
	var b bytes.Buffer
	err := printer.Format{Name: printer.YAML}.Print(&b, []scheme.Object{obj}, true)
	return b.String(), err
}

// openEditor returns a text as the user left it.
func openEditor(ctx context.Context, s *session.Session, text string) (string, error) {
	f, err := os.CreateTemp("", "xebec-edit-*.yaml")
	if err != nil {
		return "", exit.FileError("create", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", exit.FileError("write", err)
	}
	editor := cmp.Or(session.Program(editorVariables...), defaultEditor)
	// The shell splits the words of the editor; the name of the file is not part of its text.
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", f.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, terminal.Raw(s.Out), terminal.Raw(s.Err)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run editor %q: %w", editor, err)
	}
	edited, err := os.ReadFile(f.Name())
	if err != nil {
		return "", exit.FileError("read", err)
	}
	return string(edited), nil
}

// withoutComments removes the lines at the beginning that begin with #.
func withoutComments(text string) string {
	for strings.HasPrefix(text, "#") {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

// commented returns an error as comment lines, without the lines of the text, which are others in
// the file.
func commented(err error) string {
	texts := []string{apierr.Message(err)}
	if errs, ok := errors.AsType[manifest.Errors](err); ok {
		texts = nil
		for _, e := range errs {
			texts = append(texts, e.Err.Error())
		}
	}
	return "# " + strings.ReplaceAll(strings.Join(texts, "\n"), "\n", "\n# ") + "\n#\n"
}

// store writes the fields that differ between two texts of an object.
func store(
	ctx context.Context,
	s *session.Session,
	cl *client.Client,
	r resolve.Reference,
	o *write.Options,
	before, edited string,
) (scheme.Object, error) {
	var versions [2]map[string]any
	for i, text := range []string{before, edited} {
		reader := manifest.Reader{Kinds: s.Kinds}
		docs, err := reader.Decode(r.String(), strings.NewReader(text))
		if err != nil {
			return nil, err
		}
		if len(docs) != 1 {
			return nil, fmt.Errorf("the file has %d objects, want one", len(docs))
		}
		if now := resolve.Of(docs[0].Object); now.Kind != r.Kind || now.Namespace != r.Namespace || now.Name != r.Name {
			return nil, fmt.Errorf("the file has %s of namespace %q: kind, namespace and name cannot be edited", now, now.Namespace)
		}
		value, err := codec.Value(docs[0].Object)
		if err != nil {
			return nil, err
		}
		versions[i], _ = value.(map[string]any)
	}
	patch, err := json.Marshal(mergePatch(versions[0], versions[1]))
	if err != nil {
		return nil, err
	}
	var warnings []string
	options := []client.PatchOption{client.Warnings(&warnings)}
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	stored, err := client.PatchKind(ctx, cl, r.Kind, r.Namespace, r.Name, patch, options...)
	s.Warn(r, warnings)
	return stored, err
}

// mergePatch returns the JSON merge patch (RFC 7386) that makes one JSON object of another.
func mergePatch(from, to map[string]any) map[string]any {
	patch := map[string]any{}
	for key := range from {
		if _, kept := to[key]; !kept {
			patch[key] = nil
		}
	}
	for key, value := range to {
		old, had := from[key]
		oldMap, wasMap := old.(map[string]any)
		newMap, isMap := value.(map[string]any)
		switch {
		case wasMap && isMap:
			if inner := mergePatch(oldMap, newMap); len(inner) > 0 {
				patch[key] = inner
			}
		case !had || !reflect.DeepEqual(old, value):
			patch[key] = value
		}
	}
	return patch
}
