package cli

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestRolloutOfStatefulSet(t *testing.T) {
	c := startCluster(t)
	s := &appsv1.StatefulSet{
		Metadata: &metav1.ObjectMeta{Name: "db", Namespace: "default", Uid: "uid-db", Generation: 2},
		Spec: &appsv1.StatefulSetSpec{
			Replicas: proto.Int32(2), Selector: webDeployment().GetSpec().GetSelector(), Template: proto.CloneOf(webDeployment().GetSpec().GetTemplate()),
			UpdateStrategy: &appsv1.StatefulSetUpdateStrategy{Type: apps.StrategyRollingUpdate},
		},
		Status: &appsv1.StatefulSetStatus{ObservedGeneration: 2, Replicas: 2, ReadyReplicas: 2, CurrentReplicas: 2, UpdatedReplicas: 2, CurrentRevision: "db-2", UpdateRevision: "db-2"},
	}
	kinds.Of(s).Default(s)
	revision := func(number int64, image string) *appsv1.ControllerRevision {
		template := proto.CloneOf(s.GetSpec().GetTemplate())
		template.Spec.Containers[0].Image = image
		data, err := history.Data(template)
		if err != nil {
			t.Fatal(err)
		}
		return &appsv1.ControllerRevision{
			Metadata: &metav1.ObjectMeta{
				Name: fmt.Sprint("db-", number), Namespace: "default", Labels: template.GetMetadata().GetLabels(), OwnerReferences: []*metav1.OwnerReference{kinds.NewControllerRef(s)},
				CreationTimestamp: webSet("1", image, 0, webDeployment()).GetMetadata().GetCreationTimestamp(),
			},
			Data: &metav1.RawExtension{Raw: data}, Revision: number,
		}
	}
	clienttest.Seed(c.Server, s)
	clienttest.Seed(c.Server, revision(1, "echo:0"), revision(2, s.GetSpec().GetTemplate().GetSpec().GetContainers()[0].GetImage()))
	c.run(t, "rollout", "status", "statefulset/db").want(t, exit.OK, "statefulset rolling update complete 2 pods at revision db-2...\n")
	c.run(t, "rollout", "history", "sts/db").want(t, exit.OK, "statefulset.apps/db\nREVISION   REPLICAS   AGE   CHANGE-CAUSE\n1          0          5m    <none>\n2          0          5m    <none>\n")
	c.run(t, "rollout", "pause", "sts/db").want(t, exit.Usage, "", "rollouts of statefulsets cannot be paused: want a deployment")
	c.run(t, "rollout", "undo", "sts/db").want(t, exit.OK, "statefulset.apps/db rolled back\n")
	c.run(t, "get", "sts", "db", "-o", "jsonpath={.spec.template.spec.containers[0].image}").want(t, exit.OK, "echo:0")
	c.run(t, "rollout", "restart", "sts/db").want(t, exit.OK, "statefulset.apps/db restarted\n")
	c.run(t, "scale", "sts/db", "--replicas=3").want(t, exit.OK, "statefulset.apps/db scaled\n")
	// A broken pod of an old revision has to be deleted.
	waiting := proto.CloneOf(s)
	waiting.Metadata.Name, waiting.Metadata.Uid, waiting.Status.ReadyReplicas, waiting.Status.UpdateRevision = "held", "uid-held", 1, "held-3"
	broken := webPod("held-1", "node-1")
	broken.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(waiting)}
	broken.Metadata.Labels = map[string]string{"app": "web", apps.LabelControllerRevisionHash: "held-2"}
	broken.Status.Conditions[0].Status = condition.False
	broken.Status.ContainerStatuses[0].Ready, broken.Status.ContainerStatuses[0].LastState = false, nil
	broken.Status.ContainerStatuses[0].State = &corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
	clienttest.Seed(c.Server, waiting)
	clienttest.Seed(c.Server, broken)
	c.run(t, "rollout", "status", "sts/held", "--watch=false").want(t, exit.OK, "Waiting for 1 pods to be ready...\n"+
		"  pod held-1: container echo is waiting: ImagePullBackOff (it has the old revision held-2 and holds up the update: 'xebec delete pod held-1' replaces it)\n")
	partitioned := proto.CloneOf(s)
	partitioned.Metadata.Name, partitioned.Metadata.Uid = "parts", "uid-parts"
	partitioned.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: proto.Int32(1)}
	partitioned.Status.UpdatedReplicas = 1
	byHand := proto.CloneOf(s)
	byHand.Metadata.Name, byHand.Metadata.Uid, byHand.Spec.UpdateStrategy.Type = "by-hand", "uid-by-hand", apps.StrategyOnDelete
	clienttest.Seed(c.Server, partitioned, byHand)
	c.run(t, "rollout", "status", "sts/parts").want(t, exit.OK, "partitioned roll out complete: 1 new pods have been updated...\n")
	c.run(t, "rollout", "status", "sts/by-hand").want(t, exit.Failed, "", "has OnDelete")
}
