package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Log is a container's log, open for those who have the container's streams themselves.
type Log struct{ f *file }

// Open opens the log at path to be appended to, and makes it when there is none.
func Open(path string) (*Log, error) {
	f, err := openFile(path, MaxBytes)
	if err != nil {
		return nil, err
	}
	return &Log{f}, nil
}

// Copy writes what a stream, "stdout" or "stderr", brings, until it ends. It may be called for both
// at once.
func (l *Log) Copy(stream string, r io.Reader) { copyStream(l.f, stream, r) }

// openPath opens the file of a log. A pod that may write to the logs' directories, as one that
// collects them, could put a link or a device in a log's place, by which people who may read the
// log would read any file of the node: a link is never followed, neither in place of the log nor of
// its directory, and only a regular file is a log.
func openPath(path string, flags int) (*os.File, error) {
	dir := filepath.Dir(path)
	failed := func(err error) error { return &os.PathError{Op: "open", Path: path, Err: err} }
	at, err := unix.Open(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed(err)
	}
	defer unix.Close(at)
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o640
	}
	fd, err := unix.Openat2(at, filepath.Join(filepath.Base(dir), filepath.Base(path)), &how)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat2(at, filepath.Join(filepath.Base(dir), filepath.Base(path)), &how)
	}
	if err != nil {
		return nil, failed(err)
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = failed(fmt.Errorf("not a regular file: %v", info.Mode()))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
