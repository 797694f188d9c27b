// Package set holds the commands that set fields of workloads.
package set

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Command returns the command set.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	o := &write.Options{}
	image := &cobra.Command{
		Use:   "image KIND/NAME... CONTAINER=IMAGE...",
		Short: "Update the images of containers",
		Long:  "Update the images of containers. * selects every container.",
		Example: "  xebec set image deployment/web echo=echo:2\n" +
			"  xebec set image deployments --all '*=echo:2'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			split := slices.IndexFunc(args, func(a string) bool { return strings.Contains(a, "=") })
			if split < 0 || (split == 0 && len(c.Files) == 0) {
				return exit.Usagef("at least one object and one CONTAINER=IMAGE are required, such as: xebec set image deployment/web echo=echo:2")
			}
			images, err := assignments(args[split:])
			if err != nil {
				return err
			}
			cl := s.Client()
			refs, err := resolve.Objects(cmd.Context(), s, cl, args[:split], c)
			if err != nil {
				return err
			}
			return write.Each(cmd.Context(), s, refs, o, func(r resolve.Reference) (scheme.Object, string, error) {
				obj, err := write.Update(cmd.Context(), s, cl, r, o, func(obj scheme.Object) error { return setImages(obj, images) })
				return obj, "image updated", err
			})
		},
	}
	c.FileFlags(image, "of the objects to change")
	c.SelectorFlags(image)
	c.AllFlag(image)
	o.Flags(image)
	return command.Family("set", "Set fields of workloads", image)
}

func assignments(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" || value == "" {
			return nil, exit.Usagef("invalid argument %q: want NAME=VALUE", a)
		}
		out[key] = value
	}
	return out, nil
}

func setImages(obj scheme.Object, images map[string]string) error {
	spec := resolve.PodSpec(obj)
	if spec == nil {
		return exit.Usagef("kind %s has no containers", kinds.Of(obj).Singular)
	}
	unused := maps.Clone(images)
	var names []string
	for _, c := range slices.Concat(spec.GetInitContainers(), spec.GetContainers()) {
		names = append(names, c.GetName())
		for _, key := range []string{"*", c.GetName()} {
			if image, ok := images[key]; ok {
				c.Image = image
				delete(unused, key)
			}
		}
	}
	if len(unused) > 0 {
		return fmt.Errorf(
			"%s has no container %s: want one of %s",
			resolve.Of(obj),
			strings.Join(slices.Sorted(maps.Keys(unused)), ", "),
			strings.Join(names, ", "),
		)
	}
	return nil
}
