package docs

import (
	"encoding"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xebec-project/xebec/agent"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/services/apiserver"
	"github.com/xebec-project/xebec/services/auth"
	"github.com/xebec-project/xebec/services/cloud"
	"github.com/xebec-project/xebec/services/collector"
	"github.com/xebec-project/xebec/services/endpoints"
	"github.com/xebec-project/xebec/services/etcd"
	"github.com/xebec-project/xebec/services/gateway"
	"github.com/xebec-project/xebec/services/nodes"
	"github.com/xebec-project/xebec/services/scheduler"
	"github.com/xebec-project/xebec/services/workloads"
	"github.com/xebec-project/xebec/tests/markdown"
)

func commonConfig(t *testing.T) string {
	type none struct{}
	cmd := daemon.Command(daemon.Spec[none]{Name: "common"})
	return configTable(t, flagsOf(cmd), reflect.TypeFor[daemon.Config]())
}

func apiserverConfig(t *testing.T) string { return serviceConfig(t, apiserver.DefaultConfig()) }
func authConfig(t *testing.T) string      { return serviceConfig(t, auth.DefaultConfig()) }
func gatewayConfig(t *testing.T) string   { return serviceConfig(t, gateway.DefaultConfig()) }
func schedulerConfig(t *testing.T) string { return serviceConfig(t, scheduler.DefaultConfig()) }
func workloadsConfig(t *testing.T) string { return serviceConfig(t, workloads.Config{}) }
func nodesConfig(t *testing.T) string     { return serviceConfig(t, nodes.DefaultConfig()) }
func endpointsConfig(t *testing.T) string { return serviceConfig(t, endpoints.Config{}) }
func collectorConfig(t *testing.T) string { return serviceConfig(t, collector.Config{}) }
func cloudConfig(t *testing.T) string     { return serviceConfig(t, cloud.DefaultConfig()) }

func etcdConfig(t *testing.T) string  { return standaloneConfig(t, etcd.DefaultConfig()) }
func agentConfig(t *testing.T) string { return standaloneConfig(t, agent.DefaultConfig()) }

// standaloneConfig is what a process has that shares only log and gcPercent with the services.
func standaloneConfig[C any](t *testing.T, defaults C) string {
	cmd := daemon.StandaloneCommand(daemon.Standalone[C]{Name: "standalone", Defaults: defaults})
	common := len(keysOf(t, reflect.TypeFor[daemon.LogConfig](), "log.")) + 1
	return configTable(t, flagsOf(cmd)[common:], reflect.TypeFor[C]())
}

// serviceConfig is what a service has besides the keys that all have.
func serviceConfig[C any](t *testing.T, defaults C) string {
	cmd := daemon.Command(daemon.Spec[C]{Name: "service", Defaults: defaults})
	common := len(keysOf(t, reflect.TypeFor[daemon.Config](), ""))
	return configTable(t, flagsOf(cmd)[common:], reflect.TypeFor[C]())
}

// flagsOf lists a command's flags in the order of the configuration's keys, without --config.
func flagsOf(cmd *cobra.Command) []*pflag.Flag {
	var list []*pflag.Flag
	cmd.Flags().SortFlags = false
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			list = append(list, f)
		}
	})
	return list
}

// key is one key of a configuration file.
type key struct{ name, doc string }

// keysOf lists the keys of a configuration struct in the order in which package daemon makes flags
// of them.
func keysOf(t *testing.T, of reflect.Type, prefix string) []key {
	t.Helper()
	docs := fieldDocs(t, of)
	var keys []key
	for i := range of.NumField() {
		field := of.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !field.IsExported():
		case strings.Contains(options, "inline"):
			keys = append(keys, keysOf(t, field.Type, prefix)...)
		case isLeaf(field.Type):
			doc := field.Tag.Get("help")
			if comment := docs[field.Name]; strings.HasPrefix(comment, field.Name) {
				doc = inKeys(of, comment)
				doc = strings.TrimPrefix(strings.TrimPrefix(doc, code(name)+" is "), code(name)+" are ")
			}
			if doc == "" {
				t.Errorf("%s.%s has neither a doc comment that begins with its name nor a help text", of, field.Name)
				continue
			}
			keys = append(keys, key{prefix + name, strings.ToUpper(doc[:1]) + doc[1:]})
		case field.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(t, field.Type, prefix+name+".")...)
		default: // A list of structs has no flag; the page describes it in words.
		}
	}
	return keys
}

// isLeaf tells whether a type is one key, as package daemon sees it.
func isLeaf(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	return t.Kind() != reflect.Struct && (t.Kind() != reflect.Slice || t.Elem().Kind() == reflect.String)
}

// inKeys replaces the names of a struct's fields in a comment by the keys that people write.
func inKeys(of reflect.Type, doc string) string {
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
		if name != "" {
			doc = regexp.MustCompile(`\b`+of.Field(i).Name+`\b`).ReplaceAllString(doc, code(name))
		}
	}
	return doc
}

func configTable(t *testing.T, flags []*pflag.Flag, of reflect.Type) string {
	t.Helper()
	keys := keysOf(t, of, "")
	if len(keys) != len(flags) {
		t.Fatalf("%s has %d keys and %d flags", of, len(keys), len(flags))
	}
	rows := make([][]string, len(keys))
	for i, k := range keys {
		rows[i] = []string{code(k.name), code("--" + flags[i].Name), code(flags[i].DefValue), k.doc}
	}
	return markdown.Table([]string{"key", "flag", "default", ""}, rows)
}
