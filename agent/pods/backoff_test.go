package pods

import (
	"testing"
)

func TestBackoff(t *testing.T) {
	const s = 1e9
	for n, want := range []int64{0, 10, 20, 40, 80, 160, 300, 300} {
		if got := backoff(n, 10*s, 300*s); int64(got) != want*s {
			t.Errorf("backoff after %d: %v, want %d s", n, got, want)
		}
	}
}
