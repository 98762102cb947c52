package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// fileRows compares a transaction on keys.json with the least that replaces a
// file of the same size durably: write, fsync, rename, fsync of the directory.
func fileRows(cfg config) []row {
	few, many := 10, 10_000
	if cfg.quick {
		many = 50
	}
	var out []row
	for _, n := range []struct {
		keys int
		goal float64
	}{{few, 1.05}, {many, 1.50}} {
		for _, change := range []struct {
			what string
			with func(tx *sidecar.Tx, round int, state []byte) error
		}{
			{"one count", func(tx *sidecar.Tx, round int, _ []byte) error {
				return tx.SetReserved(1, sidecar.Usage{Seals: 1 << 40, Bytes: 1<<50 + uint64(round)})
			}},
			{"one epoch and the state", func(tx *sidecar.Tx, round int, state []byte) error {
				if err := tx.SetEpoch(1, uint16(round)); err != nil {
					return err
				}
				return tx.SetState(state)
			}},
		} {
			out = append(out, row{
				group:   "keys.json, one change, against bare write, fsync, rename, fsync of the directory",
				what:    fmt.Sprintf("%d keys, %s", n.keys, change.what),
				goal:    n.goal,
				ops:     3,
				prepare: func() (trial, error) { return replacements(cfg.dir, n.keys, change.with) },
			})
		}
	}
	return out
}

func replacements(parent string, keys int, change func(tx *sidecar.Tx, round int, state []byte) error) (_ trial, err error) {
	dir, err := os.MkdirTemp(parent, "atrest-bench-")
	if err != nil {
		return trial{}, err
	}
	remove := func() { _ = os.RemoveAll(dir) } // what stays lies among temporary files
	defer func() {
		if err != nil {
			remove()
		}
	}()

	set, err := kek.NewSet(kektest.New("bench"))
	if err != nil {
		return trial{}, err
	}
	file, err := sidecar.Create(context.Background(), dir, 1, set)
	if err != nil {
		return trial{}, err
	}
	states := [2][]byte{stateOf(keys, 'a'), stateOf(keys, 'b')}
	err = file.Update(func(tx *sidecar.Tx) error {
		for i := range keys {
			if err := tx.SetEpoch(key.ID(i+1), 1); err != nil {
				return err
			}
			if err := tx.SetReserved(key.ID(i+1), sidecar.Usage{Seals: 1 << 30, Bytes: 1 << 40}); err != nil {
				return err
			}
		}
		return tx.SetState(states[0])
	})
	if err != nil {
		return trial{}, err
	}
	content, err := os.ReadFile(file.Path())
	if err != nil {
		return trial{}, err
	}

	round := 1
	return trial{
		ours: []work{func(n int) {
			for range n {
				round++
				err := file.Update(func(tx *sidecar.Tx) error { return change(tx, round, states[round%2]) })
				if err != nil {
					panic(err) // the disk is full or broken: there is nothing to measure
				}
			}
		}},
		raw: []work{func(n int) {
			for range n {
				if err := bareReplace(dir, content); err != nil {
					panic(err)
				}
			}
		}},
		close: func() {
			_ = file.Close()
			remove()
		},
	}, nil
}

func bareReplace(dir string, content []byte) error {
	var (
		path = filepath.Join(dir, "bare")
		temp = path + ".tmp"
	)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.Close()
}

// stateOf returns a key state as large as that of so many keys.
func stateOf(keys int, fill byte) []byte {
	container := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 130))
	b := []byte(`{"keys":[`)
	for i := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":%d,"purpose":"storage","state":"open-only","container":%q}`, i+1, container)
	}
	return append(b, `]}`...)
}
