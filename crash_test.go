package atrest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// site is one node, its disk, and the log that it applies, by hand.
type site struct {
	t      testing.TB
	ctx    context.Context
	set    *kek.Set
	fs     *crashfs.FS
	node   *atrest.Node
	log    [][]byte
	first  uint64
	pure   *applier.State       // what the log says
	epochs map[key.ID]uint16    // the highest that a load has had
	values map[string]value     // by location
	snap   []byte               // of another node, or another cluster
	op     func(s *site) error  // what is tried
	before *applier.State       // until then
	opens  func(s *site) uint64 // index from which the host has to replay at least
}

func newSite(t testing.TB, fs *crashfs.FS) *site {
	t.Helper()
	fs.Mkdir(dir)
	return &site{
		t: t, ctx: t.Context(), fs: fs, first: 1, set: must(kek.NewSet(kektest.New("kms:a"))),
		pure: applier.New(applier.Generation2), epochs: map[key.ID]uint16{}, values: map[string]value{},
	}
}

func noPropose(context.Context, []byte) error { return errors.New("nobody proposes here") }

func (s *site) open(fs *crashfs.FS) (*atrest.Node, error) {
	return atrest.Open(s.ctx, atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}, atrest.WithFS(fs))
}

// begin opens the node of the site on its disk.
func (s *site) begin() error {
	n, err := s.open(s.fs)
	if err != nil {
		return err
	}
	s.node = n
	return n.CatchUp(s.ctx, s.view(uint64(len(s.log))))
}

func (s *site) view(applied uint64) atrest.View {
	return atrest.View{Applied: applied, First: s.first, Entries: s.entries}
}

func (s *site) entries(_ context.Context, from, to uint64, yield func(uint64, []byte) error) error {
	for i := max(from, s.first); i <= to; i++ {
		if err := yield(i, s.log[i-1]); err != nil {
			return err
		}
	}
	return nil
}

// commit puts an entry into the log, and into the state that the log says.
func (s *site) commit(entry []byte, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	data, err := s.node.Raft().Seal(nil, entry)
	if err != nil {
		return 0, err
	}
	s.log = append(s.log, data)
	next, o, err := s.pure.ApplyBytes(uint64(len(s.log)), entry)
	if err != nil || o.Kind != applier.Applied {
		return 0, fmt.Errorf("not applied: %w, %w", err, o.Why)
	}
	s.pure = next
	return uint64(len(s.log)), nil
}

// add commits an entry and applies it.
func (s *site) add(entry []byte, err error) error {
	i, err := s.commit(entry, err)
	if err != nil {
		return err
	}
	return s.apply(s.node, i)
}

func (s *site) apply(n *atrest.Node, i uint64) error {
	payload, err := n.Raft().Open(nil, i, s.log[i-1])
	if err != nil {
		return err
	}
	_, err = n.Apply(i, payload)
	return err
}

// later makes an entry that is in the log, and whose application is what is tried.
func (s *site) later(entry []byte, err error) error {
	i, err := s.commit(entry, err)
	s.op = func(s *site) error { return s.apply(s.node, i) }
	return err
}

// seal keeps a value that must always open from now on.
func (s *site) seal() error {
	k := fmt.Sprintf("k%d", len(s.values))
	out, sealed, err := s.node.Storage().Seal(nil, []byte("value of "+k), []byte(k))
	s.values[k] = value{out, sealed}
	return err
}

// note records the epochs that this load has.
func (s *site) note() {
	if s.node == nil {
		return
	}
	for _, k := range s.node.Status().Keys {
		s.epochs[k.ID] = max(s.epochs[k.ID], k.Epoch)
	}
}

// both brings a site with keys and both cutovers, and a value.
func (s *site) both() error {
	return errors.Join(
		s.begin(),
		s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{Name: "n1", ID: s.node.ID()}, {Name: "n2", ID: nodeid.Derive("n2")}})),
		s.add(s.node.NewEnableStorage()),
		s.add(s.node.NewEnableRaft()),
		s.seal(),
		s.add(s.node.NewRegistration(key.Storage)),
		s.seal(),
	)
}

func (s *site) active(p key.Purpose) key.ID { k, _ := s.node.State().Active(p); return k.ID }

// stopped brings a key that is stopped.
func (s *site) stopped() (key.ID, error) {
	old := s.active(key.Storage)
	err := errors.Join(s.add(s.node.NewRotation(s.ctx, key.Storage)), s.seal(), s.add(s.node.NewStop(old)))
	return old, err
}

// crashes are all kinds of changes. Each gets a site ready and sets what is tried.
var crashes = map[string]func(s *site) error{
	"bootstrap": func(s *site) error {
		return errors.Join(s.begin(), s.later(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	},
	"enable storage": func(s *site) error {
		return errors.Join(s.begin(),
			s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})), s.seal(),
			s.later(s.node.NewEnableStorage()))
	},
	"enable raft": func(s *site) error {
		return errors.Join(s.begin(),
			s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})),
			s.later(s.node.NewEnableRaft()))
	},
	"rotate storage": func(s *site) error {
		return errors.Join(s.both(), s.later(s.node.NewRotation(s.ctx, key.Storage)))
	},
	"rotate raft": func(s *site) error {
		return errors.Join(s.both(), s.later(s.node.NewRotation(s.ctx, key.Raft)))
	},
	"registration": func(s *site) error {
		return errors.Join(s.both(), s.later(s.node.NewRegistration(key.Raft)))
	},
	"rewrap": func(s *site) error {
		if err := s.both(); err != nil {
			return err
		}
		es, err := s.node.NewRewrap(s.ctx)
		return s.later(es[0], err)
	},
	"stop": func(s *site) error {
		err := s.both()
		old := s.active(key.Storage)
		return errors.Join(err, s.add(s.node.NewRotation(s.ctx, key.Storage)), s.later(s.node.NewStop(old)))
	},
	"destroy": func(s *site) error {
		if err := s.both(); err != nil {
			return err
		}
		old, err := s.stopped()
		s.values = map[string]value{} // they are written anew
		self, i := s.node.ID(), uint64(len(s.log))
		return errors.Join(err, s.seal(), s.add(s.node.NewWriterGone(nodeid.Derive("n2"))),
			s.later(s.node.NewDestroy(old, []nodeid.ID{self}, []applier.Evidence{{Node: self, Taken: i, FirstLog: i + 1}})))
	},
	"writer gone": func(s *site) error {
		return errors.Join(s.both(), s.later(s.node.NewWriterGone(nodeid.Derive("n2"))))
	},
	"backup": func(s *site) error {
		return errors.Join(s.both(), s.later(s.node.NewBackup(applier.BackupID{1})))
	},
	"backup forgotten": func(s *site) error {
		return errors.Join(s.both(), s.add(s.node.NewBackup(applier.BackupID{1})),
			s.later(s.node.NewBackupForgotten(applier.BackupID{1})))
	},
	"restore": func(s *site) error { // of what another one has applied
		if err := s.both(); err != nil {
			return err
		}
		other := newSite(s.t, crashfs.New())
		other.log = s.log
		if err := other.begin(); err != nil {
			return err
		}
		defer other.node.Close()
		i, err := s.commit(other.node.NewRotation(s.ctx, key.Storage))
		if err := errors.Join(err, s.apply(other.node, i)); err != nil {
			return err
		}
		s.snap, err = other.node.Snapshot()
		s.op = func(s *site) error { return s.node.Restore(s.ctx, s.snap) }
		return err
	},
	"compacted": func(s *site) error {
		err := s.both()
		s.log = append(s.log, []byte("not an entry"), []byte("nor is this"))
		through := uint64(len(s.log))
		s.op = func(s *site) error { return s.node.Compacted(through) }
		s.opens = func(*site) uint64 { return through }
		return err
	},
	"open": func(s *site) error {
		err := s.both()
		s.note()
		s.op = func(s *site) error { return s.begin() }
		err = errors.Join(err, s.node.Close())
		s.node = nil
		return err
	},
	"first open": func(s *site) error {
		s.log = [][]byte{[]byte("old"), []byte("old too")}
		s.op = func(s *site) error { return s.begin() }
		return nil
	},
}

// At whatever instant a change of keys fails or the machine stops: the node starts
// again, has the state of before or after, has the one of after if it said so, and
// comes to what the log says whatever of it the host's store still has. No epoch is
// taken twice, and what was sealed before opens.
func TestCrashes(t *testing.T) {
	t.Parallel()
	var points, states atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d kinds of changes: %d faults, %d states, each with the log from everywhere", len(crashes), points.Load(), states.Load())
	})
	for name, get := range crashes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *site
			setup := func(fs *crashfs.FS) error {
				s = newSite(t, fs)
				defer s.note()
				return get(s)
			}
			report, err := crashfs.Scenario{
				Setup: setup,
				Op:    func(*crashfs.FS) error { return s.try() },
				Check: func(fs *crashfs.FS, o crashfs.Outcome) error { return s.after(fs, o) },
				Limit: 24,
			}.Run()
			t.Log(report)
			points.Add(int64(report.Points))
			states.Add(int64(report.States))
			require.NoError(t, err)
		})
	}
}

// try makes the attempt. One that fails has changed nothing that anybody can see, and
// where its outcome is unknown the node changes nothing more.
func (s *site) try() error {
	defer closeNode(s)
	defer s.note()
	if s.node != nil {
		s.before = s.node.State()
	}
	err := s.op(s)
	if err == nil || s.before == nil {
		return err
	}
	if s.node.State() != s.before {
		s.t.Errorf("it failed, and the state changed: %v", err)
	}
	if errors.Is(err, sidecar.ErrPoisoned) {
		if again := s.op(s); !errors.Is(again, sidecar.ErrPoisoned) {
			s.t.Errorf("the outcome is unknown, and the next attempt gives %v", again)
		}
	}
	return err
}

// closeNode ends a process that may have lost its disk.
func closeNode(s *site) {
	if s.node != nil {
		s.node.Close() //nolint:errcheck // The lock file may be on a broken disk.
	}
}

// after checks what the next process finds.
func (s *site) after(fs *crashfs.FS, o crashfs.Outcome) error {
	last := uint64(len(s.log))
	for from := range last + 1 {
		if err := s.replay(fs.Restart(), from, o); err != nil {
			return fmt.Errorf("host's store at %d of %d: %w", from, last, err)
		}
	}
	return nil
}

// replay starts the node with a store at some index, and the log from there on.
func (s *site) replay(fs *crashfs.FS, from uint64, o crashfs.Outcome) error {
	n, err := s.open(fs)
	if err != nil {
		return err
	}
	defer n.Close()
	if got := n.State(); o.Acknowledged() && got.Index() < s.pure.Index() {
		return fmt.Errorf("acknowledged, and the state is at %d, want %d", got.Index(), s.pure.Index())
	}
	if known := o.Returned && o.Err != nil && !errors.Is(o.Err, sidecar.ErrPoisoned); known && s.before != nil && n.State().Digest() != s.before.Digest() {
		return errors.New("it failed, and it took place")
	}
	v := s.view(from)
	if s.opens != nil && o.Acknowledged() {
		if from < s.opens(s) {
			return nil // what it compacts the host has stored
		}
		v.First = s.opens(s) + 1
	}
	if err := n.CatchUp(s.ctx, v); err != nil {
		return err
	}
	for i := from + 1; i <= uint64(len(s.log)); i++ {
		if !n.IsEntry(s.log[i-1]) && s.log[i-1][0] != 0xa7 {
			continue
		}
		if err := s.apply(n, i); err != nil {
			return err
		}
	}
	if n.State().Digest() != s.pure.Digest() {
		return fmt.Errorf("state at %d differs from what the log says, at %d", n.State().Index(), s.pure.Index())
	}
	for _, k := range n.Status().Keys {
		if k.State == key.Active && k.Epoch <= s.epochs[k.ID] {
			return fmt.Errorf("key %s: epoch %d, and %d was used", k.ID, k.Epoch, s.epochs[k.ID])
		}
	}
	for k, v := range s.values {
		got, err := n.Storage().Open(nil, v.out, []byte(k), v.sealed)
		if err != nil || string(got) != "value of "+k {
			return fmt.Errorf("%s: %q, %w", k, got, err)
		}
	}
	return nil
}

// An import that was cut short has not happened or can be gone on with, even where
// the host's store remembers an index of its former life.
func TestCrashesDuringImport(t *testing.T) {
	old := newSite(t, crashfs.New())
	require.NoError(t, old.both())
	snap := must(old.node.Snapshot())
	require.NoError(t, old.node.Close())
	var s *site
	crashfs.Explore(t, func(fs *crashfs.FS) error {
		s = newSite(t, fs)
		s.node = must(s.open(fs))
		return nil
	}, func(fs *crashfs.FS) error {
		defer closeNode(s)
		return s.node.Import(s.ctx, snap)
	}, func(fs *crashfs.FS, o crashfs.Outcome) error {
		n, err := s.open(fs)
		if err != nil {
			return err
		}
		defer n.Close()
		if !n.State().Bootstrapped() {
			if o.Acknowledged() {
				return errors.New("an acknowledged import is lost")
			}
			if err := n.Import(s.ctx, snap); err != nil {
				return err
			}
		}
		if err := n.CatchUp(s.ctx, atrest.View{Applied: 5000, First: 5001, HadKeys: true}); err != nil {
			return err
		}
		for k, v := range old.values {
			if _, err := n.Storage().Open(nil, v.out, []byte(k), v.sealed); err != nil {
				return err
			}
		}
		return nil
	})
}

// A first start that is cut short, on a host that has run without encryption for long
// and has compacted its log, can be repeated.
func TestCrashesDuringTheFirstStart(t *testing.T) {
	v := atrest.View{Applied: 5000, First: 4001, Entries: func(context.Context, uint64, uint64, func(uint64, []byte) error) error { return nil }}
	var s *site
	start := func(fs *crashfs.FS) error {
		n, err := s.open(fs)
		if err != nil {
			return err
		}
		defer n.Close()
		return n.CatchUp(s.ctx, v)
	}
	crashfs.Explore(t, func(fs *crashfs.FS) error {
		s = newSite(t, fs)
		return nil
	}, start, func(fs *crashfs.FS, _ crashfs.Outcome) error { return start(fs) })
}
