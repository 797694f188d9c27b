package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"go.uber.org/goleak"
)

// TestMain lets the test's own program stand in for a lab's programs, which find themselves by the
// name they are started under. The lab's supervisor, etcd's place in the order of starting,
// containerd, namespaces, cgroups and eBPF are real.
func TestMain(m *testing.M) {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "xebec":
		cmd := Command()
		cmd.SetArgs(os.Args[2:]) // without "lab"
		err = cmd.Execute()
	case "xebecd":
		err = standInService(os.Args[1])
	case "xebec-agent":
		err = standInAgent()
	default:
		goleak.VerifyTestMain(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// standInService listens where the service would. What connects to the gateway is greeted with the
// host's name, then gets back what it sends.
func standInService(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port := map[string]string{"etcd": "2379", "gateway": "6443"}[name]
	if port == "" {
		<-ctx.Done()
		return nil
	}
	uplink, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	addrs, err := uplink.Addrs()
	if err != nil {
		return err
	}
	ip, _, err := net.ParseCIDR(addrs[0].String())
	if err != nil {
		return err
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort(ip.String(), port))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("serving", name)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer conn.Close()
			fmt.Fprintln(conn, host)
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// programName is the eBPF program's that a stand-in agent of the lab attaches.
func programName(lab string) string { return "xbt_" + lab }

// standInAgent attaches a program to its host's cgroup and pins it, as the real one does.
func standInAgent() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	var path string
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = filepath.Dir(strings.TrimSpace(rest))
		}
	}
	lab, _, _ := strings.Cut(strings.TrimPrefix(path, "/xb-"), "/")
	root := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	const pin = "/sys/fs/bpf/connect4"
	if _, err := os.Stat(pin); err != nil {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: programName(lab), Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			return err
		}
		attached, err := link.AttachCgroup(link.CgroupOptions{Path: filepath.Join(root, path), Attach: ebpf.AttachCGroupInet4Connect, Program: program})
		if err != nil {
			return err
		}
		if err := attached.Pin(pin); err != nil {
			return err
		}
	}
	fmt.Println("attached to", path)
	<-ctx.Done()
	return nil
}
