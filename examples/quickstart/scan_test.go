package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// place is where a pattern was found.
type place struct {
	pattern int
	at      int64
}

func searchBytes(t require.TestingT, s *searcher, data []byte, bufSize int) []place {
	var got []place
	read := 0
	err := s.reader(iotest.HalfReader(bytes.NewReader(data)), make([]byte, bufSize), func(i int, at int64) {
		got = append(got, place{i, at})
	}, func(n int) error { read += n; return nil })
	require.NoError(t, err)
	require.Equal(t, len(data), read)
	return got
}

func TestSearchIsTheNaiveSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few letters, so that prefixes and overlaps are common.
		letters := rapid.SliceOfN(rapid.ByteRange('a', 'b'), 0, 400).Draw(t, "data")
		var patterns []pattern
		for range rapid.IntRange(1, 8).Draw(t, "patterns") {
			patterns = append(patterns, pattern{bytes: rapid.SliceOfN(rapid.ByteRange('a', 'b'), prefixSize, 12).Draw(t, "pattern")})
		}
		s := newSearcher(patterns)
		bufSize := rapid.IntRange(s.longest, 64).Draw(t, "buffer")

		var want []place
		for at := range letters {
			for i, p := range patterns {
				if bytes.HasPrefix(letters[at:], p.bytes) {
					want = append(want, place{i, int64(at)})
				}
			}
		}
		require.ElementsMatch(t, want, searchBytes(t, s, letters, bufSize))
	})
}

func TestSearchAcrossChunks(t *testing.T) {
	p := pattern{bytes: []byte("a pattern of 24 bytes...")}
	s := newSearcher([]pattern{p})
	const chunk = 256
	for at := range 3*chunk - len(p.bytes) {
		data := make([]byte, 3*chunk)
		copy(data[at:], p.bytes)
		require.Equal(t, []place{{0, int64(at)}}, searchBytes(t, s, data, chunk))
	}
}

func TestSearchDirLooksInEveryFile(t *testing.T) {
	dir := t.TempDir()
	needle := []byte("something that is secret")
	s := newSearcher([]pattern{{name: "it", bytes: needle}, {name: "other", bytes: []byte("not there")}})
	write(t, filepath.Join(dir, "a"), []byte("nothing"))
	write(t, filepath.Join(dir, "empty"), nil)
	search := func() []hit {
		hits, err := s.searchDir(context.Background(), dir, 0, "", bars.Silent)
		require.NoError(t, err)
		return hits
	}
	require.Empty(t, search())

	first := filepath.Join(dir, "deep", "er", "b")
	write(t, first, append([]byte("behind "), needle...))
	require.Equal(t, []hit{{pattern: 0, path: first, at: 7}}, search())
	write(t, filepath.Join(dir, "z"), needle)
	require.Equal(t, []hit{{pattern: 0, path: first, at: 7}}, search(), "each pattern is reported once")
}

func TestSearchDirStopsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), []byte("some text"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := newSearcher([]pattern{{bytes: make([]byte, 8)}}).searchDir(ctx, dir, 0, "", bars.Silent)
	require.ErrorIs(t, err, context.Canceled)
}

// A key is found in each form, wherever it stands in a longer text.
func TestKeyPatternsFindEveryForm(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	s := newSearcher(keyPatterns("key", raw))
	upper := bytes.ToUpper([]byte(hex.EncodeToString(raw)))
	forms := map[string][]byte{"raw": raw, "hex": []byte(hex.EncodeToString(raw)), "HEX": upper}
	encodings := map[string]*base64.Encoding{
		"std": base64.StdEncoding, "url": base64.URLEncoding, "raw std": base64.RawStdEncoding, "raw url": base64.RawURLEncoding,
	}
	for name, enc := range encodings {
		for before := range 5 {
			for after := range 4 {
				text := append(append(bytes.Repeat([]byte{0xff}, before), raw...), bytes.Repeat([]byte{0xff}, after)...)
				forms[name+string(rune('0'+before))+string(rune('0'+after))] = []byte(enc.EncodeToString(text))
			}
		}
	}
	for name, form := range forms {
		data := append(append([]byte("before"), form...), "behind"...)
		require.NotEmpty(t, searchBytes(t, s, data, chunkSize), name)
		data[len(data)/2]++
		require.Empty(t, searchBytes(t, s, data, chunkSize), name)
	}
}

func BenchmarkSearch(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 16<<20)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	var patterns []pattern
	for range sampleCount {
		p := make([]byte, sampleSize)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		patterns = append(patterns, pattern{bytes: p})
	}
	s := newSearcher(patterns)
	buf := make([]byte, chunkSize+s.longest)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		err := s.reader(bytes.NewReader(data), buf, func(int, int64) { b.Fatal("found") }, func(int) error { return nil })
		require.NoError(b, err)
	}
}

// write makes a file and the directories above it.
func write(t testing.TB, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, data, 0o644))
}
