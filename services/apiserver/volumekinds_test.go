package apiserver

import (
	"context"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

func createKind[T scheme.Object](t *testing.T, c *client.Client, object T) T {
	t.Helper()
	return do[T](t)(client.Create(t.Context(), c, object))
}

func readKind[T scheme.Object](t *testing.T, c *client.Client, namespace, name string) T {
	t.Helper()
	return do[T](t)(client.Get[T](t.Context(), c, namespace, name))
}

func kindIsGone[T scheme.Object](t *testing.T, c *client.Client, namespace, name string) bool {
	t.Helper()
	_, err := client.Get[T](t.Context(), c, namespace, name)
	return apierr.IsNotFound(err)
}

// untilTrue polls until cond holds.
func untilTrue(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); !cond(); <-tick.C {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("waited 30 s in vain: %s", what)
		}
	}
}

func storageOfSize(size string) map[string]*metav1.Quantity {
	return map[string]*metav1.Quantity{"storage": {String_: size}}
}

// revisionNumber is the resourceVersion as the number that it is.
func revisionNumber(t *testing.T, o scheme.Object) int64 {
	t.Helper()
	n, err := strconv.ParseInt(o.GetMetadata().GetResourceVersion(), 10, 64)
	if err != nil || n <= 0 {
		t.Fatalf("resourceVersion %q: %v", o.GetMetadata().GetResourceVersion(), err)
	}
	return n
}

func labelledObjects[T scheme.Object](t *testing.T, c *client.Client, selector string) []T {
	t.Helper()
	all, _, err := client.List[T](t.Context(), c, client.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// playKindLifecycle plays the steps that the specs about the lifecycles of kinds share, on two
// objects with generated names.
func playKindLifecycle[T scheme.Object](t *testing.T, c *client.Client, object T) {
	t.Helper()
	namespace := object.GetMetadata().GetNamespace()
	k := kinds.Of(object)
	fresh := func() T {
		o := client.Clone(object)
		o.GetMetadata().GenerateName = "e2e-"
		return createKind(t, c, o)
	}

	first := fresh()
	name, before := first.GetMetadata().GetName(), revisionNumber(t, first)
	twin := client.Clone(object)
	twin.GetMetadata().Name = name
	if _, err := client.Create(t.Context(), c, twin); !apierr.IsAlreadyExists(err) {
		t.Errorf("a second object of the name: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	modified := make(chan T, 1)
	go func() {
		o := client.WatchOptions{Namespace: namespace, ResourceVersion: first.GetMetadata().GetResourceVersion()}
		for event, err := range client.Watch[T](ctx, c, o) {
			if err != nil {
				return
			}
			if event.Type == apiv1.EventType_EVENT_TYPE_MODIFIED && event.Object.GetMetadata().GetName() == name {
				modified <- event.Object
				return
			}
		}
	}()
	if uid := readKind[T](t, c, namespace, name).GetMetadata().GetUid(); uid != first.GetMetadata().GetUid() {
		t.Errorf("got the uid %s, created %s", uid, first.GetMetadata().GetUid())
	}
	patched, err := client.Patch[T](t.Context(), c, namespace, name, []byte(`{"metadata":{"labels":{"`+name+`":"patched"}}}`), client.StrategicPatch)
	if err != nil || patched.GetMetadata().GetLabels()[name] != "patched" || revisionNumber(t, patched) <= before {
		t.Fatalf("patched %v, %v", patched, err)
	}
	if seen := <-modified; seen.GetMetadata().GetLabels()[name] != "patched" {
		t.Errorf("the watch saw %v", seen)
	}
	if all := labelledObjects[T](t, c, name+"=patched"); len(all) != 1 {
		t.Errorf("listed %v", all)
	}
	if _, err := client.DeleteKind(t.Context(), c, k, namespace, name); err != nil {
		t.Fatal(err)
	}
	untilTrue(t, "it is gone", func() bool { return kindIsGone[T](t, c, namespace, name) })

	second := fresh()
	name = second.GetMetadata().GetName()
	second = readKind[T](t, c, namespace, name)
	second.GetMetadata().Labels = map[string]string{name: "updated"}
	updated, err := client.Update(t.Context(), c, second)
	if err != nil || updated.GetMetadata().GetLabels()[name] != "updated" {
		t.Fatalf("updated %v, %v", updated, err)
	}
	if all := labelledObjects[T](t, c, name+"=updated"); len(all) != 1 {
		t.Errorf("listed %v", all)
	}
	if _, err := client.DeleteCollection[T](t.Context(), c, client.ListOptions{Namespace: namespace, LabelSelector: name + "=updated"}); err != nil {
		t.Fatal(err)
	}
	untilTrue(t, "the collection is gone", func() bool { return len(labelledObjects[T](t, c, name+"=updated")) == 0 })
}

// readStatus reads an object by its subresource status.
func readStatus[T scheme.Object](t *testing.T, c *client.Client, object T) T {
	t.Helper()
	k, m := kinds.Of(object), object.GetMetadata()
	resp, err := c.Resources().Get(t.Context(), &apiv1.GetRequest{
		Object:      &apiv1.ObjectReference{Group: k.Group, Kind: k.Name, Namespace: m.GetNamespace(), Name: m.GetName()},
		Subresource: "status",
	})
	if err != nil {
		t.Fatal(err)
	}
	o := k.New().(T)
	if err := resp.GetObject().UnmarshalTo(o); err != nil {
		t.Fatal(err)
	}
	return o
}

func patchStatusOf[T scheme.Object](t *testing.T, c *client.Client, object T, text string) T {
	t.Helper()
	m := object.GetMetadata()
	o, err := client.Patch[T](t.Context(), c, m.GetNamespace(), m.GetName(), []byte(text), client.Subresource("status"))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func writeStatus[T scheme.Object](t *testing.T, c *client.Client, object T) T {
	t.Helper()
	o, err := client.UpdateStatus(t.Context(), c, object)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func persistentVolume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Metadata: &metav1.ObjectMeta{}, Spec: &corev1.PersistentVolumeSpec{
		Capacity: storageOfSize("2Gi"), AccessModes: []string{"ReadWriteOnce"}, StorageClassName: "default",
		PersistentVolumeSource: &corev1.PersistentVolumeSource{
			Csi: &corev1.CSIPersistentVolumeSource{Driver: "inline-driver.example.com", VolumeHandle: "e2e-conformance"},
		},
	}}
}

func persistentVolumeClaim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{Metadata: &metav1.ObjectMeta{Namespace: "default"}, Spec: &corev1.PersistentVolumeClaimSpec{
		AccessModes: []string{"ReadWriteOnce"}, StorageClassName: proto.String("default"),
		Resources: &corev1.VolumeResourceRequirements{Requests: storageOfSize("2Gi")},
	}}
}

func volumeAttachment() *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{Metadata: &metav1.ObjectMeta{Uid: "own"}, Spec: &storagev1.VolumeAttachmentSpec{
		Attacher: "e2e-test.storage.k8s.io", NodeName: "node-0",
		Source: &storagev1.VolumeAttachmentSource{PersistentVolumeName: proto.String("pv-e2e")},
	}}
}

// TestVolumeAndNetworkKinds plays the steps of Kubernetes' specs about kinds of volumes and of
// networks that are stored and served. The names of subtests are those of the specs.
func TestVolumeAndNetworkKinds(t *testing.T) {
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c := admin(conn)
	waitNamespace(t, c)

	t.Run("PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC", func(t *testing.T) {
		playKindLifecycle(t, c, persistentVolume())
		playKindLifecycle(t, c, persistentVolumeClaim())
	})
	t.Run("PersistentVolumes CSI Conformance should apply changes to a pv/pvc status", func(t *testing.T) {
		pv, pvc := persistentVolume(), persistentVolumeClaim()
		pv.Metadata.Name, pvc.Metadata.Name = "status", "status"
		pv, pvc = createKind(t, c, pv), createKind(t, c, pvc)
		if s := readStatus(t, c, pv).GetStatus(); s.GetPhase() != "Pending" || s.GetLastPhaseTransitionTime() == nil {
			t.Errorf("status of the volume: %v", s)
		}
		if phase := readStatus(t, c, pvc).GetStatus().GetPhase(); phase != "Pending" {
			t.Errorf("phase of the claim: %s", phase)
		}
		pvc = patchStatusOf(t, c, pvc, `{"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E patchedStatus","message":"Set from e2e test"}]}}`)
		if all := pvc.GetStatus().GetConditions(); len(all) != 1 || all[0].GetType() != "StatusPatched" || all[0].GetReason() != "E2E patchedStatus" {
			t.Errorf("conditions of the claim: %v", all)
		}
		pv = patchStatusOf(t, c, pv, `{"status":{"message":"StatusPatched","reason":"E2E patchStatus"}}`)
		if s := pv.GetStatus(); s.GetMessage() != "StatusPatched" || s.GetReason() != "E2E patchStatus" || s.GetPhase() != "Pending" {
			t.Errorf("status of the volume: %v", s)
		}
		pvc.Status.Conditions = append(pvc.Status.Conditions, &corev1.PersistentVolumeClaimCondition{Type: "StatusUpdate", Status: "True"})
		if all := writeStatus(t, c, pvc).GetStatus().GetConditions(); len(all) != 2 {
			t.Errorf("conditions of the claim: %v", all)
		}
		before := pv.GetStatus().GetLastPhaseTransitionTime()
		pv.Status = &corev1.PersistentVolumeStatus{Phase: "Available", Reason: "E2E updateStatus", Message: "StatusUpdated"}
		pv.Spec.Capacity = storageOfSize("3Gi")
		pv = writeStatus(t, c, pv)
		if s := pv.GetStatus(); s.GetReason() != "E2E updateStatus" || s.GetLastPhaseTransitionTime().AsTime().Before(before.AsTime()) {
			t.Errorf("status of the volume: %v", s)
		}
		if size := pv.GetSpec().GetCapacity()["storage"].GetString_(); size != "2Gi" {
			t.Errorf("an update of the status changed the capacity to %s", size)
		}
	})
	t.Run("StorageClasses CSI Conformance should run through the lifecycle of a StorageClass", func(t *testing.T) {
		playKindLifecycle(t, c, &storagev1.StorageClass{Metadata: &metav1.ObjectMeta{}, Provisioner: "e2e-fake-provisioner"})
	})
	t.Run("VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment", func(t *testing.T) {
		playKindLifecycle(t, c, volumeAttachment())
	})
	t.Run("VolumeAttachment Conformance should apply changes to a volumeattachment status", func(t *testing.T) {
		a := volumeAttachment()
		a.Metadata.Name, a.Status = "status", &storagev1.VolumeAttachmentStatus{Attached: true}
		a = createKind(t, c, a)
		if readStatus(t, c, a).GetStatus().GetAttached() {
			t.Error("a new attachment is attached")
		}
		if a = patchStatusOf(t, c, a, `{"status":{"attached":true}}`); !a.GetStatus().GetAttached() {
			t.Error("a patch of the status does not attach")
		}
		a.Status.Attached = false
		if a = writeStatus(t, c, a); a.GetStatus().GetAttached() {
			t.Error("an update of the status does not detach")
		}
		a.Spec.NodeName = "node-1"
		if _, err := client.Update(t.Context(), c, a); !apierr.IsInvalid(err) {
			t.Errorf("another node: %v", err)
		}
	})
	t.Run("CSINodes CSI Conformance should run through the lifecycle of a csinode", func(t *testing.T) {
		playKindLifecycle(t, c, &storagev1.CSINode{Metadata: &metav1.ObjectMeta{}})
	})
	t.Run("CSIInlineVolumes should run through the lifecycle of a CSIDriver", func(t *testing.T) {
		playKindLifecycle(t, c, &storagev1.CSIDriver{Metadata: &metav1.ObjectMeta{}, Spec: &storagev1.CSIDriverSpec{
			VolumeLifecycleModes: []string{"Persistent", "Ephemeral"}, FsGroupPolicy: proto.String("ReadWriteOnceWithFSType"),
		}})
	})
	t.Run("CSIStorageCapacity should support CSIStorageCapacities API operations", func(t *testing.T) {
		playKindLifecycle(t, c, &storagev1.CSIStorageCapacity{Metadata: &metav1.ObjectMeta{Namespace: "default"}, StorageClassName: "e2e.example.com"})
	})
	t.Run("VolumeAttributesClass should run through the lifecycle of a VolumeAttributesClass", func(t *testing.T) {
		playKindLifecycle(t, c, &storagev1.VolumeAttributesClass{
			Metadata: &metav1.ObjectMeta{}, DriverName: "e2e-fake-csi-driver", Parameters: map[string]string{"foo": "bar"},
		})
	})
	t.Run("ServiceCIDR and IPAddress API should support IPAddress API operations", func(t *testing.T) {
		playIPAddresses(t, c)
	})
}

func playIPAddresses(t *testing.T, c *client.Client) {
	for name, kind := range map[string]string{"255.255.255.255": "broadcast", "fe80::42:1dff:fe84:f9e2": "link-local"} {
		createKind(t, c, &networkingv1.IPAddress{
			Metadata: &metav1.ObjectMeta{Name: name, Labels: map[string]string{"type": kind}},
			Spec: &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
				Group: "mygroup", Resource: "myresources", Namespace: "foo", Name: "bar",
			}},
		})
	}
	const name = "255.255.255.255"
	before := revisionNumber(t, readKind[*networkingv1.IPAddress](t, c, "", name))
	a := do[*networkingv1.IPAddress](t)(client.Patch[*networkingv1.IPAddress](t.Context(), c, "", name, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`)))
	if a.GetMetadata().GetAnnotations()["patched"] != "true" || revisionNumber(t, a) <= before {
		t.Errorf("patched %v", a)
	}
	a.Metadata.Annotations["updated"] = "true"
	if _, err := client.Update(t.Context(), c, a); err != nil {
		t.Fatal(err)
	}
	if got := readKind[*networkingv1.IPAddress](t, c, "", name).GetMetadata().GetAnnotations()["updated"]; got != "true" {
		t.Errorf("updated to %q", got)
	}
	if all := labelledObjects[*networkingv1.IPAddress](t, c, "type=broadcast"); len(all) != 1 {
		t.Errorf("listed %v", all)
	}
	if _, err := client.Delete[*networkingv1.IPAddress](t.Context(), c, "", name); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteCollection[*networkingv1.IPAddress](t.Context(), c, client.ListOptions{LabelSelector: "type=link-local"}); err != nil {
		t.Fatal(err)
	}
	if all := labelledObjects[*networkingv1.IPAddress](t, c, "type"); len(all) != 0 {
		t.Errorf("left %v", all)
	}
}
