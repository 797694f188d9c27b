package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xebec-project/xebec/agent/sandbox"
	"github.com/xebec-project/xebec/internal/kinds/core"
)

// cfsPeriod is the period of CPU limits, in microseconds.
const cfsPeriod = 100_000

// ContainerConfig says what container to make.
type ContainerConfig struct {
	PodUID, PodNamespace, PodName string
	// Name is the container's in its pod, Attempt how often it was restarted.
	Name    string
	Attempt int
	// Image is the full name of an image that is on the node.
	Image string
	// Handler is the name of the runtime handler, empty for the default.
	Handler string
	// Command replaces the image's entrypoint, Args its arguments, as in a pod's spec.
	Command, Args []string
	// Env is added to the image's, each "NAME=value".
	Env []string
	// WorkingDir replaces the image's when not empty.
	WorkingDir string
	Mounts     []Mount
	// Sandbox holds the namespaces that the pod's containers share.
	Sandbox sandbox.Sandbox
	// HostPID leaves the container in the node's PID namespace.
	HostPID bool
	// PIDNamespace is the path of the PID namespace to enter, empty for one of the container's own.
	PIDNamespace string
	// TTY gives the container a terminal, and Stdin a standard input, which with StdinOnce ends when
	// the first who attached to it has gone. One can attach to a container with either; StreamDir is
	// where its streams are then.
	TTY, Stdin, StdinOnce bool
	StreamDir             string

	Resources Resources
	Security  Security
	// LogPath is the file that the output goes to.
	LogPath string
}

// Mount binds a path of the node into the container.
type Mount struct {
	Source, Target string
	// File, when not nil, is what is bound instead of Source: an open file or directory, also one
	// opened with O_PATH. A source that a container can change, or a part of its path, must be given
	// so. It stays open until Start has returned.
	File     *os.File
	ReadOnly bool
	// ReadOnlyBelow makes what is mounted below the source read-only as well; see
	// Runtime.ReadOnlyBelow.
	ReadOnlyBelow bool
	// Options are further ones of the mount itself: noexec, nodev, nosuid.
	Options     []string
	Propagation Propagation
}

// Propagation says which mounts made later on one side of a mount appear on the other, as
// Kubernetes names it. Empty is PropagationNone.
type Propagation string

// The ways of propagation.
const (
	PropagationNone            Propagation = "None"
	PropagationHostToContainer Propagation = "HostToContainer"
	PropagationBidirectional   Propagation = "Bidirectional"
)

// Resources bounds what a container, or a pod, uses. Zero values set no bound.
type Resources struct {
	// MilliCPURequest sets the container's share of a contended CPU; 0 stands for the least share.
	MilliCPURequest int64
	// MilliCPULimit is the most CPU time used, in thousandths of a CPU.
	MilliCPULimit int64
	// MemoryRequest is in bytes. Nothing is bounded by it.
	MemoryRequest int64
	// MemoryLimit is in bytes.
	MemoryLimit int64
	// OOMScoreAdj, when positive, makes the kernel kill the container rather than others when the
	// node's memory runs out. The score is only ever raised: lowering it takes a privilege that the
	// agent may not have.
	OOMScoreAdj int
}

// Security is who the container's processes are and what they may do.
type Security struct {
	// User and Group replace the image's when not nil.
	User, Group *int64
	// Groups are further groups.
	Groups []int64
	// NonRoot refuses to run as user 0.
	NonRoot bool
	// AddCapabilities and DropCapabilities change Docker's default set. Names are in any case, with or
	// without "CAP_"; "ALL" stands for all. A name that is unknown is an error.
	AddCapabilities, DropCapabilities []string
	Privileged                        bool
	ReadOnlyRoot                      bool
	// NoNewPrivileges keeps set-user-id programs from gaining rights.
	NoNewPrivileges bool
	// DefaultSeccomp applies containerd's default system call filter.
	DefaultSeccomp bool
	// SeccompProfile is the path of a filter as the OCI runtime specification has it, which applies
	// instead. Without either there is none.
	SeccompProfile string
	AppArmor       AppArmor
	// StrictGroups leaves the groups out that the image's /etc/group gives the user.
	StrictGroups bool
	// UnmaskedProc shows all of /proc.
	UnmaskedProc bool
	// Sysctls are parameters of the sandbox's namespaces.
	Sysctls map[string]string
}

// specOpts are the steps from containerd's default spec to the container's own.
func specOpts(cfg ContainerConfig, image ocispec.Image, cgroup string) oci.SpecOpts {
	opts := []oci.SpecOpts{
		withProcess(cfg, image.Config),
		withUser(cfg.Security, image.Config.User),
		withNamespaces(cfg),
		oci.WithCgroup(cgroup),
		withResources(cfg.Resources),
		oci.WithDefaultUnixDevices,
		withMounts(cfg),
		withSecurity(cfg.Security),
		withAppArmor(cfg.Security.AppArmor),
	}
	return oci.Compose(opts...)
}

func withProcess(cfg ContainerConfig, image ocispec.ImageConfig) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Args = processArgs(cfg, image)
		if len(s.Process.Args) == 0 {
			return errors.New("no command specified: neither the pod nor the image has one")
		}
		s.Process.Env = processEnv(cfg, image)
		s.Process.Cwd = "/"
		for _, dir := range []string{image.WorkingDir, cfg.WorkingDir} {
			if dir != "" {
				s.Process.Cwd = dir
			}
		}
		s.Process.Terminal = cfg.TTY
		// Limits are those of the shim, as with other runtimes of Kubernetes; containerd's default spec
		// has 1024 files.
		s.Process.Rlimits = nil
		s.Process.NoNewPrivileges = cfg.Security.NoNewPrivileges
		return nil
	}
}

func processArgs(cfg ContainerConfig, image ocispec.ImageConfig) []string {
	command, args := cfg.Command, cfg.Args
	if len(command) == 0 {
		command = image.Entrypoint
		if len(args) == 0 {
			args = image.Cmd
		}
	}
	return slices.Concat(command, args)
}

func processEnv(cfg ContainerConfig, image ocispec.ImageConfig) []string {
	var env []string
	at := map[string]int{}
	set := func(e string) {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			env[i] = e
			return
		}
		at[name] = len(env)
		env = append(env, e)
	}
	set("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if cfg.TTY {
		set("TERM=xterm")
	}
	for _, e := range slices.Concat(image.Env, cfg.Env) {
		set(e)
	}
	return env
}

func withUser(sec Security, imageUser string) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
		set := oci.WithUser(imageUser)
		switch {
		case sec.User != nil:
			set = oci.WithUserID(uint32(*sec.User))
		case imageUser == "":
			set = oci.WithUIDGID(0, 0)
		}
		if err := set(ctx, client, c, s); err != nil {
			return fmt.Errorf("setting the user: %w", err)
		}
		uid := s.Process.User.UID
		if sec.NonRoot && uid == 0 {
			return errors.New("container has runAsNonRoot and would run as root")
		}
		if !sec.StrictGroups {
			if err := oci.WithAdditionalGIDs(strconv.FormatUint(uint64(uid), 10))(ctx, client, c, s); err != nil {
				return fmt.Errorf("setting the groups: %w", err)
			}
		}
		if sec.Group != nil {
			s.Process.User.GID = uint32(*sec.Group)
		}
		for _, g := range sec.Groups {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(g))
		}
		return nil
	}
}

func withNamespaces(cfg ContainerConfig) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		if !cfg.HostPID {
			ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: cfg.PIDNamespace})
		}
		for _, shared := range []specs.LinuxNamespace{
			{Type: specs.NetworkNamespace, Path: cfg.Sandbox.Net},
			{Type: specs.IPCNamespace, Path: cfg.Sandbox.IPC},
			{Type: specs.UTSNamespace, Path: cfg.Sandbox.UTS},
		} {
			if shared.Path != "" {
				ns = append(ns, shared)
			}
		}
		s.Linux.Namespaces = ns
		return nil
	}
}

func withResources(r Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		shares := cpuShares(r.MilliCPURequest)
		cpu := &specs.LinuxCPU{Shares: &shares}
		if r.MilliCPULimit > 0 {
			period, quota := uint64(cfsPeriod), cpuQuota(r.MilliCPULimit)
			cpu.Period, cpu.Quota = &period, &quota
		}
		s.Linux.Resources.CPU = cpu
		if r.MemoryLimit > 0 {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &r.MemoryLimit}
			if unifiedCgroups() {
				// All of the container ends when its memory is used up, not one process of it, with which the
				// rest can't do.
				s.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
			}
		}
		if r.OOMScoreAdj > 0 {
			s.Process.OOMScoreAdj = &r.OOMScoreAdj
		}
		return nil
	}
}

// cpuShares turns thousandths of a CPU into the kernel's shares: 1024 for each CPU, at least 2, at
// most 262144.
func cpuShares(milli int64) uint64 {
	return uint64(min(max(milli*1024/1000, 2), 262144))
}

func withMounts(cfg ContainerConfig) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool {
			return m.Destination == "/run" || m.Destination == "/dev/shm" ||
				slices.ContainsFunc(cfg.Mounts, func(own Mount) bool { return own.Target == m.Destination })
		})
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		})
		if cfg.Sandbox.Shm != "" {
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: "/dev/shm", Type: "bind", Source: cfg.Sandbox.Shm, Options: []string{"rbind", "rw", "nosuid", "nodev", "noexec"},
			})
		}
		// A mount below another must come after it.
		own := slices.SortedStableFunc(slices.Values(cfg.Mounts), func(a, b Mount) int {
			return strings.Count(strings.TrimSuffix(a.Target, "/"), "/") - strings.Count(strings.TrimSuffix(b.Target, "/"), "/")
		})
		for _, m := range own {
			mode := "rw"
			switch {
			case m.ReadOnlyBelow:
				mode = "rro"
			case m.ReadOnly:
				mode = "ro"
			}
			propagation := "rprivate"
			switch m.Propagation {
			case PropagationHostToContainer:
				propagation = "rslave"
				if s.Linux.RootfsPropagation != "rshared" {
					s.Linux.RootfsPropagation = "rslave"
				}
			case PropagationBidirectional:
				propagation, s.Linux.RootfsPropagation = "rshared", "rshared"
			}
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: m.Target, Type: "bind", Source: m.Source, Options: append([]string{"rbind", propagation, mode}, m.Options...),
			})
		}
		return nil
	}
}

func withSecurity(sec Security) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, c *containers.Container, s *oci.Spec) error {
		if sec.ReadOnlyRoot {
			s.Root.Readonly = true
		}
		s.Linux.Sysctl = sec.Sysctls
		if sec.UnmaskedProc {
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		}
		if sec.Privileged {
			return oci.Compose(oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices, oci.WithNewPrivileges)(ctx, client, c, s)
		}
		opts, err := withCapabilities(sec)
		if err != nil {
			return err
		}
		switch {
		case sec.SeccompProfile != "":
			opts = append(opts, seccomp.WithProfile(sec.SeccompProfile))
		case sec.DefaultSeccomp:
			opts = append(opts, seccomp.WithDefaultProfile())
		}
		return oci.Compose(opts...)(ctx, client, c, s)
	}
}

// withCapabilities changes the default set as containerd's CRI does: all are added first, then all
// are dropped, so that "drop ALL" wins and "all but" can be said by naming some.
func withCapabilities(sec Security) ([]oci.SpecOpts, error) {
	add, addAll, err := capabilities("add", sec.AddCapabilities)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capabilities("drop", sec.DropCapabilities)
	if err != nil {
		return nil, err
	}
	var opts []oci.SpecOpts
	if addAll {
		opts = append(opts, oci.WithAllCurrentCapabilities)
	}
	if dropAll {
		opts = append(opts, oci.WithCapabilities(nil))
	}
	return append(opts, oci.WithAddedCapabilities(add), oci.WithDroppedCapabilities(drop)), nil
}

// capabilities returns the full names of a list of capabilities, and whether all of them are in it.
func capabilities(list string, names []string) (full []string, all bool, err error) {
	for _, n := range names {
		short, known := core.Capability(n)
		switch {
		case !known:
			return nil, false, fmt.Errorf(
				"securityContext.capabilities.%s: unknown capability %q: want a name of capabilities(7), such as NET_ADMIN, or ALL",
				list,
				n,
			)
		case short == "ALL":
			all = true
		default:
			full = append(full, "CAP_"+short)
		}
	}
	return full, all, nil
}
