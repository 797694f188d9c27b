package etcd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestSnapshotRestoresALostCluster(t *testing.T) {
	c := newCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cli := c.client(c.trusted())
	if _, err := cli.Put(ctx, "/kept", "1"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.dir, "snapshot.db")
	saved, err := Save(ctx, c.members[1].cfg, file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if saved.Keys == 0 || saved.Revision < 2 || saved.Size == 0 {
		t.Errorf("snapshot is %+v", saved)
	}
	if _, err := Save(ctx, c.members[1].cfg, file, zap.NewNop()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a snapshot was written over: %v", err)
	}
	later, err := cli.Put(ctx, "/lost", "1")
	if err != nil {
		t.Fatal(err)
	}

	if err := Restore(c.members[0].cfg, file, 0, zap.NewNop()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a member was restored over its data: %v", err)
	}
	// The second time the same snapshot is behind what the first restore put ahead, unless an option
	// raises it.
	for _, revision := range []int64{0, time.Now().UnixMicro()} {
		c.restore(file, revision)
		cli = c.client(c.trusted())
		kept, err := cli.Get(ctx, "/kept")
		if err != nil || len(kept.Kvs) != 1 {
			t.Fatalf("what was saved reads as %v, %v", kept, err)
		}
		if lost, err := cli.Get(ctx, "/lost"); err != nil || len(lost.Kvs) != 0 {
			t.Errorf("what came after the snapshot reads as %v, %v", lost, err)
		}
		written, err := cli.Put(ctx, "/lost", "2")
		if err != nil {
			t.Fatal(err)
		}
		if written.Header.Revision <= later.Header.Revision {
			t.Errorf("revision %d comes after %d, which clients have seen with other data", written.Header.Revision, later.Header.Revision)
		}
		// Watchers of the old cluster must notice.
		watch := <-cli.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithRev(later.Header.Revision+1))
		if !errors.Is(watch.Err(), rpctypes.ErrCompacted) {
			t.Errorf("a watch of the old cluster goes on: %v, %v", watch.Events, watch.Err())
		}
		later = written
	}
	if err := c.members[0].stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.members[0].cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := Restore(c.members[0].cfg, file, saved.Revision, zap.NewNop()); err == nil {
		t.Error("revisions were not put ahead")
	}
}

// restore makes all members again from a snapshot.
func (c *cluster) restore(file string, revision int64) {
	c.t.Helper()
	for _, m := range c.members {
		if err := m.stop(); err != nil {
			c.t.Fatal(err)
		}
		if err := os.RemoveAll(m.cfg.DataDir); err != nil {
			c.t.Fatal(err)
		}
		if err := Restore(m.cfg, file, revision, zap.NewNop()); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, m := range c.members {
		c.start(m)
	}
}

func TestInspectRefusesADamagedSnapshot(t *testing.T) {
	file := filepath.Join(memoryDir(t), "snapshot.db")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(file, zap.NewNop()); err == nil {
		t.Error("zeros were taken for a database")
	}
}
