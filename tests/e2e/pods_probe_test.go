package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestGRPCProbes runs servers of grpc.health.v1 in pods, with and without a service's name.
func TestGRPCProbes(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	p.loadImages(t)
	server := func(name, args, probes string) {
		t.Helper()
		p.apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n"+
			"  - name: main\n    image: xebec/client:1\n    args: [health, \":9090\""+args+"]\n    ports: [{containerPort: 9090}]\n"+probes)
	}
	const whole, named = "grpc: {port: 9090}", "grpc: {port: 9090, service: client}"
	probe := func(kind, check, rest string) string {
		return fmt.Sprintf("    %sProbe: {%s, periodSeconds: 1, timeoutSeconds: 5%s}\n", kind, check, rest)
	}
	server("well", "", probe("startup", whole, "")+probe("liveness", named, "")+probe("readiness", named, ""))
	server("later", ", --after, 4s", probe("liveness", "tcpSocket: {port: 9090}", "")+probe("readiness", whole, ""))
	server("unknown", "", probe("readiness", "grpc: {port: 9090, service: other}", ""))
	// It is alive for a second longer than its server takes to start, and fails once in a row.
	server("dies", ", --until, 3s", probe("liveness", named, ", failureThreshold: 1, initialDelaySeconds: 1"))

	p.podIs(t, "well", "it is ready", ready)
	later := p.podIs(t, "later", "it is ready", ready).GetStatus()
	started := later.GetContainerStatuses()[0].GetState().GetRunning().GetStartedAt().AsTime()
	for _, c := range later.GetConditions() {
		// Both times are in whole seconds.
		if since := c.GetLastTransitionTime().AsTime().Sub(started); c.GetType() == "Ready" && since < 3*time.Second {
			t.Errorf("it was ready %v after its start, before its server was well", since)
		}
	}
	p.says(t, []string{"Liveness probe failed", "gRPC health is NOT_SERVING"}, "describe", "pod", "dies")
	p.podIs(t, "dies", "it is restarted", func(pod *corev1.Pod) bool { return restarts(pod) > 0 })
	p.says(t, []string{"Readiness probe failed", "unknown service"}, "describe", "pod", "unknown")
	if pod := p.podIs(t, "unknown", "it runs", func(pod *corev1.Pod) bool { return pod.GetStatus().GetPhase() == "Running" }); ready(pod) {
		t.Errorf("a pod is ready by a service that its server does not know: %v", pod.GetStatus())
	}
	if pod := p.podIs(t, "well", "it goes on", ready); restarts(pod) > 0 {
		t.Errorf("a pod whose server is well was restarted: %v", pod.GetStatus())
	}
}

func restarts(pod *corev1.Pod) int32 {
	var n int32
	for _, c := range pod.GetStatus().GetContainerStatuses() {
		n += c.GetRestartCount()
	}
	return n
}

// TestEnvironment takes a container's variables from a config map, as Kubernetes' conformance test
// does: it reads the log of a pod that has succeeded. The variables are printed without a shell,
// for shells drop names that they can't use themselves.
func TestEnvironment(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	s.loadShell(t)
	p.apply(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {data-1: value-1, data-2: value-2, 3rd: value-3}
---
apiVersion: v1
kind: Pod
metadata: {name: prints}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: `+shellImage+`
    command: [env]
    env: [{name: CONFIG_DATA_1, valueFrom: {configMapKeyRef: {name: settings, key: data-1}}}]
    envFrom: [{configMapRef: {name: settings}}, {prefix: p-, configMapRef: {name: settings}}]
`)
	p.podIs(t, "prints", "it succeeds", func(pod *corev1.Pod) bool { return pod.GetStatus().GetPhase() == "Succeeded" })
	// At once, as the conformance test asks for it.
	log := p.do(t, "logs", "prints")
	for _, want := range []string{
		"CONFIG_DATA_1=value-1", "data-1=value-1", "data-2=value-2", "3rd=value-3", "p-data-1=value-1", "p-data-2=value-2", "p-3rd=value-3",
	} {
		if !strings.Contains("\n"+log, "\n"+want+"\n") {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
}
