// Package config holds the commands that manage contexts.
package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/cliconfig"
)

// Command returns the command config.
func Command(s *session.Session) *cobra.Command {
	c := command.Family("config", "Manage contexts: clusters and credentials", viewCommand(s), contextsCommand(s),
		currentCommand(s), useCommand(s), setCommand(s), deleteCommand(s))
	c.Long = "Manage contexts: the clusters and credentials that xebec uses. They are stored in ~/.xebec/config, or the file given by\n$" +
		cliconfig.EnvPath + "."
	return c
}

func viewCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "view", Short: "Show the configuration without secrets", Example: "  xebec config view", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, path, err := s.LoadConfig()
			if err != nil {
				return err
			}
			s.Printf("# %s\ncurrent-context: %s\ncontexts:\n", path, config.CurrentContext)
			pem := func(p cliconfig.PEM) string {
				if p.File != "" {
					return p.File
				}
				return fmt.Sprintf("inline, %d bytes", len(p.Data))
			}
			for _, c := range config.Contexts {
				s.Printf("  - name: %s\n    endpoints: [%s]\n    namespace: %s\n    ca: %s\n", c.Name,
					strings.Join(c.Endpoints, ", "), cmp.Or(c.Namespace, cliconfig.DefaultNamespace), pem(c.CA))
				if c.ByToken() {
					s.Printf("    tokenFile: %s\n", c.TokenFile)
					continue
				}
				s.Printf("    cert: %s\n    key: %s\n", pem(c.Cert), pem(c.Key))
			}
			return nil
		},
	}
}

func contextsCommand(s *session.Session) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get-contexts", Short: "List the contexts", Example: "  xebec config get-contexts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, path, err := s.LoadConfig()
			if err != nil {
				return err
			}
			if output != "" && output != printer.Name {
				return exit.Usagef("invalid -o value: want name")
			}
			if len(config.Contexts) == 0 && output == "" {
				s.Notef("No contexts in %s.", path)
				return nil
			}
			t := &printer.Table{Heads: []string{"CURRENT", "NAME", "ENDPOINTS", "NAMESPACE"}, Keep: 2}
			for _, c := range config.Contexts {
				if output == printer.Name {
					s.Printf("%s\n", c.Name)
					continue
				}
				mark := ""
				if c.Name == config.CurrentContext {
					mark = "*"
				}
				t.Add(mark, c.Name, strings.Join(c.Endpoints, ","), cmp.Or(c.Namespace, cliconfig.DefaultNamespace))
			}
			if output == "" {
				t.Print(s.Out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "name")
	return cmd
}

func currentCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "current-context", Short: "Print the current context", Example: "  xebec config current-context", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			config, _, err := s.LoadConfig()
			if err != nil {
				return err
			}
			c, err := config.Current()
			if err == nil {
				s.Printf("%s\n", c.Name)
			}
			return err
		},
	}
}

// edit changes the configuration file.
func edit(s *session.Session, change func(*cliconfig.Config) error) error {
	config, path, err := s.LoadConfig()
	if err != nil {
		return err
	}
	if err := change(config); err != nil {
		return err
	}
	return config.Save(path)
}

// completeContexts completes the names of contexts.
func completeContexts(s *session.Session) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		config, _, err := s.LoadConfig()
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

func useCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "use-context NAME", Short: "Select the current context", Example: "  xebec config use-context lab", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts(s),
		RunE: func(_ *cobra.Command, args []string) error {
			err := edit(s, func(c *cliconfig.Config) error {
				if _, err := c.Context(args[0]); err != nil {
					return err
				}
				c.CurrentContext = args[0]
				return nil
			})
			if err == nil {
				s.Printf("Switched to context %q.\n", args[0])
			}
			return err
		},
	}
}

func setCommand(s *session.Session) *cobra.Command {
	var current bool
	var ca, cert, key, tokenFile string
	cmd := &cobra.Command{
		Use:   "set-context NAME",
		Short: "Add or change a context",
		Long: "Add or change a context. Settings without a flag keep their values. The global flags --endpoints and -n set those of\n" +
			"the context.",
		Example: "  xebec config set-context prod --endpoints 10.0.0.1:8443,10.0.0.2:8443 --ca ca.pem --cert me.pem --key me.key\n" +
			"  xebec config set-context robot --endpoints 10.0.0.1:8443 --ca ca.pem --token-file robot.token\n" +
			"  xebec config set-context --current -n test",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeContexts(s),
		RunE: func(_ *cobra.Command, args []string) error {
			if current == (len(args) == 1) {
				return exit.Usagef("exactly one of NAME and --current is required")
			}
			name, what := "", "created"
			err := edit(s, func(c *cliconfig.Config) error {
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
				if len(s.Endpoints) > 0 {
					next.Endpoints = s.Endpoints
				}
				if s.Namespace != "" {
					next.Namespace = s.Namespace
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
					return exit.Usagef("--token-file cannot be combined with --cert and --key")
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
				s.Printf("Context %q %s.\n", name, what)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&current, "current", false, "change the current context")
	flags.StringVar(&ca, "ca", "", "file with the certificate authority of the gateways")
	flags.StringVar(&cert, "cert", "", "file with the client certificate")
	flags.StringVar(&key, "key", "", "file with the private key of the client certificate")
	flags.StringVar(&tokenFile, "token-file", "", "file with a service account token, instead of a certificate")
	return cmd
}

func deleteCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "delete-context NAME", Short: "Remove a context", Example: "  xebec config delete-context old", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts(s),
		RunE: func(_ *cobra.Command, args []string) error {
			err := edit(s, func(c *cliconfig.Config) error {
				if !c.Delete(args[0]) {
					return fmt.Errorf("no context %q", args[0])
				}
				return nil
			})
			if err == nil {
				s.Printf("Context %q deleted.\n", args[0])
			}
			return err
		},
	}
}
