package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// node is the only writer of its store.
var node = nodeid.Derive("quickstart")

// A store is a Pebble database whose values are sealed. Beside the database
// lies keys.json, with the DEKs wrapped under the KEK; the KEK lies elsewhere.
type store struct {
	db     *pebble.DB
	kek    *kek.Set          // wraps and unwraps DEKs
	file   *sidecar.File     // keys.json
	table  keyTable          // what this program keeps in it
	keys   *keystore.Store   // the unwrapped DEKs
	values *keystore.Storage // seals and opens under them

	reserving errgroup.Group
}

// A keyTable is the state of the keys.
type keyTable struct {
	Cluster key.ClusterID `json:"cluster"`
	Active  key.ID        `json:"active"`
	Keys    []keyRow      `json:"keys"`
}

type keyRow struct {
	ID        key.ID      `json:"id"`
	Purpose   key.Purpose `json:"purpose"`
	State     key.State   `json:"state"`
	Container []byte      `json:"container"` // the wrapped DEK
}

// openStore opens the store in dir, or makes one if there is none.
func openStore(ctx context.Context, dir, kekPath string) (*store, error) {
	source, err := kek.File(kekPath)
	if err != nil {
		return nil, err
	}
	if err := kek.Verify(ctx, source); err != nil {
		return nil, err
	}
	s := new(store)
	if err := s.start(ctx, dir, source); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// start opens what a store consists of.
func (s *store) start(ctx context.Context, dir string, source kek.KEK) (err error) {
	if s.kek, err = kek.NewSet(source); err != nil {
		return err
	}
	if s.keys, err = keystore.New(keystore.WithObserver(s)); err != nil {
		return err
	}
	s.values = s.keys.Storage()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s.file, err = sidecar.Open(ctx, dir, uint64(node), s.kek)
	if errors.Is(err, fs.ErrNotExist) {
		s.file, err = sidecar.Create(ctx, dir, uint64(node), s.kek)
	}
	if err != nil {
		return err
	}
	if s.db, err = openPebble(filepath.Join(dir, dbDir), func() error { return nil }); err != nil {
		return err
	}
	return s.loadKeys(ctx)
}

// loadKeys reads the key table, unwraps every DEK and makes the active one
// ready to seal. A new store has no key yet and gets its first.
func (s *store) loadKeys(ctx context.Context) error {
	if err := json.Unmarshal(s.file.State(), &s.table); err != nil {
		return fmt.Errorf("key table: %w", err)
	}
	if s.table.Active == 0 {
		s.table.Cluster = key.NewClusterID()
		return s.rotate(ctx)
	}
	for _, row := range s.table.Keys {
		h, dek, err := s.kek.UnwrapDEK(ctx, row.Container)
		if err != nil {
			return err
		}
		if h.Cluster != s.table.Cluster || h.ID != row.ID || h.Purpose != row.Purpose {
			return fmt.Errorf("key table: the container of key %s is another key's", row.ID)
		}
		if err := s.keys.Install(row.ID, row.Purpose, dek); err != nil {
			return err
		}
		if err := s.keys.SetReserved(row.ID, envelope.Usage(s.file.Reserved(row.ID))); err != nil {
			return err
		}
	}
	return s.activate(s.table.Active)
}

// rotate makes a new DEK and seals under it from now on. What was sealed before
// stays readable. The key is durable before anything is sealed under it.
func (s *store) rotate(ctx context.Context) error {
	id := s.unusedID()
	dek := key.NewDEK()
	container, err := s.kek.WrapDEK(ctx, s.table.Cluster, id, key.Storage, dek)
	if err != nil {
		return err
	}
	next := s.table.withActive(keyRow{ID: id, Purpose: key.Storage, Container: container})
	state, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := s.file.Update(func(tx *sidecar.Tx) error { return tx.SetState(state) }); err != nil {
		return err
	}
	s.table = next
	if err := s.keys.Install(id, key.Storage, dek); err != nil {
		return err
	}
	return s.activate(id)
}

// activate seals under a key from now on, with counted nonces. Their epoch must
// be one that no load of this key had before, so it is durable before it is
// used. A key that has no epoch left seals with extended nonces, which need none.
func (s *store) activate(id key.ID) error {
	var err error
	if epoch := s.file.Epoch(id); epoch < math.MaxUint16 {
		epoch++
		err = s.file.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(id, epoch) })
		if err == nil {
			err = s.keys.ActivateCounted(id, envelope.Writer{Node16: node.Node16(), Epoch: epoch})
		}
	} else {
		err = s.keys.Activate(id)
	}
	// Activating asks for the first reservation, which is durable before the
	// first seal.
	return errors.Join(err, s.reserving.Wait())
}

func (s *store) unusedID() key.ID {
	for {
		id := key.NewID()
		if !slices.ContainsFunc(s.table.Keys, func(row keyRow) bool { return row.ID == id }) {
			return id
		}
	}
}

// withActive returns the table with one more key, which is the active one.
func (t keyTable) withActive(row keyRow) keyTable {
	t.Keys = slices.Clone(t.Keys)
	for i := range t.Keys {
		t.Keys[i].State = key.OpenOnly
	}
	row.State = key.Active
	t.Keys = append(t.Keys, row)
	t.Active = row.ID
	return t
}

// seal appends to dst the envelope of a value, bound to the value's place.
func (s *store) seal(dst []byte, kind, name string, value []byte) ([]byte, error) {
	return s.values.Seal(dst, value, location(kind, name))
}

// open appends to dst what is in an envelope. It fails unless the envelope was
// sealed for this very place.
func (s *store) open(dst []byte, kind, name string, env []byte) ([]byte, error) {
	return s.values.Open(dst, env, location(kind, name))
}

// NeedReserve makes durable how much of a key is spoken for, so that the count
// survives a crash. The keystore calls it while it seals, long before the room
// it has is used up, so the write need not be waited for.
func (s *store) NeedReserve(id key.ID, upTo envelope.Usage) {
	s.reserving.Go(func() error {
		err := s.file.Update(func(tx *sidecar.Tx) error { return tx.SetReserved(id, sidecar.Usage(upTo)) })
		if err != nil {
			return err
		}
		return s.keys.Reserved(id, upTo)
	})
}

// RotationDue is where a program would start a rotation. A run of this one
// stays far below the limits.
func (s *store) RotationDue(key.ID, int, envelope.Usage) {}

func (s *store) close() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	errs = append(errs, s.reserving.Wait())
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
