package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// agentSet is a DaemonSet that runs web:2 on two nodes.
func agentSet() *appsv1.DaemonSet {
	d := kindtest.DaemonSet()
	d.Metadata.Name, d.Metadata.Uid, d.Metadata.Generation = "agent", "uid-agent", 2
	kinds.Of(d).Default(d)
	d.Spec.Template.Spec.Containers[0].Image = "web:2"
	d.Status = &appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2, NumberAvailable: 2}
	return d
}

// agentRevision is a revision of the set with an image.
func agentRevision(t *testing.T, d *appsv1.DaemonSet, number int64, image string) *appsv1.ControllerRevision {
	t.Helper()
	template := proto.CloneOf(d.GetSpec().GetTemplate())
	template.Spec.Containers[0].Image = image
	data, err := history.Data(template)
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.ReplaceAll(image, ":", "-")
	return &appsv1.ControllerRevision{
		Metadata: &metav1.ObjectMeta{
			Name: "agent-" + hash, Namespace: "default", Labels: map[string]string{"app": "web", "controller-revision-hash": hash},
			Annotations:       map[string]string{"kubernetes.io/change-cause": "to " + image},
			CreationTimestamp: ago(5 * time.Minute), OwnerReferences: []*metav1.OwnerReference{kinds.NewControllerRef(d)},
		},
		Data: &metav1.RawExtension{Raw: data}, Revision: number,
	}
}

func TestRolloutOfDaemonSet(t *testing.T) {
	c := startCluster(t)
	d := agentSet()
	clienttest.Seed(c.Server, d)
	clienttest.Seed(c.Server, agentRevision(t, d, 1, "web:1"), agentRevision(t, d, 2, "web:2"))
	c.run(t, "rollout", "status", "daemonset/agent").want(t, exit.OK, "daemon set \"agent\" successfully rolled out\n")
	c.run(t, "rollout", "history", "ds", "agent").want(t, exit.OK, "daemonset.apps/agent\n"+
		"REVISION   REPLICAS   AGE   CHANGE-CAUSE\n"+
		"1          0          5m    to web:1\n"+
		"2          0          5m    to web:2\n")
	c.run(t, "rollout", "undo", "daemonset/agent", "--to-revision=2").
		want(t, exit.OK, "daemonset.apps/agent skipped rollback (current template already matches revision 2)\n")
	c.run(t, "rollout", "undo", "daemonset/agent").want(t, exit.OK, "daemonset.apps/agent rolled back\n")
	c.run(t, "get", "ds", "agent", "-o", "jsonpath={.spec.template.spec.containers[0].image}").want(t, exit.OK, "web:1")
	c.run(t, "rollout", "restart", "daemonset/agent").want(t, exit.OK, "daemonset.apps/agent restarted\n")
	c.run(t, "rollout", "pause", "daemonset/agent").want(t, exit.Usage, "", "rollouts of daemonsets cannot be paused")

	for _, state := range []struct {
		change func(*appsv1.DaemonSet)
		want   string
	}{
		{func(d *appsv1.DaemonSet) { d.Status.ObservedGeneration = 1 }, "Waiting for daemon set spec update to be observed...\n"},
		{func(d *appsv1.DaemonSet) { d.Status.UpdatedNumberScheduled = 1 },
			"Waiting for daemon set \"waiting\" rollout to finish: 1 out of 2 new pods have been updated...\n"},
		{func(d *appsv1.DaemonSet) { d.Status.NumberAvailable = 1 }, "Waiting for daemon set \"waiting\" rollout to finish: 1 of 2 updated pods are available...\n"},
	} {
		d := agentSet()
		d.Metadata.Name, d.Metadata.Uid = "waiting", "uid-waiting"
		state.change(d)
		clienttest.Seed(c.Server, d)
		c.run(t, "rollout", "status", "daemonset/waiting", "--watch=false").want(t, exit.OK, state.want)
		clienttest.Remove(c.Server, d)
	}
	byHand := agentSet()
	byHand.Metadata.Name, byHand.Spec.UpdateStrategy = "by-hand", &appsv1.DaemonSetUpdateStrategy{Type: "OnDelete"}
	clienttest.Seed(c.Server, byHand)
	c.run(t, "rollout", "status", "daemonset/by-hand").want(t, exit.Failed, "", "only available for RollingUpdate")
}

func TestDrainLeavesPodsOfDaemonSets(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, testNode("node-1", true))
	d := agentSet()
	clienttest.Seed(c.Server, d)
	p := webPod("agent-x", "node-1")
	p.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(d)}
	clienttest.Seed(c.Server, p)
	c.run(t, "drain", "node-1").want(t, exit.Failed, "node/node-1 cordoned\n", "default/agent-x is managed by a DaemonSet")
	c.run(t, "drain", "node-1", "--ignore-daemonsets").want(t, exit.OK, "node/node-1 already cordoned\nnode/node-1 drained\n")
	if c.Calls("Evict")+c.Calls("Delete") > 0 {
		t.Error("the pod of the DaemonSet was evicted")
	}
}

func TestScaleAndWaitForReplicationController(t *testing.T) {
	c := startCluster(t)
	rc := kindtest.ReplicationController()
	kinds.Of(rc).Default(rc)
	rc.Status = &corev1.ReplicationControllerStatus{Replicas: 1, ReadyReplicas: 1}
	clienttest.Seed(c.Server, rc)
	c.run(t, "scale", "rc/web", "--replicas=3").want(t, exit.OK, "replicationcontroller/web scaled\n")
	c.run(t, "get", "rc", "web", "-o", "jsonpath={.spec.replicas}").want(t, exit.OK, "3")
	c.run(t, "wait", "rc/web", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=5s").want(t, exit.OK, "replicationcontroller/web condition met\n")
}

// TestDescribeDaemonSetAndReplicationController plays "should check if kubectl describe prints
// relevant information for rc and pods".
func TestDescribeDaemonSetAndReplicationController(t *testing.T) {
	c := startCluster(t)
	d, rc := agentSet(), kindtest.ReplicationController()
	kinds.Of(rc).Default(rc)
	rc.Metadata.Uid = "uid-rc"
	rc.Status = &corev1.ReplicationControllerStatus{Replicas: 1, ReadyReplicas: 1}
	clienttest.Seed(c.Server, d)
	clienttest.Seed(c.Server, rc)
	for name, owner := range map[string]scheme.Object{"agent-x": d, "web-x": rc} {
		p := webPod(name, "node-1")
		p.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(owner)}
		clienttest.Seed(c.Server, p)
	}
	for what, words := range map[string][]string{
		"rc/web": {"Name:", "Namespace:", "Selector: ", "app=web", "Labels:", "Annotations:", "1 current / 1 desired", "1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
			"Pod Template:", "Image:", "Events:"},
		"ds/agent": {"Node-Selector:", "Desired Number of Nodes Scheduled:", "Misscheduled:", "1 Running / 0 Waiting", "Image:", "Events:"},
	} {
		r := c.run(t, "describe", what)
		for _, word := range words {
			if !strings.Contains(r.out, word) {
				t.Errorf("describe %s lacks %q:\n%s%s", what, word, r.out, r.err)
			}
		}
	}
}

func TestDaemonSetNamesItsPods(t *testing.T) {
	c := startCluster(t)
	d := agentSet()
	d.Status.NumberAvailable = 1
	clienttest.Seed(c.Server, d)
	p := webPod("agent-x", "node-1")
	p.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(d)}
	clienttest.Seed(c.Server, p)
	if r := c.run(t, "why", "ds/agent"); r.code != exit.OK || !strings.Contains(r.out, "1 of 2 updated pods are available") || !strings.Contains(r.out, "agent-x") {
		t.Errorf("why: %s%s", r.out, r.err)
	}
}
