package conformance_test

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// beyond is a namespace that no policy is made in. It holds the pods of neighbours.
const beyond = "beyond"

// The parties of policies: a server, clients on its node and on the other, of which one has the
// label that the documentation's policy asks for, and a server and a client in another namespace.
const (
	parties = `{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: nginx}}, spec: {terminationGracePeriodSeconds: 0, nodeName: node-1, containers: [{name: web, image: "nginx:1.14.2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: friend, labels: {access: "true"}}, spec: {terminationGracePeriodSeconds: 0, nodeName: node-2, containers: [{name: friend, image: "k8s.gcr.io/busybox:1.24", command: [sleep, "3600"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stranger}, spec: {terminationGracePeriodSeconds: 0, nodeName: node-1, containers: [{name: stranger, image: "k8s.gcr.io/busybox:1.24", command: [sleep, "3600"]}]}}
`
	neighbours = `{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 0, nodeName: node-2, containers: [{name: web, image: "nginx:1.14.2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: caller}, spec: {terminationGracePeriodSeconds: 0, nodeName: node-1, containers: [{name: caller, image: "k8s.gcr.io/busybox:1.24", command: [sleep, "3600"]}]}}
`
)

// open are the connections between the parties while there is no policy.
var open = []check{
	ready("web"), ready("friend"), ready("stranger"),
	admits("friend", "web"), admits("stranger", "web"), admits("beyond/caller", "web"),
	admits("web", "beyond/web"), admits("stranger", "beyond/web"), admits("beyond/caller", "beyond/web"),
}

// policyTrials play policies on the parties. A check of what is refused comes before those of what
// is admitted, so that the latter are made while the policy is in force.
var policyTrials = []trial{
	{files: []string{"service/networking/network-policy-default-deny-ingress.yaml"}, setup: parties, first: open, checks: []check{
		refuses("friend", "web"), refuses("stranger", "web"), refuses("beyond/caller", "web"),
		admits("web", "beyond/web"), admits("stranger", "beyond/web"), admits("beyond/caller", "beyond/web")}},
	{files: []string{"service/networking/network-policy-default-deny-egress.yaml"}, setup: parties, first: open, checks: []check{
		refuses("friend", "web"), refuses("stranger", "web"), refuses("web", "beyond/web"), refuses("stranger", "beyond/web"),
		admits("beyond/caller", "web"), admits("beyond/caller", "beyond/web")}},
	{files: []string{"service/networking/network-policy-default-deny-all.yaml"}, setup: parties, first: open, checks: []check{
		refuses("friend", "web"), refuses("stranger", "web"), refuses("beyond/caller", "web"), refuses("web", "beyond/web"), refuses("stranger", "beyond/web"),
		admits("beyond/caller", "beyond/web")}},
	{files: []string{"service/networking/network-policy-allow-all-ingress.yaml"}, setup: parties, first: open, checks: open},
	{files: []string{"service/networking/network-policy-allow-all-egress.yaml"}, setup: parties, first: open, checks: open},
	{files: []string{"service/networking/network-policy-default-deny-all.yaml", "service/networking/network-policy-allow-all-ingress.yaml"}, setup: parties, first: open, checks: []check{
		refuses("web", "beyond/web"), refuses("stranger", "web"), refuses("friend", "web"),
		admits("beyond/caller", "web")}},
	{files: []string{"service/networking/network-policy-default-deny-all.yaml", "service/networking/network-policy-allow-all-egress.yaml"}, setup: parties, first: open, checks: []check{
		refuses("beyond/caller", "web"), refuses("stranger", "web"), refuses("friend", "web"),
		admits("web", "beyond/web"), admits("stranger", "beyond/web")}},
	{files: []string{"service/networking/nginx-policy.yaml"}, setup: parties, first: open, checks: []check{
		refuses("stranger", "web"), refuses("beyond/caller", "web"),
		admits("friend", "web"), admits("web", "beyond/web"), admits("beyond/caller", "beyond/web"),
		cli("labeled", "label", "pod", "stranger", "access=true", "--overwrite"), admits("stranger", "web"),
		cli("labeled", "label", "pod", "friend", "access-"), refuses("friend", "web")}},
}

// admits checks that a pod's connection to another's HTTP port is answered. Pods of the neighbours
// are beyond/NAME.
func admits(from, to string) check {
	return check{what: from + " reaches " + to, is: func(ctx context.Context, s *stage) error {
		answer, err := s.connect(ctx, from, to)
		if err == nil && !strings.Contains(answer, "Welcome to nginx") {
			return fmt.Errorf("it was answered %.200q", answer)
		}
		return err
	}}
}

// refuses checks that a pod's connection to another's HTTP port is lost without a word, as policies
// do.
func refuses(from, to string) check {
	return check{what: from + " does not reach " + to, is: func(ctx context.Context, s *stage) error {
		answer, err := s.connect(ctx, from, to)
		switch {
		case err == nil:
			return fmt.Errorf("it was answered %.200q", answer)
		case !strings.Contains(err.Error(), "exceeded"):
			return err // no pod, no command: nothing that a policy does
		}
		return nil
	}}
}

// connect asks one pod's HTTP server from another pod.
func (s *stage) connect(ctx context.Context, from, to string) (string, error) {
	client, server := s.party(from), s.party(to)
	address, err := server.address(ctx)
	if err != nil {
		return "", err
	}
	return client.xebec(ctx, "", "exec", client.pod, "--", "/usr/sbin/wget", "-T", "2", "-qO-", "http://"+net.JoinHostPort(address, "80"))
}

// party is a pod of the stage's namespace, or of the neighbours'.
type party struct {
	stage
	pod string
}

func (s *stage) party(name string) party {
	p := party{stage: *s, pod: name}
	if pod, ok := strings.CutPrefix(name, beyond+"/"); ok {
		p.namespace, p.pod = beyond, pod
	}
	return p
}

func (p party) address(ctx context.Context) (string, error) {
	pod, err := client.Get[*corev1.Pod](ctx, p.api, p.namespace, p.pod)
	if err == nil && pod.GetStatus().GetPodIp() == "" {
		err = fmt.Errorf("pod %s has no address", p.pod)
	}
	return pod.GetStatus().GetPodIp(), err
}
