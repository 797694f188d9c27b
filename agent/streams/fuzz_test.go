package streams

import (
	"bufio"
	"bytes"
	"testing"
)

// FuzzReadFrame reads frames of an attached stream: what was read is written the same.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{frameEnd, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 2, 'a', 'b', 3})
	f.Add([]byte{1, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, content, err := readFrame(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, kind, content); err != nil || !bytes.HasPrefix(data, out.Bytes()) {
			t.Errorf("%x is written as %x, %v", data, out.Bytes(), err)
		}
	})
}
