package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// A comparison is what reading the store back has shown.
type comparison struct {
	stored    int      // files in the store
	equal     int      // of them, those that came back as they lie on disk
	missing   []string // paths in the input, not in the store
	different []string // one sentence each
	opening   time.Duration
}

// compare opens every value of the store and compares it with its file.
func (s *store) compare(ctx context.Context, in *input, p bars.Start) (*comparison, error) {
	b := p(ctx, "reading back", in.bytes)
	defer b.Done()
	c := new(comparison)
	var (
		disk  bytes.Buffer
		plain []byte
	)
	for _, f := range in.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		env, closer, err := s.db.Get(recordKey(kindFile, f.path))
		if errors.Is(err, pebble.ErrNotFound) {
			c.missing = append(c.missing, f.path)
			continue
		}
		if err != nil {
			c.differs(f.path, "cannot be read from the store: %v", err)
			continue
		}
		start := time.Now()
		plain, err = s.open(plain[:0], kindFile, f.path, env)
		c.opening += time.Since(start)
		if err := closer.Close(); err != nil {
			return nil, err
		}
		if err != nil {
			c.differs(f.path, "does not open: %v", err)
			continue
		}
		switch err := in.read(f, &disk); {
		case errors.Is(err, fs.ErrNotExist):
			c.differs(f.path, "is gone from the input since it was sealed")
		case err != nil:
			return nil, err
		case !bytes.Equal(plain, disk.Bytes()):
			c.differs(f.path, "has changed on disk since it was sealed")
		default:
			c.equal++
		}
		b.Add(len(plain))
	}
	return c, s.findStrangers(in, c)
}

func (c *comparison) differs(path, format string, args ...any) {
	c.different = append(c.different, fmt.Sprintf("%q ", path)+fmt.Sprintf(format, args...))
}

// findStrangers adds the files of the store that the input does not have.
func (s *store) findStrangers(in *input, c *comparison) error {
	known := make(map[string]bool, len(in.files))
	for _, f := range in.files {
		known[f.path] = true
	}
	first := recordKey(kindFile, "")
	end := append([]byte(kindFile), '/'+1)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: end})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		c.stored++
		if path := string(it.Key()[len(first):]); !known[path] {
			c.differs(path, "is in the store and not in the input")
		}
	}
	if err := it.Close(); err != nil {
		c.differs(kindFile, "records cannot be listed: %v", err)
	}
	return nil
}
