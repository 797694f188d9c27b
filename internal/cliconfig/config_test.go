package cliconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `current-context: lab
contexts:
  - name: lab
    endpoints: ["127.0.0.1:6443", "127.0.0.1:6444"]
    ca: pki/ca.crt
    cert: data:Y2VydA==
    key: /keys/admin.key
    namespace: web
`

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{CurrentContext: "lab", Contexts: []Context{{
		Name: "lab", Endpoints: []string{"127.0.0.1:6443", "127.0.0.1:6444"}, Namespace: "web",
		CA: PEM{File: filepath.Join(filepath.Dir(path), "pki/ca.crt")}, Cert: PEM{Data: []byte("cert")}, Key: PEM{File: "/keys/admin.key"},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTokenFile reads a context by token, whose file is relative to the configuration's folder, and
// writes it back.
func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	config := &Config{Contexts: []Context{{Name: "robot", Endpoints: []string{"h:1"}, CA: PEM{File: "ca.crt"}, TokenFile: "robot.token", Token: "a.b.c"}}}
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c := got.Contexts[0]
	if c.TokenFile != filepath.Join(filepath.Dir(path), "robot.token") || !c.ByToken() || c.Token != "" || !c.Cert.IsZero() {
		t.Errorf("read %+v", c)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	config, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Current(); err == nil || !strings.Contains(err.Error(), "use-context") {
		t.Errorf("Current of nothing: %v", err)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	context := func(lines string) string { return "contexts:\n  - name: a\n" + lines }
	rest := "    ca: a\n    cert: b\n    key: c\n"
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":      {context("    endpoint: x:1\n"), `config:3: unknown key "endpoint"`},
		"wrong type":       {"contexts: 7\n", "config:1: cannot unmarshal"},
		"syntax":           {"contexts:\n  - name: [\n", "config:2: "},
		"no endpoints":     {context(rest), `config:2: context "a" has no endpoints`},
		"bad endpoint":     {context("    endpoints: [nowhere]\n" + rest), `config:2: context "a": endpoint "nowhere" is not host:port`},
		"port 65536":       {context("    endpoints: ['h:65536']\n" + rest), "config:2: "},
		"no cert":          {context("    endpoints: ['h:1']\n    ca: a\n"), `context "a" has no cert: it needs cert and key, or tokenFile`},
		"cert and token":   {context("    endpoints: ['h:1']\n    ca: a\n    cert: b\n    tokenFile: c\n"), `context "a" has a certificate and a tokenFile`},
		"no key":           {context("    endpoints: ['h:1']\n    ca: a\n    cert: b\n"), `context "a" has no key`},
		"twice":            {context("    endpoints: ['h:1']\n"+rest) + "  - name: a\n    endpoints: ['h:1']\n" + rest, `config:7: context "a" is there twice`},
		"unknown current":  {"current-context: b\n" + context("    endpoints: ['h:1']\n"+rest), `config:1: current-context: no context "b": there are a`},
		"not base64":       {context("    endpoints: ['h:1']\n    ca: data:%\n"), "config:4: not base64"},
		"namespace a list": {context("    endpoints: ['h:1']\n    namespace: [a]\n" + rest), "config:4: cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse("config", []byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestSetSaveDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "config")
	config := &Config{}
	context := Context{Name: "a", Endpoints: []string{"h:1"}, CA: PEM{Data: []byte("x")}, Cert: PEM{Data: []byte("y")}, Key: PEM{Data: []byte("z")}}
	config.Set(context)
	context.Endpoints = []string{"h:2"}
	config.Set(context)
	config.CurrentContext = "a"
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config, back); diff != "" {
		t.Error(diff)
	}
	if current, err := back.Current(); err != nil || current.Endpoints[0] != "h:2" {
		t.Errorf("Current = %v, %v", current, err)
	}
	if !back.Delete("a") || back.Delete("a") || back.CurrentContext != "" {
		t.Error("Delete does not delete once")
	}
	if err := back.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := (&Config{CurrentContext: "gone"}).Save(path); err == nil {
		t.Error("Save of a broken configuration succeeded")
	}
}

func TestPath(t *testing.T) {
	t.Setenv(EnvPath, "")
	t.Setenv("HOME", "/home/ann")
	if path, err := Path(); err != nil || path != "/home/ann/.xebec/config" {
		t.Errorf("Path = %q, %v", path, err)
	}
	t.Setenv(EnvPath, "/x/y")
	if path, err := Path(); err != nil || path != "/x/y" {
		t.Errorf("Path = %q, %v", path, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("contexts: [{name: a, endpoints: [h:1], ca: data:YQ==, cert: b, key: c}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := parse("config", data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "config")
		if err := config.Save(path); err != nil {
			t.Fatalf("a configuration that was read can't be saved: %v", err)
		}
	})
}
