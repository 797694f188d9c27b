package resolver

import (
	"bufio"
	"bytes"
	"testing"
)

// FuzzReadFrame reads frames of the control socket: what was read is written the same.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{byte(opSynced), 0, 0, 0, 0})
	f.Add([]byte{byte(opService), 0, 0, 0, 2, 'a', 'b', byte(opHello)})
	f.Add([]byte{byte(opSlice), 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		what, content, err := readFrame(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, what, content); err != nil || !bytes.HasPrefix(data, out.Bytes()) {
			t.Errorf("%x is written as %x, %v", data, out.Bytes(), err)
		}
	})
}
