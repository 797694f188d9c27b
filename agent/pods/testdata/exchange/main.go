// Exchange keeps exchanging a directory and a link to the root in the directory that it is given.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	dir, link := filepath.Join(os.Args[1], "d"), filepath.Join(os.Args[1], "l")
	_ = os.Mkdir(dir, 0o755)
	if err := os.Symlink("/", link); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
