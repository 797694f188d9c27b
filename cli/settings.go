package cli

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/version"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

func (s *shell) configCommand() *cobra.Command {
	c := family("config", "See and change the contexts by which clusters are reached", s.configViewCommand(), s.configContextsCommand(),
		s.configCurrentCommand(), s.configUseCommand(), s.configSetCommand(), s.configDeleteCommand())
	c.Long = "See and change the contexts by which clusters are reached. They are in ~/.xebec/config, or the file that\n$" +
		cliconfig.EnvPath + " names."
	return c
}

func (s *shell) configViewCommand() *cobra.Command {
	return &cobra.Command{
		Use: "view", Short: "Show the configuration without its secrets", Example: "  xebec config view", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, path, err := s.loadConfig()
			if err != nil {
				return err
			}
			s.printf("# %s\ncurrent-context: %s\ncontexts:\n", path, config.CurrentContext)
			pem := func(p cliconfig.PEM) string {
				if p.File != "" {
					return p.File
				}
				return fmt.Sprintf("inline, %d bytes", len(p.Data))
			}
			for _, c := range config.Contexts {
				s.printf("  - name: %s\n    endpoints: [%s]\n    namespace: %s\n    ca: %s\n", c.Name,
					strings.Join(c.Endpoints, ", "), cmp.Or(c.Namespace, cliconfig.DefaultNamespace), pem(c.CA))
				if c.ByToken() {
					s.printf("    tokenFile: %s\n", c.TokenFile)
					continue
				}
				s.printf("    cert: %s\n    key: %s\n", pem(c.Cert), pem(c.Key))
			}
			return nil
		},
	}
}

func (s *shell) configContextsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get-contexts", Short: "List the contexts", Example: "  xebec config get-contexts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, path, err := s.loadConfig()
			if err != nil {
				return err
			}
			if output != "" && output != formName {
				return usagef("-o is name or nothing")
			}
			if len(config.Contexts) == 0 && output == "" {
				s.notef("%s has no contexts.", path)
				return nil
			}
			t := &table{heads: []string{"CURRENT", "NAME", "ENDPOINTS", "NAMESPACE"}, keep: 2}
			for _, c := range config.Contexts {
				if output == formName {
					s.printf("%s\n", c.Name)
					continue
				}
				mark := ""
				if c.Name == config.CurrentContext {
					mark = "*"
				}
				t.add(mark, c.Name, strings.Join(c.Endpoints, ","), cmp.Or(c.Namespace, cliconfig.DefaultNamespace))
			}
			if output == "" {
				t.print(s.Out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "name")
	return cmd
}

func (s *shell) configCurrentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "current-context", Short: "Print the context in use", Example: "  xebec config current-context", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, _, err := s.loadConfig()
			if err != nil {
				return err
			}
			c, err := config.Current()
			if err == nil {
				s.printf("%s\n", c.Name)
			}
			return err
		},
	}
}

// edit changes the configuration file.
func (s *shell) edit(change func(*cliconfig.Config) error) error {
	config, path, err := s.loadConfig()
	if err != nil {
		return err
	}
	if err := change(config); err != nil {
		return err
	}
	return config.Save(path)
}

// completeContexts completes the names of contexts.
func (s *shell) completeContexts() cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		config, _, err := s.loadConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, c := range config.Contexts {
			names = append(names, c.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (s *shell) configUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use-context NAME", Short: "Choose the context to use", Example: "  xebec config use-context lab", Args: cobra.ExactArgs(1),
		ValidArgsFunction: s.completeContexts(),
		RunE: func(_ *cobra.Command, args []string) error {
			err := s.edit(func(c *cliconfig.Config) error {
				if _, err := c.Context(args[0]); err != nil {
					return err
				}
				c.CurrentContext = args[0]
				return nil
			})
			if err == nil {
				s.printf("Switched to context %q.\n", args[0])
			}
			return err
		},
	}
}

func (s *shell) configSetCommand() *cobra.Command {
	var current bool
	var ca, cert, key, tokenFile string
	cmd := &cobra.Command{
		Use:   "set-context NAME",
		Short: "Add or change a context",
		Long:  "Add or change a context. What is not given stays as it is. The global flags --endpoints and -n are those of the context.",
		Example: "  xebec config set-context prod --endpoints 10.0.0.1:8443,10.0.0.2:8443 --ca ca.pem --cert me.pem --key me.key\n" +
			"  xebec config set-context robot --endpoints 10.0.0.1:8443 --ca ca.pem --token-file robot.token\n" +
			"  xebec config set-context --current -n test",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: s.completeContexts(),
		RunE: func(_ *cobra.Command, args []string) error {
			if current == (len(args) == 1) {
				return usagef("name a context, or say --current: one of the two")
			}
			name, what := "", "created"
			err := s.edit(func(c *cliconfig.Config) error {
				var next cliconfig.Context
				if current {
					found, err := c.Current()
					if err != nil {
						return err
					}
					next, what = *found, "modified"
				} else if found, err := c.Context(args[0]); err == nil {
					next, what = *found, "modified"
				} else {
					next.Name = args[0]
				}
				name = next.Name
				if len(s.endpoints) > 0 {
					next.Endpoints = s.endpoints
				}
				if s.namespace != "" {
					next.Namespace = s.namespace
				}
				for _, p := range []struct {
					path string
					pem  *cliconfig.PEM
				}{{ca, &next.CA}, {cert, &next.Cert}, {key, &next.Key}} {
					if p.path != "" {
						absolute, err := filepath.Abs(p.path)
						if err != nil {
							return err
						}
						*p.pem = cliconfig.PEM{File: absolute}
					}
				}
				// One of the two: what is given takes the other's place.
				switch {
				case tokenFile != "" && (cert != "" || key != ""):
					return usagef("give --cert and --key, or --token-file")
				case tokenFile != "":
					absolute, err := filepath.Abs(tokenFile)
					if err != nil {
						return err
					}
					next.TokenFile, next.Cert, next.Key = absolute, cliconfig.PEM{}, cliconfig.PEM{}
				case cert != "" || key != "":
					next.TokenFile = ""
				}
				c.Set(next)
				return nil
			})
			if err == nil {
				s.printf("Context %q %s.\n", name, what)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&current, "current", false, "the context in use")
	flags.StringVar(&ca, "ca", "", "file with the authority that signed the gateways' certificates")
	flags.StringVar(&cert, "cert", "", "file with your certificate")
	flags.StringVar(&key, "key", "", "file with its private key")
	flags.StringVar(&tokenFile, "token-file", "", "file with a service account's token, to act as it instead of with a certificate")
	return cmd
}

func (s *shell) configDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete-context NAME", Short: "Remove a context", Example: "  xebec config delete-context old", Args: cobra.ExactArgs(1),
		ValidArgsFunction: s.completeContexts(),
		RunE: func(_ *cobra.Command, args []string) error {
			err := s.edit(func(c *cliconfig.Config) error {
				if !c.Delete(args[0]) {
					return fmt.Errorf("there is no context %q", args[0])
				}
				return nil
			})
			if err == nil {
				s.printf("Context %q deleted.\n", args[0])
			}
			return err
		},
	}
}

func (s *shell) versionCommand() *cobra.Command {
	var client bool
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of this program and of the cluster",
		Example: "  xebec version\n  xebec version --client -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type build struct {
				Version   string `json:"version"`
				Commit    string `json:"commit,omitempty"`
				GoVersion string `json:"goVersion"`
			}
			all := struct {
				Client build  `json:"client"`
				Server *build `json:"server,omitempty"`
			}{Client: build{version.Version(), version.Commit(), version.GoVersion()}}
			f, err := parseForm(output)
			if err != nil {
				return err
			}
			var failure error
			if !client {
				v, err := clusterv1.NewClusterServiceClient(s).Version(cmd.Context(), &clusterv1.VersionRequest{})
				if failure = err; err == nil {
					all.Server = &build{v.GetVersion(), v.GetCommit(), v.GetGoVersion()}
				}
			}
			if f.structured() {
				if err := f.printValue(s.Out, all); err != nil {
					return err
				}
				return failure
			}
			t := &table{heads: []string{"", "VERSION", "COMMIT", "GO"}, keep: 2}
			t.add("client", all.Client.Version, shorten(cmp.Or(all.Client.Commit, "-"), 13), all.Client.GoVersion)
			if all.Server != nil {
				t.add("server", all.Server.Version, shorten(cmp.Or(all.Server.Commit, "-"), 13), all.Server.GoVersion)
			}
			t.print(s.Out)
			return failure
		},
	}
	cmd.Flags().BoolVar(&client, "client", false, "only this program's")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, yaml, or jsonpath=TEMPLATE")
	return cmd
}

func (s *shell) apiResourcesCommand() *cobra.Command {
	var output, group string
	var namespaced, noHeaders bool
	cmd := &cobra.Command{
		Use: "api-resources", Short: "List the kinds of object that there are",
		Example: "  xebec api-resources\n  xebec api-resources --namespaced=false -o name",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "", formName, formWide:
			default:
				return usagef("-o is name, wide or nothing")
			}
			t := &table{heads: []string{"NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"}, noHeads: noHeaders, keep: 1}
			if output == formWide {
				t.heads = append(t.heads, "FIELD SELECTORS")
			}
			for _, k := range kind.All() {
				if cmd.Flags().Changed("namespaced") && k.Namespaced != namespaced || cmd.Flags().Changed("api-group") && k.Group != group {
					continue
				}
				if output == formName {
					s.printf("%s\n", k.Resource())
					continue
				}
				row := []string{k.Plural, strings.Join(k.ShortNames, ","), k.APIVersion(), fmt.Sprint(k.Namespaced), k.Name}
				if output == formWide {
					row = append(row, strings.Join(k.SelectableFields(), ","))
				}
				t.add(row...)
			}
			if output != formName {
				t.print(s.Out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "name or wide")
	cmd.Flags().StringVar(&group, "api-group", "", "only kinds of this group; empty for core")
	cmd.Flags().BoolVar(&namespaced, "namespaced", true, "only kinds that do, or do not, live in namespaces")
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "leave the headings out")
	return cmd
}
