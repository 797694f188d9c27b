// Package create holds the commands that create objects from manifests or flags, and tokens.
package create

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Command returns the command create.
func Command(s *session.Session) *cobra.Command {
	var c resolve.Choice
	var m write.ManifestOptions
	o := &write.Options{}
	cmd := command.Family("create", "Create objects from manifests or flags", namespaceCommand(s), configMapCommand(s),
		secretCommand(s), deploymentCommand(s), jobCommand(s), cronJobCommand(s), podDisruptionBudgetCommand(s),
		tokenCommand(s))
	cmd.Use = "create -f FILE | create KIND NAME"
	cmd.Example = "  xebec create -f pod.yaml\n" +
		"  xebec create deployment web --image=echo:1 --replicas=3"
	others := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(c.Files) == 0 || len(args) > 0 {
			return others(cmd, args)
		}
		if err := o.Parse(); err != nil {
			return err
		}
		return createAll(cmd.Context(), s, c, m, o)
	}
	c.FileFlags(cmd, "to create")
	o.Flags(cmd)
	m.Flags(cmd)
	return cmd
}

// createAll stores the objects of manifests as apply does, each by itself or all together.
func createAll(ctx context.Context, s *session.Session, c resolve.Choice, m write.ManifestOptions, o *write.Options) error {
	docs, wrong := write.Manifests(s, c, m)
	if wrong != nil && (len(docs) == 0 || m.Atomic) {
		return wrong
	}
	cl := s.Client()
	if m.Atomic {
		return write.Together(ctx, s, cl, docs, o, func(_ int, d manifest.Document) client.Operation { return client.OpCreate(d.Object) },
			func(int, error) bool { return false },
			func(apiv1.ApplyResult) string { return "created" })
	}
	return write.EachManifest(s, docs, wrong, func(d manifest.Document) error {
		stored, warnings, err := createOne(ctx, cl, d.Object, o)
		write.Warn(s, d, warnings)
		if err != nil {
			return err
		}
		return write.Report(s, o, stored, "created")
	})
}

// create stores one new object and says so.
func create(ctx context.Context, s *session.Session, obj scheme.Object, o *write.Options) error {
	cl := s.Client()
	stored, warnings, err := createOne(ctx, cl, obj, o)
	s.Warn(resolve.Of(obj), warnings)
	if err != nil {
		return err
	}
	return write.Report(s, o, stored, "created")
}

// createOne stores one new object. It returns the server's warnings also with an error.
func createOne(ctx context.Context, cl *client.Client, obj scheme.Object, o *write.Options) (scheme.Object, []string, error) {
	var warnings []string
	options := []client.CreateOption{client.Warnings(&warnings)}
	if o.Dry() {
		options = append(options, client.DryRun)
	}
	stored, err := client.Create(ctx, cl, obj, options...)
	return stored, warnings, err
}

// creator makes a subcommand that creates one object of the given name, in the namespace in use.
func creator(s *session.Session, use, short, example string, make func(name, namespace string) (scheme.Object, error)) *cobra.Command {
	o := &write.Options{}
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.Usagef("exactly one name is required")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			namespace, err := s.DefaultNamespace()
			if err != nil {
				return err
			}
			obj, err := make(args[0], namespace)
			if err != nil {
				return err
			}
			return create(cmd.Context(), s, obj, o)
		},
	}
	o.Flags(cmd)
	return cmd
}

func namespaceCommand(s *session.Session) *cobra.Command {
	cmd := creator(s, "namespace NAME", "Create a namespace", "  xebec create namespace test",
		func(name, _ string) (scheme.Object, error) {
			return &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name}}, nil
		})
	cmd.Aliases = []string{"ns"}
	return cmd
}

func configMapCommand(s *session.Session) *cobra.Command {
	var values data
	cmd := creator(s, "configmap NAME", "Create a ConfigMap",
		"  xebec create configmap settings --from-literal=mode=fast\n"+
			"  xebec create configmap site --from-file=index.html --from-file=conf=nginx.conf",
		func(name, namespace string) (scheme.Object, error) {
			all, err := values.read()
			if err != nil {
				return nil, err
			}
			c := &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: name, Namespace: namespace}}
			for key, value := range all {
				if !utf8.Valid(value) {
					if c.BinaryData == nil {
						c.BinaryData = map[string][]byte{}
					}
					c.BinaryData[key] = value
					continue
				}
				if c.Data == nil {
					c.Data = map[string]string{}
				}
				c.Data[key] = string(value)
			}
			return c, nil
		})
	cmd.Aliases = []string{"cm"}
	values.flags(cmd)
	return cmd
}

func secretCommand(s *session.Session) *cobra.Command {
	var values data
	typ := core.SecretOpaque
	generic := creator(s, "generic NAME", "Create a secret from keys and values",
		"  xebec create secret generic db --from-literal=password=s3cret\n"+
			"  xebec create secret generic tls-files --from-file=cert.pem --from-file=key.pem",
		func(name, namespace string) (scheme.Object, error) {
			all, err := values.read()
			if err != nil {
				return nil, err
			}
			return &corev1.Secret{Metadata: &metav1.ObjectMeta{Name: name, Namespace: namespace}, Type: typ, Data: all}, nil
		})
	values.flags(generic)
	generic.Flags().StringVar(&typ, "type", typ, "type of the secret")
	return command.Family("secret", "Create a secret", generic)
}

// data is the keys and values that flags name.
type data struct{ literals, files, envFiles []string }

func (d *data) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&d.literals, "from-literal", nil, "KEY=VALUE")
	cmd.Flags().StringArrayVar(&d.files, "from-file", nil, "[KEY=]FILE, or a directory whose file names become keys")
	cmd.Flags().StringArrayVar(&d.envFiles, "from-env-file", nil, "file with lines of KEY=VALUE")
}

func (d *data) read() (map[string][]byte, error) {
	out := map[string][]byte{}
	add := func(key string, value []byte) error {
		if _, twice := out[key]; twice {
			return exit.Usagef("duplicate key %q", key)
		}
		out[key] = value
		return nil
	}
	for _, l := range d.literals {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, exit.Usagef("invalid --from-literal value %q: want KEY=VALUE", l)
		}
		if err := add(key, []byte(value)); err != nil {
			return nil, err
		}
	}
	for _, f := range d.files {
		key, path, named := strings.Cut(f, "=")
		if !named {
			path, key = f, filepath.Base(f)
		}
		if err := addFile(key, path, named, add); err != nil {
			return nil, err
		}
	}
	for _, f := range d.envFiles {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, exit.FileError("read", err)
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			if !ok || key == "" {
				return nil, fmt.Errorf("%s:%d: invalid line %q: want KEY=VALUE", f, number, line)
			}
			if err := add(key, []byte(value)); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// addFile adds a file, or, without a key, all files of a directory.
func addFile(key, path string, named bool, add func(string, []byte) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return exit.FileError("read", err)
	}
	if !info.IsDir() {
		content, err := os.ReadFile(path)
		if err != nil {
			return exit.FileError("read", err)
		}
		return add(key, content)
	}
	if named {
		return exit.Usagef("invalid --from-file value: %s is a directory, whose file names become keys: remove KEY=", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return exit.FileError("read", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := addFile(e.Name(), filepath.Join(path, e.Name()), true, add); err != nil {
			return err
		}
	}
	return nil
}

func deploymentCommand(s *session.Session) *cobra.Command {
	var images []string
	replicas, port := int32(1), int32(0)
	var command []string
	cmd := creator(s, "deployment NAME --image=IMAGE [-- COMMAND [ARGUMENT...]]", "Create a deployment",
		"  xebec create deployment web --image=echo:1 --replicas=3 --port=8080\n"+
			"  xebec create deployment box --image=client:1 -- sleep 1h",
		func(name, namespace string) (scheme.Object, error) {
			if len(images) == 0 {
				return nil, exit.Usagef("--image is required")
			}
			if len(command) > 0 && len(images) > 1 {
				return nil, exit.Usagef("a command requires exactly one --image")
			}
			labels := map[string]string{"app": name}
			var containers []*corev1.Container
			for _, image := range images {
				c := &corev1.Container{Name: containerName(image), Image: image, Command: command}
				if port != 0 {
					c.Ports = []*corev1.ContainerPort{{ContainerPort: port, Protocol: core.ProtocolTCP}}
				}
				containers = append(containers, c)
			}
			return &appsv1.Deployment{
				Metadata: &metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels},
				Spec: &appsv1.DeploymentSpec{
					Replicas: &replicas,
					Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: &corev1.PodTemplateSpec{
						Metadata: &metav1.ObjectMeta{Labels: labels},
						Spec:     &corev1.PodSpec{Containers: containers},
					},
				},
			}, nil
		})
	cmd.Aliases = []string{"deploy"}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			command, args = args[dash:], args[:dash]
		}
		if len(args) != 1 {
			return exit.Usagef("exactly one name is required")
		}
		return nil
	}
	cmd.Flags().StringArrayVar(&images, "image", nil, "image of a container; may be repeated")
	cmd.Flags().Int32Var(&replicas, "replicas", 1, "number of pods")
	cmd.Flags().Int32Var(&port, "port", 0, "port that the containers listen on")
	return cmd
}

// containerName makes a name of an image's: docker.io/library/echo:1 is echo.
func containerName(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	return strings.Trim(name, "-")
}
