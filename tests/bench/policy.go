package main

import "fmt"

// packets are what packets cost by policy.
func packets(f figures) (string, bool) {
	_, ok := f["ns/judged-1000"]
	return fmt.Sprintf(
		"%.0f ns; %.0f and %.0f ns; %.0f and %.0f ns",
		f["ns/unselected"],
		f["ns/known-10"],
		f["ns/judged-10"],
		f["ns/known-1000"],
		f["ns/judged-1000"],
	), ok
}
