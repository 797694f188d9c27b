package hosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab/cgroup"
	"github.com/xebec-project/xebec/lab/machine"
)

const (
	// reaperVariable, set in the environment, makes the test program the reaper of a site: its prefix,
	// its directory, and whether the directory of named namespaces was mounted before.
	reaperVariable = "XEBEC_HOSTS_REAPER"
	// holdVariable makes TestHeldSite boot a host and wait to be killed.
	holdVariable = "XEBEC_HOSTS_HOLD"
	allIsWell    = "well"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(reaperVariable); spec != "" {
		if err := reap(spec, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startReaper starts a process that removes every trace of the site when this one ends without
// doing so: no test cleans up after a SIGKILL. The function returned ends it.
func (s *site) startReaper(mounted bool) (stop func() error, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %t", reaperVariable, s.prefix, s.dir, mounted))
	// Not of this process' group, which gets the signals of a terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_, err := io.WriteString(stdin, allIsWell)
		return errors.Join(err, stdin.Close(), cmd.Wait())
	}, nil
}

// reap waits for the end of the process that made a site, and cleans up after it unless it says
// that all is well.
func reap(spec string, in io.Reader) error {
	var prefix, dir string
	var mounted bool
	if _, err := fmt.Sscan(spec, &prefix, &dir, &mounted); err != nil {
		return err
	}
	if said, err := io.ReadAll(in); err != nil || string(said) == allIsWell {
		return err
	}
	hier, err := cgroup.Find()
	if err != nil {
		return err
	}
	return removeSite(hier, prefix, dir, mounted)
}

// removeSite removes every trace of a site from the real machine: processes, cgroups, mounts,
// network namespaces, disks.
func removeSite(hier cgroup.Hierarchies, prefix, dir string, mounted bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	errs := []error{hier.Kill(ctx, prefix)}
	disks, err := filepath.Glob(filepath.Join(dir, "*", "root"))
	errs = append(errs, err)
	for _, disk := range disks {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", disk, err))
		}
	}
	namespaces, err := filepath.Glob(filepath.Join("/run/netns", prefix+"-*"))
	errs = append(errs, err)
	for _, path := range namespaces {
		name := filepath.Base(path)
		for _, kind := range []string{"propagate", "unix-export"} {
			left := filepath.Join("/run/systemd/nspawn", kind, name)
			_ = unix.Unmount(left, unix.MNT_DETACH)
			_ = os.Remove(left)
		}
		errs = append(errs, machine.DeleteNamespace(name))
	}
	errs = append(errs, hier.Remove(ctx, prefix))
	if !mounted {
		errs = append(errs, machine.ReleaseNetnsDir())
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// TestHeldSite is the run that TestNothingIsLeftOfAKilledRun kills.
func TestHeldSite(t *testing.T) {
	if os.Getenv(holdVariable) == "" {
		t.Skip("is a part of another test")
	}
	needHosts(t)
	s := newSite(t)
	if err := s.add("held", netip.MustParseAddr("10.91.7.9")).boot(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("held %s %s\n", s.prefix, s.dir)
	<-t.Context().Done()
}

func TestNothingIsLeftOfAKilledRun(t *testing.T) {
	needHosts(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHeldSite$", "-test.v")
	cmd.Env = append(os.Environ(), holdVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var prefix, dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "held %s %s", &prefix, &dir); err != nil && strings.Contains(lines.Text(), "held.") {
			t.Fatal(lines.Text())
		}
	}
	if dir == "" {
		t.Fatalf("no host came up: %v", cmd.Wait())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	hier, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for end := time.After(stopLimit); ; {
		namespaces, _ := filepath.Glob("/run/netns/" + prefix + "-*")
		_, err := os.Stat(dir)
		if len(namespaces) == 0 && os.IsNotExist(err) && !hier.Exists(prefix) {
			return
		}
		select {
		case <-ticker.C:
		case <-end:
			t.Fatalf("after a run that was killed there are %v, %s (%v), cgroup %s: %t", namespaces, dir, err, prefix, hier.Exists(prefix))
		}
	}
}
