package controllers

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/collector"
)

func replicationController(name string, n int32) *corev1.ReplicationController {
	return &corev1.ReplicationController{Metadata: meta("default", name), Spec: &corev1.ReplicationControllerSpec{
		Replicas: &n, Selector: map[string]string{"app": name}, Template: template(name, "echo:1"),
	}}
}

// TestReplicationControllers plays the steps of Kubernetes' specs about ReplicationControllers and
// about garbage collection of their pods; the names of subtests say which.
func TestReplicationControllers(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	runCollector(t, h)
	ready := func(name string, n int32) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s has %d ready pods", name, n), func() bool {
			s := get[*corev1.ReplicationController](t, c, "default", name).GetStatus()
			return s.GetReplicas() == n && s.GetReadyReplicas() == n && s.GetAvailableReplicas() == n
		})
	}
	remove := func(name string, o client.DeleteOption) {
		t.Helper()
		if _, err := client.Delete[*corev1.ReplicationController](t.Context(), c, "default", name, o); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("serve a basic image on each replica, lifecycle", func(t *testing.T) {
		rc := replicationController("basic", 2)
		rc.Metadata.Labels, rc.Spec.Selector = nil, nil
		rc = create(t, c, rc)
		if rc.GetSpec().GetSelector()["app"] != "basic" || rc.GetMetadata().GetLabels()["app"] != "basic" {
			t.Errorf("defaults: %v", rc)
		}
		ready("basic", 2)
		expectEvent(t, c, "default", "basic", "Normal SuccessfulCreate: Created pod: basic-")
		patch[*corev1.ReplicationController](t, c, "default", "basic", `{"metadata":{"labels":{"test":"patched"}},"spec":{"replicas":1}}`)
		ready("basic", 1)
		expectEvent(t, c, "default", "basic", "Normal SuccessfulDelete: Deleted pod: basic-")
		all, _, err := client.List[*corev1.ReplicationController](t.Context(), c, client.ListOptions{LabelSelector: "test=patched"})
		if err != nil || len(all) != 1 {
			t.Errorf("listed %v, %v", all, err)
		}
	})

	t.Run("get and update a scale", func(t *testing.T) {
		create(t, c, replicationController("scaled", 1))
		ready("scaled", 1)
		resp, err := c.Resources().Get(t.Context(), &apiv1.GetRequest{Object: reference("scaled"), Subresource: "scale"})
		if err != nil {
			t.Fatal(err)
		}
		scale := &autoscalingv1.Scale{}
		if err := resp.GetObject().UnmarshalTo(scale); err != nil {
			t.Fatal(err)
		}
		if s := scale.GetStatus(); scale.GetSpec().GetReplicas() != 1 || s.GetReplicas() != 1 || s.GetSelector() != "app=scaled" {
			t.Errorf("got %v", scale)
		}
		scale.Spec.Replicas = 3
		updated, err := anypb.New(scale)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Resources().Update(t.Context(), &apiv1.UpdateRequest{
			Object: updated, Subresource: "scale", Reference: reference("scaled"),
		}); err != nil {
			t.Fatal(err)
		}
		ready("scaled", 3)
	})

	t.Run("adopt matching pods on creation, release no longer matching pods", func(t *testing.T) {
		p := pod("default", "orphan")
		p.Metadata.Labels = map[string]string{"app": "adopter"}
		create(t, c, p)
		rc := create(t, c, replicationController("adopter", 1))
		eventually(t, "the pod is adopted", func() bool { return kinds.IsControlledBy(get[*corev1.Pod](t, c, "default", "orphan"), rc) })
		ready("adopter", 1)
		patch[*corev1.Pod](t, c, "default", "orphan", `{"metadata":{"labels":{"app":"free"}}}`)
		eventually(t, "the pod is released", func() bool {
			return len(get[*corev1.Pod](t, c, "default", "orphan").GetMetadata().GetOwnerReferences()) == 0
		})
		eventually(t, "another is created", func() bool { return len(podsOf(t, c, "default", "app=adopter")) == 1 })
	})

	t.Run("surface a failure condition, and an object that only the status knows", func(t *testing.T) {
		rc := replicationController("patched", 0)
		create(t, c, rc)
		eventually(t, "observed", func() bool {
			return get[*corev1.ReplicationController](t, c, "default", "patched").GetStatus().GetObservedGeneration() == 1
		})
		rc = get[*corev1.ReplicationController](t, c, "default", "patched")
		rc.Status.Conditions = []*corev1.ReplicationControllerCondition{{Type: "Theirs", Status: "True"}}
		if _, err := client.UpdateStatus(t.Context(), c, rc); err != nil {
			t.Fatal(err)
		}
		throughout(t, 300*time.Millisecond, "the condition stays", func() error {
			if all := get[*corev1.ReplicationController](t, c, "default", "patched").GetStatus().GetConditions(); len(all) != 1 {
				return fmt.Errorf("got %v", all)
			}
			return nil
		})
	})

	t.Run("Garbage collector: delete pods created by rc when not orphaning", func(t *testing.T) {
		create(t, c, replicationController("collected", 2))
		ready("collected", 2)
		remove("collected", client.Background)
		eventually(t, "no pods", func() bool { return len(podsOf(t, c, "default", "app=collected")) == 0 })
	})

	t.Run("Garbage collector: keep the rc around until all its pods are deleted", func(t *testing.T) {
		rc := create(t, c, replicationController("foreground", 2))
		ready("foreground", 2)
		remove("foreground", client.Foreground)
		eventually(t, "the controller is gone, and its pods were before", func() bool {
			if !gone[*corev1.ReplicationController](t, c, "default", rc.GetMetadata().GetName()) {
				return false
			}
			if n := len(podsOf(t, c, "default", "app=foreground")); n > 0 {
				t.Errorf("%d pods outlived it", n)
			}
			return true
		})
	})

	t.Run("Garbage collector: orphan pods created by rc", func(t *testing.T) {
		create(t, c, replicationController("orphaning", 2))
		ready("orphaning", 2)
		remove("orphaning", client.Orphan)
		eventually(t, "the controller is gone", func() bool { return gone[*corev1.ReplicationController](t, c, "default", "orphaning") })
		throughout(t, 300*time.Millisecond, "the pods stay", func() error {
			if n := len(podsOf(t, c, "default", "app=orphaning")); n != 2 {
				return fmt.Errorf("%d pods are left", n)
			}
			return nil
		})
	})

	t.Run("Garbage collector: not delete dependents that have another valid owner", func(t *testing.T) {
		leaving := create(t, c, replicationController("leaving", 2))
		ready("leaving", 2)
		staying := create(t, c, replicationController("staying", 0))
		kept := podsOf(t, c, "default", "app=leaving")[0]
		ref := kinds.NewOwnerRef(staying)
		kept.Metadata.OwnerReferences = append(kept.Metadata.OwnerReferences, ref)
		if _, err := client.Update(t.Context(), c, kept); err != nil {
			t.Fatal(err)
		}
		remove("leaving", client.Foreground)
		eventually(t, "the controller is gone", func() bool {
			return gone[*corev1.ReplicationController](t, c, "default", leaving.GetMetadata().GetName())
		})
		left := podsOf(t, c, "default", "app=leaving")
		if len(left) != 1 || left[0].GetMetadata().GetUid() != kept.GetMetadata().GetUid() || left[0].GetMetadata().GetDeletionTimestamp() != nil {
			t.Errorf("left are %v", left)
		}
	})
}

// runCollector runs the collector until the test ends.
func runCollector(t *testing.T, h *house) {
	t.Helper()
	svc, err := collector.New(collector.Config{}, collector.Deps{
		Deps: elected.Deps{Host: "master-1", Client: h.service("collector"), Logger: logger(t)}, Scheme: kinds.NewScheme(),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, svc.Run)
}

// reference names a ReplicationController.
func reference(name string) *apiv1.ObjectReference {
	return &apiv1.ObjectReference{Kind: "ReplicationController", Namespace: "default", Name: name}
}
