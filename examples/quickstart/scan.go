package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// A pattern is something that must not lie in clear on disk.
type pattern struct {
	name  string // what it is; never the bytes
	bytes []byte // at least prefixSize
}

// A hit says where a pattern was found first.
type hit struct {
	pattern int
	path    string
	at      int64
}

const (
	prefixSize = 8
	filterBits = 20
	chunkSize  = 1 << 20
)

// A searcher looks for many patterns in one pass. At each position of a file
// the next eight bytes, hashed, pick one bit of a filter that fits in the
// second-level cache; the few positions whose bit is set are looked up in a map.
type searcher struct {
	patterns []pattern
	byPrefix map[uint64][]int
	filter   []uint64
	longest  int
}

func newSearcher(patterns []pattern) *searcher {
	s := &searcher{
		patterns: patterns,
		byPrefix: make(map[uint64][]int),
		filter:   make([]uint64, 1<<filterBits/64),
		longest:  prefixSize,
	}
	for i, p := range patterns {
		x := binary.LittleEndian.Uint64(p.bytes)
		s.byPrefix[x] = append(s.byPrefix[x], i)
		h := filterHash(x)
		s.filter[h/64] |= 1 << (h % 64)
		s.longest = max(s.longest, len(p.bytes))
	}
	return s
}

func filterHash(x uint64) uint64 { return x * 0x9E3779B97F4A7C15 >> (64 - filterBits) }

// searchDir searches every regular file under dir, size bytes in all, and
// returns the first place of each pattern that it found.
func (s *searcher) searchDir(ctx context.Context, dir string, size int64, phase string, p bars.Start) ([]hit, error) {
	var (
		hits  []hit
		found = make([]bool, len(s.patterns))
		buf   = make([]byte, chunkSize+s.longest)
		b     = p(ctx, phase, size)
	)
	defer b.Done()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return withFile(path, func(f *os.File) error {
			return s.reader(f, buf, func(i int, at int64) {
				if !found[i] {
					found[i] = true
					hits = append(hits, hit{pattern: i, path: path, at: at})
				}
			}, func(n int) error {
				b.Add(n)
				return ctx.Err()
			})
		})
	})
	return hits, err
}

// reader calls found for every occurrence of a pattern in r, and progress after
// each chunk. buf is working memory, longer than the longest pattern.
func (s *searcher) reader(r io.Reader, buf []byte, found func(i int, at int64), progress func(n int) error) error {
	var base int64 // where in the file buf begins
	have := 0      // bytes of the last chunk that may begin a pattern
	for {
		n, err := io.ReadFull(r, buf[have:])
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		data := buf[:have+n]
		stop := len(data) - s.longest + 1
		if last {
			stop = len(data) - prefixSize + 1
		}
		s.block(data, stop, func(i, at int) { found(i, base+int64(at)) })
		if err := progress(n); err != nil || last {
			return err
		}
		base += int64(stop)
		have = copy(buf, data[stop:])
	}
}

// block reports the patterns that begin in data before stop.
func (s *searcher) block(data []byte, stop int, found func(i, at int)) {
	for at := 0; at < stop; at++ {
		x := binary.LittleEndian.Uint64(data[at:])
		h := filterHash(x)
		if s.filter[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, i := range s.byPrefix[x] {
			if bytes.HasPrefix(data[at:], s.patterns[i].bytes) {
				found(i, at)
			}
		}
	}
}

func samplePatterns(samples []sample) []pattern {
	var ps []pattern
	for _, s := range samples {
		ps = append(ps, pattern{name: fmt.Sprintf("%d bytes of %q at %d", len(s.bytes), s.path, s.at), bytes: s.bytes})
	}
	return ps
}

// keyPatterns returns the forms in which a key could have leaked: raw, in
// hexadecimal, and in base64 at each of the three ways in which it can be
// aligned within a longer text.
func keyPatterns(name string, raw []byte) []pattern {
	digits := hex.EncodeToString(raw)
	ps := []pattern{
		{name: name, bytes: raw},
		{name: name + " in hexadecimal", bytes: []byte(digits)},
		{name: name + " in hexadecimal", bytes: []byte(strings.ToUpper(digits))},
	}
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, before), raw...))
			// Characters that hold bits of a neighbour differ from text to text.
			first := (before*8 + 5) / 6
			end := (before + len(raw)) * 8 / 6
			ps = append(ps, pattern{name: name + " in base64", bytes: []byte(text[first:end])})
		}
	}
	return ps
}
