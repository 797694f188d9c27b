package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/tests/guests"
)

// modules are what the agent's packages and their tests need of a kernel.
var modules = []string{"veth", "bridge", "vxlan", "sch_ingress", "cls_bpf", "inet_diag", "udp_diag", "tcp_diag"}

// builder compiles what guests run.
type builder struct {
	t   *testing.T
	dir string
}

// newBuilder compiles the guest itself.
func newBuilder(t *testing.T) *builder {
	t.Helper()
	b := &builder{t, t.TempDir()}
	b.compile("build", "init", "./guest")
	return b
}

// compile makes a program that needs nothing beside itself.
func (b *builder) compile(command, name, pkg string) {
	b.t.Helper()
	args := []string{command, "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(b.dir, name), pkg}
	if command == "test" {
		args = append([]string{command, "-c"}, args[1:]...)
	}
	cmd := exec.CommandContext(b.t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// archive writes what the kernel finds in memory when it starts.
func (b *builder) archive(t *testing.T, path string, k *debian, tests []Test) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := cpio.NewWriter(file)
	add := func(name string, mode cpio.FileMode, content []byte) {
		t.Helper()
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "dev", "modules", "proc", "sys", "tests", "tmp"} {
		add(dir, cpio.TypeDir|0o755, nil)
	}
	plan := Plan{Tests: tests}
	for _, m := range k.closure(t, modules...) {
		name := "modules/" + m.name
		add(name, cpio.TypeReg|0o644, m.code)
		plan.Modules = append(plan.Modules, "/"+name)
	}
	// The kernel runs this first.
	add("init", cpio.TypeReg|0o755, b.program(t, "init"))
	for _, test := range tests {
		add(strings.TrimPrefix(test.Path, "/"), cpio.TypeReg|0o755, b.program(t, test.Name))
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	add("bin/sleep", cpio.TypeReg|0o755, content) // which is what it does by that name
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	add(strings.TrimPrefix(PlanPath, "/"), cpio.TypeReg|0o644, text)
	if err := errors.Join(w.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

func (b *builder) program(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// commandLine is the kernel's: it is silent but for what is wrong, and a panic is the end.
const commandLine = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nowatchdog"

// boot runs tests on a kernel and returns what they said. The test fails when the machine does not
// come to its end.
func (b *builder) boot(t *testing.T, k *debian, limit time.Duration, tests []Test) string {
	t.Helper()
	dir := guests.MemoryDir(t, "xebec-kernels-")
	archive, console, report := filepath.Join(dir, "initramfs"), filepath.Join(dir, "console"), filepath.Join(dir, "report")
	b.archive(t, archive, k, tests)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// QEMU 7.2's cmpxchg16b now and then leaves wrong flags behind, which is the end of Linux 6.12.
	// Without, kernels do the same by other means. Of several processors nothing here is the faster
	// for it.
	machine := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg", "-cpu", "qemu64,+rdrand,-cx16", "-smp", "1", "-m", "1536", "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", archive, "-append", commandLine, "-serial", "file:"+console, "-serial", "file:"+report)
	machine.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	began := time.Now()
	out, err := machine.CombinedOutput()
	said := read(t, report)
	if err == nil && strings.Contains(said, Done) {
		t.Logf("Linux %s took %v", k.release, time.Since(began).Round(time.Second))
		return said
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("not done in %v", limit)
	}
	t.Fatalf("Linux %s: %v\n%s\nthe console:\n%s\nthe report:\n%s", k.release, err, out, read(t, console), said)
	return ""
}

// read returns what a serial port has said, with the line ends of a file. Where the machine never
// began, that is nothing.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
}
