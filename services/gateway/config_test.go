package gateway

import (
	"strings"
	"testing"
)

func TestSeatsAreValidated(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.MaxInFlight, cfg.Queues.MaxWait = -1, -1
	err := cfg.Validate()
	for _, want := range []string{"maxInFlight: must be at least 5", "queues.maxWait: must not be negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
