package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestConfigurations reads a file with one setting by the command of each service: no key stands
// for two settings, which the reader answers with a panic. None runs, as certificates are missing.
func TestConfigurations(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("host: master-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range services {
		c := command()
		t.Run(c.Name(), func(t *testing.T) {
			c.SetArgs([]string{"--config", file})
			if err := c.ExecuteContext(t.Context()); err == nil {
				t.Error("the service ran without certificates")
			}
		})
	}
}
