package volumes_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/agent/volumes"
)

// TestProjectKeepsMountPoints changes a volume's files while something is mounted in it.
func TestProjectKeepsMountPoints(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	points := []string{"sub", "deep/er/point", "over"}
	project := func(files map[string]volumes.File, points []string) {
		t.Helper()
		if _, err := volumes.Project(dir, files, points, nil, false); err != nil {
			t.Fatal(err)
		}
	}
	// Without mounts the directory is a link, as are the files.
	project(map[string]volumes.File{"a": file("1", 0o644), "deep/b": file("2", 0o644), "over": file("3", 0o644)}, nil)
	project(map[string]volumes.File{"a": file("1", 0o644), "deep/b": file("2", 0o644), "over": file("3", 0o644)}, points)
	volume := open(t, dir)
	for _, p := range points {
		if err := volumes.MountPoint(volume, p, p != "over"); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]os.FileInfo{}
	for _, p := range append(slices.Clone(points), "deep", "deep/er") {
		info, err := os.Lstat(filepath.Join(dir, p))
		if err != nil || info.Mode().Type() == fs.ModeSymlink {
			t.Fatalf("%s is %v, %v", p, info, err)
		}
		before[p] = info
	}
	if got := read(t, filepath.Join(dir, "a")) + read(t, filepath.Join(dir, "deep/b")) + read(t, filepath.Join(dir, "over")); got != "12" {
		t.Errorf("files hold %q", got)
	}
	for range 2 {
		project(map[string]volumes.File{"a": file("new", 0o644), "deep/er/c": file("4", 0o644), "deep/d/e": file("5", 0o644)}, points)
		for p, was := range before {
			if now, err := os.Lstat(filepath.Join(dir, p)); err != nil || !os.SameFile(was, now) {
				t.Errorf("%s was replaced, so that what is mounted there is lost: %v", p, err)
			}
		}
		if got := read(t, filepath.Join(dir, "a")) + read(t, filepath.Join(dir, "deep/er/c")) + read(t, filepath.Join(dir, "deep/d/e")); got != "new45" {
			t.Errorf("files hold %q", got)
		}
		if _, err := os.Lstat(filepath.Join(dir, "deep/b")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is no more is still there: %v", err)
		}
	}
}

func TestProjectRefusesPaths(t *testing.T) {
	for name, c := range map[string]struct {
		files  []string
		points []string
		want   string
	}{
		"a file and a directory":   {[]string{"x", "x/y"}, nil, `"x" can't be both a file and the directory of "x/y"`},
		"deeper":                   {[]string{"a/b/c/d", "a/b"}, nil, `"a/b" can't be both a file and the directory of "a/b/c/d"`},
		"one file twice":           {[]string{"x", "./x"}, nil, `are the same file`},
		"the volume's own names":   {[]string{"..data"}, nil, `"..data" is outside of the volume`},
		"a mount below a file":     {[]string{"x"}, []string{"x/y"}, `invalid mount point "x/y": "x" is a file`},
		"a mount on the own names": {[]string{"x"}, []string{"..data/y"}, `invalid mount point "..data/y"`},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]volumes.File{}
			for _, f := range c.files {
				files[f] = file("", 0o644)
			}
			dir := filepath.Join(t.TempDir(), "v")
			_, err := volumes.Project(dir, files, c.points, nil, false)
			if !errors.Is(err, volumes.ErrUnfit) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
