package key_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
)

// goodContainer has two recipients, so that everything occurs in it.
func goodContainer() key.Container {
	return key.Container{
		Header: key.Header{Cluster: key.ClusterID{1, 2, 3}, ID: 7, Purpose: key.Raft, Check: key.Check{9, 8, 7}},
		Recipients: []key.Recipient{
			{KEK: "file:0123456789abcdef", Wrap: bytes.Repeat([]byte{0xaa}, 60)},
			{KEK: "kms:b", Params: []byte("salt"), Wrap: []byte("wrapped")},
		},
	}
}

func goodFileContainer() key.FileContainer {
	return key.FileContainer{
		FileHeader: key.FileHeader{Node: 0x1122334455667788, Check: key.Check{9, 8, 7}},
		Recipients: goodContainer().Recipients,
	}
}

// kinds runs what both kinds of container have in common.
func kinds() map[string]kind {
	return map[string]kind{
		"dek": {
			good: func(rs []key.Recipient) ([]byte, error) {
				c := goodContainer()
				if rs != nil {
					c.Recipients = rs
				}
				return c.Append(nil)
			},
			reread: func(b []byte) ([]byte, error) {
				c, err := key.ParseContainer(b)
				if err != nil {
					if c.Header != (key.Header{}) || c.Recipients != nil {
						return nil, fmt.Errorf("%w, and a container beside it", err)
					}
					return nil, err
				}
				return c.Append(nil)
			},
			header: 41,
		},
		"file": {
			good: func(rs []key.Recipient) ([]byte, error) {
				c := goodFileContainer()
				if rs != nil {
					c.Recipients = rs
				}
				return c.Append(nil)
			},
			reread: func(b []byte) ([]byte, error) {
				c, err := key.ParseFileContainer(b)
				if err != nil {
					if c.FileHeader != (key.FileHeader{}) || c.Recipients != nil {
						return nil, fmt.Errorf("%w, and a container beside it", err)
					}
					return nil, err
				}
				return c.Append(nil)
			},
			header: 28,
		},
	}
}

type kind struct {
	good   func(rs []key.Recipient) ([]byte, error) // nil: the usual ones
	reread func(b []byte) ([]byte, error)           // parse and append
	header int                                      // bytes before the number of recipients
}

func forKinds(t *testing.T, f func(t *testing.T, k kind)) {
	t.Helper()
	for name, k := range kinds() {
		t.Run(name, func(t *testing.T) { f(t, k) })
	}
}

// refused checks an error for being the parser's, alone, with the package's name
// once.
func refused(t *testing.T, err error, text string) {
	t.Helper()
	require.ErrorIs(t, err, key.ErrContainer)
	require.NotContains(t, err.Error(), "beside it")
	require.ErrorContains(t, err, text)
	require.Equal(t, 1, strings.Count(err.Error(), "key: "), err.Error())
}

func TestContainerTruncated(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		b, err := k.good(nil)
		require.NoError(t, err)
		for n := range b {
			_, err := k.reread(b[:n:n])
			refused(t, err, "")
		}
		_, err = k.reread(append(b, 0))
		refused(t, err, "1 bytes behind the last recipient")
		_, err = k.reread(nil)
		refused(t, err, "0 bytes, want at least")
	})
}

// Any change of one bit gives other bytes or a refusal, never the same reading.
func TestContainerBitFlips(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		good, err := k.good(nil)
		require.NoError(t, err)
		for bit := range 8 * len(good) {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			if again, err := k.reread(b); err == nil {
				require.Equal(t, b, again, "bit %d", bit)
			} else {
				refused(t, err, "")
			}
		}
	})
}

func TestContainerMagic(t *testing.T) {
	dek, err := goodContainer().Append(nil)
	require.NoError(t, err)
	file, err := goodFileContainer().Append(nil)
	require.NoError(t, err)
	_, err = key.ParseContainer(file)
	refused(t, err, "it is that of a file key, want that of a DEK")
	_, err = key.ParseFileContainer(dek)
	refused(t, err, "it is that of a DEK, want that of a file key")
	for i := range 4 {
		b := bytes.Clone(dek)
		b[i] ^= 0x80
		_, err := key.ParseContainer(b)
		refused(t, err, fmt.Sprintf("it begins with %x, want a7444b02", b[:4]))
	}
}

func TestContainerHeader(t *testing.T) {
	c := goodContainer()
	c.ID = 0
	_, err := c.Append(nil)
	refused(t, err, "")
	require.ErrorIs(t, err, key.ErrReservedID)
	for _, p := range []key.Purpose{0, 3, 255} {
		c = goodContainer()
		c.Purpose = p
		_, err = c.Append(nil)
		refused(t, err, fmt.Sprint(uint8(p)))
		require.ErrorIs(t, err, key.ErrPurpose)
	}
	good, err := goodContainer().Append(nil)
	require.NoError(t, err)
	b := bytes.Clone(good)
	copy(b[20:24], make([]byte, 4))
	_, err = key.ParseContainer(b)
	require.ErrorIs(t, err, key.ErrReservedID)
	b = bytes.Clone(good)
	b[24] = 3
	_, err = key.ParseContainer(b)
	require.ErrorIs(t, err, key.ErrPurpose)

	// The zero cluster id is legal: there was none.
	c = goodContainer()
	c.Cluster = key.ClusterID{}
	b, err = c.Append(nil)
	require.NoError(t, err)
	got, err := key.ParseContainer(b)
	require.NoError(t, err)
	require.Equal(t, c, got)
}

func recipients(n int) []key.Recipient {
	rs := make([]key.Recipient, n)
	for i := range rs {
		rs[i] = key.Recipient{KEK: fmt.Sprintf("kek-%d", i), Wrap: []byte{1}}
	}
	return rs
}

// Each limit: what is at it is written and read back, what is past it is refused
// by both sides. raw makes the bytes that Append refuses to make.
func TestContainerLimits(t *testing.T) {
	with := func(change func(r *key.Recipient)) []key.Recipient {
		rs := recipients(2)
		change(&rs[1])
		return rs
	}
	kek := func(id string) []key.Recipient { return with(func(r *key.Recipient) { r.KEK = id }) }
	params := func(n int) []key.Recipient {
		return with(func(r *key.Recipient) { r.Params = bytes.Repeat([]byte{1}, n) })
	}
	wrap := func(n int) []key.Recipient {
		return with(func(r *key.Recipient) { r.Wrap = bytes.Repeat([]byte{1}, n) })
	}
	tests := []struct {
		name string
		rs   []key.Recipient
		text string // of the refusal by Append, "" if it is legal
	}{
		{"1 recipient", recipients(1), ""},
		{"16 recipients", recipients(16), ""},
		{"17 recipients", recipients(17), "17 recipients, want 1 to 16"},
		{"no recipients", recipients(0), "0 recipients, want 1 to 16"},
		{"id of 1", kek("~"), ""},
		{"id of 255", kek(strings.Repeat("!", 255)), ""},
		{"id of 256", kek(strings.Repeat("!", 256)), "256 bytes, want 1 to 255"},
		{"no id", kek(""), "0 bytes, want 1 to 255"},
		{"id with space", kek("a b"), "byte 0x20"},
		{"id with newline", kek("a\n"), "byte 0x0a"},
		{"id with DEL", kek("a\x7f"), "byte 0x7f"},
		{"id with NUL", kek("\x00"), "byte 0x00"},
		{"id not in ASCII", kek("é"), "byte 0xc3"},
		{"params of 0", params(0), ""},
		{"params of 1", params(1), ""},
		{"params of 1024", params(1024), ""},
		{"params of 1025", params(1025), "1025 bytes of parameters for KEK kek-1, want at most 1024"},
		{"wrap of 1", wrap(1), ""},
		{"wrap of 4096", wrap(4096), ""},
		{"wrap of 4097", wrap(4097), "a wrap of 4097 bytes for KEK kek-1, want 1 to 4096"},
		{"no wrap", wrap(0), "a wrap of 0 bytes for KEK kek-1, want 1 to 4096"},
		{"twice the same", kek("kek-0"), "two recipients for KEK kek-0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forKinds(t, func(t *testing.T, k kind) {
				one, err := k.good(recipients(1))
				require.NoError(t, err)
				raw := rawRecipients(one[:k.header:k.header], tt.rs)
				got, err := k.good(tt.rs)
				if tt.text != "" {
					refused(t, err, tt.text)
					require.Nil(t, got)
					_, err = k.reread(raw)
					refused(t, err, "")
					return
				}
				require.NoError(t, err)
				require.Equal(t, raw, got)
				again, err := k.reread(raw)
				require.NoError(t, err)
				require.Equal(t, raw, again)
			})
		})
	}
}

// rawRecipients writes recipients as the format is drawn, legal or not.
func rawRecipients(dst []byte, rs []key.Recipient) []byte {
	dst = append(dst, byte(len(rs)))
	for _, r := range rs {
		for _, f := range [][]byte{[]byte(r.KEK), r.Params, r.Wrap} {
			dst = append(dst, byte(len(f)>>8), byte(len(f)))
			dst = append(dst, f...)
		}
	}
	return dst
}

func TestMaxContainer(t *testing.T) {
	c := goodContainer()
	c.Recipients = nil
	for i := range key.MaxRecipients {
		c.Recipients = append(c.Recipients, key.Recipient{
			KEK:    strings.Repeat(string(rune('a'+i)), key.MaxKEKID),
			Params: make([]byte, key.MaxParams),
			Wrap:   make([]byte, key.MaxWrap),
		})
	}
	b, err := c.Append(nil)
	require.NoError(t, err)
	require.Len(t, b, key.MaxContainer)
	got, err := key.ParseContainer(b)
	require.NoError(t, err)
	require.Equal(t, c, got)
	f := key.FileContainer{Recipients: c.Recipients}
	b, err = f.Append(nil)
	require.NoError(t, err)
	require.Less(t, len(b), key.MaxContainer)
}

// What was parsed is not in the memory it was parsed from, and Append writes
// behind what is there.
func TestContainerDoesNotAlias(t *testing.T) {
	b, err := goodContainer().Append(nil)
	require.NoError(t, err)
	got, err := key.ParseContainer(b)
	require.NoError(t, err)
	clear(b)
	require.Equal(t, goodContainer(), got)

	dst := append(make([]byte, 0, 1000), "before"...)
	out, err := goodFileContainer().Append(dst)
	require.NoError(t, err)
	require.Equal(t, "before", string(out[:6]))
	require.Same(t, &dst[0], &out[0], "the capacity of dst is used")
	f, err := key.ParseFileContainer(out[6:])
	require.NoError(t, err)
	clear(out)
	require.Equal(t, goodFileContainer(), f)
}

// Lengths that promise more than there is cost nothing.
func TestContainerAllocatesByInput(t *testing.T) {
	one, err := goodContainer().Append(nil)
	require.NoError(t, err)
	header := one[:41:41]
	hostile := map[string][]byte{
		"many recipients": append(header, 255),
		"sixteen of none": append(header, 16),
		"long id":         append(header, append([]byte{1, 0xff, 0xff}, make([]byte, 10)...)...),
		"long params":     append(header, 1, 0, 1, 'a', 0x04, 0x00, 1, 2, 3),
		"long wrap":       append(header, 1, 0, 1, 'a', 0, 0, 0x10, 0x00, 1),
	}
	for name, b := range hostile {
		t.Run(name, func(t *testing.T) {
			const rounds = 200
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				_, err := key.ParseContainer(b)
				require.ErrorIs(t, err, key.ErrContainer)
			}
			runtime.ReadMemStats(&after)
			perCall := (after.TotalAlloc - before.TotalAlloc) / rounds
			require.Less(t, perCall, uint64(3000), "bytes, of which the error and the test take most")
		})
	}
}

func TestAADs(t *testing.T) {
	c, f := goodContainer(), goodFileContainer()
	b, err := c.Append(nil)
	require.NoError(t, err)
	require.Equal(t, b[:41], c.AAD(), "all of the header, and nothing that changes with the recipients")
	b, err = f.Append(nil)
	require.NoError(t, err)
	require.Equal(t, "atrest/v2/file-key"+string(b[:28]), string(f.AAD()))
}

// Two headers with one AAD are one header, and none of one kind is one of the
// other.
func TestAADsAreDistinct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawHeader(t, "a"), drawHeader(t, "b")
		require.Equal(t, a == b, bytes.Equal(a.AAD(), b.AAD()))
		x := key.FileHeader{Node: rapid.Uint64().Draw(t, "node"), Check: a.Check}
		y := key.FileHeader{Node: rapid.Uint64().Draw(t, "node"), Check: b.Check}
		require.Equal(t, x == y, bytes.Equal(x.AAD(), y.AAD()))
		require.NotEqual(t, a.AAD()[:4], x.AAD()[:4])
	})
}

func drawHeader(t *rapid.T, label string) key.Header {
	return key.Header{
		Cluster: key.ClusterID{rapid.SampledFrom([]byte{0, 1, 255}).Draw(t, label+" cluster")},
		ID:      key.ID(rapid.Uint32Min(1).Draw(t, label+" id")),
		Purpose: rapid.SampledFrom([]key.Purpose{key.Storage, key.Raft}).Draw(t, label+" purpose"),
		Check:   key.Check{rapid.SampledFrom([]byte{0, 1, 255}).Draw(t, label+" check")},
	}
}

func drawRecipients(t *rapid.T) []key.Recipient {
	ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[!-~]{1,255}`), 1, 16, rapid.ID[string]).Draw(t, "ids")
	rs := make([]key.Recipient, len(ids))
	for i, id := range ids {
		rs[i] = key.Recipient{KEK: id, Wrap: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "wrap")}
		if p := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "params"); len(p) > 0 {
			rs[i].Params = p
		}
	}
	return rs
}

func TestContainerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := key.Container{Header: drawHeader(t, ""), Recipients: drawRecipients(t)}
		b, err := c.Append(nil)
		require.NoError(t, err)
		got, err := key.ParseContainer(b)
		require.NoError(t, err)
		require.Equal(t, c, got)

		f := key.FileContainer{FileHeader: key.FileHeader{Node: rapid.Uint64().Draw(t, "node"), Check: c.Check}, Recipients: c.Recipients}
		b, err = f.Append(nil)
		require.NoError(t, err)
		gotFile, err := key.ParseFileContainer(b)
		require.NoError(t, err)
		require.Equal(t, f, gotFile)
	})
}

func fuzzContainer(f *testing.F, k kind) {
	f.Helper()
	for _, v := range readVectors(f).Vectors {
		f.Add(unhex(f, v.Container))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		out, err := k.reread(b)
		require.Equal(t, in, b, "the input was changed")
		if err != nil {
			refused(t, err, "")
			return
		}
		require.Equal(t, b, out)
		require.LessOrEqual(t, len(b), key.MaxContainer)
	})
}

func FuzzParseContainer(f *testing.F)     { fuzzContainer(f, kinds()["dek"]) }
func FuzzParseFileContainer(f *testing.F) { fuzzContainer(f, kinds()["file"]) }

func TestCheckKEKID(t *testing.T) {
	require.NoError(t, key.CheckKEKID("kms:arn:aws:kms:eu-west-1:1:key/a"))
	refused(t, key.CheckKEKID(""), "0 bytes, want 1 to 255")
	refused(t, key.CheckKEKID("a key"), "printable ASCII without spaces")
}

func ExampleContainer() {
	c := key.Container{
		Header:     key.Header{ID: 7, Purpose: key.Storage},
		Recipients: []key.Recipient{{KEK: "kms:a", Wrap: []byte("wrapped")}},
	}
	b, err := c.Append(nil)
	if err != nil {
		panic(err)
	}
	again, err := key.ParseContainer(b)
	fmt.Println(again.Purpose, again.ID, again.Recipients[0].KEK, err)
	_, err = key.ParseContainer(b[:50])
	fmt.Println(err)
	// Output:
	// storage 7 kms:a <nil>
	// key: not a valid key container: it ends within the length of a field
}

func BenchmarkParseContainer(b *testing.B) {
	raw, err := goodContainer().Append(nil)
	require.NoError(b, err)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := key.ParseContainer(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendContainer(b *testing.B) {
	c := goodContainer()
	buf, err := c.Append(nil)
	require.NoError(b, err)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = c.Append(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
