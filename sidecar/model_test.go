package sidecar_test

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// model is what the file should say.
type model struct {
	epochs   map[key.ID]uint16
	reserved map[key.ID]sidecar.Usage
	through  uint64
	state    string
	keks     string
}

func (m model) clone() model {
	m.epochs, m.reserved = maps.Clone(m.epochs), maps.Clone(m.reserved)
	return m
}

func (m model) equal(o model) bool {
	return maps.Equal(m.epochs, o.epochs) && maps.Equal(m.reserved, o.reserved) && m.through == o.through && m.state == o.state && m.keks == o.keks
}

// machine drives a File and the model side by side, with faults of the file
// system, deaths of the process and power losses between and during updates.
type machine struct {
	fsys *crashfs.FS
	w    *keks
	f    *sidecar.File
	now  model
	high map[key.ID]uint16 // the highest epoch that was ever returned as durable
}

var modelIDs = []key.ID{1, 2, 9, 10, 11, 1 << 31, 1<<32 - 1}

func drawID(t *rapid.T) key.ID { return rapid.SampledFrom(modelIDs).Draw(t, "id") }

// change draws one change and makes it in the transaction and in the model.
func (m *machine) change(t *rapid.T, tx *sidecar.Tx, next *model) error {
	switch rapid.IntRange(0, 4).Draw(t, "change") {
	case 0:
		id, epoch := drawID(t), rapid.Uint16Range(1, 8).Draw(t, "epoch")
		err := tx.SetEpoch(id, epoch)
		if old := next.epochs[id]; epoch < old {
			require.ErrorIs(t, err, sidecar.ErrEpochLowered)
			return err
		}
		next.epochs[id] = epoch
		return err
	case 1:
		id := drawID(t)
		u := sidecar.Usage{Seals: rapid.Uint64Range(0, 9).Draw(t, "seals"), Bytes: rapid.Uint64().Draw(t, "bytes")}
		old := next.reserved[id]
		if kept := (sidecar.Usage{Seals: max(u.Seals, old.Seals), Bytes: max(u.Bytes, old.Bytes)}); kept != old {
			next.reserved[id] = kept
		}
		return tx.SetReserved(id, u)
	case 2:
		index := rapid.SampledFrom([]uint64{0, 1, 7, 8, 1<<64 - 2, 1<<64 - 1}).Draw(t, "through")
		next.through = max(next.through, index)
		return tx.SetThrough(index)
	case 3:
		value := drawJSON(t, 3)
		next.state = asCompact(t, []byte(value))
		return tx.SetState([]byte(value))
	}
	return rapid.SampledFrom([]error{nil, nil, errMine}).Draw(t, "error")
}

var errMine = errors.New("mine")

// Update is an update of several changes, of which one may be refused.
func (m *machine) Update(t *rapid.T) { m.update(t, false) }

// UpdateWithFault is one during which the file system fails.
func (m *machine) UpdateWithFault(t *rapid.T) { m.update(t, true) }

func (m *machine) update(t *rapid.T, faulty bool) {
	next := m.now.clone()
	at, form := 1<<20, crashfs.None
	if faulty {
		at = rapid.IntRange(0, 5).Draw(t, "at")
		form = crashfs.Form(rapid.Uint8Range(uint8(crashfs.NotDone), uint8(crashfs.PowerLoss)).Draw(t, "form"))
	}
	m.fsys.FailAt(at, nil, form)
	var fnErr error
	err := m.f.Update(func(tx *sidecar.Tx) error {
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			if fnErr = m.change(t, tx, &next); fnErr != nil {
				return fnErr
			}
		}
		return nil
	})
	asked := len(m.fsys.Ops())
	m.fsys.FailAt(0, nil, crashfs.None)
	switch {
	case fnErr != nil:
		require.ErrorIs(t, err, fnErr)
		require.Zero(t, asked, "a refused change asks nothing of the file system")
	case next.equal(m.now):
		require.NoError(t, err)
		require.Zero(t, asked, "nothing changed, nothing written")
	case err == nil:
		m.now = next
	default:
		require.True(t, faulty, "%v", err)
		m.failed(t, err, form, next)
	}
}

// failed follows an update that the file system let down. If the outcome is
// unknown, the next process says which it was.
func (m *machine) failed(t *rapid.T, err error, form crashfs.Form, next model) {
	m.Check(t) // readers still see the last durable content
	if form == crashfs.Kill || form == crashfs.PowerLoss || errors.Is(err, sidecar.ErrPoisoned) {
		if errors.Is(err, sidecar.ErrPoisoned) {
			require.ErrorIs(t, m.f.Update(func(tx *sidecar.Tx) error { return nil }), sidecar.ErrPoisoned)
		}
		m.restart(t, form == crashfs.PowerLoss)
		if m.same(next) {
			m.now = next
		}
	}
}

// Rewrap changes the KEKs and follows with the file.
func (m *machine) Rewrap(t *rapid.T) {
	names := rapid.SampledFrom([]string{"a", "ab", "bc", "c", "cab"}).Draw(t, "KEKs")
	m.w.use(names)
	require.NoError(t, m.f.Rewrap(t.Context()))
	require.True(t, m.f.FileKeyCurrent())
	m.now.keks = names
}

// Reopen closes and opens; the other two end the process or the machine.
func (m *machine) Reopen(t *rapid.T) {
	require.NoError(t, m.f.Close())
	m.open(t)
}

func (m *machine) Kill(t *rapid.T)      { m.restart(t, false) }
func (m *machine) PowerLoss(t *rapid.T) { m.restart(t, true) }

func (m *machine) restart(t *rapid.T, powerLoss bool) {
	if powerLoss {
		m.fsys = m.fsys.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "loss"), 0)))
	} else {
		m.fsys = m.fsys.Restart()
	}
	m.open(t)
}

func (m *machine) open(t *rapid.T) {
	f, err := sidecar.Open(t.Context(), dir, node, m.w, sidecar.WithFS(m.fsys))
	require.NoError(t, err)
	m.f = f
	names, err := m.fsys.ReadDir(dir)
	require.NoError(t, err)
	require.Subset(t, []string{"keys.json", "keys.json.lock"}, names)
	_, err = sidecar.Create(t.Context(), dir, node, m.w, sidecar.WithFS(m.fsys))
	var locked *sidecar.LockedError
	require.True(t, errors.As(err, &locked) || errors.Is(err, fs.ErrExist))
}

// same reports whether the file says what a model says.
func (m *machine) same(o model) bool {
	return string(m.f.State()) == o.state && m.f.Through() == o.through && !slices.ContainsFunc(modelIDs, func(id key.ID) bool {
		return m.f.Epoch(id) != o.epochs[id] || m.f.Reserved(id) != o.reserved[id]
	})
}

// Check compares everything, and that no epoch ever goes back.
func (m *machine) Check(t *rapid.T) {
	require.Equal(t, m.now.state, string(m.f.State()))
	require.Equal(t, m.now.through, m.f.Through())
	for _, id := range modelIDs {
		require.Equal(t, m.now.epochs[id], m.f.Epoch(id))
		require.Equal(t, m.now.reserved[id], m.f.Reserved(id))
		require.GreaterOrEqual(t, m.f.Epoch(id), m.high[id])
		m.high[id] = m.f.Epoch(id)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{
			fsys: newFS(), w: newKEKs("a"), high: map[key.ID]uint16{},
			now: model{epochs: map[key.ID]uint16{}, reserved: map[key.ID]sidecar.Usage{}, state: "null", keks: "a"},
		}
		m.f = mustCreate(t, m.fsys, node, m.w)
		rt.Repeat(map[string]func(*rapid.T){
			"": m.Check, "Update": m.Update, "UpdateWithFault": m.UpdateWithFault, "Rewrap": m.Rewrap,
			"Reopen": m.Reopen, "Kill": m.Kill, "PowerLoss": m.PowerLoss,
		})
	})
}
