package pods

import "time"

// backoff is the wait after n failures in a row: none after the first restart, then initial,
// doubling to the most.
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
