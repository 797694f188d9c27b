// Package frameworktest makes the pods and nodes of tests from a few words of JSON.
package frameworktest

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/codec"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Status fields of nodes.
const (
	// Big is a node with 4 cores, 8 GiB and room for 110 pods.
	Big = `"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"}}`
	// Small is a node with 1 core, 1 GiB and room for 2 pods.
	Small = `"status":{"allocatable":{"cpu":"1","memory":"1Gi","pods":"2"}}`
)

// Node returns a node with the label kubernetes.io/hostname. fields are the JSON fields beside
// metadata.
func Node(t testing.TB, name, fields string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{}
	decode(t, fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"kubernetes.io/hostname":%q}},%s}`, name, name, fields), n)
	return n
}

// Pod returns a pod of the ReplicaSet "rs", on a node unless that is empty. Its uid is its name.
// spec are the JSON fields of its spec; they may go on with those of other parts of the pod.
func Pod(t testing.TB, name, node, spec string) *framework.Pod {
	t.Helper()
	return PodOf(t, name, node, "rs", spec)
}

// PodOf returns a pod of a ReplicaSet, like Pod, with changes.
func PodOf(t testing.TB, name, node, replicaSet, spec string, changes ...func(*corev1.Pod)) *framework.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	decode(t, fmt.Sprintf(`{"metadata":{"name":%q,"uid":%q,"namespace":"default","ownerReferences":[{"apiVersion":"apps/v1",
		"kind":"ReplicaSet","name":%q,"uid":%q,"controller":true}]},"spec":{"nodeName":%q,%s}}`,
		name, name, replicaSet, replicaSet, node, spec), pod)
	for _, change := range changes {
		change(pod)
	}
	p, err := framework.NewPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Container returns the spec fields of a pod with one container of the image echo:1. requests are
// JSON fields.
func Container(requests string) string {
	return `"containers":[{"name":"c","image":"echo:1","resources":{"requests":{` + requests + `}}}]`
}

func decode(t testing.TB, text string, into proto.Message) {
	t.Helper()
	if err := codec.UnmarshalInto([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
