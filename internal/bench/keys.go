package main

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// keyRows compares a keystore that holds many keys with what is done without
// one: a slice of ciphers, and setting up AES-GCM.
func keyRows(cfg config) []row {
	few, many := 1_000, 100_000
	if cfg.quick {
		few, many = 10, 100
	}
	return []row{
		{
			group: "keystore, opening 64 B under one of many keys, against a slice of ciphers",
			what:  fmt.Sprintf("%d keys", few), extra: 12 * time.Nanosecond, allocFree: true,
			prepare: func() (trial, error) { return lookups(few) },
		},
		{
			group: "keystore, opening 64 B under one of many keys, against a slice of ciphers",
			what:  fmt.Sprintf("%d keys", many), extra: 30 * time.Nanosecond, allocFree: true,
			prepare: func() (trial, error) { return lookups(many) },
		},
		{
			group: "keystore, taking keys in, against setting up AES-GCM for each",
			what:  fmt.Sprintf("one more than %d", many), extra: 20 * time.Microsecond, ops: 100,
			prepare: func() (trial, error) { return installs(cfg, many) },
		},
		{
			group: "keystore, taking keys in, against setting up AES-GCM for each",
			what:  fmt.Sprintf("%d at once", few), extra: time.Millisecond, ops: 1,
			prepare: func() (trial, error) { return loads(few) },
		},
	}
}

// newKeys returns n keys with different random ids.
func newKeys(n int) ([]key.ID, []key.DEK) {
	ids, deks, seen := make([]key.ID, 0, n), make([]key.DEK, 0, n), make(map[key.ID]bool, n)
	for len(ids) < n {
		if id := key.NewID(); !seen[id] {
			seen[id] = true
			ids, deks = append(ids, id), append(deks, key.NewDEK())
		}
	}
	return ids, deks
}

func installAll(ids []key.ID, deks []key.DEK) (*keystore.Store, error) {
	st, err := keystore.New()
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if err := st.Install(id, key.Storage, deks[i]); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// lookups opens envelopes of random keys. The other side opens the same ones
// with ciphers of its own, found by their place in a slice: the difference is
// what the keystore does.
func lookups(n int) (trial, error) {
	ids, deks := newKeys(n)
	st, err := installAll(ids, deks)
	if err != nil {
		return trial{}, err
	}
	var (
		v       = newValue(64)
		ciphers = make([]*envelope.Cipher, n)
		envs    = make([][]byte, n)
	)
	for i, id := range ids {
		if ciphers[i], err = envelope.NewCipher(id, deks[i]); err != nil {
			return trial{}, err
		}
		s, err := ciphers[i].NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 1}, nil)
		if err != nil {
			return trial{}, err
		}
		if envs[i], err = s.SealStorage(nil, v.plaintext, v.location); err != nil {
			return trial{}, err
		}
	}
	const step = 7919 // prime: visits all, and never a neighbour that a cache line brought along
	side := func(open func(i int) ([]byte, error)) []work {
		at := 0
		return []work{func(ops int) {
			for range ops {
				if _, err := open(at); err != nil {
					panic(err) // the key was installed
				}
				at = (at + step) % n
			}
		}}
	}
	values := st.Storage()
	return trial{
		ours: side(func(i int) ([]byte, error) { return values.Open(v.dst, envs[i], v.location) }),
		raw:  side(func(i int) ([]byte, error) { return ciphers[i].OpenStorage(v.dst, envs[i], v.location) }),
	}, nil
}

// installs adds keys one by one to a store that holds n.
func installs(cfg config, n int) (trial, error) {
	const ops = 100 // as in the row
	ids, deks := newKeys(n + cfg.rounds*ops)
	st, err := installAll(ids[:n], deks[:n])
	if err != nil {
		return trial{}, err
	}
	next := n
	return trial{
		ours: []work{func(ops int) {
			for range ops {
				if err := st.Install(ids[next], key.Storage, deks[next]); err != nil {
					panic(err) // the id is new
				}
				next++
			}
		}},
		raw: []work{setUps(1)},
	}, nil
}

// loads makes a store of n keys.
func loads(n int) (trial, error) {
	ids, deks := newKeys(n)
	return trial{
		ours: []work{func(ops int) {
			for range ops {
				if _, err := installAll(ids, deks); err != nil {
					panic(err) // the ids are all different
				}
			}
		}},
		raw: []work{setUps(n)},
	}, nil
}

// setUps sets AES-GCM up n times an operation.
func setUps(n int) work {
	b := make([]byte, 32)
	rand.Read(b)
	kept := make([]any, n) // as a keystore keeps them
	return func(ops int) {
		for range ops {
			for i := range n {
				aead, err := newGCM(b)
				if err != nil {
					panic(err)
				}
				kept[i] = aead
			}
		}
	}
}
