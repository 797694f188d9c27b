package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Subcommand is the argument that makes a program that calls RunWriter the log writer of one
// container. The file's path follows it.
const Subcommand = "log-writer"

// Asked reports whether the process was started to be a log writer.
func Asked() bool { return len(os.Args) == 3 && os.Args[1] == Subcommand }

// RunWriter is the life of a log writer process: it reads the container's stdout and stderr from
// the descriptors 3 and 4, tells the shim by closing descriptor 5 that it is ready, and returns the
// process' exit code when both streams have ended. SIGTERM, which the shim sends once the container
// is gone, does not stop it: the streams' ends do, so that the last lines are kept.
func RunWriter(path string) int {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(8 << 20)

	f, err := openFile(path, MaxBytes)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ready := os.NewFile(5, "ready")
	if err := ready.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var wg sync.WaitGroup
	for fd, stream := range map[uintptr]string{3: "stdout", 4: "stderr"} {
		wg.Go(func() { copyStream(f, stream, os.NewFile(fd, stream)) })
	}
	wg.Wait()
	return 0
}

// file is an open log file that several streams append to.
type file struct {
	mu   sync.Mutex
	f    *os.File
	path string
	size int64
	max  int64
}

func openFile(path string, max int64) (*file, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("creating the log directory: %w", err)
	}
	f := &file{path: path, max: max}
	return f, f.open()
}

func (f *file) open() error {
	w, err := openPath(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	st, err := w.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening the log: %w", err), w.Close())
	}
	f.f, f.size = w, st.Size()
	return nil
}

// Write appends whole entries. A full disk loses entries rather than blocking the container.
func (f *file) Write(entries []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size > 0 && f.size+int64(len(entries)) > f.max {
		if err := f.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := f.f.Write(entries)
	f.size += int64(n)
	return n, err
}

func (f *file) rotate() error {
	if err := os.Rename(f.path, rotated(f.path)); err != nil {
		return fmt.Errorf("rotating the log: %w", err)
	}
	old := f.f
	if err := f.open(); err != nil {
		return err
	}
	return old.Close()
}

// copyStream turns what a container writes to one of its streams into entries, until the stream
// ends. It goes on reading when the log can't be written: a container must not block on its log.
func copyStream(w io.Writer, stream string, r io.Reader) {
	var (
		in      = make([]byte, maxEntry)
		pending int
		out     = make([]byte, 0, 2*maxEntry)
	)
	for {
		n, err := r.Read(in[pending:])
		have := in[:pending+n]
		now := time.Now()
		out = out[:0]
		for {
			i := bytes.IndexByte(have, '\n')
			if i < 0 {
				break
			}
			out = appendEntry(out, now, stream, 'F', have[:i])
			have = have[i+1:]
		}
		if len(have) > 0 && (len(have) == len(in) || err != nil) {
			out = appendEntry(out, now, stream, 'P', have)
			have = nil
		}
		pending = copy(in, have)
		if len(out) > 0 {
			_, _ = w.Write(out)
		}
		if err != nil {
			return
		}
	}
}

func appendEntry(b []byte, t time.Time, stream string, tag byte, message []byte) []byte {
	b = t.UTC().AppendFormat(b, timeFormat)
	b = append(b, ' ')
	b = append(b, stream...)
	b = append(b, ' ', tag, ' ')
	b = append(b, message...)
	return append(b, '\n')
}
