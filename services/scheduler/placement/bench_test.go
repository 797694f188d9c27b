package placement

import (
	"fmt"
	"testing"

	"github.com/xebec-project/xebec/internal/codec"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// BenchmarkSchedulingCycle measures choosing a node for one pod and counting the pod there, on a cluster where every node
// runs 20 pods, one node in ten has a taint and one in two the image. The refused pod fits on no node.
func BenchmarkSchedulingCycle(b *testing.B) {
	const (
		fits    = `"containers":[{"name":"c","image":"echo:1","resources":{"requests":{"cpu":"100m","memory":"64Mi"}}}]`
		tooMuch = `"containers":[{"name":"c","image":"echo:1","resources":{"requests":{"cpu":"64","memory":"64Mi"}}}]`
	)
	for _, c := range []struct {
		name, spec string
		nodes      int
	}{{"fits/1000", fits, 1000}, {"fits/5000", fits, 5000}, {"refused/1000", tooMuch, 1000}, {"refused/5000", tooMuch, 5000}} {
		b.Run(c.name, func(b *testing.B) {
			s := NewState()
			for i := range c.nodes {
				if err := s.SetNode(benchmarkNode(b, i)); err != nil {
					b.Fatal(err)
				}
				for j := range 20 {
					s.Place(benchmarkPod(b, fmt.Sprintf("p-%d-%d", i, j), fmt.Sprint("rs-", (i+j)%50), fits), fmt.Sprint("n", i))
				}
			}
			p := benchmarkPod(b, "p", "rs-7", c.spec)
			b.ReportAllocs()
			for b.Loop() {
				if node, err := s.Choose(p); err == nil {
					s.Place(p, node)
					s.Remove(p.UID)
				}
			}
		})
	}
}

func benchmarkNode(b *testing.B, i int) *corev1.Node {
	b.Helper()
	image, taints := "other:1", ""
	if i%2 == 0 {
		image = "docker.io/library/echo:1"
	}
	if i%10 == 0 {
		taints = `"spec":{"taints":[{"key":"dedicated","value":"db","effect":"NoSchedule"}]},`
	}
	n := &corev1.Node{}
	text := fmt.Sprintf(`{"metadata":{"name":"n%d","labels":{"kubernetes.io/hostname":"n%d","zone":"z%d"}},%s"status":{
		"allocatable":{"cpu":"32","memory":"64Gi","pods":"110","ephemeral-storage":"100Gi"},"images":[{"names":[%q]}]}}`, i, i, i%3, taints, image)
	if err := codec.UnmarshalInto([]byte(text), n); err != nil {
		b.Fatal(err)
	}
	return n
}

func benchmarkPod(b *testing.B, name, owner, spec string) *Pod {
	b.Helper()
	pod := &corev1.Pod{}
	text := fmt.Sprintf(`{"metadata":{"name":%q,"uid":%q,"namespace":"default","ownerReferences":[{"apiVersion":"apps/v1",
		"kind":"ReplicaSet","name":%q,"uid":%q,"controller":true}]},"spec":{%s}}`, name, name, owner, owner, spec)
	if err := codec.UnmarshalInto([]byte(text), pod); err != nil {
		b.Fatal(err)
	}
	p, err := NewPod(pod)
	if err != nil {
		b.Fatal(err)
	}
	return p
}
