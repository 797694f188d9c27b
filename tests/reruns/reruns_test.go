// Package reruns_test checks the rules by which CI runs failed tests once more: hack/test.sh on
// packages that fail in each way a package can fail.
package reruns_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the top of the tree.
const root = "../.."

// sample is the test of a package. RUNS is a file to which each run of the test appends a line.
const sample = `package sample

import (
	"os"
	"strings"
	"testing"
	"time"
)

var _ = time.Hour

func runs(t *testing.T) int {
	file, err := os.OpenFile("RUNS", os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("run\n"); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile("RUNS")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(all), "\n")
}

func TestSample(t *testing.T) {
	n := runs(t)
	_ = n
	BODY
}
`

// TestReruns shows that only a test that failed by itself is run again, and that one which then
// passes is printed as FLAKY. A panic, a time-out, a data race and a package that does not build
// are failures at once.
func TestReruns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds test binaries")
	}
	for _, tt := range []struct {
		name, body string
		flags      []string
		runs       string
		passes     bool
	}{
		{"flaky", `if n == 1 { t.Fatal("failed once") }`, nil, "run\nrun\n", true},
		{"broken", `t.Fatal("fails always")`, nil, "run\nrun\n", false},
		{"panic", `panic("in a test")`, nil, "run\n", false},
		{"time-out", `time.Sleep(time.Hour)`, []string{"-timeout=2s"}, "run\n", false},
		{"data race", `done := make(chan bool); go func() { n++; close(done) }(); n++; <-done`, []string{"-race"}, "run\n", false},
		{"build failure", `undefined()`, nil, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			record := filepath.Join(dir, "runs")
			body := strings.ReplaceAll(strings.ReplaceAll(sample, "BODY", tt.body), "RUNS", record)
			write(t, filepath.Join(dir, "go.mod"), "module example.com/sample\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "sample_test.go"), body)
			for _, name := range []string{"hack/test.sh", "tools/go.mod", "tools/go.sum"} {
				content, err := os.ReadFile(filepath.Join(root, name))
				if err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, name), string(content))
			}
			run := exec.CommandContext(t.Context(), filepath.Join(dir, "hack/test.sh"), append([]string{"."}, tt.flags...)...)
			output, err := run.CombinedOutput()
			if (err == nil) != tt.passes {
				t.Errorf("%v, want a pass: %t\n%s", err, tt.passes, output)
			}
			got, err := os.ReadFile(record)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if string(got) != tt.runs {
				t.Errorf("runs %q, want %q\n%s", got, tt.runs, output)
			}
			if flaky := strings.Contains(string(output), "FLAKY: example.com/sample.TestSample failed once"); flaky != (tt.name == "flaky") {
				t.Errorf("printed as FLAKY: %t\n%s", flaky, output)
			}
		})
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}
