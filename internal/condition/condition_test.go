package condition

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func conditions() []*corev1.PodCondition {
	return []*corev1.PodCondition{
		{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.New(epoch.Add(-time.Hour))},
		{Type: "PodScheduled", Status: "True"},
		{Type: "example.com/gate", Status: "False"},
	}
}

func TestFind(t *testing.T) {
	if c := Find(conditions(), "Ready"); c.GetStatus() != "True" {
		t.Errorf("Ready: %v", c)
	}
	if c := Find(conditions(), "Absent"); c != nil {
		t.Errorf("a condition that does not exist: %v", c)
	}
}

func TestSince(t *testing.T) {
	for _, tt := range []struct {
		name, typ, status string
		want              time.Time
	}{
		{"the same status", "Ready", "True", epoch.Add(-time.Hour)},
		{"another status", "Ready", "False", epoch.Truncate(time.Second)},
		{"a new condition", "Absent", "True", epoch.Truncate(time.Second)},
		{"the condition before has no time", "PodScheduled", "True", epoch.Truncate(time.Second)},
	} {
		if got := Since(conditions(), tt.typ, tt.status, epoch).AsTime(); !got.Equal(tt.want) {
			t.Errorf("%s: since %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestOthers(t *testing.T) {
	others := Others(conditions(), "Ready", "PodScheduled")
	if len(others) != 1 || others[0].GetType() != "example.com/gate" {
		t.Errorf("got %v", others)
	}
}
