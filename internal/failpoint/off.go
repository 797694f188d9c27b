//go:build !failpoints

package failpoint

// Hit does nothing in a program that is not built to be killed.
func Hit(string) {}
