package atrest

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// UpgradeConfig is a directory in generation-1 mode that is to become one of
// generation 2. Dir, Name and KEK are as in [Config]; no process may run in it.
type UpgradeConfig struct {
	Dir  string
	Name string
	KEK  *kek.Set
	// Applied is the index of the last entry that the first member has applied, durably:
	// the same on each. Every other one has applied it too; what a member of them has
	// not, it halts at.
	Applied uint64
	// Adopt is nil on the first member, which makes the new state. For each other
	// member it is the Snapshot of the first one's Node after its upgrade.
	Adopt []byte
	// DryRun does everything but write.
	DryRun bool
}

// Upgraded says what an upgrade did, or would do.
type Upgraded struct {
	Cluster key.ClusterID // the new one
	Index   uint64
	Keys    []key.ID          // ascending; all wrapped anew, or adopted
	Epochs  map[key.ID]uint16 // that this node keeps
	DryRun  bool
}

// String is the report in a few lines.
func (u Upgraded) String() string {
	var b strings.Builder
	verb := "upgraded"
	if u.DryRun {
		verb = "would upgrade"
	}
	fmt.Fprintf(&b, "%s to generation 2: cluster %s at index %d, %d keys\n", verb, u.Cluster, u.Index, len(u.Keys))
	for _, id := range u.Keys {
		fmt.Fprintf(&b, "key %s: this node's epoch stays %d\n", id, u.Epochs[id])
	}
	return b.String()
}

// Upgrade turns a directory of generation 1 into one of generation 2, once and for all.
//
// Before it, the cluster is stopped where every member has applied the whole log and has
// a snapshot that leaves no entry of the log to replay: entries of generation 1 mean
// nothing afterwards. It is called on one member, which is then started alone for its
// Snapshot, and with that on each other one. The DEKs stay; what was sealed opens. Every
// node keeps its epochs, and the registry its rows, so no counted nonce comes twice.
//
// The report is not nil where keys.json is upgraded, also beside an error that says that
// only the renaming is left.
//
// keys.json becomes version 3 in one durable replacement. keys.meta.json is renamed to
// keys.meta.json.generation1 after it and is not needed any more. A call that was cut
// short is repeated: where keys.json is of version 3 already, only the renaming is left,
// and nothing that the node has done since is undone.
func Upgrade(ctx context.Context, cfg UpgradeConfig, opts ...Option) (*Upgraded, error) {
	o := with(opts)
	o.first, o.extended, o.several = &Generation1{}, false, false // what the host runs with later
	propose := func(context.Context, []byte) error { return errors.New("atrest: an upgrade proposes nothing") }
	c := Config{Dir: cfg.Dir, Name: cfg.Name, KEK: cfg.KEK, Propose: propose}
	if err := c.check(o); err != nil {
		return nil, err
	}
	n, err := newNode(c, o)
	if err != nil {
		return nil, err
	}
	u, err := n.upgrade(ctx, cfg)
	return u, errors.CombineErrors(err, n.Close())
}

func (n *Node) upgrade(ctx context.Context, cfg UpgradeConfig) (*Upgraded, error) {
	meta := filepath.Join(cfg.Dir, metaName)
	if _, err := n.opts.fsys.Lstat(meta); errors.Is(err, fs.ErrNotExist) {
		return nil, configError("%s is not there: start the node once in generation-1 mode, or it is upgraded already", meta)
	}
	if err := n.openFirst(ctx, cfg.Dir); err != nil {
		return nil, err
	}
	old, err := n.stored()
	if err != nil {
		return nil, err
	}
	switch err := n.checkWritten(old); {
	case errors.Is(err, generation1.ErrVersion):
		return n.resumeUpgrade(ctx, cfg, meta)
	case err != nil:
		return nil, err
	}
	if err := n.checkRows(old, n.file.Epoch); err != nil {
		return nil, err
	}
	if cfg.Applied < old.Index() {
		return nil, configError("UpgradeConfig.Applied is %d, and this node's key state is that of entry %d: give the applied index of the first member", cfg.Applied, old.Index())
	}
	next, err := n.upgraded(ctx, old, cfg.Adopt)
	if err != nil {
		return nil, err
	}
	u := report(next, cfg, func(id key.ID) uint16 { return n.keptEpoch(next, id) })
	if cfg.DryRun {
		return u, nil
	}
	if err := n.unlockView(); err != nil {
		return nil, err
	}
	if err := n.replaceView(ctx, cfg, next); err != nil {
		return nil, err
	}
	return u, n.retire(cfg.Dir, meta)
}

func report(s *applier.State, cfg UpgradeConfig, epoch func(key.ID) uint16) *Upgraded {
	u := &Upgraded{Cluster: s.Cluster(), Index: s.Index(), Epochs: map[key.ID]uint16{}, DryRun: cfg.DryRun}
	for k := range s.Keys() {
		u.Keys = append(u.Keys, k.ID)
		u.Epochs[k.ID] = epoch(k.ID)
	}
	return u
}

// resumeUpgrade ends an upgrade that was cut short after keys.json was replaced.
func (n *Node) resumeUpgrade(ctx context.Context, cfg UpgradeConfig, meta string) (*Upgraded, error) {
	if err := n.unlockView(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	file, err := sidecar.Open(ctx, cfg.Dir, uint64(n.id), n.keks, sidecar.WithFS(n.opts.fsys))
	if err != nil {
		return nil, guard.Sidecar(err)
	}
	u, err := n.resumed(file, cfg)
	if err := errors.CombineErrors(err, file.Close()); err != nil {
		return nil, err
	}
	if cfg.DryRun {
		return u, nil
	}
	return u, n.retire(cfg.Dir, meta)
}

// resumed reports what a file of generation 2 beside keys.meta.json holds.
func (n *Node) resumed(file *sidecar.File, cfg UpgradeConfig) (*Upgraded, error) {
	s, err := applier.ParseJSON(file.State())
	if err != nil || s.Generation() != applier.Generation2 || !s.Bootstrapped() {
		return nil, errors.CombineErrors(configError("%s is of version 3 and holds no keys: move it away", file.Path()), err)
	}
	if cfg.Adopt != nil {
		p, err := parsePart(cfg.Adopt)
		if err != nil {
			return nil, err
		}
		if other := p.state.Cluster(); other != s.Cluster() {
			return nil, errors.Wrapf(ErrOtherCluster, "atrest: %s was upgraded to cluster %s, and the snapshot is of cluster %s", file.Path(), s.Cluster(), other)
		}
	}
	return report(s, cfg, file.Epoch), nil
}

// upgraded makes the new state, or takes the first member's.
func (n *Node) upgraded(ctx context.Context, old *applier.State, adopt []byte) (*applier.State, error) {
	if adopt != nil {
		return n.adopted(ctx, old, adopt)
	}
	cluster := key.NewClusterID()
	keys := slices.Collect(old.Keys())
	wrapped := make([]applier.WrappedKey, len(keys))
	err := inParallel(len(keys), func(i int) error {
		k := keys[i]
		_, dek, err := n.unwrap(ctx, k.ID, k.Container)
		if err != nil {
			return failedKEK(err, "unwrap", k.ID)
		}
		wrapped[i], err = n.wrapForAll(ctx, cluster, k.ID, k.Purpose, dek)
		return err
	})
	if err != nil {
		return nil, err
	}
	return applier.Upgrade(old, cluster, wrapped)
}

// keptEpoch is the highest epoch that this node has had for a key.
func (n *Node) keptEpoch(next *applier.State, id key.ID) uint16 {
	epoch := n.file.Epoch(id)
	if row, ok := next.Writer(id, n.id.Node16()); ok && row.Node == n.id {
		epoch = max(epoch, row.Last)
	}
	return epoch
}

// replaceView puts a keys.json of version 3 in place of the view.
func (n *Node) replaceView(ctx context.Context, cfg UpgradeConfig, next *applier.State) error {
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	file, err := sidecar.Replace(ctx, cfg.Dir, uint64(n.id), n.keks, func(tx *sidecar.Tx) error {
		if err := tx.SetThrough(max(n.file.Through(), cfg.Applied)); err != nil {
			return err
		}
		for k := range next.Keys() {
			if epoch := n.keptEpoch(next, k.ID); epoch > 0 {
				if err := tx.SetEpoch(k.ID, epoch); err != nil {
					return err
				}
			}
			if err := tx.SetReserved(k.ID, n.file.Reserved(k.ID)); err != nil {
				return err
			}
		}
		return tx.SetState(next.AppendJSON(nil))
	}, sidecar.WithFS(n.opts.fsys))
	if err != nil {
		return guard.Sidecar(err)
	}
	return file.Close()
}

// retire takes keys.meta.json out of the way once nothing needs it.
func (n *Node) retire(dir, meta string) error {
	err := n.opts.fsys.Rename(meta, meta+".generation1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a start in generation 2 was faster
	}
	if err != nil {
		return errors.Wrapf(err, "atrest: the upgrade is done; %s is not needed any more and could not be renamed", meta)
	}
	return errors.Wrapf(n.opts.fsys.SyncDir(dir), "atrest: the upgrade is done; renaming %s is not durable yet", meta)
}
