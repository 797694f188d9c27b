package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestPodsKnowTheCluster is a program in a pod that uses nothing but what every pod has: the
// variables, name and address of the cluster, the authority, and the token of its account.
func TestPodsKnowTheCluster(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	manifest := func(name, spec, args string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  %s
  containers:
  - {name: main, image: xebec/client:1, imagePullPolicy: IfNotPresent, args: %s}
`, name, spec, args)
	}
	const byVariables = "$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT_HTTPS)"
	p.apply(t, strings.Join([]string{
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: shy}\nautomountServiceAccountToken: false\n",
		manifest("by-name", "", "[whoami, --timeout, 60s]"),
		manifest("by-variables", "enableServiceLinks: false", "[whoami, \""+byVariables+"\", --timeout, 60s]"),
		manifest("as-shy", "serviceAccountName: shy", "[whoami]"),
		manifest("as-shy-asked", "serviceAccountName: shy\n  automountServiceAccountToken: true", "[whoami, --timeout, 60s]"),
	}, "---\n"))
	ended := func(name, phase string) string {
		await(t, s.client, p.namespace, name+" ends", waitLimit, func(pods []*corev1.Pod) bool {
			return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
				return pod.GetMetadata().GetName() == name && pod.GetStatus().GetPhase() == phase
			})
		})
		return p.do(t, "logs", name)
	}
	user := func(account string) string { return "system:serviceaccount:" + p.namespace + ":" + account + "\n" }
	for name, want := range map[string]string{"by-name": user("default"), "by-variables": user("default"), "as-shy-asked": user("shy")} {
		if got := ended(name, "Succeeded"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := ended("as-shy", "Failed"); !strings.Contains(got, core.AccountMountPath+"/token: no such file") {
		t.Errorf("without a token: %q", got)
	}
	if out := p.do(t, "get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"); out != "10.96.0.1:443" {
		t.Errorf("the service is at %s", out)
	}
}
