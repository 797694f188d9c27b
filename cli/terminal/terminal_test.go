package terminal

import (
	"testing"
)

func TestMood(t *testing.T) {
	for cell, want := range map[string]Colour{
		"Running": green, "Ready": green, "NotReady": Red, "CrashLoopBackOff": Red, "Init:ErrImagePull": Red,
		"Ready,SchedulingDisabled": green, "web-1": plain, "Pending": Yellow, "ImagePullBackOff": Red,
	} {
		if got := Mood(cell); got != want {
			t.Errorf("%s is %q, want %q", cell, got, want)
		}
	}
}
