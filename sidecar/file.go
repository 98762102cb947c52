package sidecar

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// File is an open keys.json. Its methods may be called from several goroutines;
// readers do not wait for an Update and see its outcome as soon as it is
// durable.
type File struct {
	fsys    durable.FS
	path    string
	wrapper KeyWrapper
	fileKey secret.Key
	macKey  secret.Key

	current atomic.Pointer[content] // as it is in the file

	rewrapping chan struct{} // holds one while a Rewrap runs

	mu     sync.Mutex // held by a writer
	draft  bool       // nothing is written yet
	lock   io.Closer  // nil when closed
	poison error
	buf    []byte // for the next write
}

// Option sets what [Create] and [Open] can do without.
type Option func(*File)

// WithFS puts the file on another file system than the operating system's. It is
// for this module's own tests, which let one fail and lose power.
func WithFS(fsys durable.FS) Option { return func(f *File) { f.fsys = fsys } }

// WithName gives the file another name than [FileName].
func WithName(name string) Option {
	return func(f *File) { f.path = filepath.Join(filepath.Dir(f.path), name) }
}

// Create makes the file of node in dir, with no epochs, no usage, nothing through
// and the state null, and opens it. It fails with [fs.ErrExist] if there is a file. After any
// other error there is none, or, if the error matches [ErrPoisoned], perhaps the
// one it made: Open tells.
func Create(ctx context.Context, dir string, node uint64, w KeyWrapper, opts ...Option) (*File, error) {
	return create(ctx, dir, node, w, secret.Random(), opts)
}

func create(ctx context.Context, dir string, node uint64, w KeyWrapper, fileKey secret.Key, opts []Option) (*File, error) {
	return lockAnd(dir, node, w, opts, func(f *File) error {
		if _, err := f.fsys.Lstat(f.path); err == nil {
			return fmt.Errorf("%w: it is opened, not created again", fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return f.make(ctx, node, fileKey, func(*Tx) error { return nil })
	})
}

// Replace makes the file of node in dir with what fn sets, in one write, in place of
// whatever lies there under its name. It is for taking over a directory; Create and
// Open never lose anything.
func Replace(ctx context.Context, dir string, node uint64, w KeyWrapper, fn func(tx *Tx) error, opts ...Option) (*File, error) {
	return lockAnd(dir, node, w, opts, func(f *File) error { return f.make(ctx, node, secret.Random(), fn) })
}

// Draft is Replace that writes nothing, however often the File is updated, until
// [File.Publish]. It is for a take-over that something else may refuse yet.
func Draft(ctx context.Context, dir string, node uint64, w KeyWrapper, fn func(tx *Tx) error, opts ...Option) (*File, error) {
	return lockAnd(dir, node, w, opts, func(f *File) error {
		f.draft = true
		return f.make(ctx, node, secret.Random(), fn)
	})
}

// Publish writes a draft, in one write. From then on the File is as any other; errors
// are those of Update, and after one that does not match [ErrPoisoned] it is a draft
// still.
func (f *File) Publish() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usableLocked(); err != nil {
		return pathError(f.path, err)
	}
	if !f.draft {
		return nil
	}
	whole := f.current.Load()
	if err := f.write(whole); err != nil {
		return pathError(f.path, err)
	}
	f.draft = false
	return nil
}

// make writes a new file with what fn sets.
func (f *File) make(ctx context.Context, node uint64, fileKey secret.Key, fn func(tx *Tx) error) error {
	container, err := wrap(ctx, f.wrapper, node, fileKey)
	if err != nil {
		return err
	}
	tx := &Tx{path: f.path, next: content{node: node, fileKey: container, state: newState([]byte("null"))}}
	if err := fn(tx); err != nil {
		return err
	}
	if tx.done = true; tx.err != nil {
		return tx.err
	}
	f.setKey(fileKey)
	f.current.Store(&content{})
	return f.replace(&tx.next)
}

// Open opens the file of node in dir. It fails with [fs.ErrNotExist] if there is
// none and with a *[LockedError] if it is in use; see the errors of this package
// for the rest. An error that matches none of them, such as a KEK that cannot be
// reached, may pass.
func Open(ctx context.Context, dir string, node uint64, w KeyWrapper, opts ...Option) (*File, error) {
	return lockAnd(dir, node, w, opts, func(f *File) error {
		data, info, err := durable.ReadFile(f.fsys, f.path, MaxSize)
		if errors.Is(err, durable.ErrTooLarge) {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
			return fmt.Errorf("%w: got %04o, want 0600", ErrInsecureMode, mode)
		}
		return f.load(ctx, data, node)
	})
}

// lockAnd returns a locked File after what opens it has succeeded.
func lockAnd(dir string, node uint64, w KeyWrapper, opts []Option, open func(*File) error) (*File, error) {
	f := &File{
		fsys: durable.OS, path: filepath.Join(dir, FileName), wrapper: w,
		rewrapping: make(chan struct{}, 1),
	}
	for _, o := range opts {
		o(f)
	}
	if node == 0 || w == nil {
		return nil, pathError(f.path, errors.New("a node id other than 0 and a KeyWrapper are needed"))
	}
	lock, err := f.fsys.Lock(f.path + ".lock")
	if held := (*durable.LockedError)(nil); errors.As(err, &held) {
		return nil, &LockedError{Path: f.path, PID: held.PID, Err: err}
	}
	if err != nil {
		return nil, pathError(f.path, err)
	}
	f.lock = lock
	// Only now, under the lock, is no other process writing temporary files.
	if err := durable.Recover(f.fsys, f.path); err != nil {
		return nil, errors.Join(pathError(f.path, err), lock.Close())
	}
	if err := open(f); err != nil {
		return nil, errors.Join(pathError(f.path, err), lock.Close())
	}
	return f, nil
}

// load checks the file's bytes from the cheapest and most telling check to the
// dearest, and nothing of them is used before the last.
func (f *File) load(ctx context.Context, data []byte, node uint64) error {
	p, err := parse(data)
	if err != nil {
		return err
	}
	if p.content.node != node {
		return fmt.Errorf("%w: got %d, want %d", ErrOtherNode, p.content.node, node)
	}
	if p.keyNode != node {
		return fmt.Errorf("%w: its file key is that of node %d, want %d", ErrOtherNode, p.keyNode, node)
	}
	k, err := unwrap(ctx, f.wrapper, node, p.content.fileKey)
	if err != nil {
		return err
	}
	f.setKey(k)
	if mac := macOf(f.macKey, p.head, p.content.state.sum); !hmac.Equal(mac[:], p.mac[:]) {
		return ErrMAC
	}
	f.current.Store(&p.content)
	return nil
}

func (f *File) setKey(k secret.Key) { f.fileKey, f.macKey = k, secret.Derive(k, macLabel) }

// Path returns the path of the file.
func (f *File) Path() string { return f.path }

// Node returns the id of the node whose file it is.
func (f *File) Node() uint64 { return f.current.Load().node }

// Epoch returns the highest epoch that this node took for a key, 0 if none.
func (f *File) Epoch(id key.ID) uint16 { return f.current.Load().epochs.get(id) }

// Reserved returns how much of a key is spoken for.
func (f *File) Reserved(id key.ID) Usage { return f.current.Load().reserved.get(id) }

// Through returns the index up to which every log entry is in the state, 0 if
// none was recorded.
func (f *File) Through() uint64 { return f.current.Load().through }

// State returns a copy of the state: the JSON value that was set last, token for
// token, without white space. In a new file it is null.
func (f *File) State() json.RawMessage { return compact(f.current.Load().state.text) }

// FileKeyCurrent reports whether the file key is wrapped under the configured
// KEKs and no others. If not, Rewrap makes it so.
func (f *File) FileKeyCurrent() bool {
	return f.wrapper.FileKeyCurrent(slices.Clone(f.current.Load().fileKey))
}

// Rewrap wraps the file key anew under the configured KEKs, unless it is already
// wrapped under just these. Updates go on while it talks to them. The new
// container is written only after it was unwrapped again and found right. Errors
// are those of the KeyWrapper and of [File.Update].
func (f *File) Rewrap(ctx context.Context) error {
	select {
	case f.rewrapping <- struct{}{}:
		defer func() { <-f.rewrapping }()
	case <-ctx.Done():
		return pathError(f.path, ctx.Err())
	}
	if err := f.usable(); err != nil {
		return pathError(f.path, err)
	}
	if f.FileKeyCurrent() {
		return nil
	}
	container, err := wrap(ctx, f.wrapper, f.Node(), f.fileKey)
	if err != nil {
		return pathError(f.path, err)
	}
	return f.change(func(next *content) error {
		next.fileKey = container
		return nil
	})
}

// Close releases the lock, after an Update that is running. Reading goes on
// working. A second Close does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lock == nil {
		return nil
	}
	err := f.lock.Close()
	f.lock, f.buf = nil, nil
	if err != nil {
		return pathError(f.path, err)
	}
	return nil
}

// String names the file.
func (f *File) String() string { return fmt.Sprintf("%s of node %d", f.path, f.Node()) }
