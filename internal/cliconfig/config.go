// Package cliconfig reads and writes the file that tells the command line how to reach clusters:
// contexts, each with the gateways' addresses, certificates and a namespace.
package cliconfig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/internal/pki"
)

// EnvPath is the environment variable that names the file to use instead of ~/.xebec/config.
const EnvPath = "XEBECCONFIG"

// DefaultNamespace is the namespace of a context that names none.
const DefaultNamespace = "default"

// Config is the whole file. The zero value is an empty one.
type Config struct {
	// CurrentContext names the context in use; empty when none is.
	CurrentContext string `yaml:"current-context,omitempty"`
	// Contexts are the known contexts, in the order of the file. Names are unique.
	Contexts []Context `yaml:"contexts,omitempty"`
}

// Context is one way into one cluster.
type Context struct {
	// Name identifies the context.
	Name string `yaml:"name"`
	// Endpoints are the gateways, each host:port. The client uses whichever answers.
	Endpoints []string `yaml:"endpoints"`
	// CA holds the authorities that the gateways' certificates are signed by.
	CA PEM `yaml:"ca"`
	// Cert and Key are the person's certificate and private key.
	Cert PEM `yaml:"cert,omitempty"`
	Key  PEM `yaml:"key,omitempty"`
	// TokenFile is a file with the token of a service account, as which the client acts instead of as
	// a person with a certificate. It is read for every call, so that a token may be renewed in it.
	TokenFile string `yaml:"tokenFile,omitempty"`
	// Token is such a token itself, of a command line; no file holds it.
	Token string `yaml:"-"`
	// Namespace is used by commands that are given none; empty for "default".
	Namespace string `yaml:"namespace,omitempty"`
}

// PEM is PEM data, either in a file of its own or written into the configuration in base64.
type PEM struct {
	// File is a path, absolute or relative to the configuration's folder.
	File string
	// Data is the PEM text itself; set instead of File.
	Data []byte
}

// inlinePrefix marks data in place of a path.
const inlinePrefix = "data:"

// UnmarshalYAML reads a path or "data:" followed by base64.
func (p *PEM) UnmarshalYAML(node *yaml.Node) error {
	var text string
	if err := node.Decode(&text); err != nil {
		return err
	}
	encoded, inline := strings.CutPrefix(text, inlinePrefix)
	if !inline {
		*p = PEM{File: text}
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("line %d: not base64: %w", node.Line, err)
	}
	*p = PEM{Data: data}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (p PEM) MarshalYAML() (any, error) {
	if len(p.Data) > 0 {
		return inlinePrefix + base64.StdEncoding.EncodeToString(p.Data), nil
	}
	return p.File, nil
}

// IsZero says whether p names nothing.
func (p PEM) IsZero() bool { return p.File == "" && len(p.Data) == 0 }

// Load returns the PEM text.
func (p PEM) Load() ([]byte, error) {
	if len(p.Data) > 0 {
		return p.Data, nil
	}
	return os.ReadFile(p.File)
}

// Path returns the file that $XEBECCONFIG names, or else .xebec/config in the user's home.
func Path() (string, error) {
	if path := os.Getenv(EnvPath); path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find configuration: %w; set %s to its path", err, EnvPath)
	}
	return filepath.Join(home, ".xebec", "config"), nil
}

// Load reads the file. One that does not exist is an empty Config. Errors name the file and, where
// there is one, the line. Relative paths inside are made absolute.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return parse(path, data)
}

func parse(path string, data []byte) (*Config, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, located(path, err)
	}
	config := &Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(config); err != nil && !errors.Is(err, io.EOF) {
		return nil, located(path, err)
	}
	for i := range config.Contexts {
		c := &config.Contexts[i]
		for _, file := range []*string{&c.CA.File, &c.Cert.File, &c.Key.File, &c.TokenFile} {
			if *file != "" && !filepath.IsAbs(*file) {
				*file = filepath.Join(filepath.Dir(path), *file)
			}
		}
	}
	if index, err := config.check(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", path, lineOf(&document, index), err)
	}
	return config, nil
}

// check returns what is wrong and the index of the context it is wrong with, -1 for the file
// itself.
func (c *Config) check() (int, error) {
	for i, context := range c.Contexts {
		if err := context.check(); err != nil {
			return i, err
		}
		if slices.ContainsFunc(c.Contexts[:i], func(o Context) bool { return o.Name == context.Name }) {
			return i, fmt.Errorf("context %q is there twice", context.Name)
		}
	}
	if _, err := c.Context(c.CurrentContext); c.CurrentContext != "" && err != nil {
		return -1, fmt.Errorf("current-context: %w", err)
	}
	return 0, nil
}

func (c *Context) check() error {
	if c.Name == "" {
		return errors.New("a context has no name")
	}
	if len(c.Endpoints) == 0 {
		return fmt.Errorf("context %q has no endpoints", c.Name)
	}
	for _, endpoint := range c.Endpoints {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil || host == "" {
			return fmt.Errorf("context %q: endpoint %q is not host:port", c.Name, endpoint)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("context %q: endpoint %q: port is not a number from 1 to 65535", c.Name, endpoint)
		}
	}
	switch {
	case c.CA.IsZero():
		return fmt.Errorf("context %q has no ca", c.Name)
	case c.TokenFile != "" && !(c.Cert.IsZero() && c.Key.IsZero()):
		return fmt.Errorf("context %q has a certificate and a tokenFile: keep one of the two", c.Name)
	case c.TokenFile != "":
		return nil
	case c.Cert.IsZero():
		return fmt.Errorf("context %q has no cert: it needs cert and key, or tokenFile", c.Name)
	case c.Key.IsZero():
		return fmt.Errorf("context %q has no key", c.Name)
	}
	return nil
}

// ByToken tells whether the client is known by a token instead of a certificate.
func (c *Context) ByToken() bool { return c.Token != "" || c.TokenFile != "" }

// located rewrites the yaml package's errors, which say "line N: ...", to begin with file:N.
func located(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok && len(typed.Errors) > 0 {
		text = typed.Errors[0]
	}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		line, message, found := strings.Cut(rest, ": ")
		if _, err := strconv.Atoi(line); found && err == nil {
			if key, _, unknown := strings.Cut(strings.TrimPrefix(message, "field "), " not found in type"); unknown {
				message = fmt.Sprintf("unknown key %q", key)
			}
			return fmt.Errorf("%s:%s: %s", path, line, message)
		}
	}
	return fmt.Errorf("%s: %s", path, text)
}

// lineOf returns the line of the context with this index, or of current-context for -1; 1 when it
// is unknown.
func lineOf(document *yaml.Node, index int) int {
	if len(document.Content) == 0 {
		return 1
	}
	entries := document.Content[0].Content
	for pair := range slices.Chunk(entries, 2) {
		switch key, value := pair[0], pair[1]; {
		case key.Value == "current-context" && index < 0:
			return value.Line
		case key.Value == "contexts" && index >= 0 && index < len(value.Content):
			return value.Content[index].Line
		}
	}
	return 1
}

// Context returns the context of that name.
func (c *Config) Context(name string) (*Context, error) {
	i := slices.IndexFunc(c.Contexts, func(o Context) bool { return o.Name == name })
	if i >= 0 {
		return &c.Contexts[i], nil
	}
	var known []string
	for _, o := range c.Contexts {
		known = append(known, o.Name)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("no context %q: there are none yet", name)
	}
	return nil, fmt.Errorf("no context %q: there are %s", name, strings.Join(known, ", "))
}

// Current returns the context in use.
func (c *Config) Current() (*Context, error) {
	if c.CurrentContext == "" {
		return nil, errors.New("no context is in use; choose one with: xebec config use-context NAME")
	}
	return c.Context(c.CurrentContext)
}

// Set adds the context or replaces the one of its name.
func (c *Config) Set(context Context) {
	if old, err := c.Context(context.Name); err == nil {
		*old = context
		return
	}
	c.Contexts = append(c.Contexts, context)
}

// Delete removes the context of that name and says whether it was there. When it was in use, none
// is afterwards.
func (c *Config) Delete(name string) bool {
	before := len(c.Contexts)
	c.Contexts = slices.DeleteFunc(c.Contexts, func(o Context) bool { return o.Name == name })
	if c.CurrentContext == name {
		c.CurrentContext = ""
	}
	return len(c.Contexts) < before
}

// Save replaces the file atomically, readable by its owner only, and makes its folder when absent.
// A link is followed.
func (c *Config) Save(path string) error {
	if _, err := c.check(); err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := pki.WriteFile(path, data); err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	return nil
}
