package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// followEvery is how often a followed log is looked at for more.
const followEvery = 100 * time.Millisecond

// Read writes the selected lines of the log at path to w. With opts.Follow it goes on until ended
// is closed and all that was written by then has been read, or ctx is done. A log that does not
// exist (yet) is empty.
func Read(ctx context.Context, path string, opts Options, ended <-chan struct{}, w io.Writer) error {
	r := &reader{opts: opts, w: bufio.NewWriterSize(w, 32<<10)}
	r.stderr = r.w
	if opts.Stderr != nil {
		r.stderr = bufio.NewWriterSize(opts.Stderr, 32<<10)
	}
	if opts.Tail >= 0 {
		count := &reader{opts: opts}
		if err := count.readAll(path); err != nil {
			return err
		}
		r.skip = max(0, count.lines-opts.Tail)
		if opts.Tail == 0 {
			r.skip = count.lines
		}
	}
	if !opts.Follow {
		return errors.Join(r.readAll(path), r.flush())
	}
	return errors.Join(r.follow(ctx, path, ended), r.flush())
}

// reader turns entries back into the lines that a container wrote.
type reader struct {
	opts Options
	// w is nil when lines are only counted; stderr is the same writer where the streams are not
	// separated.
	w, stderr *bufio.Writer
	// lines is how many lines were selected so far, skip how many of them are not to be written.
	lines, skip int64
	// within is true while the entries read so far end in the middle of a line.
	within bool
}

func (r *reader) flush() error {
	if r.stderr == r.w {
		return r.w.Flush()
	}
	return errors.Join(r.w.Flush(), r.stderr.Flush())
}

func (r *reader) readAll(path string) error {
	for _, p := range []string{rotated(path), path} {
		f, err := openPath(p, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		_, err = r.drain(bufio.NewReaderSize(f, 64<<10), nil)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// drain reads entries until the end of what there is. It returns the beginning of an incomplete
// entry, which the caller passes to the next call.
func (r *reader) drain(b *bufio.Reader, rest []byte) ([]byte, error) {
	for {
		part, err := b.ReadSlice('\n')
		switch {
		case err == nil && len(rest) == 0:
			if err := r.entry(part); err != nil {
				return nil, err
			}
		case err == nil:
			if err := r.entry(append(rest, part...)); err != nil {
				return nil, err
			}
			rest = rest[:0]
		case errors.Is(err, bufio.ErrBufferFull):
			rest = append(rest, part...)
		case errors.Is(err, io.EOF):
			return append(rest, part...), nil
		default:
			return nil, fmt.Errorf("reading the log: %w", err)
		}
	}
}

// entry handles one line of the file. One that is not an entry is left out: a crash may have cut
// it.
func (r *reader) entry(line []byte) error {
	stamp, line, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return nil
	}
	stream, line, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(line) < 3 {
		return nil
	}
	partial, message := line[0] == 'P', line[2:]
	if partial {
		message = message[:len(message)-1]
	}
	if !r.opts.Since.IsZero() {
		t, err := time.Parse(timeFormat, string(stamp))
		if err != nil || t.Before(r.opts.Since) {
			return nil //nolint:nilerr // a line without a time is skipped
		}
	}
	if !r.within {
		r.lines++
	}
	first := !r.within
	r.within = partial
	if r.w == nil || r.lines <= r.skip {
		return nil
	}
	w := r.w
	if string(stream) == "stderr" {
		w = r.stderr
	}
	if r.opts.Timestamps && first {
		if _, err := w.Write(append(stamp, ' ')); err != nil {
			return err
		}
	}
	_, err := w.Write(message)
	return err
}

func (r *reader) follow(ctx context.Context, path string, ended <-chan struct{}) error {
	// The file put aside, if any, is read first; what follows comes from the current one and its
	// successors.
	var (
		f    *os.File
		b    = bufio.NewReaderSize(nil, 64<<10)
		rest []byte
	)
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	if old, err := openPath(rotated(path), os.O_RDONLY); err == nil {
		b.Reset(old)
		_, err = r.drain(b, nil)
		if err = errors.Join(err, old.Close()); err != nil {
			return err
		}
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for last := false; ; {
		moved := false
		if f == nil {
			next, err := openPath(path, os.O_RDONLY)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("reading the log: %w", err)
			}
			if err == nil {
				f, rest = next, nil
				b.Reset(f)
			}
		} else {
			moved = movedAside(f, path)
		}
		if f != nil {
			var err error
			if rest, err = r.drain(b, rest); err != nil {
				return err
			}
			if err := r.flush(); err != nil {
				return err
			}
			if moved {
				// The writer renamed the file before it was drained, so that drain saw its true end.
				f.Close()
				f = nil
				continue
			}
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			last = true
		case <-tick.C:
		}
	}
}

// movedAside reports whether the file at path is no longer f.
func movedAside(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && !os.SameFile(mine, now)
}
