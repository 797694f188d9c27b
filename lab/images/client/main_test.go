package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine outlives the tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1); r.URL.Path == "/bad" {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "pod-1")
	}))
	defer server.Close()
	for name, test := range map[string]struct {
		args    []string
		out     string
		failing string
	}{
		"get":         {[]string{"get", server.URL}, "pod-1\n", ""},
		"get thrice":  {[]string{"get", server.URL, "--count", "3", "--interval", "1ms"}, "pod-1\npod-1\npod-1\n", ""},
		"get fails":   {[]string{"get", server.URL + "/bad"}, "", "503"},
		"load":        {[]string{"load", "-workers", "2", "-for", "50ms", server.URL}, " 0 failed\n", ""},
		"load fails":  {[]string{"load", "-workers", "2", "-for", "50ms", server.URL + "/bad"}, "503 Service Unavailable", "calls failed"},
		"names":       {[]string{"names", strings.TrimPrefix(server.URL, "http://"), "--for", "100ms", "--interval", "1ms"}, `{"pod-1":{"first":`, ""},
		"storm":       {[]string{"storm", strings.TrimPrefix(server.URL, "http://"), "--tcp", "1", "--for", "100ms"}, `"final":true`, ""},
		"dns":         {[]string{"dns", "localhost"}, "127.0.0.1", ""},
		"no command":  {nil, "", "help requested"},
		"bad command": {[]string{"fetch", "x"}, "", "help requested"},
		"bad flag":    {[]string{"get", "-nope", "x"}, "", "usage"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), test.args, &out)
			if !strings.Contains(out.String(), test.out) {
				t.Errorf("output = %q, want %q in it", &out, test.out)
			}
			switch {
			case test.failing == "" && err != nil:
				t.Error(err)
			case test.failing != "" && (err == nil || !strings.Contains(err.Error(), test.failing)):
				t.Errorf("error = %v, want %q in it", err, test.failing)
			}
		})
	}
}
