package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// write passes text through a writer with the given size limit.
func write(t *testing.T, path string, limit int64, text string) {
	t.Helper()
	f, err := openFile(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	copyStream(f, "stdout", strings.NewReader(text))
	if err := f.f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string, opts Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Read(t.Context(), path, opts, nil, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"lines":            "one\ntwo\n\nfour\n",
		"no last newline":  "one\ntwo",
		"long line":        strings.Repeat("x", 3*maxEntry+17) + "\nend\n",
		"exactly an entry": strings.Repeat("y", maxEntry) + "\nend\n",
		"binary":           "\x00\xff\x01\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			write(t, path, MaxBytes, text)
			if got := read(t, path, Options{Tail: -1}); got != text {
				t.Errorf("read %d bytes %.80q, wrote %d bytes %.80q", len(got), got, len(text), text)
			}
		})
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	long := strings.Repeat("z", 2*maxEntry)
	write(t, path, MaxBytes, "one\ntwo\n"+long+"\nfour\n")
	for tail, want := range map[int64]string{0: "", 1: "four\n", 2: long + "\nfour\n", 9: "one\ntwo\n" + long + "\nfour\n"} {
		if got := read(t, path, Options{Tail: tail}); got != want {
			t.Errorf("tail %d: got %.60q, want %.60q", tail, got, want)
		}
	}
}

func TestSinceAndTimestamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	var b []byte
	for i := range 3 {
		b = appendEntry(b, at.Add(time.Duration(i)*time.Second), "stderr", 'F', fmt.Append(nil, i))
	}
	b = append(b, "cut by a cra"...)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := read(t, path, Options{Tail: -1, Since: at.Add(time.Second), Timestamps: true})
	want := "2026-03-04T05:06:08.000000008Z 1\n2026-03-04T05:06:09.000000008Z 2\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRotationBoundsTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	const limit = 64 << 10
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&b, "line", i)
	}
	write(t, path, limit, b.String())
	var total int64
	for _, p := range []string{path, rotated(path)} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > 2*limit+2*maxEntry {
		t.Errorf("logs take %d bytes, limit is %d each", total, limit)
	}
	if got := read(t, path, Options{Tail: 1}); got != "line 19999\n" {
		t.Errorf("last line is %q", got)
	}
	if got := read(t, path, Options{Tail: 1500}); !strings.HasSuffix(b.String(), got) || strings.Count(got, "\n") != 1500 {
		t.Errorf("a tail across the rotation is not the end of what was written: %d lines", strings.Count(got, "\n"))
	}
}

// TestFollowAcrossRotation checks that a follower loses nothing when files are put aside under it.
func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	out, in := io.Pipe()
	ended := make(chan struct{})
	var got bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := Read(context.Background(), path, Options{Tail: -1, Follow: true}, ended, &got); err != nil {
			t.Error(err)
		}
	})
	var want strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := openFile(path, 256<<10)
		if err != nil {
			t.Error(err)
			return
		}
		copyStream(f, "stdout", out)
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for i := range 8 {
		for j := range 2000 {
			line := fmt.Sprintf("line %d of %d, long enough to fill the file twice in all\n", j, i)
			want.WriteString(line)
			io.WriteString(in, line)
		}
		<-tick.C
		<-tick.C
	}
	in.Close()
	<-done
	close(ended)
	wg.Wait()
	if got.String() != want.String() {
		t.Errorf("followed %d bytes, written %d", got.Len(), want.Len())
	}
}

func TestFollowEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, filepath.Join(t.TempDir(), "none.log"), Options{Follow: true, Tail: -1}, nil, io.Discard); err == nil {
		t.Error("following ended without an error")
	}
}
