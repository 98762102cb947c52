package atrest

import (
	"context"
	"io"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// LocalConfig says where a [Local] lives. Dir and KEK are required.
type LocalConfig struct {
	Dir string   // an existing directory that belongs to this database alone
	KEK *kek.Set // wraps and unwraps the data encryption keys
	// HadKeys says that the database holds sealed values, or was opened with this
	// before. Then a keys.json that is missing is refused and not made anew.
	HadKeys bool
}

// Local is the encryption state of an embedded database, which has no Raft: the
// node numbers its own entries and applies them at once. Values are sealed from
// the first open on. All methods are safe for concurrent use.
type Local struct {
	node *Node
	mu   sync.Mutex // of the numbering
}

// localName is every embedded database's member name: it has no peers.
const localName = "local"

// OpenLocal opens the encryption state of an embedded database, or begins it.
func OpenLocal(ctx context.Context, cfg LocalConfig, opts ...Option) (*Local, error) {
	return openLocal(ctx, cfg, nil, opts)
}

// ImportLocal begins the encryption state of an embedded database in an empty
// directory, with the snapshot of another one whose data is put in place. The errors are
// those of [Node.Import] and [OpenLocal]; a part that is refused leaves the directory
// empty.
func ImportLocal(ctx context.Context, cfg LocalConfig, snap []byte, opts ...Option) (*Local, error) {
	if err := tryImport(ctx, cfg.KEK, snap, opts); err != nil {
		return nil, err
	}
	return openLocal(ctx, cfg, func(n *Node) error { return n.Import(ctx, snap) }, opts)
}

// tryImport finds out whether these KEKs open a part before the directory gets a file
// that is wrapped under them.
func tryImport(ctx context.Context, keks *kek.Set, snap []byte, opts []Option) error {
	n, err := scratch(keks, opts)
	if err != nil {
		return err
	}
	defer n.cancel()
	_, _, err = n.importable(ctx, snap)
	return err
}

func openLocal(ctx context.Context, cfg LocalConfig, before func(*Node) error, opts []Option) (*Local, error) {
	l := &Local{}
	if with(opts).first != nil {
		return nil, configError("an embedded database has no generation-1 mode: leave out WithGeneration1")
	}
	n, err := Open(ctx, Config{Dir: cfg.Dir, Name: localName, KEK: cfg.KEK, Propose: l.propose}, opts...)
	if err != nil {
		return nil, err
	}
	l.node = n
	if err := l.begin(ctx, cfg.HadKeys, before); err != nil {
		return nil, errors.CombineErrors(err, n.Close())
	}
	return l, nil
}

// begin does what is left to do of a first open; a crash may have come at any
// point of it.
func (l *Local) begin(ctx context.Context, hadKeys bool, before func(*Node) error) error {
	n := l.node
	if before != nil {
		if err := before(n); err != nil {
			return err
		}
	}
	if err := n.CatchUp(ctx, View{Applied: n.State().Index(), HadKeys: hadKeys}); err != nil {
		return err
	}
	if !n.State().Bootstrapped() {
		if err := l.change(n.NewBootstrap(ctx, []nodeid.Member{{Name: n.name, ID: n.id}})); err != nil {
			return err
		}
	}
	if !n.State().StorageCutover().Active {
		if err := l.change(n.NewEnableStorage()); err != nil {
			return err
		}
	}
	return n.Ready(ctx)
}

func (l *Local) propose(_ context.Context, entry []byte) error {
	_, err := l.apply(entry)
	return err
}

func (l *Local) apply(entry []byte) (applier.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.node.Apply(l.node.State().Index()+1, entry)
}

// change applies an entry that has to take effect.
func (l *Local) change(entry []byte, err error) error {
	if err != nil {
		return err
	}
	o, err := l.apply(entry)
	if err == nil && o.Kind == applier.Rejected {
		err = o.Why
	}
	return err
}

// Node returns the node below, for its Status and State. Entries go through the
// methods of Local.
func (l *Local) Node() *Node { return l.node }

// Storage returns the way to values.
func (l *Local) Storage() *Storage { return l.node.Storage() }

// Status returns what an operator wants to know.
func (l *Local) Status() Status { return l.node.Status() }

// Snapshot returns the key state for a backup, which opens with the KEK alone:
// see [ImportLocal].
func (l *Local) Snapshot() ([]byte, error) { return l.node.Snapshot() }

// Close releases the directory. See [Node.Close].
func (l *Local) Close() error { return l.node.Close() }

// Rotate makes a new storage key, under which values are sealed from now on, and
// returns its id. What was sealed before opens as before.
func (l *Local) Rotate(ctx context.Context) (key.ID, error) {
	entry, err := l.node.NewRotation(ctx, key.Storage)
	if err := l.change(entry, err); err != nil {
		return 0, err
	}
	e, err := applier.Generation2.Parse(entry)
	if err != nil {
		return 0, err
	}
	return keysIn(e)[0].ID, nil
}

// Rewrap wraps all keys for the KEKs that are configured now. Once it returns nil
// and [Status] says that the file key is current, a KEK that is no longer
// configured is not needed any more.
func (l *Local) Rewrap(ctx context.Context) error {
	entries, err := l.node.NewRewrap(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.change(e, nil); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends sealing under a key that is not active.
func (l *Local) Stop(id key.ID) error { return l.change(l.node.NewStop(id)) }

// Destroy gives up a stopped key. live is how many values on synced storage are
// sealed under it, counted after the stop; 0 is needed. Backups that need the key
// are the caller's to register.
func (l *Local) Destroy(id key.ID, live uint64) error {
	s := l.node.State()
	self := l.node.ID()
	return l.change(l.node.NewDestroy(id, []nodeid.ID{self}, []applier.Evidence{{
		Node: self, Taken: s.Index(), Live: live, FirstLog: s.Index() + 1,
	}}))
}

// Backup registers a backup, so that none of the present keys is destroyed while
// it exists.
func (l *Local) Backup(id applier.BackupID) error { return l.change(l.node.NewBackup(id)) }

// WriteBackup writes a backup that was registered, with what write writes as its data:
// see [Node.WriteBackup]. Its index is that of the key state; the view of the data is
// taken after [Local.Backup].
func (l *Local) WriteBackup(ctx context.Context, w io.Writer, id applier.BackupID, write func(w io.Writer) error) (BackupInfo, error) {
	return l.node.WriteBackup(ctx, w, id, l.node.State().Index(), write)
}

// BackupForgotten says that a backup exists no more.
func (l *Local) BackupForgotten(id applier.BackupID) error {
	return l.change(l.node.NewBackupForgotten(id))
}
