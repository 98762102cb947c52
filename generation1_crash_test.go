package atrest_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// firstCrash is a node in generation-1 mode whose disk fails during one change.
type firstCrash struct {
	*firstHost
	env    []byte            // must always open
	epochs map[key.ID]uint16 // the highest that a load has had
	sealed map[key.ID]uint16 // and that it could seal under
	entry  []byte            // whose application is tried
	failed error             // of a registration
}

// note records the epochs that the load has which runs.
func (c *firstCrash) note() {
	if c.node == nil {
		return
	}
	st := c.node.Status()
	for _, k := range st.Keys {
		if st.Phase != "opened" || k.Suite != 0 { // else it is of a take-over that is a draft
			c.epochs[k.ID] = max(c.epochs[k.ID], k.Epoch)
		}
		if k.Suite != 0 {
			c.sealed[k.ID] = max(c.sealed[k.ID], k.Epoch)
		}
	}
}

// begin starts the node on its disk with the log so far.
func (c *firstCrash) begin() error {
	n, err := c.open(c.mode(), atrest.WithObserver(c))
	if err != nil {
		return err
	}
	c.node = n
	if err := n.CatchUp(c.t.Context(), atrest.View{Applied: foundIndex, First: foundIndex + 1, HadKeys: true}); err != nil {
		return err
	}
	for i, e := range c.log {
		if _, err := n.Apply(foundIndex+1+uint64(i), e); err != nil {
			return err
		}
	}
	return nil
}

// Observe keeps the error of a registration.
func (c *firstCrash) Observe(e atrest.Event) {
	if r, ok := e.(atrest.RegistrationFailed); ok {
		c.failed = r.Err
	}
}

func (c *firstCrash) end() {
	if c.node != nil {
		c.note()
		c.node.Close() //nolint:errcheck // The lock file may be on a broken disk.
		c.node = nil
	}
}

// firstCrashes are the changes of a directory of generation 1: what is there before,
// and what is tried.
var firstCrashes = map[string]struct{ before, op func(c *firstCrash) error }{
	"take over": {
		before: func(*firstCrash) error { return nil },
		op:     (*firstCrash).begin,
	},
	"open": {
		before: func(c *firstCrash) error { defer c.end(); return c.begin() },
		op:     (*firstCrash).begin,
	},
	"rotation": {
		before: func(c *firstCrash) (err error) {
			if err := c.begin(); err != nil {
				return err
			}
			c.entry, err = c.node.NewRotation(c.t.Context(), key.Storage)
			return err
		},
		op: (*firstCrash).apply,
	},
	"registration": {
		before: func(c *firstCrash) (err error) {
			if err := c.begin(); err != nil {
				return err
			}
			c.entry, err = c.node.NewRegistration(key.Storage)
			return err
		},
		op: (*firstCrash).apply,
	},
	// Another load of this node has registered an epoch that is higher.
	"raised epoch": {
		before: func(c *firstCrash) error {
			if err := c.begin(); err != nil {
				return err
			}
			entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundStorage, Node: nodeid.Derive("n1"), Epoch: 70})
			return errors.Join(err, c.propose(c.t.Context(), entry))
		},
		op: func(c *firstCrash) error {
			err := c.node.Ready(c.t.Context())
			synctest.Wait()
			return errors.Join(err, c.failed)
		},
	},
}

func (c *firstCrash) apply() error {
	if err := c.propose(c.t.Context(), c.entry); err != nil {
		return err
	}
	// What is sealed now counts under an epoch that the view has.
	out, _, err := c.node.Storage().Seal(nil, []byte("later"), []byte("a"))
	c.env = out
	return err
}

// At whatever instant a disk fails or a machine stops during a change in generation-1
// mode, the next start succeeds, takes epochs that no load has had, and leaves a
// keys.json that the reference system could go on with: it knows every epoch and key.
func TestGeneration1Crashes(t *testing.T) {
	for name, tt := range firstCrashes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var c *firstCrash
				report, err := crashfs.Scenario{
					Setup: func(fs *crashfs.FS) error {
						c = newFirstCrash(t, fs)
						return tt.before(c)
					},
					Op: func(*crashfs.FS) error {
						defer c.end()
						return tt.op(c)
					},
					Check: func(fs *crashfs.FS, o crashfs.Outcome) error {
						after := &firstCrash{firstHost: c.on(fs), env: c.env, epochs: maps.Clone(c.epochs), sealed: maps.Clone(c.sealed)}
						return after.check(o)
					},
					Limit: 24,
				}.Run()
				t.Log(report)
				require.NoError(t, err)
			})
		})
	}
}

func newFirstCrash(t *testing.T, fs *crashfs.FS) *firstCrash {
	t.Helper()
	c := &firstCrash{firstHost: newFirstHost(t, "v2"), epochs: map[key.ID]uint16{}, sealed: map[key.ID]uint16{}}
	found := read(c.fs)
	c.fs = fs
	fs.Mkdir(dir)
	write(fs, found)
	c.env = c.elsewhere(foundStorage, "later", "a")
	return c
}

func (c *firstCrash) check(o crashfs.Outcome) error {
	// A tool that reads keys.json before the next start finds one that is whole, that
	// has every epoch under which something was sealed, and that, if the change was
	// acknowledged, knows all of it.
	old, err := generation1.Parse(read(c.fs))
	if err != nil {
		return err
	}
	if err := covers(old, c.sealed); err != nil {
		return err
	}
	if o.Acknowledged() {
		if err := covers(old, c.epochs); err != nil {
			return err
		}
	}
	before := maps.Clone(c.epochs)
	if err := c.begin(); err != nil {
		return err
	}
	defer c.end()
	s := c.node.State()
	for _, k := range c.node.Status().Keys {
		if k.State == key.Active && k.Epoch <= before[k.ID] {
			return fmt.Errorf("key %s: epoch %d, and %d was used", k.ID, k.Epoch, before[k.ID])
		}
	}
	if got, err := c.node.Storage().Open(nil, c.env, []byte("a"), true); err != nil || string(got) != "later" {
		return fmt.Errorf("%q, %w", got, err)
	}
	want := 3
	for _, e := range c.log {
		if bytes.HasPrefix(e, []byte{5, 1, 1}) { // a rotation
			want++
		}
	}
	if s.Len() != want {
		return fmt.Errorf("%d keys, want %d", s.Len(), want)
	}
	c.note()
	return covers(c.view(), c.epochs)
}

// covers reports whether keys.json has all keys and epochs.
func covers(f *generation1.File, epochs map[key.ID]uint16) error {
	for id, epoch := range epochs {
		k, ok := f.Keys[id]
		if !ok || k.Epoch < epoch {
			return fmt.Errorf("keys.json has epoch %d of key %s, and %d was used", k.Epoch, id, epoch)
		}
	}
	return nil
}

// An upgrade that was cut short leaves a directory of generation 1 or 2, whole, and
// is ended by a repetition. No epoch and no key is lost on the way.
func TestCrashesDuringTheUpgrade(t *testing.T) {
	var h *firstCrash
	var adopt []byte
	for _, member := range []string{"first", "another"} {
		t.Run(member, func(t *testing.T) {
			crashfs.Explore(t, func(fs *crashfs.FS) error {
				h = newFirstCrash(t, fs)
				defer h.end()
				return h.begin()
			}, func(*crashfs.FS) error {
				_, err := h.upgrade(atrest.UpgradeConfig{Adopt: adopt})
				return err
			}, func(fs *crashfs.FS, o crashfs.Outcome) error {
				return afterUpgrade(h.on(fs), adopt, h, o)
			})
		})
		if adopt == nil {
			host := newFirstHost(t, "v2")
			host.start(host.mode())
			require.NoError(t, host.node.Close())
			_, err := host.upgrade(atrest.UpgradeConfig{})
			require.NoError(t, err)
			host.start()
			adopt, err = host.node.Snapshot()
			require.NoError(t, err)
		}
	}
}

func afterUpgrade(h *firstHost, adopt []byte, before *firstCrash, o crashfs.Outcome) error {
	_, err := h.upgrade(atrest.UpgradeConfig{Adopt: adopt})
	switch {
	case errors.Is(err, atrest.ErrConfig): // it was done
	case err != nil:
		return err
	case o.Acknowledged():
		return errors.New("it was acknowledged, and there was something left to do")
	}
	if _, err := h.open(h.mode()); !errors.Is(err, guard.ErrTampered) {
		return fmt.Errorf("generation 1 on an upgraded directory: %w", err)
	}
	n, err := h.open()
	if err != nil {
		return err
	}
	defer n.Close()
	if n.State().Generation() != applier.Generation2 || n.State().Len() < 3 {
		return fmt.Errorf("%v", n.Status())
	}
	for _, k := range n.Status().Keys {
		if k.State == key.Active && k.Epoch <= before.epochs[k.ID] {
			return fmt.Errorf("key %s: epoch %d, and %d was used", k.ID, k.Epoch, before.epochs[k.ID])
		}
	}
	_, err = n.Storage().Open(nil, before.env, []byte("a"), true)
	return err
}

// What generation 2 has done after an upgrade whose last step failed is never undone:
// not by a start in generation-1 mode and not by repeating the upgrade.
func TestUpgradeWhoseLastStepFailed(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	const meta = dir + "/" + guard.MetaName
	h.fs.FailAt(0, nil, crashfs.None)
	at := 0
	clone := h.fs.Restart()
	_, err := h.on(clone).upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	for i, op := range clone.Ops() {
		if op.Kind == crashfs.KindRename {
			at = i
		}
	}
	h.fs = h.fs.Restart()
	half := h.on(h.fs.Restart())
	h.fs.FailAt(at, nil, crashfs.NotDone)
	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.ErrorContains(t, err, "the upgrade is done")
	h.fs.FailAt(0, nil, crashfs.None)
	_, err = h.fs.Lstat(meta)
	require.NoError(t, err)

	_, err = h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)

	// Only the renaming is left of it.
	other := newFirstHost(t, "v2")
	other.start(other.mode())
	require.NoError(t, other.node.Close())
	_, err = other.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	other.start()
	foreign, err := other.node.Snapshot()
	require.NoError(t, err)
	_, err = h.upgrade(atrest.UpgradeConfig{Adopt: foreign})
	require.ErrorIs(t, err, atrest.ErrOtherCluster)
	resumed := h.on(h.fs.Restart())
	dry, err := resumed.upgrade(atrest.UpgradeConfig{DryRun: true})
	require.NoError(t, err)
	u, err := resumed.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	require.Equal(t, dry.Cluster, u.Cluster)
	_, err = resumed.fs.Lstat(meta)
	require.Error(t, err)

	// A start does not need it.
	_, err = half.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	require.NoError(t, half.fs.Rename(meta+".generation1", meta))
	half.fs.Mkdir(meta + ".generation1") // in the way
	half.start()
	require.NoError(t, half.node.Close())

	// Or generation 2 does it, and goes on.
	h.start()
	_, err = h.fs.Lstat(meta)
	require.Error(t, err)
	entry, err := h.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	rotated, _ := h.node.State().Active(key.Storage)
	require.Equal(t, u.Cluster, h.node.State().Cluster())
	require.NoError(t, h.node.Close())
	_, err = h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)
	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.ErrorIs(t, err, atrest.ErrConfig)
	h.start()
	active, _ := h.node.State().Active(key.Storage)
	require.Equal(t, rotated.ID, active.ID)
}

// A keys.json that knows more than keys.meta.json was written by something else, and
// its epochs may be in use: the view is not written over it.
func TestViewThatAnotherProgramWrote(t *testing.T) {
	h0 := newFirstHost(t, "v2")
	for name, edit := range map[string]func(f *generation1.File){
		"epoch": func(f *generation1.File) { epochOf(foundOldStorage, f.Keys[foundOldStorage].Epoch+1)(f) },
		"index": func(f *generation1.File) { f.Applied++ },
		"key": func(f *generation1.File) {
			f.Keys[99] = generation1.Key{Purpose: key.Storage, Wrapped: must(h0.keks.WrapGeneration1(t.Context(), 99, h0.deks[foundStorage]))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFirstHost(t, "v2")
			h.start(h.mode())
			require.NoError(t, h.node.Close())
			f := h.view()
			edit(f)
			b, err := f.Append(nil)
			require.NoError(t, err)
			write(h.fs, b)
			_, err = h.open(h.mode())
			require.ErrorIs(t, err, guard.ErrTampered)
			_, err = h.upgrade(atrest.UpgradeConfig{})
			require.ErrorIs(t, err, guard.ErrTampered)
			require.Equal(t, f, h.view())

			// As the error advises.
			require.NoError(t, h.fs.Remove(dir+"/"+guard.MetaName))
			h.index = max(h.index, f.Applied)
			h.at = h.index
			h.start(h.mode())
			require.GreaterOrEqual(t, h.view().Keys[foundOldStorage].Epoch, f.Keys[foundOldStorage].Epoch)
		})
	}
}

// In a directory of generation 1 whose keys.json is lost nothing begins anew in
// generation 2.
func TestGeneration2BesideKeysOfGeneration1(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	require.NoError(t, h.fs.Remove(keysJSON))
	_, err := h.open()
	require.ErrorIs(t, err, guard.ErrKeysMissing)
	_, err = h.fs.Lstat(keysJSON)
	require.Error(t, err)
}
