package streams_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/streams"
)

func TestMain(m *testing.M) {
	if streams.Asked() {
		os.Exit(streams.Run())
	}
	goleak.VerifyTestMain(m)
}

func config(t *testing.T) streams.Config {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return streams.Config{Dir: filepath.Join(dir, "streams"), LogPath: filepath.Join(dir, "log"), Stdin: true, Program: program}
}

// writers opens the container's ends of its output.
func writers(t *testing.T, cfg streams.Config, flags int) (stdout, stderr *os.File) {
	t.Helper()
	_, outPath, errPath := cfg.Paths()
	var files [2]*os.File
	for i, path := range []string{outPath, errPath} {
		var err error
		if files[i], err = os.OpenFile(path, flags, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { files[i].Close() })
	}
	return files[0], files[1]
}

func speak(t *testing.T, f *os.File, words string) {
	t.Helper()
	if _, err := f.WriteString(words); err != nil {
		t.Fatal(err)
	}
}

// attach returns what comes until the end of the container's output.
func attach(cfg streams.Config) (string, error) {
	var out bytes.Buffer
	err := streams.Attach(cfg.Dir, streams.Attachment{Stdout: &out, Stderr: &out, Done: make(chan struct{}), Joined: func() error { return nil }})
	return out.String(), err
}

// TestBriefContainer: the keeper has its ends of the pipes when the container starts, so that
// nothing of one that ends at once is lost.
func TestBriefContainer(t *testing.T) {
	cfg := config(t)
	keeper, err := streams.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Fails unless a process has the other end.
	stdout, stderr := writers(t, cfg, os.O_WRONLY|unix.O_NONBLOCK)
	if err := keeper.Stay(); err != nil {
		t.Fatal(err)
	}
	speak(t, stdout, "quick\n")
	stdout.Close()
	done := make(chan error, 1)
	var said string
	go func() {
		var err error
		said, err = attach(cfg)
		done <- err
	}()
	speak(t, stderr, "last words\n")
	stderr.Close()
	if err := <-done; err != nil && !errors.Is(err, streams.ErrGone) {
		t.Errorf("attaching: %v", err)
	} else if err == nil && !strings.Contains(said, "quick") {
		t.Errorf("who was in time got %q", said)
	}
	for cfg := cfg; ; {
		// The keeper ends once it has written all.
		if _, err := attach(cfg); errors.Is(err, streams.ErrGone) {
			break
		}
	}
	log, err := os.ReadFile(cfg.LogPath)
	if err != nil || !bytes.Contains(log, []byte("quick")) || !bytes.Contains(log, []byte("last words")) {
		t.Errorf("its log: %q, %v", log, err)
	}
}

// TestRestore: a keeper that was lost is replaced while the container runs; when that has ended
// there is nothing to join.
func TestRestore(t *testing.T) {
	cfg := config(t)
	keeper, err := streams.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// As the shim does, which has both ends.
	stdout, stderr := writers(t, cfg, os.O_RDWR)
	keeper.Abandon()
	for {
		if _, err := attach(cfg); errors.Is(err, streams.ErrGone) {
			break
		}
	}
	speak(t, stdout, "meanwhile\n")
	if err := streams.Restore(cfg); err != nil {
		t.Fatal("while it runs: ", err)
	}
	stdout.Close()
	stderr.Close()
	for {
		said, err := attach(cfg)
		if errors.Is(err, streams.ErrGone) {
			break
		}
		if err != nil || said != "meanwhile\n" && said != "" {
			t.Fatalf("attached, got %q, %v", said, err)
		}
	}
	log, err := os.ReadFile(cfg.LogPath)
	if err != nil || !bytes.Contains(log, []byte("meanwhile")) {
		t.Errorf("its log: %q, %v", log, err)
	}
	if err := streams.Restore(cfg); !errors.Is(err, streams.ErrGone) {
		t.Errorf("after it has ended: %v", err)
	}
}
