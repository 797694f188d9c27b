package agent_test

import (
	"errors"
	"io"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// testAttach sends words to a container's own process, hears them again, and learns how it ended.
func testAttach(t *testing.T, n *node) {
	n.pod("echo", "while read word; do echo heard $word; done; exit 5", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].StdinOnce = true, true
	})
	n.podUntil("echo", "the pod is ready", core.IsPodReady)
	stream, err := n.agentAPI.Attach(admin(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*nodev1.AttachRequest{
		{Request: &nodev1.AttachRequest_Start{Start: &nodev1.AttachStart{Target: &nodev1.Target{Namespace: "default", Pod: "echo"}, Stdin: true}}},
		{Request: &nodev1.AttachRequest_Stdin{Stdin: []byte("one\ntwo\n")}},
		{Request: &nodev1.AttachRequest_CloseStdin{CloseStdin: true}},
	} {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	out, code := "", int32(-1)
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out += string(resp.GetStdout())
		if c, ok := resp.GetResponse().(*nodev1.AttachResponse_ExitCode); ok {
			code = c.ExitCode
		}
	}
	if out != "heard one\nheard two\n" || code != 5 {
		t.Errorf("the container said %q and ended with %d", out, code)
	}
}
