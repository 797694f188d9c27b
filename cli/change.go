package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// changed prints what became of objects that a change was made to, one after the other. It goes on after objects that
// refuse it.
func (s *shell) changed(ctx context.Context, refs []reference, o *writeOptions, change func(reference) (kind.Object, string, error)) error {
	failed := false
	for _, r := range refs {
		obj, what, err := change(r)
		if err == nil {
			err = s.wrote(o, obj, what)
		}
		if err == nil {
			continue
		}
		if len(refs) == 1 || apierr.IsUnavailable(err) || ctx.Err() != nil {
			return err
		}
		failed = true
		s.printError(fmt.Errorf("%s: %w", r, err))
	}
	if failed {
		return errSome
	}
	return nil
}

// update changes an object by modify, with the server's warnings printed.
func update[T kind.Object](ctx context.Context, s *shell, cl *client.Client, r reference, o *writeOptions, change func(T) error) (T, error) {
	var warnings []string
	options := []client.UpdateOption{client.Warnings(&warnings)}
	if o.dry() {
		options = append(options, client.DryRun)
	}
	obj, err := modify(ctx, cl, r, change, options...)
	s.warn(r, warnings)
	return obj, err
}

func (s *shell) scaleCommand() *cobra.Command {
	var c choice
	o := &writeOptions{}
	replicas, current := int32(-1), int32(-1)
	cmd := &cobra.Command{
		Use:   "scale KIND NAME... | KIND/NAME... --replicas=N",
		Short: "Set how many replicas a deployment or replica set has",
		Example: "  xebec scale deployment/web --replicas=5\n" +
			"  xebec scale deployment web --current-replicas=2 --replicas=3",
		ValidArgsFunction: s.completeKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			if replicas < 0 {
				return usagef("--replicas=N is required, and not negative")
			}
			cl := s.client()
			refs, err := s.resolve(cmd.Context(), cl, args, c)
			if err != nil {
				return err
			}
			return s.changed(cmd.Context(), refs, o, func(r reference) (kind.Object, string, error) {
				obj, err := update(cmd.Context(), s, cl, r, o, func(obj kind.Object) error { return setReplicas(obj, replicas, current) })
				return obj, "scaled", err
			})
		},
	}
	c.fileFlags(cmd, "with the objects to scale")
	c.selectorFlags(cmd)
	c.allFlag(cmd)
	o.flags(cmd)
	cmd.Flags().Int32Var(&replicas, "replicas", -1, "the new number")
	cmd.Flags().Int32Var(&current, "current-replicas", -1, "scale only when the number is this now")
	return cmd
}

func setReplicas(obj kind.Object, replicas, current int32) error {
	var field **int32
	switch o := obj.(type) {
	case *appsv1.Deployment:
		field = &o.Spec.Replicas
	case *appsv1.ReplicaSet:
		field = &o.Spec.Replicas
	default:
		return usagef("a %s has no replicas", kind.Of(obj).Singular)
	}
	if current >= 0 && (*field == nil || **field != current) {
		return fmt.Errorf("%s does not have %d replicas now", referenceOf(obj), current)
	}
	*field = &replicas
	return nil
}

func (s *shell) setCommand() *cobra.Command {
	var c choice
	o := &writeOptions{}
	image := &cobra.Command{
		Use:   "image KIND/NAME... CONTAINER=IMAGE...",
		Short: "Change the images of containers",
		Long:  "Change the images of containers; * stands for every container.",
		Example: "  xebec set image deployment/web echo=echo:2\n" +
			"  xebec set image deployments --all '*=echo:2'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			split := slices.IndexFunc(args, func(a string) bool { return strings.Contains(a, "=") })
			if split < 0 || (split == 0 && len(c.files) == 0) {
				return usagef("name objects and then CONTAINER=IMAGE, such as: xebec set image deployment/web echo=echo:2")
			}
			images, err := assignments(args[split:])
			if err != nil {
				return err
			}
			cl := s.client()
			refs, err := s.resolve(cmd.Context(), cl, args[:split], c)
			if err != nil {
				return err
			}
			return s.changed(cmd.Context(), refs, o, func(r reference) (kind.Object, string, error) {
				obj, err := update(cmd.Context(), s, cl, r, o, func(obj kind.Object) error { return setImages(obj, images) })
				return obj, "image updated", err
			})
		},
	}
	c.fileFlags(image, "with the objects to change")
	c.selectorFlags(image)
	c.allFlag(image)
	o.flags(image)
	return family("set", "Set fields of workloads", image)
}

func assignments(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" || value == "" {
			return nil, usagef("%q is not NAME=VALUE", a)
		}
		out[key] = value
	}
	return out, nil
}

// podSpecOf is the part of an object that says what its pods are.
func podSpecOf(obj kind.Object) *corev1.PodSpec {
	switch o := obj.(type) {
	case *corev1.Pod:
		return o.GetSpec()
	case *appsv1.Deployment:
		return o.GetSpec().GetTemplate().GetSpec()
	case *appsv1.ReplicaSet:
		return o.GetSpec().GetTemplate().GetSpec()
	}
	return nil
}

func setImages(obj kind.Object, images map[string]string) error {
	spec := podSpecOf(obj)
	if spec == nil {
		return usagef("a %s has no containers", kind.Of(obj).Singular)
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
		return fmt.Errorf("%s has no container %s: it has %s", referenceOf(obj), strings.Join(slices.Sorted(maps.Keys(unused)), ", "), strings.Join(names, ", "))
	}
	return nil
}

func (s *shell) patchCommand() *cobra.Command {
	o := &writeOptions{}
	var patch, file, typ string
	cmd := &cobra.Command{
		Use:   "patch KIND NAME | KIND/NAME -p PATCH",
		Short: "Change part of an object",
		Long: "Change part of an object by a JSON merge patch (RFC 7386), the default, or a JSON patch (RFC 6902). The patch may\n" +
			"be written as YAML.",
		Example: "  xebec patch deployment web -p '{\"spec\":{\"replicas\":3}}'\n" +
			"  xebec patch pod web-0 --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/labels/old\"}]'",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			data, options, err := parsePatch(patch, file, typ)
			if err != nil {
				return err
			}
			return s.patch(cmd.Context(), args, o, data, options)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVarP(&patch, "patch", "p", "", "the patch, JSON or YAML")
	cmd.Flags().StringVar(&file, "patch-file", "", "file with the patch")
	cmd.Flags().StringVar(&typ, "type", "merge", "merge or json")
	return cmd
}

func parsePatch(patch, file, typ string) ([]byte, []client.PatchOption, error) {
	if (patch == "") == (file == "") {
		return nil, nil, usagef("-p or --patch-file is required: one of the two")
	}
	data := []byte(patch)
	if file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return nil, nil, fileError("read", err)
		}
	}
	var value any
	if err := yaml.Unmarshal(data, &value); err != nil {
		return nil, nil, usagef("the patch is neither JSON nor YAML: %w", err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, nil, usagef("the patch has no form in JSON: %w", err)
	}
	switch typ {
	case "merge":
		return data, nil, nil
	case "json":
		return data, []client.PatchOption{client.JSONPatch}, nil
	case "strategic":
		return nil, nil, usagef("there are no strategic merge patches: use --type=merge, or apply, which merges lists by their keys")
	}
	return nil, nil, usagef("--type is merge or json, not %q", typ)
}

func (s *shell) patch(ctx context.Context, args []string, o *writeOptions, data []byte, options []client.PatchOption) error {
	r, err := parseOne(args, nil)
	if err != nil {
		return err
	}
	if r.kind.Namespaced {
		if r.namespace, err = s.defaultNamespace(); err != nil {
			return err
		}
	}
	cl := s.client()
	before, err := client.GetKind(ctx, cl, r.kind, r.namespace, r.name)
	if err != nil {
		return err
	}
	var warnings []string
	options = append(options, client.Warnings(&warnings))
	if o.dry() {
		options = append(options, client.DryRun)
	}
	obj, err := client.PatchKind(ctx, cl, r.kind, r.namespace, r.name, data, options...)
	s.warn(r, warnings)
	if err != nil {
		return err
	}
	what := "patched"
	if !o.dry() && obj.GetMetadata().GetResourceVersion() == before.GetMetadata().GetResourceVersion() {
		what = "patched (no change)"
	}
	return s.wrote(o, obj, what)
}

func (s *shell) labelCommand() *cobra.Command {
	return s.mapCommand("label", "labels", "labeled", func(m *metav1.ObjectMeta) *map[string]string { return &m.Labels },
		"  xebec label node node-1 disk=ssd\n"+
			"  xebec label pods -l app=web tier=front --overwrite\n"+
			"  xebec label pod/web-0 tier-")
}

func (s *shell) annotateCommand() *cobra.Command {
	return s.mapCommand("annotate", "annotations", "annotated", func(m *metav1.ObjectMeta) *map[string]string { return &m.Annotations },
		"  xebec annotate deployment/web kubernetes.io/change-cause='image 2'\n"+
			"  xebec annotate pod/web-0 note-")
}

// mapCommand makes a command that changes labels or annotations.
func (s *shell) mapCommand(name, noun, done string, of func(*metav1.ObjectMeta) *map[string]string, example string) *cobra.Command {
	var c choice
	o := &writeOptions{}
	var overwrite, list bool
	cmd := &cobra.Command{
		Use:               name + " KIND NAME... | KIND/NAME... KEY=VALUE... KEY-...",
		Short:             "Set or remove " + noun + " of objects",
		Example:           example,
		ValidArgsFunction: s.completeKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			refs, set, remove, err := splitChanges(args, list)
			if err != nil {
				return err
			}
			cl := s.client()
			chosen, err := s.resolve(cmd.Context(), cl, refs, c)
			if err != nil {
				return err
			}
			return s.changed(cmd.Context(), chosen, o, func(r reference) (kind.Object, string, error) {
				what := "not " + done
				obj, err := update(cmd.Context(), s, cl, r, o, func(obj kind.Object) error {
					m := of(obj.GetMetadata())
					before := maps.Clone(*m)
					if err := changeMap(m, set, remove, overwrite); err != nil {
						return fmt.Errorf("%s: %w", referenceOf(obj), err)
					}
					if !maps.Equal(before, *m) {
						what = done
						if len(set) == 0 {
							what = "un" + done
						}
					}
					return nil
				})
				if err == nil && list {
					s.printf("%s\n", strings.Join(lines(*of(obj.GetMetadata()), "="), "\n"))
				}
				return obj, what, err
			})
		},
	}
	c.fileFlags(cmd, "with the objects to change")
	c.selectorFlags(cmd)
	c.allFlag(cmd)
	o.flags(cmd)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "change "+noun+" that are set already")
	cmd.Flags().BoolVar(&list, "list", false, "print the "+noun)
	return cmd
}

// splitChanges parts the arguments into references and the changes KEY=VALUE and KEY- behind them.
func splitChanges(args []string, none bool) (refs []string, set map[string]string, remove []string, err error) {
	set = map[string]string{}
	for i, a := range args {
		key, value, assigns := strings.Cut(a, "=")
		cleared, removes := strings.CutSuffix(a, "-")
		switch {
		case assigns && key != "":
			set[key] = value
		case removes && cleared != "" && i > 0:
			remove = append(remove, cleared)
		case len(set)+len(remove) > 0:
			return nil, nil, nil, usagef("%q: changes come last, as KEY=VALUE, or KEY- to remove", a)
		default:
			refs = append(refs, a)
		}
	}
	for _, key := range remove {
		if _, both := set[key]; both {
			return nil, nil, nil, usagef("%s is both set and removed", key)
		}
	}
	if len(set)+len(remove) == 0 && !none {
		return nil, nil, nil, usagef("what is to change? Say KEY=VALUE, or KEY- to remove")
	}
	return refs, set, remove, nil
}

func changeMap(m *map[string]string, set map[string]string, remove []string, overwrite bool) error {
	if *m == nil {
		*m = map[string]string{}
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if old, ok := (*m)[key]; ok && old != set[key] && !overwrite {
			return fmt.Errorf("%q is %s already: --overwrite changes it", key, strconv.Quote(old))
		}
		(*m)[key] = set[key]
	}
	for _, key := range remove {
		delete(*m, key)
	}
	return nil
}
