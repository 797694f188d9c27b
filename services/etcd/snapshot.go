package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// revisionBump is how far a restored database's revision is put ahead unless it is said to which.
// It has to be more than the writes since the snapshot, so that no revision that a client has seen
// comes again with another content.
const revisionBump = 1_000_000_000

// Snapshot is a copy of the whole database at one revision, taken from a running member.
type Snapshot struct {
	// File is where it lies.
	File string
	// Revision is that of the last write in it, Keys the number of its keys, and Size its bytes.
	Revision int64
	Keys     int
	Size     int64
}

// Save writes a snapshot of the member that cfg configures, which runs, into a file that does not
// exist yet. The file is complete or not there.
func Save(ctx context.Context, cfg Config, file string, log *zap.Logger) (Snapshot, error) {
	fail := func(err error) (Snapshot, error) { return Snapshot{}, fmt.Errorf("save snapshot %s: %w", file, err) }
	if _, err := os.Lstat(file); err == nil {
		return fail(fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	client, err := cfg.client()
	if err != nil {
		return fail(err)
	}
	manager := snapshot.NewV3(log)
	if _, err := manager.Save(ctx, client, file); err != nil {
		return fail(err)
	}
	return Inspect(file, log)
}

// Inspect checks a snapshot and says what is in it.
func Inspect(file string, log *zap.Logger) (Snapshot, error) {
	status, err := snapshot.NewV3(log).Status(file)
	if err != nil {
		return Snapshot{}, fmt.Errorf("inspect snapshot %s: %w", file, err)
	}
	return Snapshot{File: file, Revision: status.Revision, Keys: status.TotalKey, Size: status.TotalSize}, nil
}

// Restore makes the data directory of the member that cfg configures, which does not run, from a
// snapshot. Every member of the cluster is restored from the same one; together they are a new
// cluster with the old data, whose revisions are ahead of all that were. Watches and caches of the
// old one end as compacted, and clients read again. A data directory that exists is an error.
//
// revision is where revisions go on: later than any that a client has seen, and the same for all
// members. 0 stands for a thousand million after the snapshot's, which is not enough for a snapshot
// that was restored once before.
func Restore(cfg Config, file string, revision int64, log *zap.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if _, err := os.Lstat(cfg.DataDir); err == nil {
		return fmt.Errorf("restore etcd: %s: %w; move it away first", cfg.DataDir, fs.ErrExist)
	}
	saved, err := Inspect(file, log)
	if err != nil {
		return err
	}
	if revision == 0 {
		revision = saved.Revision + revisionBump
	}
	if revision <= saved.Revision {
		return fmt.Errorf("restore etcd from %s: revision %d is not after the snapshot's, %d", file, revision, saved.Revision)
	}
	err = snapshot.NewV3(log).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: cfg.Name, OutputDataDir: cfg.DataDir, PeerURLs: []string{cfg.PeerURL},
		InitialCluster: strings.Join(cfg.InitialCluster, ","), InitialClusterToken: cfg.Token,
		RevisionBump: uint64(revision - saved.Revision), MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("restore etcd from %s: %w", file, err)
	}
	return nil
}

// client returns the configuration of a client of this very member.
func (c *Config) client() (clientv3.Config, error) {
	config := clientv3.Config{Endpoints: strings.Split(c.ClientURL, ",")[:1]}
	if c.Client.IsZero() {
		return config, nil
	}
	info := transport.TLSInfo{CertFile: c.Client.Cert, KeyFile: c.Client.Key, TrustedCAFile: c.Client.CA}
	var err error
	if config.TLS, err = info.ClientConfig(); err != nil {
		return config, err
	}
	config.TLS.MinVersion = tls.VersionTLS13
	return config, nil
}
