package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// followEvery is how often a followed log is looked at.
const followEvery = 200 * time.Millisecond

// printLog copies a log file, all of it or its last lines, and with follow what is added until ctx
// ends. A file that was emptied meanwhile is read from its beginning.
func printLog(ctx context.Context, out io.Writer, path string, lines int, follow bool) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no log in %s", path)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if lines >= 0 {
		start, err := lastLines(file, lines)
		if err != nil {
			return err
		}
		if _, err := file.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		if _, err := io.Copy(out, file); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		info, err := file.Stat()
		if err != nil {
			return err
		}
		at, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if info.Size() < at {
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
	}
}

// lastLines returns the offset at which the last n lines of the file begin.
func lastLines(file *os.File, n int) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	const block = 32 << 10
	end := info.Size()
	if n == 0 {
		return end, nil
	}
	buf := make([]byte, block)
	for at := end; at > 0; {
		size := min(at, block)
		at -= size
		part := buf[:size]
		if _, err := file.ReadAt(part, at); err != nil {
			return 0, err
		}
		for i := len(part); i > 0; {
			i = bytes.LastIndexByte(part[:i], '\n')
			if i < 0 {
				break
			}
			// The newline at the very end closes the last line and begins none.
			if at+int64(i) == end-1 {
				continue
			}
			if n--; n == 0 {
				return at + int64(i) + 1, nil
			}
		}
	}
	return 0, nil
}
