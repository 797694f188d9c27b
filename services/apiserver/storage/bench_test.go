package storage

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// cpuTime is the processor time of this process so far, that of the etcd inside it included.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU reports the processor time per operation since the returned function was made.
func reportCPU(b *testing.B) func() {
	began := cpuTime(b)
	return func() { b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(b.N), "cpu-us/op") }
}

func kilobyte(b *testing.B, key Key) []byte {
	data := make([]byte, 900)
	for i := range data {
		data[i] = 'x'
	}
	return marshal(b, &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, Labels: map[string]string{"app": "bench"}},
		Data:     map[string]string{"data": string(data)},
	})
}

func configMapKey(i int64) Key {
	return Key{Kind: "ConfigMap", Namespace: "default", Name: fmt.Sprintf("bench-%08d", i)}
}

const benchClients = 16

func BenchmarkCreate(b *testing.B) {
	s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(benchClients / 2)
	report := reportCPU(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			key := configMapKey(n.Add(1))
			if _, err := s.Commit(context.Background(), Txn{Writes: []Write{{Key: key, Bytes: kilobyte(b, key)}}}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	report()
}

func BenchmarkGet(b *testing.B) {
	for _, clients := range []int{1, benchClients, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
			for i := range int64(100) {
				mustCommit(b, s, Write{Key: configMapKey(i), Bytes: kilobyte(b, configMapKey(i))})
			}
			b.ReportAllocs()
			report := reportCPU(b)
			b.ResetTimer()
			var n atomic.Int64
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					key := configMapKey(7)
					for n.Add(1) <= int64(b.N) {
						if _, err := s.Get(context.Background(), key); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			report()
		})
	}
}

func BenchmarkGetCached(b *testing.B) {
	s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
	mustCommit(b, s, Write{Key: configMapKey(1), Bytes: kilobyte(b, configMapKey(1))})
	if _, err := s.Get(context.Background(), configMapKey(1)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.GetCached(configMapKey1); !ok {
			b.Fatal("gone")
		}
	}
}

var configMapKey1 = configMapKey(1)

// One create, seen by the last of 100 watchers.
func BenchmarkFanOut(b *testing.B) {
	const watchers = 100
	s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var started, seen sync.WaitGroup
	started.Add(watchers)
	for range watchers {
		go s.Watch(ctx, WatchOptions{Kind: "ConfigMap"}, func(events []Event) error {
			for _, e := range events {
				if e.InitialStateEnd {
					started.Done()
				} else if len(e.Frame()) > 1000 {
					seen.Done()
				}
			}
			return nil
		})
	}
	started.Wait()
	b.ReportAllocs()
	report := reportCPU(b)
	var i int64
	for b.Loop() {
		i++
		key := configMapKey(i)
		seen.Add(watchers)
		if _, err := s.Commit(ctx, Txn{Writes: []Write{{Key: key, Bytes: kilobyte(b, key)}}}); err != nil {
			b.Fatal(err)
		}
		seen.Wait()
	}
	report()
}

func BenchmarkList(b *testing.B) {
	s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
	var writes []Write
	for i := range int64(1000) {
		writes = append(writes, Write{Key: configMapKey(i), Bytes: kilobyte(b, configMapKey(i))})
	}
	mustCommit(b, s, writes...)
	b.ReportAllocs()
	report := reportCPU(b)
	for b.Loop() {
		if list, err := s.List(context.Background(), ListOptions{Kind: "ConfigMap"}); err != nil || len(list.Objects) != 1000 {
			b.Fatal(err)
		}
	}
	report()
}

func BenchmarkLeaseKeepAlive(b *testing.B) {
	s, _ := openStore(b, etcdtest.New(b, 1).Client(), Config{})
	id, _, err := s.LeaseGrant(context.Background(), 0, 60, "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	report := reportCPU(b)
	for b.Loop() {
		if _, err := s.LeaseKeepAlive(context.Background(), id); err != nil {
			b.Fatal(err)
		}
	}
	report()
}
