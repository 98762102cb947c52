package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2" //nolint:depguard // what a power loss leaves; the same seed draws the same
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

const (
	home     = "/node"
	keysJSON = home + "/" + sidecar.FileName
)

// valueKeys is the number of keys in the hosts' stores.
const valueKeys = 6

// stored is a value as it lies on a disk.
type stored struct {
	data   []byte // nil: no value
	sealed bool
}

// store is what a host's state machine holds. It is copied as a value.
type store struct {
	applied uint64
	keys    bool // the cluster had keys when this was written
	values  [valueKeys]stored
}

// snapshot is a host's snapshot.
type snapshot struct {
	store store
	part  []byte
	keyed bool // the part has keys
}

// disk is what a member has when its process ends.
type disk struct {
	fs      *crashfs.FS // keys.json
	store   store       // as the process sees it
	history []store     // since the last sync, that one first: what a power loss may leave
	first   uint64      // of the log
	last    uint64
	snaps   []snapshot // the newest last

	// epochs are the highest that were seen in keys.json while a process was well.
	epochs map[key.ID]uint16
	// staleKeys says that keys.json is older than the rest, or was lost, and that the
	// node has not caught up since.
	staleKeys bool
	// staleStore says that the log and the store are older than what the cluster
	// knows of them, or exist twice: nobody asked for their needs before a key was
	// destroyed.
	staleStore bool
}

func newDisk() *disk {
	d := &disk{fs: crashfs.New(), first: 1, epochs: map[key.ID]uint16{}}
	d.fs.Mkdir(home)
	d.setStore(store{})
	return d
}

// copy returns the disk as it is at this moment.
func (d *disk) copy() *disk {
	c := *d
	c.fs = d.fs.Restart()
	c.history = slices.Clone(d.history)
	c.snaps = slices.Clone(d.snaps)
	c.epochs = maps.Clone(d.epochs)
	return &c
}

// setStore makes a store durable.
func (d *disk) setStore(s store) { d.store, d.history = s, []store{s} }

// sync makes the store durable.
func (d *disk) sync() { d.setStore(d.store) }

// newest returns the newest snapshot.
func (d *disk) newest() (snapshot, bool) {
	if len(d.snaps) == 0 {
		return snapshot{}, false
	}
	return d.snaps[len(d.snaps)-1], true
}

// keep adds a snapshot and drops all but two.
func (d *disk) keep(s snapshot) {
	d.snaps = append(d.snaps, s)
	d.snaps = slices.Clone(d.snaps[max(0, len(d.snaps)-2):])
}

// forget is what is left when everything but keys.json is gone.
func (d *disk) forget() {
	d.setStore(store{})
	d.snaps, d.first, d.last = nil, 1, 0
}

// end is what becomes of the disk when a process ends, or the machine stops. A
// store in memory is gone.
func (d *disk) end(h Host, power bool, r *rand.Rand) {
	switch {
	case h == Memory:
		d.setStore(store{})
	case power && h == NoSync:
		d.setStore(d.history[r.IntN(len(d.history))])
	}
	if power {
		d.fs = d.fs.Crash(r)
		return
	}
	d.fs = d.fs.Restart()
}

// content returns keys.json, nil if there is none.
func content(f *crashfs.FS) ([]byte, error) {
	b, _, err := durable.ReadFile(f, keysJSON, sidecar.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// overwrite replaces keys.json, or removes it if b is nil, as an operator would.
func overwrite(f *crashfs.FS, b []byte) error {
	defer f.SyncAll()
	if b == nil {
		if err := f.Remove(keysJSON); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return durable.WriteFile(f, keysJSON, b)
}

// epochsOf returns the epochs in keys.json.
func epochsOf(b []byte) (map[key.ID]uint16, error) {
	_, tail, _ := bytes.Cut(b, []byte("\n  \"node\": "))
	node, _, ok := bytes.Cut(tail, []byte(",\n  \"file_key\": "))
	if !ok {
		return nil, errors.New("sim: keys.json is not laid out as it was")
	}
	var f struct {
		Epochs map[string]uint16 `json:"epochs"`
	}
	if err := json.Unmarshal(node, &f); err != nil {
		return nil, fmt.Errorf("sim: %s: %w", keysJSON, err)
	}
	epochs := make(map[key.ID]uint16, len(f.Epochs))
	for s, e := range f.Epochs {
		id, err := key.ParseID(s)
		if err != nil {
			return nil, fmt.Errorf("sim: %s: %w", keysJSON, err)
		}
		epochs[id] = e
	}
	return epochs, nil
}

// stateOf returns the key state in keys.json, as it is written there.
func stateOf(b []byte) []byte {
	_, tail, _ := bytes.Cut(b, []byte("\n  \"state\": "))
	state, _, _ := bytes.Cut(tail, []byte("\n  \"mac\": "))
	return state
}

// watched is a file system that notes when keys.json is replaced, and the death of
// its process.
type watched struct {
	*crashfs.FS

	ends   bool // the armed fault ends the process
	power  bool // and the machine
	dead   atomic.Bool
	writes atomic.Int64 // of keys.json
	states atomic.Int64 // those that changed the key state

	mu   sync.Mutex
	temp map[string][]byte
	seen []byte // keys.json
	text []byte // the key state in it
}

var _ durable.FS = (*watched)(nil)

func watch(f *crashfs.FS) (*watched, error) {
	b, err := content(f)
	return &watched{FS: f, temp: map[string][]byte{}, seen: b, text: stateOf(b)}, err
}

// fault is a failure of a disk that is to come.
type fault struct {
	at   int // operations from now on
	form crashfs.Form
}

var faults = words("not-done", "but-done", "short-write", "no-space", "broken", "kill", "power-loss")

// arm arms a fault.
func (w *watched) arm(f fault) {
	w.power = f.form == crashfs.PowerLoss
	w.ends = w.power || f.form == crashfs.Kill
	w.FailAt(f.at, nil, f.form)
}

// died reports whether the process died of the fault.
func (w *watched) died() bool { return w.ends && w.Fired() }

// note returns err and finds out whether the process died of it.
func (w *watched) note(err error) error {
	if err != nil && w.died() {
		w.dead.Store(true)
	}
	return err
}

// content returns keys.json as the process sees it.
func (w *watched) content() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// OpenFile implements durable.FS.
func (w *watched) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := w.FS.OpenFile(name, flag, perm)
	if w.note(err) != nil {
		return nil, err
	}
	if flag&os.O_CREATE == 0 {
		return f, nil
	}
	return &watchedFile{File: f, w: w, name: name}, nil
}

// Rename implements durable.FS.
func (w *watched) Rename(from, to string) error {
	err := w.FS.Rename(from, to)
	if to == keysJSON && err == nil {
		w.mu.Lock()
		w.seen = w.temp[from]
		if text := stateOf(w.seen); !bytes.Equal(text, w.text) {
			w.text = text
			w.states.Add(1)
		}
		clear(w.temp)
		w.mu.Unlock()
		w.writes.Add(1)
	}
	return w.note(err)
}

// Remove implements durable.FS.
func (w *watched) Remove(name string) error { return w.note(w.FS.Remove(name)) }

// SyncDir implements durable.FS.
func (w *watched) SyncDir(dir string) error { return w.note(w.FS.SyncDir(dir)) }

type watchedFile struct {
	durable.File

	w    *watched
	name string
}

// Write implements durable.File.
func (f *watchedFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.w.mu.Lock()
	f.w.temp[f.name] = append(f.w.temp[f.name], b[:n]...) // in one write, as a rule
	f.w.mu.Unlock()
	return n, f.w.note(err)
}

// Sync implements durable.File.
func (f *watchedFile) Sync() error { return f.w.note(f.File.Sync()) }
