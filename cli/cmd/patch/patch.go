// Package patch holds the command patch.
package patch

import (
	"context"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"
	yaml "go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
)

// Command returns the command patch.
func Command(s *session.Session) *cobra.Command {
	o := &write.Options{}
	var patch, file, typ string
	cmd := &cobra.Command{
		Use:   "patch KIND NAME | KIND/NAME -p PATCH",
		Short: "Update fields of an object by a patch",
		Long: "Update fields of an object by a JSON merge patch (RFC 7386), the default, a JSON patch (RFC 6902) or a strategic merge\n" +
			"patch of Kubernetes, which merges lists by their keys. The patch may be written as YAML.",
		Example: "  xebec patch deployment web -p '{\"spec\":{\"replicas\":3}}'\n" +
			"  xebec patch deployment web --type=strategic \\\n" +
			"    -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"web\",\"image\":\"web:2\"}]}}}}'\n" +
			"  xebec patch pod web-0 --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/labels/old\"}]'\n" +
			"  xebec patch pod web-0 --subresource=resize --type=strategic \\\n" +
			"    -p '{\"spec\":{\"containers\":[{\"name\":\"web\",\"resources\":{\"requests\":{\"cpu\":\"200m\"}}}]}}'",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: resolve.CompleteKinds(s),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			data, options, err := parsePatch(patch, file, typ)
			if err != nil {
				return err
			}
			return run(cmd.Context(), s, args, o, data, options)
		},
	}
	o.Flags(cmd)
	o.SubresourceFlag(cmd)
	cmd.Flags().StringVarP(&patch, "patch", "p", "", "the patch as JSON or YAML")
	cmd.Flags().StringVar(&file, "patch-file", "", "file with the patch")
	cmd.Flags().StringVar(&typ, "type", "merge", "merge, json or strategic")
	return cmd
}

func parsePatch(patch, file, typ string) ([]byte, []client.PatchOption, error) {
	if (patch == "") == (file == "") {
		return nil, nil, exit.Usagef("exactly one of -p and --patch-file is required")
	}
	data := []byte(patch)
	if file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return nil, nil, exit.FileError("read", err)
		}
	}
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		return nil, nil, exit.Usagef("invalid patch: neither JSON nor YAML: %w", err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, nil, exit.Usagef("invalid patch: cannot be written as JSON: %w", err)
	}
	switch typ {
	case "merge":
		return data, nil, nil
	case "json":
		return data, []client.PatchOption{client.JSONPatch}, nil
	case "strategic":
		return data, []client.PatchOption{client.StrategicPatch}, nil
	}
	return nil, nil, exit.Usagef("invalid --type value %q: want merge, json or strategic", typ)
}

func run(ctx context.Context, s *session.Session, args []string, o *write.Options, data []byte, options []client.PatchOption) error {
	r, err := resolve.One(s, args, nil)
	if err != nil {
		return err
	}
	cl := s.Client()
	before, err := client.GetKind(ctx, cl, r.Kind, r.Namespace, r.Name)
	if err != nil {
		return err
	}
	var warnings []string
	options = append(options, client.Warnings(&warnings), client.Subresource(o.Subresource))
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	obj, err := client.PatchKind(ctx, cl, r.Kind, r.Namespace, r.Name, data, options...)
	s.Warn(r, warnings)
	if err != nil {
		return err
	}
	what := "patched"
	if !o.Dry() && obj.GetMetadata().GetResourceVersion() == before.GetMetadata().GetResourceVersion() {
		what = "patched (no change)"
	}
	return write.Report(s, o, obj, what)
}
