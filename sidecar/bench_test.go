package sidecar_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

var benchSizes = []int{10, 1_000, 10_000}

// benchState is a state of n keys, of about 200 bytes each in the file.
func benchState(n, version int) []byte {
	type keyRow struct {
		ID        key.ID `json:"id"`
		State     string `json:"state"`
		Container string `json:"container"`
	}
	v := struct {
		Version int      `json:"version"`
		Keys    []keyRow `json:"keys"`
	}{Version: version}
	container := base64.StdEncoding.EncodeToString(counting(0, 96))
	for i := range n {
		v.Keys = append(v.Keys, keyRow{key.ID(i+1) * 400_000, "open-only", container})
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// benchFile opens a file with a state, epochs and usage of n keys.
func benchFile(b *testing.B, n int) *sidecar.File {
	b.Helper()
	f, err := sidecar.Create(b.Context(), b.TempDir(), node, newKEKs("a"))
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, f.Close()) })
	require.NoError(b, f.Update(func(tx *sidecar.Tx) error {
		for i := range n {
			id := key.ID(i+1) * 400_000
			require.NoError(b, tx.SetEpoch(id, 1))
			require.NoError(b, tx.SetReserved(id, sidecar.Usage{Seals: 1 << 20, Bytes: 1 << 34}))
		}
		return tx.SetState(benchState(n, 0))
	}))
	return f
}

// bareWrite replaces a file with nothing but what durability takes: write, fsync,
// rename, fsync of the directory.
func bareWrite(path string, data []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Each writer makes one change of the kind and writes the whole file.
var benchWriters = []struct {
	name string
	make func(b *testing.B, f *sidecar.File, n int) func() error
}{
	{"usage", func(b *testing.B, f *sidecar.File, n int) func() error {
		id := key.ID(n/2+1) * 400_000
		return func() error {
			return f.Update(func(tx *sidecar.Tx) error {
				return tx.SetReserved(id, sidecar.Usage{Seals: tx.Reserved(id).Seals + 1})
			})
		}
	}},
	{"state", func(b *testing.B, f *sidecar.File, n int) func() error {
		states, i := [][]byte{benchState(n, 1), benchState(n, 2)}, 0
		return func() error {
			i++
			return f.Update(func(tx *sidecar.Tx) error { return tx.SetState(states[i%2]) })
		}
	}},
}

func benchBare(b *testing.B, f *sidecar.File) (write func() error, size int64) {
	b.Helper()
	data, err := os.ReadFile(f.Path())
	require.NoError(b, err)
	path := filepath.Join(filepath.Dir(f.Path()), "bare")
	return func() error { return bareWrite(path, data) }, int64(len(data))
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range benchSizes {
		run := func(name string, writer func(b *testing.B, f *sidecar.File) func() error) {
			b.Run(fmt.Sprintf("keys=%d/%s", n, name), func(b *testing.B) {
				f := benchFile(b, n)
				_, size := benchBare(b, f)
				write := writer(b, f)
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					if err := write(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("bare", func(b *testing.B, f *sidecar.File) func() error {
			write, _ := benchBare(b, f)
			return write
		})
		for _, w := range benchWriters {
			run(w.name, func(b *testing.B, f *sidecar.File) func() error { return w.make(b, f, n) })
		}
	}
}

// BenchmarkRatio measures updates and bare writes of the same bytes in turns, so
// that what else the machine does meets both, and reports the ratio of the
// medians.
func BenchmarkRatio(b *testing.B) {
	for _, n := range benchSizes {
		for _, w := range benchWriters {
			b.Run(fmt.Sprintf("keys=%d/%s", n, w.name), func(b *testing.B) {
				f := benchFile(b, n)
				bare, size := benchBare(b, f)
				write := w.make(b, f, n)
				b.SetBytes(size)
				b.ReportAllocs()
				var took [2][]time.Duration
				for i := 0; b.Loop(); i++ {
					for j := range took {
						which := (i + j) % 2
						start := time.Now()
						if err := []func() error{write, bare}[which](); err != nil {
							b.Fatal(err)
						}
						took[which] = append(took[which], time.Since(start))
					}
				}
				b.ReportMetric(median(took[0])/median(took[1]), "x-bare")
				b.ReportMetric(median(took[1])/1e3, "bare-us")
				b.ReportMetric(float64(len(took[0])), "rounds")
			})
		}
	}
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2])
}

// What an update costs without the disk.
func BenchmarkSetState(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			value := benchState(n, 1)
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := sidecar.State(value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Open asks a KEK in memory and syncs the directory once.
func BenchmarkOpen(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			f := benchFile(b, n)
			dir, w := b.TempDir(), newKEKs("a")
			data, err := os.ReadFile(f.Path())
			require.NoError(b, err)
			require.NoError(b, os.WriteFile(filepath.Join(dir, sidecar.FileName), data, 0o600))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := sidecar.Open(b.Context(), dir, node, w)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
