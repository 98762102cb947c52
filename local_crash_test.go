package atrest_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

// crashing is an embedded database whose disk fails during one operation.
type crashing struct {
	*embedded
	l      *atrest.Local
	old    *applier.State    // before the operation
	epochs map[key.ID]uint16 // the highest that a load has had
	part   []byte            // a snapshot of another one
	acked  bool              // the operation said that all is well
}

// note remembers the epochs of the load that runs.
func (c *crashing) note() {
	if c.l == nil {
		return
	}
	for _, k := range c.l.Status().Keys {
		c.epochs[k.ID] = max(c.epochs[k.ID], k.Epoch)
	}
}

func (c *crashing) begin() error {
	l, err := c.open()
	c.l = l
	return err
}

func (c *crashing) former() key.ID {
	k, _ := c.l.Node().State().Former(key.Storage)
	return k.ID
}

// rotated brings a database with a value under a former key and one under the
// active one.
func (c *crashing) rotated() error {
	if err := errors.Join(c.begin(), c.put(c.l, "a")); err != nil {
		return err
	}
	_, err := c.l.Rotate(c.ctx)
	synctest.Wait()
	return errors.Join(err, c.put(c.l, "b"))
}

// localCrashes are the operations of an embedded database: what is there before,
// what is tried, and what must be so if it was done, and not if it was not.
var localCrashes = map[string]struct {
	before func(c *crashing) error
	op     func(c *crashing) error
	done   func(c *crashing, s *applier.State) bool
}{
	"first open": {
		before: func(*crashing) error { return nil },
		op: func(c *crashing) error {
			return c.begin()
		},
		done: func(_ *crashing, s *applier.State) bool { return s.StorageCutover().Active },
	},
	"open": {
		before: func(c *crashing) error {
			err := c.rotated()
			c.note()
			return errors.Join(err, c.l.Close())
		},
		op:   func(c *crashing) error { return c.begin() },
		done: func(*crashing, *applier.State) bool { return true },
	},
	"import": {
		before: func(c *crashing) error {
			other := newEmbedded(c.t)
			l, err := other.open()
			if err != nil {
				return err
			}
			defer l.Close()
			if err := other.put(l, "a"); err != nil {
				return err
			}
			c.values = other.values
			c.part, err = l.Snapshot()
			return err
		},
		op: func(c *crashing) (err error) {
			c.l, err = atrest.ImportLocal(c.ctx, c.config(), c.part, atrest.WithFS(c.fs))
			synctest.Wait()
			return err
		},
		done: func(_ *crashing, s *applier.State) bool { return s.Bootstrapped() },
	},
	"rotate": {
		before: (*crashing).rotated,
		op: func(c *crashing) error {
			_, err := c.l.Rotate(c.ctx)
			synctest.Wait()
			return err
		},
		done: func(c *crashing, s *applier.State) bool { return s.Len() == c.old.Len()+1 },
	},
	"rewrap": {
		before: func(c *crashing) error {
			if err := errors.Join(c.rotated(), c.l.Close()); err != nil {
				return err
			}
			c.keks = append(c.keks, kektest.New("kms:b"))
			return c.begin()
		},
		op: func(c *crashing) error {
			if err := c.l.Rewrap(c.ctx); err != nil {
				return err
			}
			c.keks = c.keks[1:] // the other one is not needed any more
			return nil
		},
		done: func(_ *crashing, s *applier.State) bool {
			for k := range s.Keys() {
				if c, err := key.ParseContainer(k.Container); err != nil || len(c.Recipients) != 2 {
					return false
				}
			}
			return true
		},
	},
	"stop": {
		before: (*crashing).rotated,
		op:     func(c *crashing) error { return c.l.Stop(c.former()) },
		done:   func(c *crashing, s *applier.State) bool { return formerIs(c, s, key.Stopped) },
	},
	"destroy": {
		before: func(c *crashing) error {
			return errors.Join(c.rotated(), c.l.Stop(c.former()), c.put(c.l, "a"))
		},
		op:   func(c *crashing) error { return c.l.Destroy(c.former(), 0) },
		done: func(c *crashing, s *applier.State) bool { return formerIs(c, s, key.Destroyed) },
	},
	"backup": {
		before: (*crashing).rotated,
		op:     func(c *crashing) error { return c.l.Backup(applier.BackupID{1}) },
		done: func(_ *crashing, s *applier.State) bool {
			for range s.Backups() {
				return true
			}
			return false
		},
	},
}

func formerIs(c *crashing, s *applier.State, want key.State) bool {
	former, _ := c.old.Former(key.Storage)
	k, _ := s.Key(former.ID)
	return k.State == want
}

// At whatever instant a disk fails or a machine stops: the next open finds the
// state of before or of after, and that of after if the caller was told so. All
// values open, no epoch comes twice, and the database goes on.
func TestLocalCrashes(t *testing.T) {
	for name, tt := range localCrashes {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var c *crashing
				report, err := crashfs.Scenario{
					Setup: func(fs *crashfs.FS) error {
						c = &crashing{embedded: newEmbedded(t), epochs: map[key.ID]uint16{}}
						c.fs = fs
						fs.Mkdir(dir)
						c.old = applier.New(applier.Generation2)
						err := tt.before(c)
						if c.l != nil {
							c.old = c.l.Node().State()
						}
						c.note()
						return err
					},
					Op: func(fs *crashfs.FS) (err error) {
						c.fs = fs
						defer func() {
							if c.l != nil {
								c.note()
								c.l.Close() //nolint:errcheck // The lock file may be on a broken disk.
							}
						}()
						c.acked = false
						if err := tt.op(c); err != nil {
							return err
						}
						c.acked = true
						return c.put(c.l, "after")
					},
					Check: func(fs *crashfs.FS, o crashfs.Outcome) error {
						after := *c
						after.embedded = &embedded{t: t, ctx: t.Context(), fs: fs, keks: c.keks, values: c.values}
						return after.check(tt.done)
					},
					Limit: 8,
				}.Run()
				t.Log(report)
				require.NoError(t, err)
			})
		})
	}
}

// check looks at what the next process finds, and goes on with it.
func (c *crashing) check(done func(*crashing, *applier.State) bool) error {
	values := len(c.values)
	l, err := c.next()
	if err != nil {
		return err
	}
	defer func() { l.Close() }()
	switch s := l.Node().State(); {
	case done(c, s):
	case c.acked:
		return fmt.Errorf("acknowledged, and it is not so: %v", l.Status())
	case !sameKeys(c.old, s):
		return fmt.Errorf("neither before nor after: %v", l.Status())
	}
	if err := c.opens(l); err != nil {
		return err
	}
	st := l.Status()
	if !st.Serving {
		return fmt.Errorf("not serving: %v", st)
	}
	for _, k := range st.Keys {
		if k.State == key.Active && (k.Epoch <= c.epochs[k.ID] || !k.Registered) {
			return fmt.Errorf("epoch %d after %d: %v", k.Epoch, c.epochs[k.ID], st)
		}
	}
	if _, err := l.Rotate(c.ctx); err != nil {
		return err
	}
	out, sealed, err := l.Storage().Seal(nil, []byte("value of z"), []byte("z"))
	if err != nil || !sealed {
		return fmt.Errorf("seal: %v, %w", sealed, err)
	}
	if err := l.Close(); err != nil {
		return err
	}
	again, err := c.open()
	if err != nil {
		return err
	}
	l = again
	if v, err := l.Storage().Open(nil, out, []byte("z"), true); err != nil || string(v) != "value of z" {
		return fmt.Errorf("got %q, %w", v, err)
	}
	if len(c.values) != values {
		return errors.New("the check itself has changed what is checked")
	}
	return c.opens(l)
}

func sameKeys(a, b *applier.State) bool {
	return slices.EqualFunc(slices.Collect(a.Keys()), slices.Collect(b.Keys()), func(x, y applier.Key) bool {
		return x.ID == y.ID && x.State == y.State && bytes.Equal(x.Container, y.Container)
	})
}

// next opens the database. Where nothing was imported it imports again, as an
// operator would.
func (c *crashing) next() (*atrest.Local, error) {
	if c.part == nil || c.acked {
		return c.open()
	}
	l, err := atrest.ImportLocal(c.ctx, c.config(), c.part, atrest.WithFS(c.fs))
	if errors.Is(err, atrest.ErrOrder) {
		return c.open()
	}
	synctest.Wait()
	return l, err
}

// After a write whose outcome is unknown nothing more is written, and the next
// open finds out.
func TestLocalAfterAnUnknownOutcome(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		before := l.Node().State()
		e.fs.FailAt(0, nil, crashfs.None)
		must(l.Rotate(t.Context()))
		synctest.Wait()
		ops := e.fs.Ops()
		at := 0
		for ops[at].Kind != crashfs.KindRename {
			at++
		}

		e.fs.FailAt(at, nil, crashfs.ButDone)
		now := l.Node().State()
		_, err := l.Rotate(t.Context())
		require.Error(t, err)
		require.Same(t, now, l.Node().State())
		require.NotSame(t, before, now)
		require.Error(t, l.Backup(applier.BackupID{1}))
		require.NoError(t, e.put(l, "b"), "values go on under the key that is there")
		require.NoError(t, l.Close())

		e.fs = e.fs.Restart()
		l = e.opened()
		require.NoError(t, e.opens(l))
		require.Equal(t, now.Len()+1, l.Node().State().Len(), "it had been done")
	})
}
