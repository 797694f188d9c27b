package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	eventsv1 "github.com/xebec-project/xebec/proto/xebec/events/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// newEvent is the event of Kubernetes' specs of the Events API.
func newEvent(name, label string) *eventsv1.Event {
	return &eventsv1.Event{
		Metadata:  &metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{label: "true"}},
		Regarding: &corev1.ObjectReference{Namespace: "default"}, EventTime: timestamppb.New(time.UnixMicro(1700000000123456)),
		Note: "This is " + name, Action: "Do", Reason: "Test", Type: "Normal",
		ReportingController: "test-controller", ReportingInstance: "test-node",
	}
}

// TestEventsOfBothGroups plays the steps of Kubernetes' specs of events in both groups, and shows
// that the groups serve the same objects.
func TestEventsOfBothGroups(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c := admin(conn)
	waitNamespace(t, c)
	const label = "testevent-constant"
	t.Run("Events API should ensure that an event can be fetched, patched, deleted, and listed", func(t *testing.T) {
		ctx := t.Context()
		do[*eventsv1.Event](t)(client.Create(ctx, c, newEvent("event-test", label)))
		for _, o := range []client.ListOptions{
			{LabelSelector: label + "=true"}, {Namespace: "default", LabelSelector: label + "=true"},
			{Namespace: "default", FieldSelector: "reportingController=test-controller"},
			{Namespace: "default", FieldSelector: "regarding.namespace=default,type=Normal,reason=Test"},
		} {
			expectListed[*eventsv1.Event](t, c, o, "event-test")
		}
		expectListed[*eventsv1.Event](t, c, client.ListOptions{FieldSelector: "reportingController=other"})
		got := do[*eventsv1.Event](t)(client.Get[*eventsv1.Event](ctx, c, "default", "event-test"))
		if got.GetNote() != "This is event-test" || got.GetRegarding().GetNamespace() != "default" {
			t.Errorf("created: %v", got)
		}
		series := `{"series":{"count":100,"lastObservedTime":"2026-02-03T04:05:06.000007Z"}}`
		got = do[*eventsv1.Event](t)(client.Patch[*eventsv1.Event](ctx, c, "default", "event-test", []byte(series), client.StrategicPatch))
		if got.GetSeries().GetCount() != 100 || got.GetSeries().GetLastObservedTime().GetNanos() != 7000 {
			t.Errorf("patched: %v", got)
		}
		got = client.Clone(got)
		got.Series = &eventsv1.EventSeries{Count: 101, LastObservedTime: timestamppb.New(time.UnixMicro(1700000000654321))}
		if got = do[*eventsv1.Event](t)(client.Update(ctx, c, got)); got.GetSeries().GetCount() != 101 {
			t.Errorf("updated: %v", got)
		}
		do[bool](t)(client.Delete[*eventsv1.Event](ctx, c, "default", "event-test"))
		expectListed[*eventsv1.Event](t, c, client.ListOptions{LabelSelector: label + "=true"})
	})
	t.Run("Events API should delete a collection of events", func(t *testing.T) {
		ctx := t.Context()
		for _, name := range []string{"test-event-1", "test-event-2", "test-event-3"} {
			do[*eventsv1.Event](t)(client.Create(ctx, c, newEvent(name, "testevent-set")))
		}
		selected := client.ListOptions{Namespace: "default", LabelSelector: "testevent-set=true"}
		expectListed[*eventsv1.Event](t, c, selected, "test-event-1", "test-event-2", "test-event-3")
		if _, err := client.DeleteCollection[*eventsv1.Event](ctx, c, selected); err != nil {
			t.Fatal(err)
		}
		expectListed[*eventsv1.Event](t, c, selected)
	})
	t.Run("Events should manage the lifecycle of an event", func(t *testing.T) {
		ctx := t.Context()
		do[*corev1.Event](t)(client.Create(ctx, c, &corev1.Event{
			Metadata: &metav1.ObjectMeta{Name: "event-test", Namespace: "default", Labels: map[string]string{label: "true"}},
			Message:  "This is a test event", Reason: "Test", Type: "Normal", Count: 1,
			InvolvedObject: &corev1.ObjectReference{Kind: "Pod", Name: "pod-name", Namespace: "default"},
		}))
		expectListed[*corev1.Event](t, c, client.ListOptions{LabelSelector: label + "=true"}, "event-test")
		patch := []byte(`{"message":"This is a test event - patched"}`)
		do[*corev1.Event](t)(client.Patch[*corev1.Event](ctx, c, "default", "event-test", patch, client.StrategicPatch))
		got := client.Clone(do[*corev1.Event](t)(client.Get[*corev1.Event](ctx, c, "default", "event-test")))
		if got.GetMessage() != "This is a test event - patched" {
			t.Errorf("patched: %v", got)
		}
		got.Series = &corev1.EventSeries{Count: 100, LastObservedTime: timestamppb.New(time.UnixMicro(1505828956))}
		do[*corev1.Event](t)(client.Update(ctx, c, got))
		do[bool](t)(client.Delete[*corev1.Event](ctx, c, "default", "event-test"))
		expectListed[*corev1.Event](t, c, client.ListOptions{LabelSelector: label + "=true"})
	})
	t.Run("both groups have the same objects", func(t *testing.T) {
		ctx := t.Context()
		var seen []string
		watched := make(chan error, 1)
		go func() {
			for e, err := range client.Watch[*eventsv1.Event](ctx, c, client.WatchOptions{Namespace: "default", FieldSelector: "regarding.name=web"}) {
				if err != nil {
					watched <- err
					return
				}
				if e.Type != apiv1.EventType_EVENT_TYPE_BOOKMARK {
					seen = append(seen, e.Object.GetNote())
				}
				if e.Type == apiv1.EventType_EVENT_TYPE_DELETED {
					break
				}
			}
			watched <- nil
		}()
		created := newEvent("shared", label)
		created.Regarding.Name = "web"
		created = do[*eventsv1.Event](t)(client.Create(ctx, c, created))
		stored := client.Clone(do[*corev1.Event](t)(client.Get[*corev1.Event](ctx, c, "default", "shared")))
		if stored.GetMetadata().GetUid() != created.GetMetadata().GetUid() || stored.GetInvolvedObject().GetName() != "web" ||
			stored.GetMessage() != "This is shared" || stored.GetReportingComponent() != "test-controller" {
			t.Errorf("in the core group: %v", stored)
		}
		if _, err := client.Create(ctx, c, stored); err == nil {
			t.Error("a second event of the name was created in the core group")
		}
		// In the core group all may change.
		stored.Message = "changed"
		do[*corev1.Event](t)(client.Update(ctx, c, stored))
		expectListed[*eventsv1.Event](t, c, client.ListOptions{FieldSelector: "regarding.name=web"}, "shared")
		expectListed[*corev1.Event](t, c, client.ListOptions{FieldSelector: "involvedObject.name=web"}, "shared")
		do[bool](t)(client.Delete[*corev1.Event](ctx, c, "default", "shared"))
		if _, err := client.Get[*eventsv1.Event](ctx, c, "default", "shared"); !apierr.IsNotFound(err) {
			t.Errorf("deleted in the core group: %v", err)
		}
		if err := <-watched; err != nil || strings.Join(seen, ", ") != "This is shared, changed, changed" {
			t.Errorf("a watch in events.k8s.io saw %q: %v", seen, err)
		}
	})
	t.Run("what is sent in events.k8s.io passes its rules", func(t *testing.T) {
		ctx := t.Context()
		bad := newEvent("bad", label)
		bad.Type = "" // the core group has a default
		_, err := client.Create(ctx, c, bad)
		refusedAs(t, err, "type: Invalid value")
		do[*eventsv1.Event](t)(client.Create(ctx, c, newEvent("fine", label)))
		_, err = client.Patch[*eventsv1.Event](ctx, c, "default", "fine", []byte(`{"note":"other"}`))
		refusedAs(t, err, `note: Invalid value: "other": field is immutable`)
		applied := newEvent("fine", label)
		applied.Reason = "Other"
		_, _, err = client.Apply(ctx, c.WithFieldManager("m"), applied, client.Force)
		refusedAs(t, err, `reason: Invalid value: "Other": field is immutable`)
		applied.Metadata.Name, applied.DeprecatedCount = "new", 1
		_, _, err = client.Apply(ctx, c.WithFieldManager("m"), applied)
		refusedAs(t, err, "deprecatedCount: Invalid value")
	})
}

// refusedAs expects an error about an invalid object.
func refusedAs(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("error %v, want one with %q", err, words)
	}
}

// expectListed expects a list of the named objects, in order.
func expectListed[T scheme.Object](t *testing.T, c *client.Client, o client.ListOptions, want ...string) {
	t.Helper()
	list, _, err := client.List[T](t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range list {
		got = append(got, o.GetMetadata().GetName())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%+v lists %q, want %q", o, got, want)
	}
}
