// Package snapshot keeps on disk what a node knows of its cluster, so that an agent that starts
// while the whole control plane is away knows it too.
//
// The file is a copy: it may be some seconds old, and its reader continues with the state of the
// control plane.
package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/scheme"
)

const (
	// magic begins the file and names its format: records, each an Any after its length, then their
	// checksum.
	magic = "xebec-snapshot-1\n"
	// minPause lies between a change and its write, and so between two writes. Writing takes a
	// fiftieth of the time at most, however large the cluster and slow the disk.
	minPause  = 5 * time.Second
	restRatio = 50
)

var checksums = crc32.MakeTable(crc32.Castagnoli)

// Load returns the objects that a file holds, none when there is no file. A file that is damaged,
// or from an agent that wrote another format, is an error.
func Load(path string) ([]scheme.Object, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	body, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(body) < crc32.Size {
		return nil, fmt.Errorf("%s is not a snapshot, or has another format", path)
	}
	body, sum := body[:len(body)-crc32.Size], body[len(body)-crc32.Size:]
	if crc32.Checksum(body, checksums) != binary.BigEndian.Uint32(sum) {
		return nil, fmt.Errorf("%s is damaged: checksum mismatch", path)
	}
	var out []scheme.Object
	for r := bufio.NewReader(bytes.NewReader(body)); ; {
		var record anypb.Any
		err := protodelim.UnmarshalFrom(r, &record)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: reading a record: %w", path, err)
		}
		m, err := record.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s: reading a record: %w", path, err)
		}
		if o, ok := m.(scheme.Object); ok {
			out = append(out, o)
		}
	}
}

// Save replaces the file by one with the objects, at once: after a crash there is the old one or
// the new one.
func Save(path string, objects iter.Seq[scheme.Object]) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<16)
	if _, err := w.WriteString(magic); err != nil {
		return err
	}
	sum := crc32.New(checksums)
	body := io.MultiWriter(w, sum)
	for o := range objects {
		record, err := anypb.New(o)
		if err != nil {
			return err
		}
		if _, err := protodelim.MarshalTo(body, record); err != nil {
			return err
		}
	}
	if err := errors.Join(binary.Write(w, binary.BigEndian, sum.Sum32()), w.Flush(), f.Sync()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// Keeper writes the objects some time after each change.
type Keeper struct {
	path    string
	objects iter.Seq[scheme.Object]
	log     *zap.Logger
	changed chan struct{}
}

// NewKeeper returns the keeper of a file. Objects yields its contents; it is called from Run.
func NewKeeper(path string, objects iter.Seq[scheme.Object], log *zap.Logger) *Keeper {
	return &Keeper{path: path, objects: objects, log: log, changed: make(chan struct{}, 1)}
}

// Changed says that the objects are no longer those of the last write. It never blocks.
func (k *Keeper) Changed() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run writes until the context ends, then writes what is not written yet and returns the context's
// error. A write that fails is logged and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	pause := minPause
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.changed:
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		// What changes while the write is under way goes with the next.
		select {
		case <-k.changed:
		default:
		}
		began := time.Now()
		if err := Save(k.path, k.objects); err != nil {
			k.log.Error("Failed to store the snapshot of the cluster", zap.Error(err))
			k.Changed()
		}
		pause = max(minPause, restRatio*time.Since(began))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
