package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/kek"
)

// A store is a Pebble database whose values are sealed. Beside the database
// lies keys.json, with the DEKs wrapped under the KEK; the KEK lies elsewhere.
type store struct {
	db     *pebble.DB
	kek    *kek.Set
	keys   *atrest.Local
	values *atrest.Storage
}

// openStore opens the store in dir, or makes one if there is none.
func openStore(ctx context.Context, dir, kekPath string) (*store, error) {
	source, err := kek.File(kekPath)
	if err != nil {
		return nil, err
	}
	keks, err := kek.NewSet(source)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	dbPath := filepath.Join(dir, dbDir)
	_, there := os.Stat(dbPath) // the database is made after its keys
	hadKeys := !errors.Is(there, fs.ErrNotExist)
	keys, err := atrest.OpenLocal(ctx, atrest.LocalConfig{Dir: dir, KEK: keks, HadKeys: hadKeys})
	if err != nil {
		return nil, err
	}
	db, err := openPebble(dbPath, func() error { return nil })
	if err != nil {
		return nil, errors.Join(err, keys.Close())
	}
	return &store{db: db, kek: keks, keys: keys, values: keys.Storage()}, nil
}

// rotate seals under a new key from now on. What was sealed before opens as
// before.
func (s *store) rotate(ctx context.Context) error {
	_, err := s.keys.Rotate(ctx)
	return err
}

// seal appends to dst the envelope of a value, bound to the value's place.
func (s *store) seal(dst []byte, kind, name string, value []byte) ([]byte, error) {
	env, _, err := s.values.Seal(dst, value, location(kind, name)) // it is always sealed
	return env, err
}

// open appends to dst what is in an envelope. It fails unless the envelope was
// sealed for this very place.
func (s *store) open(dst []byte, kind, name string, env []byte) ([]byte, error) {
	return s.values.Open(dst, env, location(kind, name), true)
}

func (s *store) close() error { return errors.Join(s.db.Close(), s.keys.Close()) }
