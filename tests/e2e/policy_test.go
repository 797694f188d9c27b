package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// denyAll is the recipe of Kubernetes' documentation.
const denyAll = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: default-deny-all
spec:
  podSelector: {}
  policyTypes:
  - Ingress
  - Egress
`

// netpol is a policy of a person's namespace.
func netpol(name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + "}\nspec:\n" + spec
}

// TestNetworkPolicies isolates one namespace from another, over both nodes.
func TestNetworkPolicies(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	inside, outside := s.person(t), s.person(t)
	for _, p := range []*person{inside, outside} {
		p.apply(t, sample(t, "echo.yaml"))
		p.apply(t, sample(t, "client.yaml"))
	}
	servers := inside.awaitEcho(t, 3)
	others := outside.awaitEcho(t, 3)
	for _, p := range []*person{inside, outside} {
		p.do(t, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	}
	toServer := "http://" + servers[0].GetStatus().GetPodIp() + ":8080/name"
	toOther := "http://" + others[0].GetStatus().GetPodIp() + ":8080/name"
	for _, p := range []*person{inside, outside} {
		p.passes(t, toServer)
		p.passes(t, toOther)
	}

	inside.apply(t, denyAll)
	inside.blocked(t, toServer)
	inside.blocked(t, toOther)
	outside.blocked(t, toServer)
	outside.passes(t, toOther)
	for _, server := range servers {
		outside.blocked(t, "http://"+server.GetStatus().GetPodIp()+":8080/name")
	}
	// The nodes' probes go on, and so do names.
	inside.awaitEcho(t, 3)
	inside.says(t, []string{"10.96."}, "exec", "client", "--", "/client", "dns", "echo")
	said := inside.namespace + "/default-deny-all selects " + inside.namespace + "/client for egress; no rule of this policy allows it"
	eventually(t, "drops are reported", waitLimit, func() error {
		// Whichever end's node heard of the policy first has dropped what was tried so far.
		inside.try(t, "exec", "client", "--", "/client", "get", toServer, "--timeout", "1s")
		if o := inside.try(t, "net", "drops", "client"); !strings.Contains(o.stdout, said) || !strings.Contains(o.stdout, servers[0].GetStatus().GetPodIp()+":8080") {
			return fmt.Errorf("%s", o)
		}
		return nil
	})

	t.Run("first packet", func(t *testing.T) { inside.policyFirstPacket(t, toOther) })
	t.Run("namespace and pod", func(t *testing.T) {
		inside.apply(t, netpol("from-there", fmt.Sprintf(`
  podSelector: {matchLabels: {app: echo}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
      podSelector: {matchLabels: {app: client}}
    ports: [{port: http}]`, outside.namespace)))
		outside.passes(t, toServer)
		inside.blocked(t, toServer)
		outside.blockedUDP(t, servers[0])
		outside.do(t, "label", "pod", "client", "app=stranger", "--overwrite")
		outside.blocked(t, toServer)
		outside.do(t, "label", "pod", "client", "app=client", "--overwrite")
		outside.passes(t, toServer)
		// By the service's address too: sockets are led to the pods themselves.
		outside.passes(t, "http://echo."+inside.namespace+"/name")
	})
	t.Run("agents killed under load", func(t *testing.T) {
		outside.apply(t, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: load, labels: {app: client}}
spec:
  restartPolicy: Never
  containers:
  - {name: load, image: xebec/client:1, imagePullPolicy: IfNotPresent, args: [load, %q, --for, 10s, --workers, "4", --keep]}
`, toServer))
		await(t, outside.client, outside.namespace, "the load runs", waitLimit, func(pods []*corev1.Pod) bool {
			return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
				return pod.GetMetadata().GetName() == "load" && pod.GetStatus().GetPhase() == "Running"
			})
		})
		for _, node := range []string{"node-1", "node-2"} {
			before := s.process(t, node+"/agent")
			if err := s.Kill(t.Context(), node+"/agent", lab.KillOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, node+"'s agent runs again", waitLimit, func() error {
				if now := s.process(t, node+"/agent"); now.PID == 0 || now.PID == before.PID {
					return fmt.Errorf("%+v", now)
				}
				return nil
			})
		}
		await(t, outside.client, outside.namespace, "the load ends", waitLimit, func(pods []*corev1.Pod) bool {
			return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
				return pod.GetMetadata().GetName() == "load" && pod.GetStatus().GetPhase() == "Succeeded"
			})
		})
		if out := outside.do(t, "logs", "load"); !strings.Contains(out, " 0 failed") {
			t.Errorf("connections that are allowed broke: %s", out)
		}
		outside.passes(t, toServer)
		inside.blocked(t, toServer)
	})
	t.Run("range of ports", func(t *testing.T) {
		ports := func(first, last int) string {
			return netpol("from-there", fmt.Sprintf("\n  podSelector: {matchLabels: {app: echo}}\n  ingress: [{ports: [{port: %d, endPort: %d}]}]", first, last))
		}
		inside.apply(t, ports(8081, 9000))
		outside.blocked(t, toServer)
		inside.apply(t, ports(8000, 8080))
		outside.passes(t, toServer)
	})
	t.Run("network with exceptions", func(t *testing.T) {
		inside.apply(t, netpol("to-there", fmt.Sprintf(`
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 10.244.0.0/16, except: [%s/32]}}]
    ports: [{port: 8080}]`, others[1].GetStatus().GetPodIp())))
		inside.passes(t, toOther)
		inside.passes(t, toServer)
		inside.blocked(t, "http://"+others[1].GetStatus().GetPodIp()+":8080/name")
	})
	t.Run("described", func(t *testing.T) {
		out := inside.do(t, "describe", "netpol", "to-there")
		for _, want := range []string{"app=client", "8080/TCP", "10.244.0.0/16", others[1].GetStatus().GetPodIp() + "/32"} {
			if !strings.Contains(out, want) {
				t.Errorf("describe lacks %q:\n%s", want, out)
			}
		}
		if out := inside.do(t, "get", "netpol"); !strings.Contains(out, "POD-SELECTOR") || !strings.Contains(out, "default-deny-all") {
			t.Errorf("get netpol:\n%s", out)
		}
	})
	inside.do(t, "delete", "netpol", "--all")
	inside.passes(t, toServer)
	outside.passes(t, toServer)
	inside.passes(t, toOther)
}

// policyFirstPacket runs pods whose first deed is to call elsewhere, while a policy denies it: not
// one may get through.
func (p *person) policyFirstPacket(t *testing.T, url string) {
	var manifests []string
	for i := range 6 {
		manifests = append(manifests, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: first-%d, labels: {app: first}}
spec:
  restartPolicy: Never
  initContainers:
  - {name: init, image: xebec/client:1, imagePullPolicy: IfNotPresent, args: [get, %q, --timeout, 2s]}
  containers:
  - {name: main, image: xebec/client:1, imagePullPolicy: IfNotPresent, args: [get, %q, --timeout, 2s]}
`, i, url, url))
	}
	p.apply(t, strings.Join(manifests, "---\n"))
	pods := await(t, p.client, p.namespace, "pods that begin by calling elsewhere have ended", waitLimit, func(pods []*corev1.Pod) bool {
		first := labelled(pods, "first")
		return len(first) == len(manifests) && !slices.ContainsFunc(first, func(pod *corev1.Pod) bool {
			phase := pod.GetStatus().GetPhase()
			return phase != "Failed" && phase != "Succeeded"
		})
	})
	for _, pod := range labelled(pods, "first") {
		ended := pod.GetStatus().GetInitContainerStatuses()[0].GetState().GetTerminated()
		if pod.GetStatus().GetPhase() != "Failed" || ended.GetExitCode() != 1 {
			t.Errorf("%s is %s: its init container ended with %d", pod.GetMetadata().GetName(), pod.GetStatus().GetPhase(), ended.GetExitCode())
		}
	}
}

// passes waits until the pod client reaches a URL.
func (p *person) passes(t *testing.T, url string) {
	t.Helper()
	eventually(t, p.namespace+"/client reaches "+url, waitLimit, func() error { return p.reaches(t, url, "echo-") })
}

// blocked waits until the pod client does not reach a URL.
func (p *person) blocked(t *testing.T, url string) {
	t.Helper()
	eventually(t, p.namespace+"/client is kept from "+url, waitLimit, func() error {
		o := p.try(t, "exec", "client", "--", "/client", "get", url, "--timeout", "1s")
		if o.code == 0 {
			return fmt.Errorf("%s", o)
		}
		if !strings.Contains(o.stderr, "deadline") && !strings.Contains(o.stderr, "timeout") && !strings.Contains(o.stderr, "timed out") {
			return fmt.Errorf("fails for another reason: %s", o)
		}
		return nil
	})
}

func (p *person) blockedUDP(t *testing.T, server *corev1.Pod) {
	t.Helper()
	if o := p.try(t, "exec", "client", "--", "/client", "udp", server.GetStatus().GetPodIp()+":8080", "x", "--timeout", "1s"); o.code == 0 {
		t.Errorf("datagrams pass where only TCP is allowed: %s", o)
	}
}
