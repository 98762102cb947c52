package generation1_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return b
}

// What the reference system wrote is written again bit for bit.
func TestGolden(t *testing.T) {
	for version, name := range map[int]string{1: "keys-v1.json", 2: "keys-v2.json"} {
		b := golden(t, name)
		f, err := generation1.Parse(b)
		require.NoError(t, err)
		require.Equal(t, version, f.Version)
		require.EqualValues(t, 184273, f.Applied)
		require.True(t, f.StorageActive)
		require.EqualValues(t, 184201, f.RaftCutover)
		require.Equal(t, []key.ID{686633749, 2754695158}, []key.ID{f.Storage, f.Raft})
		require.Len(t, f.Keys, 3)
		k := f.Keys[1161666055]
		require.Equal(t, key.Storage, k.Purpose)
		require.EqualValues(t, 9, k.Epoch)
		require.Len(t, k.Wrapped, 60)
		require.Equal(t, "2026-04-29T10:00:00Z", k.Created)
		if version == 2 {
			require.EqualValues(t, 184200, f.StorageCutover)
		}
		again, err := f.Append(nil)
		require.NoError(t, err)
		require.Equal(t, string(b), string(again))
	}
}

// A version that is written anew becomes 2, as the reference system does it.
func TestVersion1BecomesVersion2(t *testing.T) {
	f, err := generation1.Parse(golden(t, "keys-v1.json"))
	require.NoError(t, err)
	f.Version = 2
	b, err := f.Append([]byte("prefix"))
	require.NoError(t, err)
	again, err := generation1.Parse(b[len("prefix"):])
	require.NoError(t, err)
	require.Equal(t, f, again)
	require.Zero(t, again.StorageCutover)
}

func TestRefused(t *testing.T) {
	text := string(golden(t, "keys-v2.json"))
	edit := func(old, with string) string {
		require.Contains(t, text, old)
		return strings.Replace(text, old, with, 1)
	}
	const (
		beyond      = "18446744073709551616"
		firstID     = `"1161666055": {`
		storageOn   = `"storage_envelope_active": true`
		raftID      = `"raft": 2754695158`
		purpose     = `"purpose": "raft"`
		versionLine = "  \"version\": 2,\n"
		appliedLine = "  \"raft_applied_index\": 184273,\n"
		createdLine = "      \"created\": \"2026-04-29T10:00:00Z\",\n"
	)
	wrapped := base64Of(t, 1161666055)
	keys := text[strings.Index(text, `  "keys": {`):]
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"nothing", "", generation1.ErrMalformed},
		{"no JSON", text[:100], generation1.ErrMalformed},
		{"empty object", "{}", generation1.ErrVersion},
		{"version 0", edit(`"version": 2`, `"version": 0`), generation1.ErrVersion},
		{"version 3", edit(`"version": 2`, `"version": 3`), generation1.ErrVersion},
		{"version as text", edit(`"version": 2`, `"version": "2"`), generation1.ErrMalformed},
		{"version 1 with the index of version 2", edit(`"version": 2`, `"version": 1`), generation1.ErrMalformed},
		{"version null", edit(`"version": 2`, `"version": null`), generation1.ErrVersion},
		{"version negative", edit(`"version": 2`, `"version": -2`), generation1.ErrVersion},
		{"version with a fraction", edit(`"version": 2`, `"version": 2.0`), generation1.ErrMalformed},
		{"negative index", edit(`184273`, `-1`), generation1.ErrMalformed},
		{"index too large", edit(`184273`, beyond), generation1.ErrMalformed},
		{"index missing", edit(appliedLine, ""), generation1.ErrMalformed},
		{"storage active as text", edit(storageOn, `"storage_envelope_active": "true"`), generation1.ErrMalformed},
		{"storage active as number", edit(storageOn, `"storage_envelope_active": 1`), generation1.ErrMalformed},
		{"storage active null", strings.Replace(edit(storageOn, `"storage_envelope_active": null`), "184200", "0", 1), generation1.ErrMalformed},
		{"storage cutover negative", edit(`184200`, `-1`), generation1.ErrMalformed},
		{"storage cutover too large", edit(`184200`, beyond), generation1.ErrMalformed},
		{"raft cutover negative", edit(`184201`, `-1`), generation1.ErrMalformed},
		{"raft cutover too large", edit(`184201`, beyond), generation1.ErrMalformed},
		{"active Raft key that is not there", edit(raftID, `"raft": 2754695159`), generation1.ErrActiveMissing},
		{"active Raft key of another purpose", edit(raftID, `"raft": 1161666055`), generation1.ErrActiveMismatch},
		{"active Raft key as text", edit(raftID, `"raft": "2754695158"`), generation1.ErrMalformed},
		{"active Raft key beyond 32 bits", edit(raftID, `"raft": 4294967296`), generation1.ErrMalformed},
		{"active Raft key missing", edit(",\n    "+raftID, ""), generation1.ErrCutover},
		{"unknown member of active", edit(raftID, raftID+`, "x": 1`), generation1.ErrMalformed},
		{"keys null", edit(keys, "  \"keys\": null\n}"), generation1.ErrActiveMissing},
		{"keys absent", edit(",\n"+keys, "\n}"), generation1.ErrActiveMissing},
		{"keys null and none active", none("  \"keys\": null\n}"), generation1.ErrMalformed},
		{"keys absent and none active", strings.Replace(none("}"), "},\n}", "}\n}", 1), generation1.ErrMalformed},
		{"active as text", edit(`686633749,`, `"686633749",`), generation1.ErrMalformed},
		{"active that is not there", edit(`"storage": 686633749`, `"storage": 686633750`), generation1.ErrActiveMissing},
		{"active of another purpose", edit(`"storage": 686633749`, `"storage": 2754695158`), generation1.ErrActiveMismatch},
		{"active beyond 32 bits", edit(`"storage": 686633749`, `"storage": 4294967296`), generation1.ErrMalformed},
		{"no active Raft key above the cutover", edit(`"raft": 2754695158`, `"raft": 0`), generation1.ErrCutover},
		{"storage cutover that is not in force", edit(`"storage_envelope_active": true`, `"storage_envelope_active": false`), generation1.ErrCutover},
		{"key id 0", edit(firstID, `"0": {`), generation1.ErrKeyID},
		{"key id 0 is a reserved one", edit(firstID, `"0": {`), key.ErrReservedID},
		{"key id -1", edit(firstID, `"-1": {`), generation1.ErrKeyID},
		{"key id +1", edit(firstID, `"+1": {`), generation1.ErrKeyID},
		{"key id empty", edit(firstID, `"": {`), generation1.ErrKeyID},
		{"key id 1e3", edit(firstID, `"1e3": {`), generation1.ErrKeyID},
		{"key id with a leading zero", edit(`"1161666055": {`, `"01161666055": {`), generation1.ErrKeyID},
		{"key id beyond 32 bits", edit(`"1161666055": {`, `"4294967296": {`), generation1.ErrKeyID},
		{"key id that is no number", edit(`"1161666055": {`, `"x": {`), generation1.ErrKeyID},
		{"unknown purpose", edit(purpose, `"purpose": "wal"`), generation1.ErrPurpose},
		{"purpose empty", edit(purpose, `"purpose": ""`), generation1.ErrPurpose},
		{"purpose null", edit(purpose, `"purpose": null`), generation1.ErrPurpose},
		{"purpose in other letter case", edit(purpose, `"purpose": "Raft"`), generation1.ErrPurpose},
		{"epoch beyond 16 bits", edit(`"local_epoch": 9`, `"local_epoch": 65536`), generation1.ErrMalformed},
		{"epoch negative", edit(`"local_epoch": 9`, `"local_epoch": -1`), generation1.ErrMalformed},
		{"epoch with a fraction", edit(`"local_epoch": 9`, `"local_epoch": 9.5`), generation1.ErrMalformed},
		{"epoch missing", edit(",\n      \"local_epoch\": 9", ""), generation1.ErrMalformed},
		{"created null", edit(`"created": "2026-04-29T10:00:00Z"`, `"created": null`), generation1.ErrMalformed},
		{"created missing", edit(createdLine, ""), generation1.ErrMalformed},
		{"wrap null", edit(`"`+wrapped+`"`, `null`), generation1.ErrWrap},
		{"newline in a wrap", edit(wrapped, wrapped[:40]+"\n"+wrapped[40:]), generation1.ErrMalformed},
		{"escaped newline in a wrap", edit(wrapped, wrapped[:40]+`\n`+wrapped[40:]), generation1.ErrMalformed},
		{"wrap without padding", edit(wrapped, base64.RawStdEncoding.EncodeToString(make([]byte, 61))), generation1.ErrMalformed},
		{"wrap in base64 of URLs", edit(wrapped, strings.ReplaceAll(wrapped, "/", "_")), generation1.ErrMalformed},
		{"no base64", edit(`"tilgLIeRO`, `"%%%%`), generation1.ErrMalformed},
		{"empty wrap", edit(wrapped, ``), generation1.ErrWrap},
		{"wrap too long", edit(wrapped, base64.StdEncoding.EncodeToString(make([]byte, 4097))), generation1.ErrWrap},
		{"unknown member", edit(`"version": 2,`, `"version": 2, "mac": "",`), generation1.ErrMalformed},
		{"unknown member of a key", edit(`"local_epoch": 9`, `"local_epoch": 9, "x": 1`), generation1.ErrMalformed},
		{"member twice", edit(`"version": 2,`, `"version": 2, "version": 2,`), generation1.ErrMalformed},
		{"other letter case", edit(`"version"`, `"Version"`), generation1.ErrMalformed},
		{"no version", edit(versionLine, ""), generation1.ErrVersion},
		{"other order", edit(versionLine+appliedLine, appliedLine+versionLine), generation1.ErrMalformed},
		{"keys in numeric order", numeric(text), generation1.ErrMalformed},
		{"other indentation", strings.ReplaceAll(text, "  ", "\t"), generation1.ErrMalformed},
		{"newline at the end", text + "\n", generation1.ErrMalformed},
		{"something behind it", text + "{}", generation1.ErrMalformed},
		{"too large", strings.Repeat(" ", generation1.MaxSize+1), generation1.ErrTooLarge},
	} {
		f, err := generation1.Parse([]byte(tt.text))
		require.ErrorIs(t, err, tt.want, tt.name)
		require.Nil(t, f, tt.name)
		require.ErrorContains(t, err, "keys.json", tt.name)
	}
}

// none is a file without active keys that ends with the given text.
func none(end string) string {
	return `{
  "version": 2,
  "raft_applied_index": 7,
  "storage_envelope_active": false,
  "storage_envelope_cutover_index": 0,
  "raft_envelope_cutover_index": 0,
  "active": {
    "storage": 0,
    "raft": 0
  },
` + end
}

// The control of what none is for.
func TestNoKeys(t *testing.T) {
	f, err := generation1.Parse([]byte(none("  \"keys\": {}\n}")))
	require.NoError(t, err)
	require.Equal(t, &generation1.File{Version: 2, Applied: 7, Keys: map[key.ID]generation1.Key{}}, f)
}

// numeric moves the last key, which has the smallest id, to the front.
func numeric(text string) string {
	first, last := strings.Index(text, `    "1161666055"`), strings.Index(text, `    "686633749"`)
	end := strings.LastIndex(text, "\n  }\n}")
	return text[:first] + text[last:end] + ",\n" + strings.TrimSuffix(text[first:last], ",\n") + text[end:]
}

func base64Of(t *testing.T, id key.ID) string {
	t.Helper()
	f, err := generation1.Parse(golden(t, "keys-v2.json"))
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(f.Keys[id].Wrapped)
}

// What cannot be read back is not written.
func TestAppendRefuses(t *testing.T) {
	wrapped := make([]byte, 60)
	one := func(k generation1.Key) generation1.File {
		return generation1.File{Version: 2, Keys: map[key.ID]generation1.Key{1: k}}
	}
	with := func(change func(f *generation1.File)) generation1.File {
		f := one(generation1.Key{Purpose: key.Raft, Wrapped: wrapped})
		f.Raft = 1
		_, err := f.Append(nil)
		require.NoError(t, err)
		change(&f)
		return f
	}
	for _, tt := range []struct {
		name string
		f    generation1.File
		want error
	}{
		{"version", generation1.File{Version: 3}, generation1.ErrVersion},
		{"version 1 with a storage cutover", generation1.File{Version: 1, StorageActive: true, StorageCutover: 7}, generation1.ErrVersion},
		{"id 0", generation1.File{Version: 2, Keys: map[key.ID]generation1.Key{0: {Purpose: key.Raft, Wrapped: wrapped}}}, generation1.ErrKeyID},
		{"purpose", generation1.File{Version: 2, Keys: map[key.ID]generation1.Key{1: {Wrapped: wrapped}}}, generation1.ErrPurpose},
		{"empty wrap", one(generation1.Key{Purpose: key.Raft}), generation1.ErrWrap},
		{"wrap too long", one(generation1.Key{Purpose: key.Raft, Wrapped: make([]byte, generation1.MaxWrap+1)}), generation1.ErrWrap},
		{"active storage key missing", with(func(f *generation1.File) { f.Storage = 2 }), generation1.ErrActiveMissing},
		{"active Raft key missing", with(func(f *generation1.File) { f.Raft = 2 }), generation1.ErrActiveMissing},
		{"active storage key of another purpose", with(func(f *generation1.File) { f.Storage = 1 }), generation1.ErrActiveMismatch},
		{"raft cutover without a key", with(func(f *generation1.File) { f.Raft, f.RaftCutover = 0, 7 }), generation1.ErrCutover},
		{"storage cutover that is not in force", with(func(f *generation1.File) { f.StorageCutover = 7 }), generation1.ErrCutover},
		{"text", generation1.File{Version: 2, Keys: map[key.ID]generation1.Key{1: {Purpose: key.Raft, Wrapped: wrapped, Created: "\xff"}}}, generation1.ErrMalformed},
	} {
		b, err := tt.f.Append(nil)
		require.ErrorIs(t, err, tt.want, tt.name)
		require.Nil(t, b, tt.name)
	}
}

// A file that is written stays as its caller made it, and so does what it was appended
// to.
func TestAppendChangesNothing(t *testing.T) {
	for _, name := range []string{"keys-v1.json", "keys-v2.json"} {
		f, err := generation1.Parse(golden(t, name))
		require.NoError(t, err)
		again, err := generation1.Parse(golden(t, name))
		require.NoError(t, err)
		prefix := []byte("prefix")
		b, err := f.Append(prefix)
		require.NoError(t, err)
		require.Equal(t, again, f)
		require.Equal(t, "prefix"+string(golden(t, name)), string(b))
		clear(b) // it shares nothing with the file
		require.Equal(t, again, f)
	}
}

func drawFile(t *rapid.T) *generation1.File {
	f := &generation1.File{
		Version: rapid.IntRange(1, 2).Draw(t, "version"), Applied: rapid.Uint64().Draw(t, "applied"),
		StorageActive: rapid.Bool().Draw(t, "storage"), Keys: map[key.ID]generation1.Key{},
	}
	if f.Version == 2 && f.StorageActive {
		f.StorageCutover = rapid.Uint64().Draw(t, "cutover")
	}
	for range rapid.IntRange(0, 5).Draw(t, "keys") {
		id := key.ID(rapid.Uint32Range(1, math.MaxUint32).Draw(t, "id"))
		if _, taken := f.Keys[id]; taken {
			continue
		}
		k := generation1.Key{
			Purpose: rapid.SampledFrom([]key.Purpose{key.Storage, key.Raft}).Draw(t, "purpose"),
			Wrapped: rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "wrapped"),
			Created: rapid.String().Draw(t, "created"), Epoch: rapid.Uint16().Draw(t, "epoch"),
		}
		f.Keys[id] = k
		if k.Purpose == key.Storage {
			f.Storage = id
		} else {
			f.Raft = id
		}
	}
	if f.Raft != 0 {
		f.RaftCutover = rapid.Uint64().Draw(t, "raft cutover")
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFile(t)
		for id, k := range f.Keys {
			k.Created = strings.ToValidUTF8(k.Created, "")
			f.Keys[id] = k
		}
		b, err := f.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := generation1.Parse(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		x, _ := again.Append(nil)
		if !bytes.Equal(x, b) {
			t.Fatalf("%s\n%s", b, x)
		}
	})
}

// What parses is written with the same bytes; what does not is nothing.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"keys-v1.json", "keys-v2.json"} {
		f.Add(golden(f, name))
	}
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := generation1.Parse(b)
		if err != nil {
			if file != nil {
				t.Fatal("an error and a file")
			}
			return
		}
		again, err := file.Append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v\n%s\n%s", err, b, again)
		}
		if !json.Valid(b) {
			t.Fatal("not JSON")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := golden(b, "keys-v2.json")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := generation1.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
