//go:build unix

package durable

import (
	"os"
	"syscall"
)

// openFlags keeps a planted link from being followed and a planted named pipe
// from blocking.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // Nothing was written through it.
	return d.Sync()
}
