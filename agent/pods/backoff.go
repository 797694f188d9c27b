package pods

import "time"

// stableAfter is how long a container must have run for its earlier crashes to be forgotten.
const stableAfter = 10 * time.Minute

// backoff is the wait after n failures in a row: none after the first restart, then initial, doubling to the most.
func backoff(n int, initial, most time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	d := initial
	for range n - 1 {
		if d *= 2; d >= most {
			return most
		}
	}
	return min(d, most)
}
