package cli

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// echoes is a container that repeats its input, with its name before it, and ends with a
// code.
func echoes(code int32) func(grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]) error {
	return func(stream grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]) error {
		first, err := stream.Recv()
		if err != nil {
			return err
		}
		start := first.GetStart()
		out := start.GetTarget().GetPod() + "/" + start.GetContainer() + ":"
		for start.GetStdin() {
			req, err := stream.Recv()
			if err != nil {
				return err
			}
			if req.GetCloseStdin() {
				break
			}
			out += string(req.GetStdin())
		}
		_ = stream.Send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_Stdout{}})
		_ = stream.Send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_Stdout{Stdout: []byte(out)}})
		return stream.Send(&nodev1.AttachResponse{Response: &nodev1.AttachResponse_ExitCode{ExitCode: code}})
	}
}

func TestAttach(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", "node-1"))
	c.attach = echoes(3)
	c.runInput(t, "typed", "attach", "-i", "web-1").want(t, 3, "web-1/echo:typed")
	c.attach = echoes(0)
	c.run(t, "attach", "-t", "web-1").want(t, exit.OK, "web-1/echo:", "container echo has no terminal")
	c.run(t, "attach", "gone").want(t, exit.Failed, "", `"gone" not found`)
	c.run(t, "attach").want(t, exit.Usage, "", "exactly one pod is required")
}

// running tells that the containers of a pod run, as its node would.
func running(names ...string) []*corev1.ContainerStatus {
	var out []*corev1.ContainerStatus
	for _, n := range names {
		out = append(out, &corev1.ContainerStatus{Name: n, State: &corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
	}
	return out
}

func TestDebug(t *testing.T) {
	c := startCluster(t)
	pod := webPod("web-1", "node-1")
	kinds.Of(pod).Default(pod)
	pod.Status.EphemeralContainerStatuses = running("look")
	clienttest.Seed(c.Server, pod)
	c.attach = echoes(4)
	c.runInput(t, "typed", "debug", "-i", "web-1", "--image=box:1", "-c", "look", "--target", "echo", "--env", "A=b").want(t, 4, "web-1/look:typed", "Added container look to pod web-1")
	c.run(t, "get", "pod", "web-1", "-o", "jsonpath={.spec.ephemeralContainers[0].targetContainerName} {.spec.ephemeralContainers[0].image} {.spec.ephemeralContainers[0].stdin}").
		want(t, exit.OK, "echo box:1 true")
	c.run(t, "debug", "web-1", "--image=box:1").want(t, exit.OK, "", "Added container debugger-")
	c.run(t, "debug", "web-1", "--image=box:1", "-c", "look").want(t, exit.Failed, "", `Duplicate value: "look"`)
	c.run(t, "debug", "web-1", "--image=box:1", "--target=wep").want(t, exit.Failed, "", `targetContainerName: Not found: "wep"`)
	c.run(t, "debug", "web-1").want(t, exit.Usage, "", "--image is required")
}

// TestPatchSubresource resizes a pod, which only the subresource does.
func TestPatchSubresource(t *testing.T) {
	c := startCluster(t)
	pod := webPod("web-1", "node-1")
	kinds.Of(pod).Default(pod)
	clienttest.Seed(c.Server, pod)
	patch := `{"spec":{"containers":[{"name":"echo","image":"echo:1","resources":{"requests":{"cpu":"60m","memory":"16Mi"}}}]}}`
	c.run(t, "patch", "pod", "web-1", "-p", patch).want(t, exit.Failed, "", "pod updates may not change fields other than")
	c.run(t, "patch", "pod", "web-1", "--subresource=resize", "-p", patch).want(t, exit.OK, "pod/web-1 patched\n")
	c.run(t, "get", "pod", "web-1", "-o", "jsonpath={.spec.containers[0].resources.requests.cpu} {.spec.containers[0].ports[0].name}").want(t, exit.OK, "60m http")
	c.run(t, "patch", "pod", "web-1", "--subresource=spec", "-p", patch).want(t, exit.Failed, "", `"spec" is not accepted for pods`)
}

func TestRun(t *testing.T) {
	c := startCluster(t)
	c.run(t, "run", "box", "--image=box:1", "--restart=Never", "--", "a", "b").want(t, exit.OK, "pod/box created\n")
	c.run(t, "get", "pod", "box", "-o", "jsonpath={.spec.restartPolicy} {.spec.containers[0].args} {.metadata.labels.run}").want(t, exit.OK, `Never ["a","b"] box`)
	c.run(t, "run", "box2", "--image=box:1", "--rm").want(t, exit.Usage, "", "requires -i, -t or --attach")
	c.run(t, "run", "box3").want(t, exit.Usage, "", "--image is required")
}
