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
	// Host is the name of the machine, under which the instance is registered; empty is the kernel's host name.
	Host string `yaml:"host" help:"name of this machine (default: the kernel's host name)"`
	// Listen is the address of the gRPC server; empty is every address and the service's own port.
	Listen string `yaml:"listen" help:"address to serve gRPC at (default: the service's port on every address)"`
	// Advertise is the address at which others reach the server, with or without a port; empty is Listen, which must
	// name an address then.
	Advertise string `yaml:"advertise" help:"address at which others reach the gRPC server (default: that of --listen)"`
	// TLS is the identity of the service on the cluster's authority.
	TLS pki.Files `yaml:"tls"`
	// Etcd is the cluster's etcd.
	Etcd EtcdConfig `yaml:"etcd"`
	// Metrics is the address of /metrics, by HTTPS with a client certificate; empty is 127.0.0.1 and the service's port plus
	// 1000, "off" is none.
	Metrics string `yaml:"metrics" help:"address to serve metrics at, or off (default: 127.0.0.1, the service's port plus 1000)"`
	// Profiles serves /debug/pprof/ at the address of the metrics, to administrators.
	Profiles bool `yaml:"profiles" help:"serve Go's profiles where the metrics are, to administrators"`
	// Log says what is logged, and how.
	Log LogConfig `yaml:"log"`
	// Drain says how to stop.
	Drain DrainConfig `yaml:"drain"`
	// GCPercent is Go's GOGC, which counts when the environment does not set it; low values trade CPU for memory.
	GCPercent int `yaml:"gcPercent" help:"how far the heap may grow between collections, in percent; the environment's GOGC counts before it"`
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
	Delay time.Duration `yaml:"delay" help:"how long a stopping service still takes calls after it says so"`
	Limit time.Duration `yaml:"limit" help:"how long calls get to end before they are cut off"`
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
			return Problem("host", "not given, and the kernel does not tell: %v", err)
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
		add("advertise", "required, for listen (%s) names no address of this machine", c.Listen)
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
		add("etcd", "ca, cert and key go together")
	}
	if _, err := zapcore.ParseLevel(c.Log.Level); err != nil {
		add("log.level", "%q is none of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "json" && c.Log.Format != "console" {
		add("log.format", "%q is neither json nor console", c.Log.Format)
	}
	if c.Drain.Delay < 0 || c.Drain.Limit <= 0 {
		add("drain", "delay must not be negative and limit must be more than 0")
	}
	return errors.Join(problems...)
}
