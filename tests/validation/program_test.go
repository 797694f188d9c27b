package validation_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// violation is one thing that is wrong with an object.
type violation struct {
	Type   string `json:"type"`
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// answer is what the program built on Kubernetes' validation packages says about an object.
type answer struct {
	Decode    string          `json:"decode"`
	Errors    []violation     `json:"errors"`
	Defaulted json.RawMessage `json:"defaulted"`
}

// refused reports that Kubernetes does not accept the object.
func (a answer) refused() bool { return a.Decode != "" || len(a.Errors) > 0 }

// program is the running program; see tests/validation/kubernetes.
type program struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// start builds the program, unless KUBERNETES_VALIDATION names one, and runs it until the test
// ends.
func start(t *testing.T) *program {
	t.Helper()
	if os.Getenv("XEBEC_VALIDATION") == "" {
		t.Skip("make test-validation runs it")
	}
	binary := os.Getenv("KUBERNETES_VALIDATION")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "validation")
		build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", binary, ".")
		build.Dir = "kubernetes"
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the program on Kubernetes' validation packages: %v\n%s", err, out)
		}
	}
	cmd := exec.Command(binary)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program on Kubernetes' validation packages: %v", err)
		}
	})
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 16<<20)
	return &program{in: in, out: scanner}
}

// ask returns what Kubernetes says about creating an object, or about updating old to it, by a
// subresource unless that is empty, when old is not nil.
func (p *program) ask(t *testing.T, object, old json.RawMessage, subresource string) answer {
	t.Helper()
	request, err := json.Marshal(struct {
		Object      json.RawMessage `json:"object"`
		Old         json.RawMessage `json:"old,omitempty"`
		Subresource string          `json:"subresource,omitempty"`
	}{object, old, subresource})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", request); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatalf("the program on Kubernetes' validation packages ended: %v", p.out.Err())
	}
	var a answer
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}
