package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// A manifest says what a store holds. It is sealed like every other value, so
// that files missing from the store are noticed even if they are missing from
// the input as well.
type manifest struct {
	Source   string `json:"source"`
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"`
	Complete bool   `json:"complete"`
}

func (s *store) putManifest(m manifest) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	env, err := s.seal(nil, kindManifest, "", text)
	if err != nil {
		return err
	}
	return s.db.Set(recordKey(kindManifest, ""), env, pebble.Sync)
}

// manifest returns the zero manifest if there is none.
func (s *store) manifest() (m manifest, err error) {
	env, closer, err := s.db.Get(recordKey(kindManifest, ""))
	if errors.Is(err, pebble.ErrNotFound) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	text, err := s.open(nil, kindManifest, "", env)
	if err := errors.Join(err, closer.Close()); err != nil {
		return m, fmt.Errorf("the store's manifest: %w", err)
	}
	err = json.Unmarshal(text, &m)
	return m, err
}

// fill seals every file of the input into the store, one half under the active
// key and the other under a new one. It returns the time spent sealing.
func (s *store) fill(ctx context.Context, in *input, p bars.Start) (time.Duration, error) {
	m := manifest{Source: in.dir, Files: len(in.files), Bytes: in.bytes}
	if err := s.putManifest(m); err != nil {
		return 0, err
	}
	var (
		env  []byte
		took time.Duration
	)
	err := copyFiles(ctx, in, s.db, p, "sealing", func(i int, path string, data []byte) ([]byte, error) {
		if i == len(in.files)/2 {
			if err := s.rotate(ctx); err != nil {
				return nil, err
			}
		}
		var err error
		start := time.Now()
		env, err = s.seal(env[:0], kindFile, path, data)
		took += time.Since(start)
		return env, err
	})
	if err == nil {
		m.Complete = true
		err = s.putManifest(m)
	}
	return took, err
}

// copyFiles puts every file of the input into db, in the form that value gives
// it, and leaves all of it in tables rather than in the write-ahead log.
func copyFiles(ctx context.Context, in *input, db *pebble.DB, p bars.Start, phase string,
	value func(i int, path string, data []byte) ([]byte, error),
) error {
	b := p(ctx, phase, in.bytes)
	defer b.Done()
	var buf bytes.Buffer
	for i, f := range in.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := in.read(f, &buf); err != nil {
			return fmt.Errorf("-in %s cannot be read: %w", in.dir, err)
		}
		v, err := value(i, f.path, buf.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		if err := db.Set(recordKey(kindFile, f.path), v, pebble.NoSync); err != nil {
			return err
		}
		b.Add(buf.Len())
	}
	return db.Flush()
}
