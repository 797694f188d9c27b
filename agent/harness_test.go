package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent"
	_ "github.com/xebec-project/xebec/agent/companion"
	"github.com/xebec-project/xebec/agent/resolver"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/netlab"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// agentProgram, set in the environment, makes the test program the agent.
const agentProgram = "XEBEC_TEST_AGENT"

func TestMain(m *testing.M) {
	if resolver.Asked() {
		os.Exit(resolver.Run())
	}
	if os.Getenv(agentProgram) != "" {
		cmd := daemon.StandaloneCommand(daemon.Standalone[agent.Config]{
			Name: "xebec-agent", Defaults: agent.DefaultConfig(),
			New: func(cfg agent.Config, log *zap.Logger) (daemon.Runner, error) { return agent.New(cfg, log) },
		})
		if err := cmd.ExecuteContext(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const nodeName = "node-1"

// node is a machine with an agent, and a control plane in memory on a machine beside it.
type node struct {
	*testing.T
	api    *clienttest.Server
	client *client.Client
	pki    *rpctest.Cluster
	master *netlab.Namespace
	self   *netlab.Namespace
	daemon *containerdtest.Daemon
	config string
	bpf    string
	log    *os.File
	// program is the agent, empty for this test program, and env its environment beside the test's.
	program  string
	env      []string
	agent    *exec.Cmd
	exited   chan struct{}
	agentAPI nodev1.NodeServiceClient
}

func start(t *testing.T, change ...func(*node)) *node {
	t.Helper()
	containerdtest.Need(t)
	lab := netlab.New(t)
	n := &node{T: t, pki: rpctest.NewCluster(t), master: lab.Host(netip.MustParsePrefix("10.99.0.1/24")), self: lab.Host(netip.MustParsePrefix("10.99.0.2/24"))}
	n.daemon = containerdtest.Start(t)
	n.api = clienttest.NewServer()
	n.client = client.New(clienttest.Serve(t, n.api))
	if err := n.master.Do(func() error {
		n.pki.Serve(t, rpc.ServerConfig{
			Listen: "10.99.0.1:6443", TLS: n.pki.Service(t, "gateway"),
			Authorize: func(_ context.Context, id edge.Identity, _ string) error {
				if id.User != pki.NodeUser(nodeName) {
					return apierr.Denied("%s is not the node", id.User)
				}
				return nil
			},
		}, n.api.Register)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	dir := n.daemon.Dir
	pair, err := n.pki.CA.Issue(pki.NodeRequest(nodeName, net.ParseIP("10.99.0.2")))
	if err == nil {
		err = errors.Join(pair.WriteFiles(filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")),
			os.WriteFile(filepath.Join(dir, "ca.crt"), n.pki.CA.CertPEM(), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	n.config = filepath.Join(dir, "agent.yaml")
	n.bpf = filepath.Join(netlab.BPFFS(t), "xebec")
	config := fmt.Sprintf(`node: %[2]s
address: 10.99.0.2
gateways: ["10.99.0.1:6443"]
tls: {ca: %[1]s/ca.crt, cert: %[1]s/node.crt, key: %[1]s/node.key}
stateDir: %[1]s/state
containerd: %[3]s
containerdNamespace: agent-test
cgroup: %[4]s
bpf: %[5]s
metrics: "off"
labels: [disk=fast]
`, dir, nodeName, n.daemon.Address, n.daemon.CgroupParent, n.bpf)
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if n.log, err = os.Create(filepath.Join(dir, "agent.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			b, _ := os.ReadFile(n.log.Name())
			t.Logf("the end of the agent's log:\n%s", b[max(0, len(b)-6000):])
		}
	})
	for _, f := range change {
		f(n)
	}
	n.run()

	conn, err := rpc.Dial("10.99.0.2:10250", rpc.ClientConfig{
		TLS: n.pki.Service(t, "gateway"), ServerUser: pki.NodeUser(nodeName),
		Options: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (conn net.Conn, err error) {
			err = n.master.Do(func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				return err
			})
			return conn, err
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	n.agentAPI = nodev1.NewNodeServiceClient(conn)
	return n
}

func (n *node) run() {
	n.Helper()
	program := n.program
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			n.Fatal(err)
		}
		program = self
	}
	n.agent = exec.Command(program, "--config", n.config)
	n.agent.Env = append(append(os.Environ(), agentProgram+"=1"), n.env...)
	n.agent.Stdout, n.agent.Stderr = n.log, n.log
	if err := n.self.Do(n.agent.Start); err != nil {
		n.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait()
	}(n.agent, n.exited)
}

func (n *node) kill() {
	_ = n.agent.Process.Kill()
	<-n.exited
}

// admin is the context of a call that the gateway makes for an administrator.
func admin(ctx context.Context) context.Context {
	md := metadata.MD{}
	edge.Identity{User: "ann", Groups: []string{"system:masters"}}.Forward(edge.Headers(md))
	return metadata.NewOutgoingContext(ctx, md)
}

func (n *node) until(what string, condition func() bool) {
	n.Helper()
	containerdtest.Eventually(n.T, 30*time.Second, what, condition)
}

func (n *node) podUntil(name, what string, condition func(*corev1.Pod) bool) *corev1.Pod {
	n.Helper()
	var pod *corev1.Pod
	defer func() {
		if n.Failed() {
			n.Logf("the pod is %v", pod.GetStatus())
		}
	}()
	n.until(what, func() bool {
		var err error
		pod, err = client.Get[*corev1.Pod](n.Context(), n.client, "default", name)
		return err == nil && condition(pod)
	})
	return pod
}

func (n *node) importImage() {
	n.Helper()
	stream, err := n.agentAPI.ImportImage(admin(n.Context()), grpc.WaitForReady(true))
	if err != nil {
		n.Fatal(err)
	}
	archive, err := io.ReadAll(containerdtest.Archive(n, "busybox:test", containerdtest.Busybox(n)))
	if err != nil {
		n.Fatal(err)
	}
	if err := stream.Send(&nodev1.ImportImageRequest{Target: &nodev1.Target{Node: nodeName}}); err != nil {
		n.Fatal(err)
	}
	for part := range slices.Chunk(archive, 256<<10) {
		if err := stream.Send(&nodev1.ImportImageRequest{Data: part}); err != nil {
			n.Fatal(err)
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil || len(resp.Images) != 1 || resp.Images[0].Name != "docker.io/library/busybox:test" {
		n.Fatalf("imported %v, %v", resp, err)
	}
}

// exec runs a command in the pod's container.
func (n *node) exec(pod, stdin string, command ...string) (stdout string, code int32, err error) {
	stream, err := n.agentAPI.Exec(admin(n.Context()))
	if err != nil {
		return "", 0, err
	}
	if err := stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: &nodev1.ExecStart{
		Target: &nodev1.Target{Namespace: "default", Pod: pod}, Command: command, Stdin: stdin != "",
	}}}); err != nil {
		return "", 0, err
	}
	if stdin != "" {
		_ = stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: []byte(stdin)}})
		_ = stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_CloseStdin{CloseStdin: true}})
	}
	var out bytes.Buffer
	for {
		resp, err := stream.Recv()
		if err != nil {
			return out.String(), -1, err
		}
		switch r := resp.Response.(type) {
		case *nodev1.ExecResponse_Stdout:
			out.Write(r.Stdout)
		case *nodev1.ExecResponse_Stderr:
			out.Write(r.Stderr)
		case *nodev1.ExecResponse_ExitCode:
			return out.String(), r.ExitCode, nil
		}
	}
}

func (n *node) logs(req *nodev1.LogsRequest) (string, error) {
	stream, err := n.agentAPI.Logs(admin(n.Context()), req)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return out.String(), err
		}
		out.Write(resp.Data)
	}
}

func (n *node) pod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	n.Helper()
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: &corev1.PodSpec{
			NodeName: nodeName, TerminationGracePeriodSeconds: proto.Int64(1),
			Containers: []*corev1.Container{{Name: "main", Image: "busybox:test", Command: []string{"sh", "-c", script}}},
		},
	}
	for _, f := range change {
		f(p)
	}
	p, err := client.Create(n.Context(), n.client, p)
	if err != nil {
		n.Fatal(err)
	}
	return p
}
