package drain

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/discovery"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	endpointsv1 "github.com/xebec-project/xebec/proto/xebec/endpoints/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// synced is an informer that has synced.
type synced[T any] []T

func (s synced[T]) List() []T                         { return s }
func (s synced[T]) WaitForSync(context.Context) error { return nil }

func leavingPod() *corev1.Pod {
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web-1", Uid: "u1", Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{}, Status: &corev1.PodStatus{PodIp: "10.0.0.9", Phase: core.PodRunning},
	}
}

func webService() *corev1.Service {
	return &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: &corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
	}
}

// sliceOf is the endpoint slice of the service with the pod as an endpoint.
func sliceOf(revision string, terminating bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		Metadata: &metav1.ObjectMeta{
			Namespace: "default", Name: "web-x", ResourceVersion: revision,
			Labels: map[string]string{discovery.LabelServiceName: "web", discovery.LabelEndpointSliceManagedBy: discovery.EndpointSliceController},
		},
		Endpoints: []*discoveryv1.Endpoint{{
			Conditions: &discoveryv1.EndpointConditions{Terminating: &terminating}, TargetRef: &corev1.ObjectReference{Uid: "u1"},
		}},
	}
}

func TestPodWithoutServiceLeavesAtOnce(t *testing.T) {
	c := New(Config{Services: synced[*corev1.Service]{}, Slices: synced[*discoveryv1.EndpointSlice]{}})
	if err := c.Left(t.Context(), leavingPod(), false); err != nil {
		t.Error(err)
	}
}

// TestPodLeavesOnceEveryNodeHasProgrammedIt follows a pod through the slice that shows it as
// terminating and the acknowledgement of that slice's revision.
func TestPodLeavesOnceEveryNodeHasProgrammedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := sliceOf("5", false)
		c := New(Config{Services: synced[*corev1.Service]{webService()}, Slices: synced[*discoveryv1.EndpointSlice]{before}})
		left := make(chan error, 1)
		go func() { left <- c.Left(t.Context(), leavingPod(), false) }()
		waits := func(what string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-left:
				t.Fatalf("%s: returned %v", what, err)
			default:
			}
		}
		waits("the slice shows the pod as serving")
		c.OnEndpointSlice(before, sliceOf("7", true))
		waits("no node has programmed revision 7")
		if next := c.request(nil); next.GetAwait() != 7 {
			t.Errorf("the endpoints service is asked about revision %d, want 7", next.GetAwait())
		}
		c.take(&endpointsv1.AcknowledgeResponse{Everywhere: 6})
		waits("all nodes have programmed revision 6")
		c.take(&endpointsv1.AcknowledgeResponse{Everywhere: 7})
		if err := <-left; err != nil {
			t.Error(err)
		}
	})
}

func TestDeletedServiceIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := webService()
		c := New(Config{Services: synced[*corev1.Service]{service}, Slices: synced[*discoveryv1.EndpointSlice]{sliceOf("5", false)}})
		left := make(chan error, 1)
		go func() { left <- c.Left(t.Context(), leavingPod(), false) }()
		synctest.Wait()
		c.OnService(service, nil)
		if err := <-left; err != nil {
			t.Error(err)
		}
	})
}

func TestErrorNamesTheNodesThatLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Services: synced[*corev1.Service]{webService()}, Slices: synced[*discoveryv1.EndpointSlice]{sliceOf("7", true)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left := make(chan error, 1)
		go func() { left <- c.Left(ctx, leavingPod(), false) }()
		synctest.Wait()
		c.take(&endpointsv1.AcknowledgeResponse{Everywhere: 6, Behind: []string{"n2", "n3"}})
		if err := <-left; err == nil || !strings.Contains(err.Error(), "n2, n3") {
			t.Errorf("error %v, want one that names n2 and n3", err)
		}
	})
}

func TestRestoredClusterForgetsAcknowledgements(t *testing.T) {
	c := New(Config{})
	c.Programmed(9)
	c.take(&endpointsv1.AcknowledgeResponse{Everywhere: 9})
	c.Programmed(4)
	if c.everywhere != 0 {
		t.Errorf("nodes are taken to have programmed revision %d after the revision went back", c.everywhere)
	}
}

// TestRequestIsSentOnlyForNews checks that a node does not report every revision, only those that
// another one waits for.
func TestRequestIsSentOnlyForNews(t *testing.T) {
	c := New(Config{})
	first := c.request(nil)
	c.Programmed(3)
	if next := c.request(first); next != nil {
		t.Errorf("sends %v that nothing waits for", next)
	}
	c.take(&endpointsv1.AcknowledgeResponse{Wanted: 3})
	if next := c.request(first); next.GetProgrammed() != 3 {
		t.Errorf("sends %v, want revision 3, which is wanted", next)
	}
}
