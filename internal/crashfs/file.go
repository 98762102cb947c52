package crashfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// handle is an open file. It goes on working when the name is removed.
type handle struct {
	f      *FS
	n      *inode
	name   string
	flag   int
	off    int
	closed bool
}

const accessMode = os.O_RDONLY | os.O_WRONLY | os.O_RDWR

func writable(flag int) bool { return flag&accessMode != os.O_RDONLY }

func (h *handle) usable(may bool) error {
	switch {
	case h.closed:
		return fs.ErrClosed
	case !may:
		return fs.ErrPermission
	}
	return nil
}

// Read reads on from where the last Read or Write ended.
func (h *handle) Read(b []byte) (n int, err error) {
	eof := false
	err = h.f.do(Op{Kind: KindRead, Path: h.name}, func(verdict) error {
		if err := h.usable(h.flag&accessMode != os.O_WRONLY); err != nil {
			return err
		}
		if h.off < len(h.n.data) {
			n = copy(b, h.n.data[h.off:])
			h.off += n
		}
		eof = n == 0 && len(b) > 0
		return nil
	})
	if err == nil && eof {
		return 0, io.EOF
	}
	return n, err
}

// Write writes on from where the last Read or Write ended, or at the end with
// O_APPEND.
func (h *handle) Write(b []byte) (n int, err error) {
	err = h.f.do(Op{Kind: KindWrite, Path: h.name, Size: len(b)}, func(v verdict) error {
		if err := h.usable(writable(h.flag)); err != nil {
			return err
		}
		if v.short {
			b = b[:len(b)/2]
		}
		if h.flag&os.O_APPEND != 0 {
			h.off = len(h.n.data)
		}
		h.n.write(h.off, b)
		h.off += len(b)
		n = len(b)
		return nil
	})
	return n, err
}

// Sync makes the bytes durable. One that fails and is not done leaves them so
// that no later Sync does.
func (h *handle) Sync() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	v := h.f.begin(Op{Kind: KindSync, Path: h.name})
	if err := h.usable(true); err != nil {
		return fmt.Errorf("crashfs: sync %s: %w", h.name, err)
	}
	switch {
	case v.run && v.sync:
		h.n.sync()
	case !v.run && !h.f.dead:
		h.n.failSync()
	}
	return v.err
}

// Close closes the file even if it returns an error.
func (h *handle) Close() error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	v := h.f.begin(Op{Kind: KindClose, Path: h.name})
	if h.closed {
		return fmt.Errorf("crashfs: close %s: %w", h.name, fs.ErrClosed)
	}
	h.closed = true
	return v.err
}

// Stat describes the open file.
func (h *handle) Stat() (info fs.FileInfo, err error) {
	err = h.f.do(Op{Kind: KindStat, Path: h.name}, func(verdict) error {
		if err := h.usable(true); err != nil {
			return err
		}
		info = h.n.info(path.Base(clean(h.name)))
		return nil
	})
	return info, err
}
