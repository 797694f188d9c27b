package daemon

import (
	"strings"
	"testing"
)

// FuzzParse reads configuration files of any content: they are taken, or refused with the file's
// name.
func FuzzParse(f *testing.F) {
	f.Add([]byte("host: master-1\nlisten: 10.0.0.1:7001\nlog:\n  level: debug\n"))
	f.Add([]byte("hosts: master-1\n"))
	f.Add([]byte("log: [1, 2]\n---\nhost: a\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		var cfg configuration[struct {
			Workers int `yaml:"workers"`
		}]
		if err := parse("service.yaml", content, &cfg); err != nil && !strings.Contains(err.Error(), "service.yaml") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
