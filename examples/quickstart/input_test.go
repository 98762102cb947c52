package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/stretchr/testify/require"
)

var background = context.Background()

func TestReadInput(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a", "b"), []byte("12"))
	write(t, filepath.Join(dir, "a.go"), []byte("345"))
	write(t, filepath.Join(dir, "empty"), nil)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "none"), 0o755))
	require.NoError(t, os.Symlink("a.go", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "linked dir")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))

	in, err := readInput(background, dir)
	require.NoError(t, err)
	require.Equal(t, []inputFile{{"a.go", 3}, {"a/b", 2}, {"empty", 0}}, in.files, "in the order of the keys")
	require.EqualValues(t, 5, in.bytes)
	require.Equal(t, 3, in.skipped)

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	linked, err := readInput(background, link)
	require.NoError(t, err)
	require.Equal(t, in, linked, "-in itself may be a link")

	var buf bytes.Buffer
	buf.WriteString("left over")
	require.NoError(t, in.read(in.files[1], &buf))
	require.Equal(t, "12", buf.String())
}

func TestReadInputRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), nil)
	_, err := readInput(background, filepath.Join(dir, "none"))
	require.ErrorContains(t, err, "does not exist")
	_, err = readInput(background, filepath.Join(dir, "file"))
	require.ErrorContains(t, err, "is not a directory")
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	_, err = readInput(background, filepath.Join(dir, "loop"))
	require.ErrorContains(t, err, "cannot be read")

	// A hole as large as a value may be, and one byte more.
	require.NoError(t, os.Truncate(filepath.Join(dir, "file"), envelope.MaxPlaintext))
	_, err = readInput(background, dir)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(dir, "file"), envelope.MaxPlaintext+1))
	_, err = readInput(background, dir)
	require.ErrorContains(t, err, "one value holds at most 1073741824")

	ctx, cancel := context.WithCancel(background)
	cancel()
	_, err = readInput(ctx, dir)
	require.ErrorIs(t, err, context.Canceled)
}

// text returns n bytes in which 24 in a row are different from each other and
// from any other 24.
func text(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		for _, i := range rng.Perm(64) {
			b = append(b, byte('0'+i))
		}
	}
	return b[:n]
}

func TestSamples(t *testing.T) {
	dir := t.TempDir()
	content := map[string][]byte{
		"big":     text(1, 100_000),
		"small":   text(2, 25),
		"short":   text(3, 23),
		"uniform": bytes.Repeat([]byte("abcdefghijk"), 10_000), // 11 different bytes
		"empty":   nil,
	}
	for name, data := range content {
		write(t, filepath.Join(dir, name), data)
	}
	in, err := readInput(background, dir)
	require.NoError(t, err)
	draw := func(seed uint64, n int) []sample {
		samples, err := in.samples(background, seed, n)
		require.NoError(t, err)
		return samples
	}

	samples := draw(1, sampleCount)
	require.Len(t, samples, sampleCount)
	seen := make(map[string]bool)
	for _, s := range samples {
		require.Len(t, s.bytes, sampleSize)
		require.Equal(t, content[s.path][s.at:s.at+sampleSize], s.bytes)
		require.GreaterOrEqual(t, distinct(s.bytes), sampleDistinct)
		require.False(t, seen[string(s.bytes)], "drawn twice")
		seen[string(s.bytes)] = true
	}
	require.Equal(t, samples, draw(1, sampleCount), "the seed decides")
	require.NotEqual(t, samples, draw(2, sampleCount))
}

func TestSamplesOfSmallInputAreAllThereAre(t *testing.T) {
	dir := t.TempDir()
	data := text(1, 50)
	for _, name := range []string{"one", "same"} {
		write(t, filepath.Join(dir, name), data)
	}
	in, err := readInput(background, dir)
	require.NoError(t, err)
	samples, err := in.samples(background, 1, sampleCount)
	require.NoError(t, err)
	var at []int64
	for _, s := range samples {
		at = append(at, s.at)
	}
	slices.Sort(at)
	want := make([]int64, 50-sampleSize+1)
	for i := range want {
		want[i] = int64(i)
	}
	require.Equal(t, want, at, "every position once, though two files have it")
}

// A file that holds its own path has no sample in it: the path is on disk in
// clear.
func TestSamplesAreInNoPath(t *testing.T) {
	dir := t.TempDir()
	path := "a directory/with many different/letters (0123456789)"
	write(t, filepath.Join(dir, filepath.FromSlash(path)), []byte(path))
	in, err := readInput(background, dir)
	require.NoError(t, err)
	samples, err := in.samples(background, 1, sampleCount)
	require.NoError(t, err)
	require.Empty(t, samples)

	write(t, filepath.Join(dir, "other"), []byte(path+"!"))
	in, err = readInput(background, dir)
	require.NoError(t, err)
	samples, err = in.samples(background, 1, sampleCount)
	require.NoError(t, err)
	require.Len(t, samples, 1)
	require.Equal(t, path[len(path)-sampleSize+1:]+"!", string(samples[0].bytes))
}

func TestSamplesOfFileThatShrank(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), text(1, 100))
	in, err := readInput(background, dir)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "file"), nil)
	_, err = in.samples(background, 1, 1)
	require.ErrorContains(t, err, "has changed")
}

func TestLocationsAreDistinct(t *testing.T) {
	seen := make(map[string]string)
	for _, kind := range []string{"", "f", "fi", "file", "file/"} {
		for _, name := range []string{"", "f", "ile", "le/x", "x", "/x", "\x04file"} {
			at, this := string(location(kind, name)), fmt.Sprintf("(%q, %q)", kind, name)
			require.Empty(t, seen[at], "%s has the location of another", this)
			seen[at] = this
		}
	}
}
