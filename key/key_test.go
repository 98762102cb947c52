package key_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

func TestParseID(t *testing.T) {
	for s, want := range map[string]key.ID{"1": 1, "7": 7, "305419896": 0x12345678, "4294967295": 1<<32 - 1} {
		got, err := key.ParseID(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got)
		require.Equal(t, s, got.String())
	}
	for _, s := range []string{
		"", " ", "-1", "+1", "007", "00", " 7", "7 ", "7\n", "0x7", "1e3", "1_000", "4294967296", "18446744073709551616", "seven", "٧",
	} {
		got, err := key.ParseID(s)
		require.Error(t, err, "%q", s)
		require.NotErrorIs(t, err, key.ErrReservedID)
		require.Zero(t, got)
	}
	_, err := key.ParseID("0")
	require.ErrorIs(t, err, key.ErrReservedID)
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"1", "0", "007", "4294967295", "4294967296", "+1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := key.ParseID(s)
		if err != nil {
			require.Zero(t, id)
			return
		}
		require.NotZero(t, id)
		require.Equal(t, s, id.String())
	})
}

func TestNewID(t *testing.T) {
	seen := map[key.ID]bool{}
	for range 1000 {
		id := key.NewID()
		require.NotZero(t, id)
		seen[id] = true
	}
	require.Greater(t, len(seen), 990)
}

func TestNewClusterID(t *testing.T) {
	a, b := key.NewClusterID(), key.NewClusterID()
	require.NotEqual(t, a, b)
	require.False(t, a.IsZero())
	require.True(t, key.ClusterID{}.IsZero())
}

func TestPurpose(t *testing.T) {
	require.EqualValues(t, 1, key.Storage, "part of the formats")
	require.EqualValues(t, 2, key.Raft, "part of the formats")
	for n := range 256 {
		p := key.Purpose(n)
		text, err := p.MarshalText()
		if n != 1 && n != 2 {
			require.False(t, p.Valid())
			require.ErrorIs(t, err, key.ErrPurpose)
			require.Nil(t, text)
			require.Equal(t, fmt.Sprintf("purpose(%d)", n), p.String())
			continue
		}
		require.True(t, p.Valid())
		require.NoError(t, err)
		require.Equal(t, p.String(), string(text))
		var back key.Purpose
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, p, back)
	}
	for _, s := range []string{"", "Storage", "storage ", "1", "purpose(3)"} {
		p := key.Raft
		require.ErrorIs(t, p.UnmarshalText([]byte(s)), key.ErrPurpose, "%q", s)
		require.Equal(t, key.Raft, p, "changed on error")
	}
}

func TestState(t *testing.T) {
	require.Equal(t, []key.State{1, 2, 3, 4}, []key.State{key.Active, key.OpenOnly, key.Stopped, key.Destroyed}, "part of the formats")
	var names []string
	for n := range 256 {
		s := key.State(n)
		text, err := s.MarshalText()
		if n < 1 || n > 4 {
			require.False(t, s.Valid())
			require.ErrorIs(t, err, key.ErrState)
			require.Nil(t, text)
			require.Equal(t, fmt.Sprintf("state(%d)", n), s.String())
			continue
		}
		require.True(t, s.Valid())
		require.NoError(t, err)
		require.Equal(t, s.String(), string(text))
		var back key.State
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, s, back)
		names = append(names, s.String())
	}
	require.Equal(t, []string{"active", "open-only", "stopped", "destroyed"}, names)
	for _, text := range []string{"", "Active", "open", "state(5)", "1"} {
		s := key.Stopped
		require.ErrorIs(t, s.UnmarshalText([]byte(text)), key.ErrState, "%q", text)
		require.Equal(t, key.Stopped, s, "changed on error")
	}
}

func FuzzPurposeAndStateText(f *testing.F) {
	for _, s := range []string{"storage", "raft", "active", "open-only", "stopped", "destroyed", "Raft", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p key.Purpose
		if p.UnmarshalText(text) == nil {
			require.True(t, p.Valid())
			require.Equal(t, string(text), p.String())
		} else {
			require.Zero(t, p)
		}
		var s key.State
		if s.UnmarshalText(text) == nil {
			require.True(t, s.Valid())
			require.Equal(t, string(text), s.String())
		} else {
			require.Zero(t, s)
		}
	})
}

func TestClusterIDText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := key.ClusterID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		text, err := c.MarshalText()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%x", c[:]), string(text))
		var back key.ClusterID
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, c, back)
	})
	good := strings.Repeat("a0", 16)
	for _, s := range []string{"", good[:31], good[:30], good + "0", good + "00", strings.ToUpper(good), " " + good[1:], good[:31] + "g"} {
		c := key.ClusterID{1}
		require.ErrorIs(t, c.UnmarshalText([]byte(s)), key.ErrClusterID, "%q", s)
		require.Equal(t, key.ClusterID{1}, c, "changed on error")
	}
}

func FuzzClusterIDText(f *testing.F) {
	f.Add([]byte(strings.Repeat("a0", 16)))
	f.Add([]byte(strings.Repeat("A0", 16)))
	f.Add([]byte("0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c key.ClusterID
		if c.UnmarshalText(text) != nil {
			require.True(t, c.IsZero())
			return
		}
		require.Equal(t, string(text), c.String())
	})
}

// As a field and as the key of a map, everything reads back from JSON.
func TestJSON(t *testing.T) {
	type row struct {
		Cluster key.ClusterID
		Purpose key.Purpose
		State   key.State
		Count   map[key.Purpose]int
	}
	in := row{key.NewClusterID(), key.Raft, key.OpenOnly, map[key.Purpose]int{key.Storage: 3}}
	b, err := json.Marshal(in)
	require.NoError(t, err)
	require.Contains(t, string(b), `"Purpose":"raft","State":"open-only","Count":{"storage":3}`)
	var out row
	require.NoError(t, json.Unmarshal(b, &out))
	require.Equal(t, in, out)
	_, err = json.Marshal(row{})
	require.Error(t, err, "no purpose and no state")
}

func TestEqualDEK(t *testing.T) {
	a, b := key.NewDEK(), key.NewDEK()
	require.False(t, key.EqualDEK(a, b))
	again, err := insecurekey.New(insecurekey.Bytes(a))
	require.NoError(t, err)
	require.True(t, key.EqualDEK(a, again))
	require.False(t, key.EqualDEK(a, key.DEK{}))
}

func TestCheckOf(t *testing.T) {
	a, b := key.NewDEK(), key.NewDEK()
	again, err := insecurekey.New(insecurekey.Bytes(a))
	require.NoError(t, err)
	require.Equal(t, key.CheckOf(a), key.CheckOf(again))
	require.NotEqual(t, key.CheckOf(a), key.CheckOf(b))
	require.Regexp(t, "^[0-9a-f]{32}$", key.CheckOf(a).String())
	require.Panics(t, func() { key.CheckOf(key.DEK{}) })
}

func ExampleParseID() {
	_, err := key.ParseID("007")
	fmt.Println(err)
	id, _ := key.ParseID("7")
	fmt.Println(id)
	// Output:
	// key: id "007" is not a canonical decimal 32-bit number
	// 7
}

func ExampleCheckOf() {
	dek, err := insecurekey.New([]byte("thirty-two bytes, known to all.."))
	if err != nil {
		panic(err)
	}
	fmt.Println(dek, key.CheckOf(dek))
	// Output: [redacted key] 359102abb2459f767f3a1a609fa00bf4
}
