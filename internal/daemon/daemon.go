// Package daemon runs a control-plane service as a process: it reads the configuration, creates the
// logger, the connections and the server, registers the instance for discovery, and stops
// gracefully.
//
// The command of a service is a Spec:
//
//	func apiserverCommand() *cobra.Command {
//		return daemon.Command(daemon.Spec[apiserver.Config]{
//			Name:     "apiserver",
//			Short:    "Validate, store and serve objects of all kinds",
//			Port:     7001,
//			Defaults: apiserver.DefaultConfig(),
//			New: func(_ context.Context, cfg apiserver.Config, deps *daemon.Deps) (daemon.Service, error) {
//				return apiserver.New(cfg, kind.NewScheme(), deps.Etcd, deps.Log)
//			},
//		})
//	}
//
// Every exported field of the Config structs with a yaml tag is a key of the file, and, when it is
// a string, number, bool, duration, list of strings or unmarshals text, a flag: key etcd.endpoints
// is --etcd-endpoints. Flags override the file, and the file the defaults.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/diagnostics"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/retry"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/version"
)

// Service is run by a daemon. It may have two more methods:
//
//	Ready() <-chan struct{}            closed when calls may come; without it they may from the start
//	ConfigureServer(*rpc.ServerConfig) adapts the server before it is made, such as its Authorize
type Service interface {
	// Register registers the service's handlers; it is called once, before Run.
	Register(grpc.ServiceRegistrar)
	// Run works until ctx ends, which is after the server has drained, and returns nil then. An error
	// before ends the process.
	Run(ctx context.Context) error
}

// Spec describes a service with configuration C, a struct.
type Spec[C any] struct {
	// Name is the service's name: that of its command, its certificate (xebec:<name>) and its
	// registration.
	Name string
	// Short and Long are the command's help texts.
	Short, Long string
	// Port is the gRPC port when the configuration names none; metrics are at Port plus 1000.
	Port int
	// Defaults is the configuration that file and flags change. When *C has a method Validate() error,
	// it is called after both, and should return all problems, made by Problem and joined.
	Defaults C
	// New makes the service. It must not wait for the network; ctx ends with the process.
	New func(ctx context.Context, cfg C, deps *Deps) (Service, error)
}

// Deps is what a service can build on. All of it is released by the daemon after the service has
// ended.
type Deps struct {
	// Service and Host name the instance.
	Service, Host string
	// Log writes to the process's log.
	Log *zap.Logger
	// TLS is the service's identity.
	TLS *pki.Source
	// Etcd is a client of the cluster's etcd; it connects by itself and never gives up.
	Etcd *clientv3.Client
	// Directory finds the instances of services.
	Directory *discovery.Directory
	// APIServer is a connection to all apiservers, made when first used. The service acts as
	// xebec:<name> on it.
	APIServer *grpc.ClientConn
	// Metrics is where the service registers its metrics.
	Metrics *prometheus.Registry
}

// Instance returns the name of this process, such as "scheduler@master-1", as elections use it.
func (d *Deps) Instance() string { return d.Service + "@" + d.Host }

// Dial connects to another service as this one, for example "xebec:///scheduler". The caller closes
// the connection.
func (d *Deps) Dial(target string) (*grpc.ClientConn, error) {
	return rpc.Dial(target, d.clientConfig())
}

func (d *Deps) clientConfig() rpc.ClientConfig {
	return rpc.ClientConfig{TLS: d.TLS, Discovery: d.Directory, UserAgent: "xebec-" + d.Service + "/" + version.Version()}
}

// configuration is the whole of a service's file.
type configuration[C any] struct {
	Common  Config `yaml:",inline"`
	Service C      `yaml:",inline"`
}

// Command returns the command that runs the service until its context ends.
func Command[C any](spec Spec[C]) *cobra.Command {
	cfg := &configuration[C]{Common: defaults(), Service: spec.Defaults}
	return command(spec.Name, spec.Short, spec.Long, cfg, func(ctx context.Context) error {
		return Run(ctx, spec, cfg.Common, cfg.Service)
	})
}

// command is a command that fills cfg, a pointer to a struct, from its file and flags and then
// runs.
func command(name, short, long string, cfg any, run func(context.Context) error) *cobra.Command {
	var file string
	list := settings(reflect.ValueOf(cfg).Elem(), "")
	cmd := &cobra.Command{
		Use:           name,
		Short:         short,
		Long:          long,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadFile(file, cfg); err != nil {
				return err
			}
			for _, s := range list {
				if err := s.apply(); err != nil {
					return fmt.Errorf("--%s: %w", s.flagName(), err)
				}
			}
			return run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "YAML file with the configuration; flags override it")
	bindFlags(cmd.Flags(), list)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(list, err) })
	return cmd
}

// flagError adds the flag that may be meant to the error about an unknown one.
func flagError(list []*setting, err error) error {
	_, name, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	known := map[string]*setting{"config": nil}
	for _, s := range list {
		known[s.flagName()] = s
	}
	if near := nearest(name, known); near != "" {
		return fmt.Errorf("%w, did you mean --%s?", err, near)
	}
	return err
}

// Run runs the service until ctx ends or a part of it fails; the first error ends the rest. After
// ctx ended it returns nil.
func Run[C any](ctx context.Context, spec Spec[C], common Config, cfg C) error {
	if err := common.complete(spec.Port); err != nil {
		return err
	}
	problems := []error{common.Validate()}
	if validator, ok := any(&cfg).(interface{ Validate() error }); ok {
		problems = append(problems, validator.Validate())
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("invalid configuration of %s:\n%w", spec.Name, err)
	}
	if os.Getenv("GOGC") == "" && common.GCPercent > 0 {
		debug.SetGCPercent(common.GCPercent)
	}
	log, leftOut, err := newLogger(common.Log, os.Stderr)
	if err != nil {
		return err
	}
	log = log.With(zap.String(metrics.KeyService, spec.Name), zap.String(metrics.KeyHost, common.Host))
	defer func() { _ = log.Sync() }()

	deps, release, err := connect(spec.Name, common, log)
	if err != nil {
		return err
	}
	defer release()
	deps.Metrics.MustRegister(leftOut)
	service, err := spec.New(ctx, cfg, deps)
	if err != nil {
		return fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return run(ctx, common, service, deps)
}

// connect makes what the service builds on. Nothing of it waits for the network.
func connect(name string, common Config, log *zap.Logger) (deps *Deps, release func(), err error) {
	var closers []func()
	release = func() {
		for _, closer := range closers {
			defer closer()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	deps = &Deps{Service: name, Host: common.Host, Log: log, Metrics: prometheus.NewRegistry()}
	if deps.TLS, err = pki.NewSource(common.TLS); err != nil {
		return nil, nil, err
	}
	if user := pki.ServiceUser(name); deps.TLS.Leaf().Subject.CommonName != user {
		return nil, nil, fmt.Errorf("certificate %s belongs to %q, want %q: other services would refuse it",
			common.TLS.Cert, deps.TLS.Leaf().Subject.CommonName, user)
	}
	if deps.Etcd, err = dialEtcd(common.Etcd, log, deps.Metrics); err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = deps.Etcd.Close() })
	deps.Directory = discovery.New(deps.Etcd, log)
	closers = append(closers, deps.Directory.Close)
	if deps.APIServer, err = deps.Dial("xebec:///apiserver"); err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = deps.APIServer.Close() })
	registerProcess(deps)
	return deps, release, nil
}

// registerProcess adds the metrics that every process has.
func registerProcess(deps *Deps) {
	deps.Metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		retry.Process,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.CertificateExpiry, Help: "Unix time at which the process's own certificate expires.",
		}, func() float64 { return float64(deps.TLS.Leaf().NotAfter.Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metrics.BuildInfo, Help: "1, labelled with the build.",
			ConstLabels: prometheus.Labels{"version": version.Version(), "commit": version.Commit(), "go": version.GoVersion()},
		}, func() float64 { return 1 }),
	)
}

// run serves until ctx ends or something fails.
func run(ctx context.Context, common Config, service Service, deps *Deps) error {
	serverConfig := rpc.ServerConfig{
		Listen:     common.Listen,
		TLS:        deps.TLS,
		DrainDelay: common.Drain.Delay,
		DrainLimit: common.Drain.Limit,
		Metrics:    deps.Metrics,
	}
	if common.Drain.Delay == 0 {
		serverConfig.DrainDelay = -1
	}
	ready := alwaysReady()
	if s, ok := service.(interface{ Ready() <-chan struct{} }); ok {
		ready = s.Ready()
	}
	serverConfig.Ready = ready
	if s, ok := service.(interface{ ConfigureServer(*rpc.ServerConfig) }); ok {
		s.ConfigureServer(&serverConfig)
	}
	server, err := rpc.NewServer(serverConfig, deps.Log)
	if err != nil {
		return err
	}
	defer server.Close()
	service.Register(server)
	own, err := diagnostics.Listen(common.Metrics, diagnostics.Config{Gatherer: deps.Metrics, TLS: deps.TLS, Profiles: common.Profiles})
	if err != nil {
		return err
	}
	defer own.Close()

	group, ctx := errgroup.WithContext(ctx)
	// The service outlives the server's drain, so that the last calls still find it at work.
	serviceCtx, stopService := context.WithCancel(context.WithoutCancel(ctx))
	defer stopService()
	group.Go(func() error {
		defer stopService()
		return server.Serve(ctx)
	})
	group.Go(func() error {
		err := service.Run(serviceCtx)
		if serviceCtx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return nil
		}
		if err == nil {
			err = errors.New("terminated unexpectedly")
		}
		return fmt.Errorf("run %s: %w", deps.Service, err)
	})
	group.Go(func() error { return register(ctx, common.advertised(server.Addr()), ready, deps) })
	group.Go(func() error { return own.Serve(ctx) })
	deps.Log.Info("Started", zap.Stringer(metrics.KeyAddress, server.Addr()), zap.String(metrics.KeyVersion, version.Version()))
	err = group.Wait()
	deps.Log.Info("Stopped", zap.Error(err))
	return err
}

func alwaysReady() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

// register lists the instance once it is ready.
func register(ctx context.Context, address string, ready <-chan struct{}, deps *Deps) error {
	registered := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metrics.DiscoveryRegistered, Help: "1 while this instance is registered.",
	})
	deps.Metrics.MustRegister(registered)
	select {
	case <-ready:
	case <-ctx.Done():
		return nil
	}
	instance := discovery.Instance{Service: deps.Service, Host: deps.Host, Addr: address, Version: version.Version()}
	return discovery.Register(ctx, deps.Etcd, instance, deps.Log, func(on bool) {
		value := 0.0
		if on {
			value = 1
		}
		registered.Set(value)
		deps.Log.Info("Registration changed", zap.Bool(metrics.KeyRegistered, on), zap.String(metrics.KeyAddress, address))
	})
}
