package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// errHeld is what tryLock returns when somebody holds the lock.
var errHeld = errors.New("held")

// lock locks the open file, not its name or content: a file left by a dead
// process blocks nobody, and two openings exclude each other within one process
// as well. The file is never removed, because a third process could then lock a
// new file of the same name while a second one waits to lock the old one.
func lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("durable: lock: %w", err)
	}
	l, err := lockFile(f)
	if err != nil {
		f.Close() //nolint:errcheck // Nothing was written.
		return nil, err
	}
	return l, nil
}

func lockFile(f *os.File) (*heldLock, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("durable: lock: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("durable: lock %s: %w: mode %s", f.Name(), ErrNotRegular, info.Mode())
	}
	switch err := tryLock(f); {
	case errors.Is(err, errHeld):
		return nil, &LockedError{Path: f.Name(), PID: readPID(f)}
	case err != nil:
		return nil, fmt.Errorf("durable: lock %s: %w", f.Name(), err)
	}
	l := &heldLock{f}
	l.writePID(os.Getpid())
	return l, nil
}

type heldLock struct{ f *os.File }

// Close takes the process id out, so that nobody reads a former holder's, and
// releases the lock.
func (l *heldLock) Close() error {
	l.f.Truncate(0) //nolint:errcheck // The id only informs.
	return l.f.Close()
}

// writePID ignores errors: the lock holds on a full disk, too.
func (l *heldLock) writePID(pid int) {
	if err := l.f.Truncate(0); err == nil {
		l.f.WriteAt([]byte(formatPID(pid)), 0) //nolint:errcheck // See above.
	}
}

// readPID returns 0 for anything but what writePID writes.
func readPID(f *os.File) int {
	buf := make([]byte, 32)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	return parsePID(string(buf[:n]))
}

func formatPID(pid int) string { return strconv.Itoa(pid) + "\n" }

func parsePID(text string) int {
	pid, err := strconv.Atoi(strings.TrimSuffix(text, "\n"))
	if err != nil || pid <= 0 || formatPID(pid) != text {
		return 0
	}
	return pid
}
