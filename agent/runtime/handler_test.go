package runtime_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/agent/runtime"
)

func TestParseHandlers(t *testing.T) {
	got, err := runtime.ParseHandlers([]string{"crun=io.containerd.runc.v2:/usr/bin/crun", "kata=io.containerd.kata.v2", "kata-fc=io.containerd.kata-fc.v2"})
	want := map[string]runtime.Handler{
		"crun": {Shim: "io.containerd.runc.v2", Binary: "/usr/bin/crun"}, "kata": {Shim: "io.containerd.kata.v2"}, "kata-fc": {Shim: "io.containerd.kata-fc.v2"},
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for text, problem := range map[string]string{
		"": "want NAME=SHIM", "crun": "want NAME=SHIM", "Crun=io.containerd.runc.v2": "want NAME=SHIM", "crun=runc": "want NAME=SHIM",
		"crun=io.containerd.runc.v2:": "not an absolute path", "crun=io.containerd.runc.v2:crun": `"crun" is not an absolute path`,
		"kata=io.containerd.kata.v2:/usr/bin/kata": "only the shim io.containerd.runc.v2 takes a binary",
	} {
		if got, err := runtime.ParseHandlers([]string{text}); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q is %v, %v; want %q", text, got, err, problem)
		}
	}
	if _, err := runtime.ParseHandlers([]string{"a=io.containerd.runc.v2", "a=io.containerd.kata.v2"}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a handler that is given twice: %v", err)
	}
}
