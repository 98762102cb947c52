// Package crashfs is a file system in memory that fails and loses power where a
// test tells it to, so that every instant of a durable write can be tried.
//
// Most tests call [Explore]: it runs an operation once to count what it asks of
// the file system, then again and again with each fault at each place, and has
// every state that can be left behind checked. [FS] can be used by hand as well:
// [FS.FailAt] and [FS.CrashAt] arm one fault, [FS.Restart] and
// [FS.PowerLosses] give what the next process finds.
//
// # The model
//
// What running processes see changes at once. What survives a power loss is
// decided separately for each thing that changed since it was last made durable:
//
//   - The bytes of a file are durable after Sync of the file. Until then each
//     block of [BlockSize] bytes holds any of the versions it has had since, or
//     the first part of one and the rest of its predecessor; and the file's
//     length is any that it has had, or half way between two. Bytes inside the
//     length that were never written are zero.
//   - A name in a directory is durable after SyncDir of the directory. Until
//     then the name stands for any of the files it has stood for since, or none,
//     whatever becomes of other names. So one half of a rename may survive
//     without the other, in both halves' directories.
//   - Sync of a file says nothing about its names, SyncDir nothing about bytes.
//   - After a Sync that failed, later ones do not make the bytes durable that
//     were dirty then, unless they are written again: Linux marks such pages
//     clean. A SyncDir that failed can be repeated.
//   - A file's mode is durable together with its name. Directories themselves
//     are always durable; tests make them with [FS.Mkdir].
//
// This allows more than any one real file system does. Code that holds here
// does not rely on the kindness of ext4. What is not modelled: bytes that
// change after they were durable, disks that lie about a sync, hard and
// symbolic links, permissions, times.
package crashfs

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"sync"

	"github.com/atrestdb/atrest/internal/durable"
)

// BlockSize is the unit in which bytes of a file survive or not.
const BlockSize = 512

// ErrCrashed is returned by every operation after the process was killed or the
// machine lost power, and by the one during which that happened.
var ErrCrashed = errors.New("crashfs: crashed")

// FS is the file system as one process sees it from its start to its end. Its
// methods may be called from several goroutines.
type FS struct {
	mu     sync.Mutex
	dirs   map[string]*directory
	locks  map[string]bool
	inodes int // made so far, to number them
	names  int // name changes so far, to order them

	ops   []Op
	fault fault
	fired bool
	full  bool // the disk: what needs room fails
	dead  bool
}

var _ durable.FS = (*FS)(nil)

// New returns an empty file system that has the directories "." and "/".
func New() *FS {
	return &FS{
		dirs:  map[string]*directory{".": newDirectory(), "/": newDirectory()},
		locks: map[string]bool{},
	}
}

// Mkdir makes a directory and its parents, durably.
func (f *FS) Mkdir(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir = clean(dir); f.dirs[dir] == nil; dir = path.Dir(dir) {
		f.dirs[dir] = newDirectory()
	}
}

// SyncAll makes everything durable. It is not counted as an operation.
func (f *FS) SyncAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.dirs {
		d.sync()
		for _, n := range d.entries {
			n.settle()
		}
	}
}

// directory maps names to files. pending has the names that changed since the
// last sync.
type directory struct {
	entries map[string]*inode
	pending map[string]*pendingName
}

// pendingName holds what a name has stood for since the last sync, the durable
// file first; nil is none.
type pendingName struct {
	order    int
	versions []*inode
}

func newDirectory() *directory {
	return &directory{entries: map[string]*inode{}, pending: map[string]*pendingName{}}
}

func (d *directory) sync() { clear(d.pending) }

// set lets name stand for n, or for nothing if n is nil.
func (d *directory) set(name string, n *inode, order int) {
	p := d.pending[name]
	if p == nil {
		p = &pendingName{order: order, versions: []*inode{d.entries[name]}}
		d.pending[name] = p
	}
	p.versions = append(p.versions, n)
	if n == nil {
		delete(d.entries, name)
		return
	}
	d.entries[name] = n
}

func clean(name string) string { return filepath.ToSlash(filepath.Clean(name)) }

// lookup returns the directory of name and name's last element.
func (f *FS) lookup(name string) (*directory, string, error) {
	name = clean(name)
	if f.dirs[name] != nil {
		return nil, "", errIsDir
	}
	d := f.dirs[path.Dir(name)]
	if d == nil {
		return nil, "", fs.ErrNotExist
	}
	return d, path.Base(name), nil
}

func (f *FS) setName(d *directory, name string, n *inode) {
	f.names++
	d.set(name, n, f.names)
}
