package applier_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// Any change of one bit gives another entry or an error, never the same reading.
func TestEntryBitFlips(t *testing.T) {
	for name, e := range entries() {
		good, err := applier.Generation2.Append(nil, e)
		require.NoError(t, err)
		for bit := range 8 * len(good) {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			got, err := applier.Generation2.Parse(b)
			if err != nil {
				require.Nil(t, got, "%s: bit %d", name, bit)
				continue
			}
			again, err := applier.Generation2.Append(nil, got)
			require.NoError(t, err)
			require.Equal(t, b, again, "%s: bit %d", name, bit)
		}
	}
}

// What was parsed is not in the memory it was parsed from, and Append writes behind
// what is there.
func TestEntryDoesNotAlias(t *testing.T) {
	for name, e := range entries() {
		dst := append(make([]byte, 0, 1000), "before"...)
		b, err := applier.Generation2.Append(dst, e)
		require.NoError(t, err)
		require.Equal(t, "before", string(b[:6]))
		require.Same(t, &dst[0], &b[0], "the capacity of dst is used")
		got, err := applier.Generation2.Parse(b[6:])
		require.NoError(t, err)
		clear(b)
		require.Equal(t, e, got, name)
	}
}

// The size is judged after what a later version may mean, and before the rest.
func TestEntryBeyondMaxEntry(t *testing.T) {
	b, err := applier.Generation2.Append(nil, applier.Stop{Key: 7})
	require.NoError(t, err)
	full := slices.Concat(b, make([]byte, applier.MaxEntry-len(b)))
	_, err = applier.Generation2.Parse(full)
	require.ErrorIs(t, err, applier.ErrMalformed)
	require.ErrorContains(t, err, "behind its end")
	_, err = applier.Generation2.Parse(append(full, 0))
	require.ErrorIs(t, err, applier.ErrMalformed)
	require.ErrorContains(t, err, fmt.Sprintf("%d bytes, at most %d", applier.MaxEntry+1, applier.MaxEntry))
}

// Values that have no bytes.
func TestNoSuchEntry(t *testing.T) {
	for _, tt := range []struct {
		g    applier.Generation
		e    applier.Entry
		text string
	}{
		{applier.Generation1, applier.Registration{Key: 7, Load: applier.LoadID{1}}, "a load id in generation 1"},
		{applier.Generation1, applier.Stop{Key: 7}, "stop in generation 1"},
		{applier.Generation1, applier.Rewrap{Keys: []applier.WrappedKey{{ID: 7}}}, "rewrap-deks in generation 1"},
		{applier.Generation2, applier.Rotation{Key: applier.WrappedKey{ID: 7}, Purpose: 3}, "purpose(3)"},
		{applier.Generation2, &applier.Stop{Key: 7}, "*applier.Stop"},
		{applier.Generation2, nil, "<nil>"},
	} {
		b, err := tt.g.Append([]byte("x"), tt.e)
		require.ErrorIs(t, err, applier.ErrMalformed)
		require.ErrorContains(t, err, tt.text)
		require.Nil(t, b)
	}
	_, err := applier.Generation(3).Append(nil, applier.Stop{Key: 7})
	require.ErrorContains(t, err, "unknown generation 0x03")
}

// Memory is a small multiple of the input: for the densest lists, and for ones that
// end too early.
func TestEntryAllocatesByInput(t *testing.T) {
	var rewrap applier.Rewrap
	var backup applier.BackupAdd
	for id := range key.ID(applier.MaxKeys) {
		rewrap.Keys = append(rewrap.Keys, applier.WrappedKey{ID: id})
		backup.Keys = append(backup.Keys, id)
	}
	for _, e := range []applier.Entry{rewrap, backup, applier.Bootstrap{Writers: make([]applier.WriterRow, applier.MaxBatch)}} {
		b, err := applier.Generation2.Append(nil, e)
		require.NoError(t, err)
		for _, n := range []int{len(b), len(b) - 1, 40} {
			allocated := bytesAllocated(func() { _, _ = applier.Generation2.Parse(b[:n]) })
			require.LessOrEqual(t, allocated, uint64(8*n+64<<10), "%T of %d bytes", e, n)
		}
	}
}

// What is read as a row of the registry is written as the same row.
func FuzzRegistryRow(f *testing.F) {
	row := applier.RowsOf([]applier.Writer{{Key: 7, Node: 0x1122334455667788, First: 1, Last: 3}})[0]
	f.Add(row.Key, row.Value)
	f.Add(row.Key, append(bytes.Clone(row.Value[:8]), 0, 3, 0, 1)) // the last epoch below the first
	f.Add(row.Key[:25], row.Value)
	f.Add(row.Key, row.Value[:11])
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		w, err := applier.RegistryRow{Key: k, Value: v}.Writer()
		if err != nil {
			require.ErrorIs(t, err, applier.ErrRegistryRow)
			require.Zero(t, w)
			return
		}
		require.True(t, applier.IsRegistryKey(k))
		require.LessOrEqual(t, w.First, w.Last)
		require.Equal(t, applier.RegistryRow{Key: k, Value: v}, applier.RowsOf([]applier.Writer{w})[0])
	})
}

func ExampleGeneration_Append() {
	b, err := applier.Generation2.Append(nil, applier.Stop{Key: 7})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%x %t\n", b, applier.IsEntry(b))
	e, err := applier.Generation2.Parse(b)
	fmt.Printf("%+v %v\n", e, err)
	b[4] = 6
	_, err = applier.Generation2.Parse(b)
	fmt.Println(err)
	// Output:
	// a7454e020502030100000007 true
	// {Key:7} <nil>
	// applier: unknown opcode 0x06: a later version of this library made the entry; upgrade this node, then start it again
}

func BenchmarkAppend(b *testing.B) {
	largest := applier.Bootstrap{Writers: make([]applier.WriterRow, applier.MaxBatch)}
	for name, e := range map[string]applier.Entry{"registration": entries()["registration"], "bootstrap of 16384": largest} {
		b.Run(name, func(b *testing.B) {
			buf, err := applier.Generation2.Append(nil, e)
			require.NoError(b, err)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if buf, err = applier.Generation2.Append(buf[:0], e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
