package agent_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// testPort carries a connection to a port that only the pod itself can reach.
func testPort(t *testing.T, n *node) {
	stream, err := n.agentAPI.PortForward(admin(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	send := func(r *nodev1.PortForwardRequest) {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	send(&nodev1.PortForwardRequest{Target: &nodev1.Target{Namespace: "default", Pod: "web"}, Port: 8080})
	send(&nodev1.PortForwardRequest{Data: []byte("GET / HTTP/1.0\r\n\r\n")})
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	eof := false
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(resp.GetData())
		eof = eof || resp.GetEof()
	}
	if !strings.HasSuffix(got.String(), "hello from web\n") || !eof {
		t.Errorf("got %q, end %v", got.String(), eof)
	}
	for port, want := range map[uint32]codes.Code{1: codes.FailedPrecondition, 0: codes.InvalidArgument} {
		stream, err := n.agentAPI.PortForward(admin(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&nodev1.PortForwardRequest{Target: &nodev1.Target{Namespace: "default", Pod: "web"}, Port: port}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); apierr.Code(err) != want {
			t.Errorf("port %d: %v, want %v", port, err, want)
		}
	}
}

func testStats(t *testing.T, n *node) {
	resp, err := n.agentAPI.Stats(admin(t.Context()), &nodev1.StatsRequest{Target: &nodev1.Target{Node: nodeName}})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(resp.Pods, func(p *nodev1.PodStats) bool { return p.Name == "web" })
	if i < 0 {
		t.Fatalf("stats are %v", resp)
	}
	web := resp.Pods[i]
	if web.Usage.MemoryBytes <= 0 || web.Usage.CpuNanoseconds <= 0 || len(web.Containers) != 1 || web.Containers[0].Usage.MemoryBytes > web.Usage.MemoryBytes {
		t.Errorf("stats of the pod are %v", web)
	}
	if resp.Node.GetMemoryBytes() < web.Usage.MemoryBytes || resp.Node.GetCpuNanoseconds() < web.Usage.CpuNanoseconds {
		t.Errorf("the node uses %v, the pod %v", resp.Node, web.Usage)
	}
	resp, err = n.agentAPI.Stats(admin(t.Context()), &nodev1.StatsRequest{Target: &nodev1.Target{Namespace: "default", Pod: "web"}})
	if err != nil || len(resp.Pods) != 1 || resp.Node != nil {
		t.Errorf("stats of one pod are %v, %v", resp, err)
	}
	if _, err = n.agentAPI.Stats(admin(t.Context()), &nodev1.StatsRequest{Target: &nodev1.Target{Namespace: "default", Pod: "none"}}); !apierr.IsNotFound(err) {
		t.Errorf("stats of no pod: %v", err)
	}
}

// testMemory bounds what the agent itself takes with twenty idle pods.
func testMemory(t *testing.T, n *node) {
	const pods, most = 20, 60 << 10
	names := make([]string, pods)
	for i := range names {
		names[i] = fmt.Sprintf("idle-%d", i)
		n.pod(names[i], "sleep 3600")
	}
	for _, name := range names {
		n.podUntil(name, "it runs", core.IsPodReady)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.agent.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("the agent's memory with %d pods: %d KiB", pods, kib)
	if kib > most {
		t.Errorf("that is more than %d KiB", most)
	}
	for _, name := range names {
		if _, err := client.Delete[*corev1.Pod](t.Context(), n.client, "default", name); err != nil {
			t.Error(err)
		}
	}
	n.until("they are gone", func() bool {
		list, _, err := client.List[*corev1.Pod](t.Context(), n.client, client.ListOptions{Namespace: "default"})
		return err == nil && !slices.ContainsFunc(list, func(p *corev1.Pod) bool { return strings.HasPrefix(p.Metadata.Name, "idle-") })
	})
}
