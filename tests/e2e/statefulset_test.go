package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestStatefulSetNames has pods of a StatefulSet find each other by their stable names in DNS, also
// when a pod was replaced and has another address.
func TestStatefulSetNames(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	p.apply(t, `apiVersion: v1
kind: Service
metadata: {name: peers}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: db}
  ports: [{name: db, port: 5432}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: peers
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: xebec/client:1, imagePullPolicy: IfNotPresent, args: [sleep]}
`)
	p.do(t, "rollout", "status", "statefulset/db", "--timeout=60s")
	address := func(pod string) string {
		t.Helper()
		o, err := client.Get[*corev1.Pod](t.Context(), s.client, p.namespace, pod)
		if err != nil {
			t.Fatal(err)
		}
		return o.GetStatus().GetPodIp()
	}
	resolves := func(from, name, pod string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s resolves %s", from, name), waitLimit, func() error {
			// The address and the node's records follow the pod.
			o := p.try(t, "exec", from, "--", "/client", "dns", name)
			if want := address(pod); o.code != 0 || want == "" || strings.TrimSpace(o.stdout) != want {
				return fmt.Errorf("want %q: %s", want, o)
			}
			return nil
		})
	}
	for i := range 3 {
		peer := fmt.Sprint("db-", (i+1)%3)
		resolves(fmt.Sprint("db-", i), peer+".peers", peer)
		resolves(fmt.Sprint("db-", i), peer+".peers."+p.namespace+".svc.cluster.local", peer)
	}
	before := address("db-1")
	p.do(t, "delete", "pod", "db-1")
	p.do(t, "rollout", "status", "statefulset/db", "--timeout=60s")
	resolves("db-0", "db-1.peers", "db-1")
	t.Logf("db-1 moved from %s to %s", before, address("db-1"))
}
