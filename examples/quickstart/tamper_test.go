package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

func openTestStore(t *testing.T, s site) *store {
	t.Helper()
	st, err := openStore(t.Context(), s.out, s.kek)
	require.NoError(t, err)
	return st
}

// deksOf returns the bytes of every DEK of a store.
func deksOf(t *testing.T, s site) [][]byte {
	t.Helper()
	st := openTestStore(t, s)
	defer func() { require.NoError(t, st.close()) }()
	var deks [][]byte
	for k := range st.keys.Node().State().Keys() {
		_, dek, err := st.kek.UnwrapDEK(t.Context(), k.Container)
		require.NoError(t, err)
		deks = append(deks, insecurekey.Bytes(dek))
	}
	require.Len(t, deks, 3)
	return deks
}

// records is a database in the hands of somebody without the keys.
type records struct {
	*testing.T
	db *pebble.DB
}

func (r records) get(kind, name string) []byte {
	r.Helper()
	v, closer, err := r.db.Get(recordKey(kind, name))
	require.NoError(r, err)
	v = bytes.Clone(v)
	require.NoError(r, closer.Close())
	return v
}

func (r records) set(kind, name string, v []byte) {
	r.Helper()
	require.NoError(r, r.db.Set(recordKey(kind, name), v, pebble.Sync))
}

func (r records) remove(kind, name string) {
	r.Helper()
	require.NoError(r, r.db.Delete(recordKey(kind, name), pebble.Sync))
}

// tamper changes the database of a store.
func (s site) tamper(change func(r records)) {
	s.Helper()
	db, err := openPebble(filepath.Join(s.out, dbDir), func() error { return nil })
	require.NoError(s, err)
	change(records{s.T, db})
	require.NoError(s, db.Close())
}

// Each change to the database by somebody without the keys is noticed.
func TestTamperedDatabase(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(r records)
	}{
		{"bit of a value", `"large" does not open: `, func(r records) {
			v := r.get(kindFile, "large")
			v[len(v)/2] ^= 1
			r.set(kindFile, "large", v)
		}},
		{"cut value", `"large" does not open: `, func(r records) {
			v := r.get(kindFile, "large")
			r.set(kindFile, "large", v[:len(v)-1])
		}},
		{"empty value", `"large" does not open: `, func(r records) { r.set(kindFile, "large", nil) }},
		{"value in clear", `"a.b" does not open: `, func(r records) { r.set(kindFile, "a.b", text(3, 100)) }},
		{"value of another path", `"many/30" does not open: `, func(r records) {
			r.set(kindFile, "many/30", r.get(kindFile, "many/31"))
		}},
		{"other key's id", `"large" does not open: `, func(r records) {
			v, other := r.get(kindFile, "large"), r.get(kindFile, "many/39")
			copy(v[2:6], other[2:6])
			r.set(kindFile, "large", v)
		}},
		{"removed record", `"large" is in the input and not in the store`, func(r records) {
			r.remove(kindFile, "large")
		}},
		{"added record", `"more" is in the store and not in the input`, func(r records) {
			r.set(kindFile, "more", r.get(kindFile, "large"))
		}},
		{"damaged manifest", "the store's manifest: ", func(r records) {
			v := r.get(kindManifest, "")
			v[len(v)-1] ^= 1
			r.set(kindManifest, "", v)
		}},
		{"removed manifest", "did not finish", func(r records) {
			r.remove(kindManifest, "")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t).filled(t)
			s.tamper(c.change)
			r := quickstart(t, bars.Silent, s.args()...)
			require.Equal(t, exitFailed, r.code, "%s\n%s", r.stdout, r.stderr)
			require.Contains(t, r.stdout, c.want)
			require.NotEqual(t, "0", r.row(t, "mismatches"))
		})
	}
}

// A file that is missing from the store and from the input is missed.
func TestRemovedFromBoth(t *testing.T) {
	s := newSite(t).filled(t)
	s.tamper(func(r records) { r.remove(kindFile, "large") })
	require.NoError(t, os.Remove(filepath.Join(s.in, "large")))
	quickstart(t, bars.Silent, s.args()...).requireSentence(t, exitFailed, "the store holds 45 files, and its manifest says 46")
}

// A bit that flipped on the disk is noticed by Pebble.
func TestDamagedTable(t *testing.T) {
	s := newSite(t).filled(t)
	st := openTestStore(t, s)
	env := records{t, st.db}.get(kindFile, "a/b/c/deep")
	require.NoError(t, st.close())
	tables, err := filepath.Glob(filepath.Join(s.out, "db", "*.sst"))
	require.NoError(t, err)
	damaged := 0
	for _, path := range tables {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if at := bytes.Index(data, env); at >= 0 {
			data[at+len(env)/2] ^= 1
			require.NoError(t, os.WriteFile(path, data, 0o600))
			damaged++
		}
	}
	require.NotZero(t, damaged, "the value is in no table")
	r := quickstart(t, bars.Silent, s.args()...)
	require.Equal(t, exitFailed, r.code, "%s\n%s", r.stdout, r.stderr)
	require.Contains(t, r.stdout, `"a/b/c/deep" cannot be read from the store: `)
}

func TestHalfUnderEachKey(t *testing.T) {
	s := newSite(t).filled(t)
	st := openTestStore(t, s)
	defer func() { require.NoError(t, st.close()) }()
	var paths []string
	in, err := readInput(t.Context(), s.in)
	require.NoError(t, err)
	for _, f := range in.files {
		paths = append(paths, f.path)
	}
	state := st.keys.Node().State()
	first, ok := state.Former(key.Storage)
	require.True(t, ok)
	second, ok := state.Active(key.Storage)
	require.True(t, ok)
	for i, path := range paths {
		h, err := envelope.ParseHeader(records{t, st.db}.get(kindFile, path))
		require.NoError(t, err)
		want := first.ID
		if i >= len(paths)/2 {
			want = second.ID
		}
		require.Equal(t, want, h.KeyID, path)
	}
	states := make(map[key.ID]key.State)
	for k := range state.Keys() {
		states[k.ID] = k.State
	}
	raft, ok := state.Active(key.Raft)
	require.True(t, ok)
	require.Equal(t, map[key.ID]key.State{first.ID: key.OpenOnly, second.ID: key.Active, raft.ID: key.Active}, states)
}
