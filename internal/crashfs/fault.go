package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
)

var (
	// ErrInjected matches every error that a fault made up.
	ErrInjected = errors.New("crashfs: injected error")

	errIsDir = errors.New("is a directory")
)

// Kind is a kind of operation.
type Kind uint8

// The kinds of operation. All are counted, because all can fail.
const (
	KindOpen    Kind = iota // open a file without changing it
	KindCreate              // open a file, creating or emptying it
	KindLstat               //
	KindReadDir             //
	KindStat                //
	KindRead                //
	KindWrite               //
	KindSync                //
	KindClose               //
	KindRename              //
	KindRemove              //
	KindSyncDir             //
	KindLock                // take a lock, creating its file
	KindUnlock              //
)

var kindNames = [...]string{
	"open", "create", "lstat", "readdir", "stat", "read", "write", "sync",
	"close", "rename", "remove", "syncdir", "lock", "unlock",
}

// String returns the kind's name.
func (k Kind) String() string { return kindNames[k] }

// Op is one operation that was asked for. Size is the bytes of a write.
type Op struct {
	Kind Kind
	Path string
	Size int
}

// String returns the operation in words.
func (o Op) String() string {
	if o.Kind == KindWrite {
		return fmt.Sprintf("write %s (%d bytes)", o.Path, o.Size)
	}
	return o.Kind.String() + " " + o.Path
}

// Form is how an operation fails.
type Form uint8

// The forms. After the first four the process goes on, and so does the disk.
const (
	None       Form = iota
	NotDone         // an error; nothing has happened
	ButDone         // an error, although it was done
	ShortWrite      // half of the bytes are written, then the disk is full
	NoSpace         // the disk is full; from then on nothing can be created or written
	Broken          // an error, nothing has happened, and so on for all later operations
	Kill            // the process ends as soon as it was done; what processes see stays
	PowerLoss       // the machine stops while it is being done
)

var formNames = [...]string{
	"no fault", "error, not done", "error, but done", "short write", "no space", "broken from here on", "kill", "power loss",
}

// String returns the form in words.
func (f Form) String() string { return formNames[f] }

// Applies reports whether a form makes a difference to operations of a kind.
func (f Form) Applies(op Op) bool {
	switch f {
	case None:
		return false
	case NotDone, Broken:
		return true
	case ShortWrite:
		return op.Kind == KindWrite && op.Size > 1
	case NoSpace:
		return op.Kind == KindSync || op.Kind == KindClose || op.Kind == KindRename || op.Kind == KindSyncDir || op.needsRoom()
	}
	return op.changes()
}

func (o Op) needsRoom() bool {
	return o.Kind == KindCreate || o.Kind == KindWrite || o.Kind == KindLock
}

// changes reports whether anything that outlives the process may depend on it.
func (o Op) changes() bool {
	return slices.Contains([]Kind{KindCreate, KindWrite, KindSync, KindRename, KindRemove, KindSyncDir, KindLock}, o.Kind)
}

// ends reports whether the process does not see the operation return.
func (f Form) ends() bool { return f == Kill || f == PowerLoss }

// fault is an armed fault. The zero fault never strikes.
type fault struct {
	at   int
	form Form
	err  error
}

// FailAt arms a fault for the k-th operation from now on, counted from 0, and
// forgets those counted so far. A nil err stands for ENOSPC with the forms
// NoSpace and ShortWrite, and for EIO with the others. It replaces a fault
// armed before; the form None only disarms.
func (f *FS) FailAt(k int, err error, form Form) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
	case form == NoSpace || form == ShortWrite:
		err = syscall.ENOSPC
	default:
		err = syscall.EIO
	}
	f.ops, f.fired, f.full = nil, false, false
	f.fault = fault{at: k, form: form, err: err}
}

// CrashAt lets the power fail during the k-th operation from now on.
func (f *FS) CrashAt(k int) { f.FailAt(k, nil, PowerLoss) }

// Fired reports whether the armed fault has struck.
func (f *FS) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Ops returns the operations since the last fault was armed, or else since the
// start.
func (f *FS) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ops)
}

// verdict says what becomes of an operation: whether its effect on what
// processes see happens, whether a sync makes anything durable, and what the
// process is told.
type verdict struct {
	run, sync, short bool
	err              error
}

// begin counts an operation and decides about it. f.mu is held from here until
// the effect has happened.
func (f *FS) begin(op Op) verdict {
	if f.dead {
		return verdict{err: &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: ErrCrashed}}
	}
	k := len(f.ops)
	f.ops = append(f.ops, op)
	form := f.fault.form
	switch {
	case form == None:
		return verdict{run: true, sync: true}
	case k == f.fault.at:
		f.fired = true
	case f.full && op.needsRoom():
		return verdict{err: f.injected(op)}
	case form != Broken || k < f.fault.at:
		return verdict{run: true, sync: true}
	}
	return f.strike(op, form)
}

func (f *FS) strike(op Op, form Form) verdict {
	v := verdict{err: f.injected(op)}
	switch form {
	case ButDone:
		v.run, v.sync = true, true
	case ShortWrite:
		v.run, v.short = true, true
	case NoSpace:
		f.full = true
	case Kill, PowerLoss:
		f.dead = true
		v.run = true
		v.err = &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: ErrCrashed}
	}
	return v
}

func (f *FS) injected(op Op) error {
	return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: injectedError{f.fault.err}}
}

// injectedError is the armed error, marked.
type injectedError struct{ err error }

func (e injectedError) Error() string { return e.err.Error() + " (injected)" }
func (e injectedError) Unwrap() error { return e.err }

// Is matches [ErrInjected].
func (e injectedError) Is(target error) bool { return target == ErrInjected }
