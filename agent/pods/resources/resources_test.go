package resources

import "testing"

func TestOOMScore(t *testing.T) {
	for _, c := range []struct {
		class   string
		request int64
		want    int
	}{{"BestEffort", 0, 1000}, {"Guaranteed", 1 << 30, 0}, {"Burstable", 1 << 30, 500}, {"Burstable", 2 << 30, 2}, {"Burstable", 0, 999}} {
		if got := oomScoreAdj(c.class, c.request, 2<<30); got != c.want {
			t.Errorf("%s requesting %d: %d, want %d", c.class, c.request, got, c.want)
		}
	}
}
