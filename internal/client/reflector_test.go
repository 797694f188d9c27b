package client_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// record is a sink that records what it receives.
type record struct{ received []string }

func (r *record) Begin() { r.received = append(r.received, "begin") }

func (r *record) Handle(event *apiv1.WatchResponse) error {
	sign := "+"
	switch event.GetType() {
	case apiv1.EventType_EVENT_TYPE_BOOKMARK:
		return nil
	case apiv1.EventType_EVENT_TYPE_DELETED:
		sign = "-"
	}
	object := &corev1.ConfigMap{}
	err := proto.Unmarshal(event.GetObject().GetValue(), object)
	r.received = append(r.received, sign+object.GetMetadata().GetName())
	return err
}

func (r *record) Reached(_ string, whole bool) {
	if whole {
		r.received = append(r.received, "whole")
	}
}

func TestReflectorResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		named := func(name string) *corev1.ConfigMap {
			return &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}}
		}
		clienttest.Seed(s, named("a"))
		ctx, cancel := context.WithCancel(t.Context())
		seen := &record{}
		ended := make(chan error, 1)
		go func() {
			ended <- client.NewReflector[*corev1.ConfigMap](c, client.WatchOptions{}).Run(ctx, seen)
		}()
		step := func(what string, want string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := strings.Join(seen.received, " "); got != want {
				t.Errorf("%s: received %q, want %q", what, got, want)
			}
			seen.received = nil
		}
		step("state", "begin +a whole")
		clienttest.Seed(s, named("b"))
		clienttest.Remove(s, named("a"))
		step("changes", "+b -a")
		s.Disconnect()
		clienttest.Seed(s, named("c"))
		step("after a cut", "-a +c")
		s.Disconnect()
		clienttest.Seed(s, named("d"))
		s.Compact()
		step("after compaction", "begin +b +c +d whole")

		var calls []time.Duration
		began := time.Now()
		s.Intercept(func(method string, _ proto.Message) error {
			if method == "Watch" {
				if calls = append(calls, time.Since(began)); len(calls) < 3 {
					return apierr.Overloaded(time.Minute, "busy")
				}
			}
			return nil
		})
		s.Disconnect()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(calls) != 3 || !slices.IsSorted(calls) || calls[1]-calls[0] < time.Minute || calls[2]-calls[1] < time.Minute {
			t.Errorf("watched at %v where the server asks for pauses of a minute", calls)
		}
		cancel()
		<-ended
	})
}
