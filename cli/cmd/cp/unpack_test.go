package cp

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func dirEntry(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}
}

func fileEntry(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o6755}
}

func linkEntry(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

func hardEntry(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

// archive makes a tar of entries, each file of which has the content "new".
func archive(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Format = tar.FormatGNU
		if h.Typeflag == tar.TypeReg {
			h.Size = 3
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("new")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// listing describes everything below a directory: names, what they are, and contents.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			name += "/"
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			name += " -> " + target
		case info.Mode().IsRegular():
			content, _ := os.ReadFile(path)
			name += ": " + string(content)
		default:
			name += " " + info.Mode().String()
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 && !e.IsDir() {
			name += " " + info.Mode().String()
		}
		all = append(all, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCopyWritesNothingButItsDestination unpacks what a hostile container may send into a home with
// files of the user's own.
func TestCopyWritesNothingButItsDestination(t *testing.T) {
	// What lies in and around the directory in which "xebec cp POD:/tmp/up up" runs. kept is another
	// name of notes.txt.
	before := []string{"home/", "home/notes.txt: mine", "home/other/", "home/other/x: mine", "secret: mine"}
	for _, tt := range []struct {
		name    string
		exists  []string // what is at the destination before, as listing writes it
		entries []tar.Header
		want    []string // what is there after it
		failure string
		warning string
	}{
		{"a tree", nil, []tar.Header{dirEntry("up"), dirEntry("up/d"), fileEntry("up/d/f"), linkEntry("up/d/l", "../d/f"), hardEntry("up/h", "up/d/f")},
			[]string{"up/", "up/d/", "up/d/f: new", "up/d/l -> ../d/f", "up/h: new"}, "", ""},
		{"a file", nil, []tar.Header{fileEntry("up")}, []string{"up: new"}, "", ""},
		{"over a file", []string{"up: old"}, []tar.Header{fileEntry("up")}, []string{"up: new"}, "", ""},
		{"a link to the parent", nil, []tar.Header{dirEntry("up"), linkEntry("up/a", ".."), fileEntry("up/a/notes.txt"), fileEntry("up/a/.profile")},
			[]string{"up/"}, "file does not exist|no such file", "up/a"},
		{"a link within, then through it", nil, []tar.Header{dirEntry("up"), dirEntry("up/d"), linkEntry("up/a", "d"), fileEntry("up/a/f")},
			[]string{"up/", "up/a -> d", "up/d/"}, "not on this machine", ""},
		{"links that lead out together", nil, []tar.Header{dirEntry("up"), dirEntry("up/d"), linkEntry("up/d/s", "../d"), linkEntry("up/b", "d/s/../../../secret")},
			[]string{"up/", "up/d/", "up/d/s -> ../d"}, "", "up/b"},
		{"an absolute link", nil, []tar.Header{dirEntry("up"), linkEntry("up/a", "/etc"), fileEntry("up/f")}, []string{"up/", "up/f: new"}, "", "outside of the destination"},
		{"a link instead of the destination", nil, []tar.Header{linkEntry("up", "notes.txt"), fileEntry("up")}, nil, "copy that path instead", ""},
		{"a link to the directory itself", nil, []tar.Header{linkEntry("up", "."), fileEntry("up/notes.txt")}, nil, "copy that path instead", ""},
		{"a directory that becomes a link", nil, []tar.Header{dirEntry("up"), linkEntry("up", "other"), fileEntry("up/x")}, []string{"up/"}, "as another type", ""},
		{"a file, then another", nil, []tar.Header{fileEntry("up"), fileEntry("up")}, []string{"up: new"}, "twice", ""},
		{"a file, then beneath it", nil, []tar.Header{fileEntry("up"), fileEntry("up/../notes.txt")}, []string{"up: new"}, `contains "up/../notes.txt", want`, ""},
		{"upwards", nil, []tar.Header{dirEntry("up"), fileEntry("up/../notes.txt")}, []string{"up/"}, `want "up"`, ""},
		{"upwards from the start", nil, []tar.Header{fileEntry("../secret")}, nil, `want "up"`, ""},
		{"an absolute name", nil, []tar.Header{fileEntry("/etc/passwd")}, nil, `want "up"`, ""},
		{"another name", nil, []tar.Header{fileEntry("notes.txt")}, nil, `want "up"`, ""},
		{"a name that begins alike", nil, []tar.Header{dirEntry("up"), fileEntry("up2")}, []string{"up/"}, `want "up"`, ""},
		{"without its directory", nil, []tar.Header{fileEntry("up/f")}, nil, "without the directory", ""},
		{"a hard link to a file outside", nil, []tar.Header{dirEntry("up"), hardEntry("up/h", "notes.txt"), fileEntry("up/h")}, []string{"up/"}, `want "up"`, ""},
		{"a hard link upwards", nil, []tar.Header{dirEntry("up"), hardEntry("up/h", "up/../notes.txt"), fileEntry("up/h")}, []string{"up/"}, `want "up"`, ""},
		{"a hard link to a link", nil, []tar.Header{dirEntry("up"), linkEntry("up/l", "f"), hardEntry("up/h", "up/l")}, []string{"up/", "up/l -> f"}, "not a regular file", ""},
		{"a hard link as the destination", nil, []tar.Header{hardEntry("up", "up"), fileEntry("up")}, nil, "twice", ""},
		{"devices and pipes", nil, []tar.Header{dirEntry("up"), {Name: "up/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, {Name: "up/sda", Typeflag: tar.TypeBlock, Devmajor: 8},
			{Name: "up/p", Typeflag: tar.TypeFifo}, fileEntry("up/f")}, []string{"up/", "up/f: new"}, "", "up/sda"},
		{"through a link of the user's own", []string{"up/", "up/l -> ../other"}, []tar.Header{dirEntry("up"), dirEntry("up/l"), fileEntry("up/l/x")},
			[]string{"up/", "up/l -> ../other"}, "not on this machine", ""},
		{"over a link of the user's own", []string{"up/", "up/l -> ../notes.txt"}, []tar.Header{dirEntry("up"), fileEntry("up/l")}, []string{"up/", "up/l: new"}, "", ""},
		{"over another name of a file", []string{"up/", "up/kept = notes.txt"}, []tar.Header{dirEntry("up"), fileEntry("up/kept")}, []string{"up/", "up/kept: new"}, "", ""},
		{"over a pipe", []string{"up/", "up/p |"}, []tar.Header{dirEntry("up"), fileEntry("up/p")}, []string{"up/", "up/p prw-------"}, "neither a file nor a link", ""},
		{"a directory over a file", []string{"up: old"}, []tar.Header{dirEntry("up"), fileEntry("up/f")}, []string{"up: old"}, "not on this machine", ""},
		{"nothing", nil, nil, nil, "is empty", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outside := t.TempDir()
			home := filepath.Join(outside, "home")
			make := func(line string) {
				path := func(name string) string { return filepath.Join(outside, name) }
				var err error
				if name, ok := strings.CutSuffix(line, "/"); ok {
					err = os.MkdirAll(path(name), 0o755)
				} else if name, target, ok := strings.Cut(line, " -> "); ok {
					err = os.Symlink(target, path(name))
				} else if name, other, ok := strings.Cut(line, " = "); ok {
					err = os.Link(filepath.Join(home, other), path(name))
				} else if name, ok := strings.CutSuffix(line, " |"); ok {
					err = syscall.Mkfifo(path(name), 0o600)
				} else if name, content, ok := strings.Cut(line, ": "); ok {
					err = os.WriteFile(path(name), []byte(content), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, line := range before {
				make(line)
			}
			for _, line := range tt.exists {
				make("home/" + line)
			}
			root, err := os.OpenRoot(home)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			var warnings strings.Builder
			u := &unpacker{dir: root, base: "up", name: "up", warn: func(format string, args ...any) { fmt.Fprintf(&warnings, format+"\n", args...) }}
			err = u.unpack(bytes.NewReader(archive(t, tt.entries)))
			matches := func(text string) bool {
				return slices.ContainsFunc(strings.Split(tt.failure, "|"), func(f string) bool { return strings.Contains(text, f) })
			}
			if err == nil && tt.failure != "" || err != nil && (tt.failure == "" || !matches(err.Error())) {
				t.Errorf("error %v, want %q", err, tt.failure)
			}
			if (tt.warning == "") != (warnings.Len() == 0) || !strings.Contains(warnings.String(), tt.warning) {
				t.Errorf("warnings %q, want %q", warnings.String(), tt.warning)
			}
			want := slices.Clone(before)
			for _, line := range tt.want {
				want = append(want, "home/"+line)
			}
			slices.Sort(want)
			got := listing(t, outside)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("files differ (-want +got):\n%s", diff)
			}
		})
	}
}
