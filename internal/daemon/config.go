package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/pki"
)

// Config is what every service's configuration has, at the top level of its file and as flags.
type Config struct {
	// Host is the name of the machine, under which the instance is registered; empty is the kernel's
	// host name.
	Host string `yaml:"host" help:"name of this machine (default: host name of the kernel)"`
	// Listen is the address of the gRPC server; empty is every address and the service's own port.
	Listen string `yaml:"listen" help:"address to listen on for gRPC (default: port of the service on all addresses)"`
	// Advertise is the address at which others reach the server, with or without a port; empty is
	// Listen, which must name an address then.
	Advertise string `yaml:"advertise" help:"address that other services connect to (default: that of --listen)"`
	// TLS is the identity of the service on the cluster's authority.
	TLS pki.Files `yaml:"tls"`
	// Etcd is the cluster's etcd.
	Etcd EtcdConfig `yaml:"etcd"`
	// Metrics is the address of /metrics, by HTTPS with a client certificate; empty is 127.0.0.1 and
	// the service's port plus 1000, "off" is none.
	Metrics string `yaml:"metrics" help:"address to listen on for metrics, or off (default: 127.0.0.1, port of the service plus 1000)"`
	// Profiles serves /debug/pprof/ at the address of the metrics, to administrators.
	Profiles bool `yaml:"profiles" help:"serve Go profiles at the metrics address, for administrators"`
	// Log says what is logged, and how.
	Log LogConfig `yaml:"log"`
	// Drain says how to stop.
	Drain DrainConfig `yaml:"drain"`
	// GCPercent is Go's GOGC, which counts when the environment does not set it; low values trade CPU
	// for memory.
	GCPercent int `yaml:"gcPercent" help:"growth of the heap between collections, in percent; GOGC overrides it"`
}

// EtcdConfig says where etcd is. The files are those of etcd's own authority.
type EtcdConfig struct {
	// Endpoints are client URLs such as "https://10.0.0.1:2379".
	Endpoints []string `yaml:"endpoints" help:"client URLs of etcd"`
	// Files are the identity on etcd's authority; none for an etcd without TLS.
	pki.Files `yaml:",inline"`
}

// LogConfig says what is logged, and how.
type LogConfig struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level" help:"debug, info, warn or error"`
	// Format is json or console.
	Format string `yaml:"format" help:"json or console"`
}

// DrainConfig says how long a stopping service takes; see rpc.ServerConfig.
type DrainConfig struct {
	Delay time.Duration `yaml:"delay" help:"time for which a stopping service still accepts calls after it has reported NOT_SERVING"`
	Limit time.Duration `yaml:"limit" help:"time limit for calls in progress when the service stops"`
}

// Problem returns an error about one configuration key, such as "etcd.endpoints".
func Problem(key, format string, args ...any) error {
	return fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...))
}

// defaults returns the configuration of a service that was given none.
func defaults() Config {
	return Config{
		Log:       LogConfig{Level: "info", Format: "json"},
		Drain:     DrainConfig{Delay: 300 * time.Millisecond, Limit: 5 * time.Second},
		GCPercent: 100,
	}
}

// complete fills what depends on the service and the machine.
func (c *Config) complete(port int) error {
	if c.Host == "" {
		host, err := os.Hostname()
		if err != nil {
			return Problem("host", "required, because the kernel reports none: %v", err)
		}
		c.Host = host
	}
	c.Listen = cmp.Or(c.Listen, ":"+strconv.Itoa(port))
	c.Metrics = cmp.Or(c.Metrics, net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1000)))
	return nil
}

// advertised returns the address to register, given the one the server listens at.
func (c *Config) advertised(listening net.Addr) string {
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return listening.String()
	}
	if c.Advertise == "" {
		host, _, _ := net.SplitHostPort(c.Listen)
		return net.JoinHostPort(host, port)
	}
	if _, _, err := net.SplitHostPort(c.Advertise); err == nil {
		return c.Advertise
	}
	return net.JoinHostPort(c.Advertise, port)
}

// Validate returns all problems of a completed configuration, joined.
func (c *Config) Validate() error {
	var problems []error
	add := func(key, format string, args ...any) { problems = append(problems, Problem(key, format, args...)) }
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		add("listen", "%v", err)
	} else if c.Advertise == "" && (host == "" || net.ParseIP(host).IsUnspecified()) {
		add("advertise", "required, because listen (%s) contains no address of this machine", c.Listen)
	}
	if c.Metrics != diagnostics.Off {
		if _, _, err := net.SplitHostPort(c.Metrics); err != nil {
			add("metrics", "%v", err)
		}
	}
	for _, file := range []struct{ key, name string }{{"tls.ca", c.TLS.CA}, {"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key}} {
		if file.name == "" {
			add(file.key, "required")
		}
	}
	if len(c.Etcd.Endpoints) == 0 {
		add("etcd.endpoints", "required")
	}
	if !c.Etcd.Files.IsZero() && (c.Etcd.CA == "" || c.Etcd.Cert == "" || c.Etcd.Key == "") {
		add("etcd", "ca, cert and key must be set together")
	}
	if _, err := zapcore.ParseLevel(c.Log.Level); err != nil {
		add("log.level", "invalid value %q: want debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "json" && c.Log.Format != "console" {
		add("log.format", "invalid value %q: want json or console", c.Log.Format)
	}
	if c.Drain.Delay < 0 || c.Drain.Limit <= 0 {
		add("drain", "want delay of at least 0 and limit greater than 0")
	}
	return errors.Join(problems...)
}
