package daemon

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

type testConfig struct {
	Interval time.Duration `yaml:"interval" help:"how often"`
	NodeCIDR netip.Prefix  `yaml:"nodeCIDR" help:"addresses"`
	Weights  struct {
		Spread float64 `yaml:"spread"`
	} `yaml:"weights"`
	Fast   bool     `yaml:"fast"`
	Count  int32    `yaml:"count"`
	Names  []string `yaml:"names"`
	Routes []struct {
		To string `yaml:"to"`
	} `yaml:"routes"`
}

func TestParse(t *testing.T) {
	const good = `
host: master-1
etcd:
  endpoints: [https://10.0.0.1:2379]
  ca: etcd-ca.crt
interval: 3s
nodeCIDR: 10.1.0.0/16
weights: {spread: 0.5}
routes:
- to: a
`
	cfg := configuration[testConfig]{Common: defaults()}
	if err := parse("x.yaml", []byte(good), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Common.Host != "master-1" || cfg.Common.Etcd.CA != "etcd-ca.crt" || cfg.Common.Log.Level != "info" ||
		cfg.Service.Interval != 3*time.Second || cfg.Service.NodeCIDR.Bits() != 16 || cfg.Service.Weights.Spread != 0.5 || cfg.Service.Routes[0].To != "a" {
		t.Errorf("parsed %+v", cfg)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"typo", "host: a\nlissten: b\n", "x.yaml:2: lissten: unknown key, did you mean listen?"},
		{"nested typo", "etcd:\n  endpoint: [a]\n", "x.yaml:2: etcd.endpoint: unknown key, did you mean endpoints?"},
		{"typo in a list", "routes:\n- to: a\n- two: b\n", "x.yaml:3: routes[1].two: unknown key, did you mean to?"},
		{"nothing near", "zzzzzzzz: 1\n", "x.yaml:1: zzzzzzzz: unknown key"},
		{"wrong type", "host: a\ncount: many\n", "x.yaml:2: cannot unmarshal"},
		{"bad duration", "interval: soon\n", "x.yaml:1: cannot unmarshal"},
		{"twice", "host: a\nhost: b\n", `x.yaml:2: mapping key "host" already defined`},
		{"not YAML", "host: [a\n", "x.yaml:"},
		{"two documents", "host: a\n---\nhost: b\n", "more than one document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cfg configuration[testConfig]
			err := parse("x.yaml", []byte(tt.text), &cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	var cfg configuration[testConfig]
	err := parse("x.yaml", []byte("a: 1\nb: 2\n"), &cfg)
	if err == nil || !strings.Contains(err.Error(), "x.yaml:1") || !strings.Contains(err.Error(), "x.yaml:2") {
		t.Errorf("problems are missing: %v", err)
	}
}

func TestFlagsCountBeforeTheFile(t *testing.T) {
	cfg := configuration[testConfig]{Common: defaults()}
	cfg.Service.Count = 7
	list := settings(reflect.ValueOf(&cfg).Elem(), "")
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	bindFlags(flags, list)
	args := []string{"--etcd-endpoints=a,b", "--etcd-endpoints=c", "--tls-ca", "ca.crt", "--interval=5s", "--node-cidr=10.0.0.0/8",
		"--fast", "--weights-spread=2", "--gc-percent=80", "--drain-limit=1s"}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := parse("x.yaml", []byte("interval: 1s\ncount: 9\nhost: h\ntls: {ca: other, cert: c}\n"), &cfg); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if err := s.apply(); err != nil {
			t.Fatal(err)
		}
	}
	c, s := cfg.Common, cfg.Service
	if strings.Join(c.Etcd.Endpoints, " ") != "a b c" || c.TLS.CA != "ca.crt" || c.TLS.Cert != "c" || c.Host != "h" ||
		s.Interval != 5*time.Second || s.NodeCIDR.String() != "10.0.0.0/8" || !s.Fast || s.Weights.Spread != 2 ||
		s.Count != 9 || c.GCPercent != 80 || c.Drain.Limit != time.Second {
		t.Errorf("got %+v", cfg)
	}
	for _, bad := range []string{"--interval=soon", "--count=x", "--node-cidr=1"} {
		if err := flags.Parse([]string{bad}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestUnknownFlagHint(t *testing.T) {
	cmd := Command(Spec[testConfig]{Name: "test"})
	cmd.SetArgs([]string{"--etcd-endpoint=a"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "did you mean --etcd-endpoints?") {
		t.Errorf("got %v", err)
	}
}

func TestValidateReportsAllProblems(t *testing.T) {
	cfg := defaults()
	if err := cfg.complete(7003); err != nil {
		t.Fatal(err)
	}
	cfg.Log.Level, cfg.Metrics = "loud", "8003"
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"advertise: required", "tls.ca: required", "tls.key: required", "etcd.endpoints: required", `log.level: invalid value "loud"`, "metrics: address 8003: missing port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}
