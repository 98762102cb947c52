package stream_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

var update = flag.Bool("update", false, "write the vectors anew, with the second implementation")

// hexBytes is a byte string that JSON has in hexadecimal.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.AppendDecode(nil, text)
	return err
}

// vector is a whole stream and what it is made of. Only a short one is there byte
// by byte.
type vector struct {
	Name       string   `json:"name"`
	DEK        hexBytes `json:"dek"`
	KeyID      key.ID   `json:"key_id"`
	Salt       hexBytes `json:"salt"`
	Segment    int      `json:"segment_size"`
	Label      string   `json:"label"`
	Data       hexBytes `json:"data"`
	Metadata   hexBytes `json:"metadata"`
	Length     int      `json:"plaintext_length"`
	Counted    bool     `json:"counted_nonces"`
	SegmentKey hexBytes `json:"segment_key"`
	Commitment hexBytes `json:"commitment"`
	MACKey     hexBytes `json:"mac_key"`
	Header     hexBytes `json:"header"`
	Stream     hexBytes `json:"stream,omitempty"`
	SHA256     hexBytes `json:"sha256"`
}

// refusal is a stream that must not open.
type refusal struct {
	Why    string   `json:"why"`
	DEK    hexBytes `json:"dek"`
	Label  string   `json:"label"`
	Data   hexBytes `json:"data"`
	Opens  int      `json:"opens"`
	Stream hexBytes `json:"stream"`
}

type accumulated struct {
	Chunks int      `json:"chunks"`
	Cases  int      `json:"cases_in_a_chunk"`
	First  hexBytes `json:"first_chunk"`
	All    hexBytes `json:"all_chunks"`
}

type vectorFile struct {
	About       string      `json:"about"`
	Streams     []vector    `json:"streams"`
	Refusals    []refusal   `json:"refusals"`
	Accumulated accumulated `json:"accumulated"`
}

// pattern is the plaintext of the vectors.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func (v vector) hand() byHand {
	return byHand{v.DEK, v.KeyID, v.Salt, v.Segment, stream.Place{Label: v.Label, Data: v.Data}, v.Metadata}
}

// keys begins streams with the salt of the vector.
func (v vector) keys(tb testing.TB) *fixedKeys {
	tb.Helper()
	s, err := keystore.New()
	require.NoError(tb, err)
	dek, err := insecurekey.New(v.DEK)
	require.NoError(tb, err)
	require.NoError(tb, s.Install(v.KeyID, key.Storage, dek))
	return &fixedKeys{s, v.KeyID, [keystore.StreamSalt]byte(v.Salt)}
}

func vectorPath() string { return filepath.Join("testdata", "streams.json") }

func readVectors(tb testing.TB) vectorFile {
	tb.Helper()
	var f vectorFile
	b, err := os.ReadFile(vectorPath())
	require.NoError(tb, err)
	require.NoError(tb, json.Unmarshal(b, &f))
	return f
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	f := readVectors(t)
	require.Len(t, f.Streams, 9)
	for _, v := range f.Streams {
		t.Run(v.Name, func(t *testing.T) {
			keys, at, plaintext := v.keys(t), stream.Place{Label: v.Label, Data: v.Data}, pattern(v.Length)
			sealed := []byte(v.Stream)
			if v.Counted {
				sealed = v.hand().seal(plaintext)
			}
			sum := sha256.Sum256(sealed)
			require.Equal(t, []byte(v.SHA256), sum[:])
			require.True(t, bytes.HasPrefix(sealed, v.Header))
			if v.Stream != nil {
				require.Equal(t, []byte(v.Stream), sealed)
			}
			r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, at)
			require.NoError(t, err)
			require.True(t, bytes.Equal(v.Metadata, r.Metadata()))
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(plaintext, got))
			if !v.Counted || strictFIPS() {
				return
			}
			again := seal(t, keys, at, plaintext, stream.WithSegmentSize(v.Segment), stream.WithMetadata(v.Metadata))
			require.True(t, bytes.Equal(sealed, again))
		})
	}
	require.Len(t, f.Refusals, 10)
	for _, v := range f.Refusals {
		t.Run(v.Why, func(t *testing.T) {
			keys := vector{DEK: v.DEK, KeyID: keyID, Salt: make([]byte, 32)}.keys(t)
			got, err := open(t, keys, stream.Place{Label: v.Label, Data: v.Data}, v.Stream)
			require.Error(t, err)
			require.True(t, bytes.Equal(pattern(v.Opens), got))
		})
	}
}

func writeVectors(t *testing.T) {
	t.Helper()
	f := vectorFile{About: "Byte i of a plaintext is i mod 251. keys = HKDF-Expand(PRK, 'atrest/v2/stream/keys' || 00 || header without metadata, " +
		"its metadata length 0, up to the label || data, 96) with PRK = HKDF-Extract(salt, HKDF-Expand(dek, 'atrest/v2/stream', 32)), SHA-256 throughout; " +
		"they are segment key, commitment and MAC key. A stream of more than 1 KiB is there as its SHA-256 only. A refusal opens to so many bytes at most before the error. " +
		"An accumulated hash is the SHA-256 of all streams of a chunk in turn, or of the hashes of all chunks; the cases are drawn as drawCase in vectors_test.go has it."}
	add := func(name string, segment, length int, label string, data, metadata []byte) {
		v := vector{
			Name: name, DEK: counting(0, 32), KeyID: keyID, Salt: counting(0x80, 32), Segment: segment,
			Label: label, Data: data, Metadata: metadata, Length: length, Counted: true,
		}
		v.SegmentKey, v.Commitment, v.MACKey = v.hand().keys()
		v.Header = v.hand().header()
		sealed := v.hand().seal(pattern(length))
		if length > 0 && name == "other nonces" {
			v.Counted = false
			sealed = v.hand().sealWith(pattern(length), func(number uint64) []byte { return counting(0xf0+int(number), 12) })
		}
		sum := sha256.Sum256(sealed)
		v.SHA256 = sum[:]
		if len(sealed) <= 1<<10 {
			v.Stream = sealed
		}
		f.Streams = append(f.Streams, v)
	}
	add("empty", stream.DefaultSegment, 0, "snapshot", []byte{}, []byte{})
	add("one byte", stream.DefaultSegment, 1, "snapshot", []byte("index 12, term 3"), []byte{})
	add("with metadata", stream.DefaultSegment, 100, "backup", []byte("2026-11-24"), []byte(`{"index":12}`))
	add("one segment but a byte", seg, seg-1, "file", []byte("a/b"), []byte{})
	add("a full segment, and an empty one", seg, seg, "file", []byte("a/b"), []byte{})
	add("a segment and a byte", seg, seg+1, "file", []byte("a/b"), []byte{})
	add("many segments", stream.DefaultSegment, 10*stream.DefaultSegment+12345, "!", make([]byte, 1000), counting(0, 300))
	add("odd segments", 10007, 100000, "file", []byte("a/b"), []byte{})
	add("other nonces", stream.DefaultSegment, 100, "snapshot", []byte("index 12, term 3"), []byte{})

	base := vector{DEK: counting(0, 32), KeyID: keyID, Salt: counting(0x80, 32), Segment: seg, Label: "file", Data: []byte("a/b"), Metadata: []byte("meta")}
	short, long := base.hand().seal(pattern(10)), base.hand().seal(pattern(2*seg+10))
	head := len(base.hand().header())
	refuse := func(why string, opens int, sealed []byte, change func(r *refusal)) {
		r := refusal{Why: why, DEK: base.DEK, Label: base.Label, Data: base.Data, Opens: opens, Stream: bytes.Clone(sealed)}
		change(&r)
		f.Refusals = append(f.Refusals, r)
	}
	refuse("another key", 0, short, func(r *refusal) { r.DEK = counting(1, 32) })
	refuse("another label", 0, short, func(r *refusal) { r.Label = "File" })
	refuse("other associated data", 0, short, func(r *refusal) { r.Data = []byte("a/c") })
	refuse("metadata changed", 0, short, func(r *refusal) { r.Stream[48+4] ^= 1 })
	refuse("commitment changed, MAC right", 0, short, func(r *refusal) {
		_, _, macKey := base.hand().keys()
		r.Stream[head-64] ^= 1
		copy(r.Stream[head-32:], mac(macKey, r.Stream[:head-32]))
	})
	refuse("last tag bit flipped", 0, short, func(r *refusal) { r.Stream[len(r.Stream)-1] ^= 1 })
	refuse("nonce bit flipped", 0, short, func(r *refusal) { r.Stream[head] ^= 1 })
	refuse("a byte behind the end", 0, short, func(r *refusal) { r.Stream = append(r.Stream, 0) })
	refuse("without its last segment", 2*seg, long, func(r *refusal) { r.Stream = r.Stream[:head+2*full] })
	refuse("first segments exchanged", 0, long, func(r *refusal) {
		r.Stream = slices.Concat(long[:head], long[head+full:][:full], long[head:][:full], long[head+2*full:])
	})

	f.Accumulated = accumulated{Chunks: chunks, Cases: cases}
	f.Accumulated.First, f.Accumulated.All = accumulate(t, chunks)
	b, err := json.MarshalIndent(f, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll("testdata", 0o755))
	require.NoError(t, os.WriteFile(vectorPath(), append(b, '\n'), 0o644))
}

const (
	chunks = 100
	cases  = 10_000
)

// A million streams have the hash that they always had. With the race detector, or
// in short mode, it is the first chunk of them, which is compared with the second
// implementation, too, stream by stream.
func TestAccumulated(t *testing.T) {
	if strictFIPS() {
		t.Skip("nonces are random")
	}
	want := readVectors(t).Accumulated
	require.Equal(t, accumulated{Chunks: chunks, Cases: cases}, accumulated{Chunks: want.Chunks, Cases: want.Cases})
	n := chunks
	if race || testing.Short() {
		n = 1
	}
	first, all := accumulate(t, n)
	require.Equal(t, want.First, hexBytes(first))
	if n == chunks {
		require.Equal(t, want.All, hexBytes(all))
	}
}

func accumulate(t *testing.T, n int) (first, all []byte) {
	t.Helper()
	sums := make([][]byte, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				sums[i] = chunkSum(t, i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	sum := sha256.Sum256(slices.Concat(sums...))
	return sums[0], sum[:]
}

// caseKeys is a key without a keystore.
type caseKeys struct {
	id   key.ID
	salt [keystore.StreamSalt]byte
	dek  key.DEK
}

func (k *caseKeys) NewStreamKey() (key.ID, [keystore.StreamSalt]byte, key.DEK, error) {
	return k.id, k.salt, k.dek, nil
}

func (k *caseKeys) StreamKey(key.ID, [keystore.StreamSalt]byte) (key.DEK, error) { return k.dek, nil }

// drawCase draws a case from r, SHAKE128 over "atrest stream vectors" and the
// number of the chunk in 4 bytes: the DEK (32 bytes), the salt (32), the key id (4,
// with its top bit set), and four bytes that give the lengths of the label (1 to
// 64), of the data (0 to 32) and of the metadata (0 to 15) and the segment size
// (4096 to 4351); two bytes that give the length of the plaintext, 0 to 255 or,
// for 1 case in 64, up to 3 segments; then label (each byte 0x21 to 0x7e), data,
// metadata and plaintext.
func drawCase(r io.Reader, v *vector) (plaintext []byte, err error) {
	draw := func(n int) []byte {
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(r, b)
		}
		return b
	}
	v.DEK, v.Salt = draw(32), draw(32)
	v.KeyID = key.ID(binary.BigEndian.Uint32(draw(4)) | 1<<31)
	l := draw(6)
	v.Segment = seg + int(l[3])
	n := int(l[5])
	if l[4]%64 == 0 {
		n = (int(l[4]/64)<<8 + n) * 3 * v.Segment / 1023
	}
	label := draw(1 + int(l[0]%64))
	for i := range label {
		label[i] = 0x21 + label[i]%94
	}
	v.Label = string(label)
	v.Data, v.Metadata = draw(int(l[1]%33)), draw(int(l[2]%16))
	return draw(n), err
}

func chunkSum(t *testing.T, chunk int) []byte {
	t.Helper()
	r := sha3.NewSHAKE128()
	r.Write(binary.BigEndian.AppendUint32([]byte("atrest stream vectors"), uint32(chunk)))
	sum := sha256.New()
	var (
		v   vector
		out bytes.Buffer
	)
	for i := range cases {
		plaintext, err := drawCase(r, &v)
		if err != nil {
			t.Error(err)
			return nil
		}
		hand := v.hand()
		dek, err := insecurekey.New(mac(v.Salt, mac(v.DEK, []byte("atrest/v2/stream\x01"))))
		if err != nil {
			t.Error(err)
			return nil
		}
		keys := &caseKeys{v.KeyID, [keystore.StreamSalt]byte(v.Salt), dek}
		out.Reset()
		w, err := stream.NewWriter(context.Background(), &out, keys, hand.at, stream.WithSegmentSize(v.Segment), stream.WithMetadata(v.Metadata))
		if err == nil {
			w.Write(plaintext) //nolint:errcheck // Close has it.
			err = w.Close()
		}
		if err != nil {
			t.Error(err)
			return nil
		}
		sum.Write(out.Bytes())
		if chunk == 0 && !bytes.Equal(hand.seal(plaintext), out.Bytes()) {
			t.Errorf("case %d differs from the second implementation", i)
		}
		if i%16 == 0 {
			p, err := stream.NewReader(context.Background(), &out, keys, hand.at)
			if err != nil {
				t.Error(err)
				return nil
			}
			if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("chunk %d, case %d: %v", chunk, i, err)
			}
		}
	}
	return sum.Sum(nil)
}
