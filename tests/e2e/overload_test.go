package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/lab/cgroup"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// overloadLong, set in the environment, holds every harm for a minute and starts the masters cold
	// besides; it takes six minutes or more.
	overloadLong = "XEBEC_OVERLOAD"
	// logPerMinute bounds what the masters' logs grow by while nearly everything fails.
	logPerMinute = 10 << 20
)

// starve lets everything on the hosts have so many processors in all, 0 for no limit. A host that
// is down gets the limit when it is booted.
func (s *ship) starve(t *testing.T, processors float64, hosts ...string) {
	t.Helper()
	hier, err := cgroup.Find()
	if err != nil {
		t.Fatal(err)
	}
	const period = 100_000 // µs
	value := map[string]string{"cpu.cfs_quota_us": "-1", "cpu.max": fmt.Sprintf("max %d", period)}
	if processors > 0 {
		quota := int(processors * period)
		value = map[string]string{"cpu.cfs_quota_us": fmt.Sprint(quota), "cpu.max": fmt.Sprintf("%d %d", quota, period)}
	}
	var group errgroup.Group
	for _, name := range hosts {
		var path string
		for _, h := range s.Spec.Hosts() {
			if h.Name == name {
				path = h.Cgroup
			}
		}
		group.Go(func() error {
			for limit := time.Now().Add(waitLimit); ; <-time.After(time.Millisecond) {
				for _, mount := range append(slices.Clone(hier.Legacy), hier.Unified) {
					for file, text := range value {
						err := os.WriteFile(filepath.Join(mount, path, file), []byte(text), 0)
						if err == nil {
							return nil
						}
					}
				}
				if time.Now().After(limit) {
					return fmt.Errorf("%s has no cgroup that limits processor time", name)
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// logged returns the bytes in the logs of the masters.
func (s *ship) logged(t *testing.T) int64 {
	t.Helper()
	var sum int64
	for _, h := range s.Spec.MasterHosts() {
		err := filepath.WalkDir(filepath.Join(s.Spec.StateDir, "logs", h.Name), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			sum += info.Size()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sum
}

// TestOverload takes from the control plane what it needs to keep up, while writes go on, and gives
// it back: the cluster is whole again by itself, has lost nothing that it acknowledged, has moved
// no pod and has not filled its disks with logs.
func TestOverload(t *testing.T) {
	ownLabs.join(t)
	long := os.Getenv(overloadLong) != ""
	hold := 10 * time.Second
	if long {
		hold = time.Minute
	}
	s := ownShip(t, lab.Options{Masters: 3, Nodes: 1})
	s.loadImages(t)
	p := s.person(t)
	p.apply(t, sample(t, "echo.yaml"))
	want := uids(await(t, s.client, p.namespace, "three pods", waitLimit, func(pods []*corev1.Pod) bool {
		return len(pods) == 3 && allReady(pods, "echo", 3)
	}))
	var masters []string
	for _, h := range s.Spec.MasterHosts() {
		masters = append(masters, h.Name)
	}
	signal := func(t *testing.T, sig unix.Signal) {
		t.Helper()
		for _, master := range masters {
			if err := unix.Kill(s.process(t, master+"/etcd").PID, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	starved := func(processors float64) func(t *testing.T) {
		return func(t *testing.T) {
			s.starve(t, processors, masters...)
			<-time.After(hold)
			s.starve(t, 0, masters...)
		}
	}
	harms := []struct {
		name string
		long bool
		do   func(t *testing.T)
	}{
		{"etcd is stopped for 10 s", false, func(t *testing.T) {
			signal(t, unix.SIGSTOP)
			<-time.After(10 * time.Second)
			signal(t, unix.SIGCONT)
		}},
		{"0.15 of a processor for each master", false, starved(0.15)},
		{"0.03 of a processor for each master", true, starved(0.03)},
		{"a cold start on 0.1 of a processor for each master", true, func(t *testing.T) {
			var group errgroup.Group
			for _, master := range masters {
				group.Go(func() error { return s.Kill(t.Context(), master, lab.KillOptions{}) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for _, master := range masters {
				group.Go(func() error { return s.Start(t.Context(), master) })
			}
			s.starve(t, 0.1, masters...)
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			s.awaitWhole(t)
			t.Logf("whole %.1f s after the start", time.Since(began).Seconds())
			s.starve(t, 0, masters...)
		}},
	}
	for _, h := range harms {
		if h.long && !long {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			w := p.write(t)
			w.awaitWrites(t, 10)
			before, began := s.logged(t), time.Now()
			h.do(t)
			given := time.Now()
			s.awaitWhole(t)
			w.awaitWrites(t, 20)
			t.Logf("whole %.1f s after it had what it needs", time.Since(given).Seconds())
			w.finish(t)
			grown, minutes := s.logged(t)-before, max(1, time.Since(began).Minutes())
			t.Logf("the masters' logs grew by %d KiB", grown>>10)
			if float64(grown) > logPerMinute*minutes {
				t.Errorf("the masters' logs grew by %d bytes in %.1f minutes", grown, minutes)
			}
			got := uids(await(t, s.client, p.namespace, "three pods", waitLimit, func(pods []*corev1.Pod) bool {
				return len(pods) == 3 && allReady(pods, "echo", 3)
			}))
			if !slices.Equal(got, want) {
				t.Errorf("pods %v are there, want %v", got, want)
			}
		})
	}
}
