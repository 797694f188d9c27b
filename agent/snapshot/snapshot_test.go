package snapshot_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/snapshot"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func objects() []scheme.Object {
	return []scheme.Object{
		&corev1.Service{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: &corev1.ServiceSpec{ClusterIp: "10.96.0.1"}},
		&discoveryv1.EndpointSlice{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web-x"}},
		&corev1.Node{},
	}
}

func expect(t *testing.T, path string, want []scheme.Object) {
	t.Helper()
	got, err := snapshot.Load(path)
	if err != nil || !slices.EqualFunc(got, want, func(a, b scheme.Object) bool { return proto.Equal(a, b) }) {
		t.Errorf("loaded %v, %v; want %v", got, err, want)
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	expect(t, path, nil)
	for _, list := range [][]scheme.Object{objects(), nil, objects()[1:]} {
		if err := snapshot.Save(path, slices.Values(list)); err != nil {
			t.Fatal(err)
		}
		expect(t, path, list)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// Whatever a power cut left of the file, it is taken whole or not at all.
func TestDamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	if err := snapshot.Save(path, slices.Values(objects())); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := snapshot.Load(path); err == nil {
			t.Fatalf("the first %d of %d bytes were taken as %v", n, len(whole), got)
		}
		bent := slices.Clone(whole)
		bent[n] ^= 0x10
		if err := os.WriteFile(path, bent, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := snapshot.Load(path); err == nil {
			t.Fatalf("with byte %d bent it was taken as %v", n, got)
		}
	}
}

// However often the objects change, writes are rare, and the last change is written when the agent
// stops.
func TestKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster")
	synctest.Test(t, func(t *testing.T) {
		writes, list := 0, objects()[:1]
		k := snapshot.NewKeeper(path, func(yield func(scheme.Object) bool) {
			writes++
			slices.Values(list)(yield)
		}, zaptest.NewLogger(t))
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- k.Run(ctx) }()
		for range 600 {
			k.Changed()
			<-time.After(100 * time.Millisecond)
		}
		synctest.Wait()
		if writes < 5 || writes > 12 {
			t.Errorf("%d writes in a minute of changes", writes)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		before := writes
		<-time.After(time.Hour)
		synctest.Wait()
		if writes != before {
			t.Errorf("%d writes without a change", writes-before)
		}
		list = objects()
		k.Changed()
		synctest.Wait()
		stop()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	expect(t, path, objects())
}
