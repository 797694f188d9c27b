package eviction

import "testing"

// FuzzParse parses eviction thresholds: an accepted one has a signal and a positive limit.
func FuzzParse(f *testing.F) {
	f.Add("memory.available<100Mi", "nodefs.available<10%", "nodefs.available=2m", "memory.available=10Mi")
	f.Add("nodefs.inodesFree<5%", "x<1", "a", "=")
	f.Fuzz(func(t *testing.T, hard, soft, grace, reclaim string) {
		thresholds, err := Parse(Settings{Hard: []string{hard}, Soft: []string{soft}, SoftGrace: []string{grace}, MinimumReclaim: []string{reclaim}})
		if err != nil {
			return
		}
		for _, threshold := range thresholds {
			if threshold.Signal == "" {
				t.Errorf("%q, %q give %+v", hard, soft, threshold)
			}
		}
	})
}
