package durable_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/atrestdb/atrest/internal/durable"
)

// bare is the least that replaces a file durably, with none of the care.
func bare(path string, data []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
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
	return durable.OS.SyncDir(filepath.Dir(path))
}

// BenchmarkWriteFile writes with both by turns, and reports the medians and
// their ratio.
func BenchmarkWriteFile(b *testing.B) {
	for _, size := range []int{2 << 10, 2 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			path, data := filepath.Join(b.TempDir(), "f"), make([]byte, size)
			var with, without []time.Duration
			timed := func(into *[]time.Duration, write func() error) {
				begin := time.Now()
				if err := write(); err != nil {
					b.Fatal(err)
				}
				*into = append(*into, time.Since(begin))
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				timed(&with, func() error { return durable.WriteFile(durable.OS, path, data) })
				b.StopTimer()
				timed(&without, func() error { return bare(path+"2", data) })
				b.StartTimer()
			}
			a, c := median(with), median(without)
			b.ReportMetric(float64(a), "median-ns")
			b.ReportMetric(float64(c), "bare-median-ns")
			b.ReportMetric(float64(a)/float64(c), "x-bare")
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func BenchmarkReadFile(b *testing.B) {
	for _, size := range []int{2 << 10, 2 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "f")
			if err := durable.WriteFile(durable.OS, path, make([]byte, size)); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := durable.ReadFile(durable.OS, path, 1<<22); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
