package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// errSnapshot says that a file is no snapshot of etcd, or not all of one.
var errSnapshot = errors.New("not a complete etcd snapshot")

func snapshotCommand(s *session.Session) *cobra.Command {
	var member string
	var overwrite bool
	cmd := &cobra.Command{
		Use: "snapshot FILE", Short: "Save a snapshot of the database to a file",
		Long: "Save a snapshot of the database to a file and verify it by the checksum that etcd sends. The file appears only when it is\n" +
			"complete. It contains every secret of the cluster and is readable by its owner only.",
		Example: "  xebec etcd snapshot backup-$(date +%F).db", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[0]); err == nil && !overwrite {
				return fmt.Errorf("%s: %w: --overwrite replaces it", args[0], fs.ErrExist)
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return exit.FileError("save snapshot", err)
			}
			service := etcdService(s)
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			stream, err := service.Snapshot(ctx, &etcdv1.SnapshotRequest{Member: member})
			if err != nil {
				return err
			}
			return saveSnapshot(s, args[0], stream.Recv)
		},
	}
	cmd.Flags().StringVar(&member, "member", "", "member to copy from (default: a healthy follower)")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace an existing file")
	return cmd
}

// saveSnapshot writes what receive returns into a file, which appears under its name when it is
// whole, checked and on disk.
func saveSnapshot(s *session.Session, name string, receive func() (*etcdv1.SnapshotResponse, error)) (err error) {
	// The first message tells whether there will be any: no file is made for a refusal.
	first, err := receive()
	if err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".part-*") // mode 0600
	if err != nil {
		return exit.FileError("save snapshot", err)
	}
	defer func() {
		if err != nil {
			_ = part.Close()
			_ = os.Remove(part.Name())
		}
	}()
	header, sum := first.GetHeader(), newTrailingSum()
	size, reported := int64(0), s.Now()
	for {
		message, err := receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("save snapshot %s: %w", name, err)
		}
		chunk := message.GetChunk()
		sum.add(chunk)
		n, err := part.Write(chunk)
		if size += int64(n); err != nil {
			return exit.FileError("save snapshot", err)
		}
		if s.Now().Sub(reported) >= 2*time.Second {
			reported = s.Now()
			s.Notef("%s of about %s", printer.Bytes(size), printer.Bytes(header.GetExpectedBytes()))
		}
	}
	if !sum.good() {
		return fmt.Errorf("save snapshot %s: %w: checksum mismatch; try again", name, errSnapshot)
	}
	if err := part.Sync(); err != nil {
		return exit.FileError("save snapshot", err)
	}
	if err := part.Close(); err != nil {
		return exit.FileError("save snapshot", err)
	}
	if err := os.Rename(part.Name(), name); err != nil {
		return exit.FileError("save snapshot", err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return exit.FileError("save snapshot", err)
	}
	s.Printf("%s: %s from member %s, etcd %s, checksum verified\n", name, printer.Bytes(size), header.GetMember(), header.GetVersion())
	return nil
}

// syncDir makes a name that was just given last through a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// trailingSum checks a stream whose last bytes are the SHA-256 sum of those before, without knowing
// its length.
type trailingSum struct {
	sum  hash.Hash
	tail []byte
	size int64
}

func newTrailingSum() *trailingSum { return &trailingSum{sum: sha256.New()} }

func (t *trailingSum) add(chunk []byte) {
	t.size += int64(len(chunk))
	t.tail = append(t.tail, chunk...)
	if settled := len(t.tail) - sha256.Size; settled > 0 {
		t.sum.Write(t.tail[:settled])
		t.tail = append(t.tail[:0], t.tail[settled:]...)
	}
}

// pageBytes is what the size of a database is a multiple of; a snapshot has the sum besides.
const pageBytes = 512

func (t *trailingSum) good() bool {
	return t.size > sha256.Size && t.size%pageBytes == sha256.Size && bytes.Equal(t.tail, t.sum.Sum(nil))
}

func restoreCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Verify a snapshot and print how to restore it",
		Long: "Verify a snapshot and print how to restore it. Restore only if etcd or its data is lost: no member may run, so no gateway\n" +
			"is available. The restore itself runs on the masters by 'xebecd etcd restore', or from the control host by the playbook\n" +
			"restore.yml. This command does not connect to the cluster and changes nothing.",
		Example: "  xebec etcd restore backup.db", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			size, err := checkSnapshot(args[0])
			if err != nil {
				return err
			}
			s.Printf("%s: %s, complete etcd snapshot, checksum verified.\n\n", args[0], printer.Bytes(size))
			s.Printf(`To restore it, losing every later change:

  From the control host:  ansible-playbook restore.yml -e snapshot=%[1]s

  Manually, with the same file on every master; complete each step on all masters before the next:
  1. systemctl stop 'xebec-*'
  2. mv /var/lib/xebec-etcd/data /var/lib/xebec-etcd/data.before
  3. xebecd etcd restore --config /etc/xebec/etcd/config.yaml --file %[1]s --revision %[2]d
  4. chown -R xebec-etcd: /var/lib/xebec-etcd/data
  5. systemctl start xebec-etcd, and then the other services

  Pods keep running meanwhile. --revision moves revisions forward, so that clients do not mistake restored data for current data; its
  value must be the same on every master.
`, args[0], s.Now().UnixMicro())
			return nil
		},
	}
}

// checkSnapshot reads a file whole and returns its size.
func checkSnapshot(name string) (int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, exit.FileError("check snapshot", err)
	}
	defer file.Close()
	sum, chunk := newTrailingSum(), make([]byte, 1<<20)
	for {
		n, err := file.Read(chunk)
		sum.add(chunk[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, exit.FileError("check snapshot", err)
		}
	}
	if !sum.good() {
		return 0, fmt.Errorf(
			"%s: %w: truncated or modified, or a file without a checksum, such as the database of a stopped member",
			name,
			errSnapshot,
		)
	}
	return sum.size, nil
}
