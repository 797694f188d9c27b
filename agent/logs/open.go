package logs

import "io"

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

// Copy writes what a stream, "stdout" or "stderr", brings, until it ends. It may be called for both at once.
func (l *Log) Copy(stream string, r io.Reader) { copyStream(l.f, stream, r) }
