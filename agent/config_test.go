package agent

import (
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestHollowConfiguration(t *testing.T) {
	valid := func() Config {
		cfg := DefaultConfig()
		cfg.Gateways, cfg.Metrics, cfg.Hollow = []string{"127.0.0.1:6443"}, "off", 10
		cfg.TLS.CA, cfg.HollowCACert, cfg.HollowCAKey = "ca.crt", "ca.crt", "ca.key"
		return cfg
	}
	node := func(cfg *Config) {
		cfg.Hollow, cfg.Node, cfg.Address = 0, "a", "192.0.2.1"
		cfg.TLS.Cert, cfg.TLS.Key = "node.crt", "node.key"
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string // parts of the error; none: it is valid
	}{
		{"simulated nodes", func(*Config) {}, nil},
		{"a node", func(cfg *Config) { node(cfg); cfg.HollowCACert, cfg.HollowCAKey = "", "" }, nil},
		{"no authority", func(cfg *Config) { cfg.HollowCACert, cfg.HollowCAKey = "", "" }, []string{"hollowCACert: required with hollow", "hollowCAKey: required with hollow"}},
		{"no certificate for the metrics", func(cfg *Config) { cfg.Metrics = "127.0.0.1:10255" }, []string{"tls.cert: required", "tls.key: required"}},
		{"a node with the key of the authority", node, []string{"hollowCACert: ca.crt: for simulated nodes only", "hollowCAKey: ca.key: for simulated nodes only"}},
		{"none start", func(cfg *Config) { cfg.HollowStartsPerSecond = 0 }, []string{"hollowStartsPerSecond: 0 is not more than 0"}},
		{"too many", func(cfg *Config) { cfg.Hollow = 1 << 20 }, []string{"hollow: 1048576 is more than 131071"}},
		{"names", func(cfg *Config) { cfg.NamePrefix = "Node_" }, []string{"namePrefix", "Node_"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := valid()
			tt.change(&cfg)
			err := cfg.Validate()
			if (err == nil) != (len(tt.want) == 0) {
				t.Fatal(err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want %q", err, part)
				}
			}
		})
	}
	if _, err := New(valid(), zap.NewNop()); err == nil || !strings.Contains(err.Error(), "hollowCACert, hollowCAKey: ") || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("without the files: %v", err)
	}
}
