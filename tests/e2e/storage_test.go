package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// A small control plane whose etcd the test has in its hands. It needs no root. Tests that fill an
// etcd run alone, in no queue.
func controlPlane(t *testing.T, settings func(service string, settings map[string]any)) (*cluster.Cluster, *client.Client) {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), upLimit)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: p.bin, Masters: 1, Services: []string{"etcd", "apiserver", "gateway"}, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := c.Dial("gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return c, client.New(conn, client.WithFieldManager("e2e"))
}

// filler is a ConfigMap of about a megabyte.
func filler(i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("filler-%d", i)},
		Data:     map[string]string{"data": strings.Repeat("x", 1<<20)},
	}
}

// When etcd is full, writes are refused with what to do about it, reads go on, and once there is
// room again writes do, with nothing lost.
func TestStorageFull(t *testing.T) {
	const quota = 64 << 20 // the least that a member takes
	plane, c := controlPlane(t, func(service string, settings map[string]any) {
		if service == "etcd" {
			settings["quotaBytes"] = quota
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()

	stored := 0
	var full error
	for ; stored < 2*quota>>20 && full == nil; stored++ {
		_, full = client.Create(ctx, c, filler(stored))
	}
	stored--
	mustBe(t, "a write to a full etcd", full, apierr.ReasonStorageFull)
	for _, want := range []string{"compacted", "defragmented", "disarmed"} {
		if full == nil || !strings.Contains(full.Error(), want) {
			t.Errorf("the error does not say what to do (%q): %v", want, full)
		}
	}
	t.Logf("%d MiB were written before etcd was full: %v", stored, full)
	_, err := client.Create(ctx, c, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "small"}})
	mustBe(t, "a small write to a full etcd", err, apierr.ReasonStorageFull)

	// Reads go on: old objects one by one, all of them, and the watch that the list begins.
	if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "filler-0"); err != nil {
		t.Errorf("get: %v", err)
	}
	if got := len(fillers(ctx, t, c)); got != stored {
		t.Errorf("%d of %d objects are listed", got, stored)
	}

	// Deletions make room, and are possible.
	const deleted = 40
	for i := range deleted {
		if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", fmt.Sprintf("filler-%d", i)); err != nil {
			t.Fatalf("delete from a full etcd: %v", err)
		}
	}
	if err := recoverSpace(ctx, plane); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes go on", waitLimit, func() error {
		_, err := client.Create(ctx, c, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "small"}})
		if apierr.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	if got := len(fillers(ctx, t, c)); got != stored-deleted {
		t.Errorf("%d objects are there, want %d", got, stored-deleted)
	}
}

func fillers(ctx context.Context, t *testing.T, c *client.Client) []*corev1.ConfigMap {
	t.Helper()
	objects, _, err := client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default", PageSize: 10})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return slices.DeleteFunc(objects, func(c *corev1.ConfigMap) bool { return !strings.HasPrefix(c.GetMetadata().GetName(), "filler-") })
}

// recoverSpace does what the error asks for: compact, defragment, disarm.
func recoverSpace(ctx context.Context, plane *cluster.Cluster) error {
	etcd, err := plane.Etcd()
	if err != nil {
		return err
	}
	defer etcd.Close()
	now, err := etcd.Get(ctx, "/")
	if err != nil {
		return err
	}
	if _, err := etcd.Compact(ctx, now.Header.Revision); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	for _, endpoint := range etcd.Endpoints() {
		if _, err := etcd.Defragment(ctx, endpoint); err != nil {
			return fmt.Errorf("defragment: %w", err)
		}
	}
	alarms, err := etcd.AlarmList(ctx)
	if err != nil {
		return err
	}
	if len(alarms.Alarms) == 0 {
		return errors.New("etcd was full without an alarm")
	}
	for _, alarm := range alarms.Alarms {
		if _, err := etcd.AlarmDisarm(ctx, (*clientv3.AlarmMember)(alarm)); err != nil {
			return fmt.Errorf("disarm: %w", err)
		}
	}
	return nil
}

// A watch from a revision that is compacted says so, and that a new list helps.
func TestCompactedRevision(t *testing.T) {
	plane, c := controlPlane(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	object := &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "changing"}}
	first, err := client.Create(ctx, c, object)
	if err != nil {
		t.Fatal(err)
	}
	old := first.GetMetadata().GetResourceVersion()
	for i := range 10 {
		object.Data = map[string]string{"n": fmt.Sprint(i)}
		if _, err := client.Update(ctx, c, object); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.GetAt[*corev1.ConfigMap](ctx, c, "default", "changing", client.At{Revision: old}); err != nil {
		t.Errorf("get at an old revision: %v", err)
	}
	etcd, err := plane.Etcd()
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	now, err := etcd.Get(ctx, "/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Compact(ctx, now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	_, err = client.GetAt[*corev1.ConfigMap](ctx, c, "default", "changing", client.At{Revision: old})
	mustBe(t, "get at a compacted revision", err, apierr.ReasonTooOld)
	_, _, err = client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{At: client.At{Revision: old}})
	mustBe(t, "list at a compacted revision", err, apierr.ReasonTooOld)

	// An apiserver that ran all the while may still know the changes; a new one can't.
	server := plane.Masters()[0].Process("apiserver")
	server.Kill()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := server.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	var refused error
	eventually(t, "an answer to the watch", waitLimit, func() error {
		for _, err := range client.Watch[*corev1.ConfigMap](ctx, c, client.WatchOptions{ResourceVersion: old}) {
			refused = err
			break
		}
		if apierr.IsUnavailable(refused) {
			return refused // the gateway has not met the new apiserver yet
		}
		return nil
	})
	mustBe(t, "watch from a compacted revision", refused, apierr.ReasonTooOld)
	if refused == nil || !strings.Contains(refused.Error(), "list or watch") {
		t.Errorf("the error does not say what to do: %v", refused)
	}
	// Who lists again misses nothing.
	objects, revision, err := client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default"})
	if err != nil || len(objects) != 1 || objects[0].GetData()["n"] != "9" {
		t.Fatalf("list: %v, %v", objects, err)
	}
	object.Data = map[string]string{"n": "last"}
	if _, err := client.Update(ctx, c, object); err != nil {
		t.Fatal(err)
	}
	for event, err := range client.Watch[*corev1.ConfigMap](ctx, c, client.WatchOptions{Namespace: "default", ResourceVersion: revision}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Object != nil {
			if event.Object.GetData()["n"] != "last" {
				t.Errorf("the first change after the list is %v", event.Object)
			}
			break
		}
	}
}
