package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2" //nolint:depguard // Samples that can be drawn again; nothing secret.
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/atrestdb/atrest/envelope"
)

// An input is a directory tree: its regular files, in the order of their paths.
type input struct {
	dir     string // absolute, symbolic links resolved
	files   []inputFile
	bytes   int64
	skipped int // symbolic links, sockets, devices, pipes
}

type inputFile struct {
	path string // relative to the directory, with slashes
	size int64
}

// readInput lists the regular files under dir. It opens each of them once, so
// that a file nobody may read is found before anything has been written.
func readInput(ctx context.Context, dir string) (*input, error) {
	abs, err := realDir(dir)
	if err != nil {
		return nil, err
	}
	in := &input{dir: abs}
	err = filepath.WalkDir(abs, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			in.skipped++
			return nil
		}
		size, err := checkFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(abs, path)
		if err != nil {
			return err
		}
		in.files = append(in.files, inputFile{path: filepath.ToSlash(rel), size: size})
		in.bytes += size
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("-in %s cannot be read: %w", dir, err)
	}
	slices.SortFunc(in.files, func(a, b inputFile) int { return strings.Compare(a.path, b.path) })
	return in, nil
}

func realDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("-in %s does not exist", dir)
	}
	if err != nil {
		return "", fmt.Errorf("-in %s cannot be read: %w", dir, reason(err))
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return "", fmt.Errorf("-in %s is not a directory", dir)
	}
	return abs, nil
}

// checkFile returns the size of a file that can be read and is not too large.
func checkFile(path string) (size int64, err error) {
	err = withFile(path, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		size = info.Size()
		return nil
	})
	if err == nil && size > envelope.MaxPlaintext {
		err = fmt.Errorf("%s is %d bytes long, and one value holds at most %d", path, size, int64(envelope.MaxPlaintext))
	}
	return size, err
}

// withFile calls f with an open file.
func withFile(path string, f func(*os.File) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}

func (in *input) abs(path string) string { return filepath.Join(in.dir, filepath.FromSlash(path)) }

// read replaces what buf holds with the content of a file.
func (in *input) read(file inputFile, buf *bytes.Buffer) error {
	buf.Reset()
	buf.Grow(int(file.size) + bytes.MinRead) // so that a large file is not copied as it grows
	return withFile(in.abs(file.path), func(f *os.File) error {
		_, err := buf.ReadFrom(io.LimitReader(f, envelope.MaxPlaintext+1))
		return err
	})
}

const (
	sampleCount    = 1000
	sampleSize     = 24
	sampleDistinct = 12 // so many different bytes, or the sample says nothing
)

// A sample is a short piece of the input that must not lie in clear on disk.
type sample struct {
	bytes []byte
	path  string
	at    int64
}

// samples draws up to n different samples, each position of the input being
// equally likely. A sample that is part of a path is not taken: paths are
// stored in clear.
func (in *input) samples(ctx context.Context, seed uint64, n int) ([]sample, error) {
	rng := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // The same seed draws the same samples.
	paths := in.storedPaths()
	ends := make([]int64, len(in.files)) // running count of the positions a sample can have
	var total int64
	for i, f := range in.files {
		total += max(0, f.size-sampleSize+1)
		ends[i] = total
	}
	var out []sample
	seen := make(map[[sampleSize]byte]bool)
	for position := range positions(rng, total, n) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i := sort.Search(len(ends), func(i int) bool { return position < ends[i] })
		f := in.files[i]
		at := position - (ends[i] - (f.size - sampleSize + 1))
		b, err := in.readAt(f.path, at)
		if err != nil {
			return nil, err
		}
		if seen[b] || distinct(b[:]) < sampleDistinct || bytes.Contains(paths, b[:]) {
			continue
		}
		seen[b] = true
		if out = append(out, sample{bytes: b[:], path: f.path, at: at}); len(out) == n {
			break
		}
	}
	return out, nil
}

// positions yields random positions below total: all of them, each once, when
// they are few, and otherwise enough for n samples unless the input is nearly
// uniform.
func positions(rng *rand.Rand, total int64, n int) func(func(int64) bool) {
	const perSample = 100
	tries := int64(n) * perSample
	return func(yield func(int64) bool) {
		if total <= tries {
			for _, p := range rng.Perm(int(total)) {
				if !yield(int64(p)) {
					return
				}
			}
			return
		}
		for range tries {
			if !yield(rng.Int64N(total)) {
				return
			}
		}
	}
}

func (in *input) readAt(path string, at int64) (b [sampleSize]byte, err error) {
	err = withFile(in.abs(path), func(f *os.File) error {
		if _, err := f.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("%s has changed while it was read: %w", f.Name(), err)
		}
		return nil
	})
	return b, err
}

// storedPaths returns every key of the store, one after the other.
func (in *input) storedPaths() []byte {
	var b []byte
	for _, f := range in.files {
		b = append(b, recordKey(kindFile, f.path)...)
		b = append(b, 0)
	}
	return b
}

func distinct(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}
