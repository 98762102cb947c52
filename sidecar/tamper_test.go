package sidecar_test

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// refusals are the errors that a changed file may give.
var refusals = []error{
	sidecar.ErrMAC, sidecar.ErrMalformed, sidecar.ErrVersion, sidecar.ErrOtherNode, sidecar.ErrFileKey,
}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) })
}

func TestEveryFlippedBit(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	for i := range data {
		for bit := range 8 {
			changed := bytes.Clone(data)
			changed[i] ^= 1 << bit
			if err := refused(t, with(t, changed), node, w); !isRefusal(err) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
	}
	t.Logf("%d files refused", 8*len(data))
}

func TestEveryByteRemovedOrRepeated(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	for i := range data {
		for _, changed := range [][]byte{
			data[:i],
			slices.Delete(bytes.Clone(data), i, i+1),
			slices.Insert(bytes.Clone(data), i, data[i]),
		} {
			if bytes.Equal(changed, data) {
				continue
			}
			if err := refused(t, with(t, changed), node, w); !isRefusal(err) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
}

// Each field changed to another value that it might have.
func TestEveryField(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	for _, tt := range []struct {
		name, old, new string
		want           error
	}{
		{"version", `"version": 3`, `"version": 2`, sidecar.ErrVersion},
		{"node", `"full_node_id": "81985529216486895"`, `"full_node_id": "81985529216486894"`, sidecar.ErrOtherNode},
		{"epoch lowered", `"7": 3`, `"7": 2`, sidecar.ErrMAC},
		{"epoch raised", `"7": 3`, `"7": 4`, sidecar.ErrMAC},
		{"epoch of another key", `"7": 3`, `"6": 3`, sidecar.ErrMAC},
		{"epoch removed", "\n      \"7\": 3,", "", sidecar.ErrMAC},
		{"epoch added", "\n      \"7\": 3,", "\n      \"7\": 3,\n      \"8\": 3,", sidecar.ErrMAC},
		{"seals", `"seals": 1048576`, `"seals": 1048575`, sidecar.ErrMAC},
		{"bytes", `"bytes": 17179869184`, `"bytes": 0`, sidecar.ErrMAC},
		{"usage of another key", "\"7\": {\n        \"seals\"", "\"8\": {\n        \"seals\"", sidecar.ErrMAC},
		{"through lowered", `"through": 4711`, `"through": 4710`, sidecar.ErrMAC},
		{"through raised", `"through": 4711`, `"through": 4712`, sidecar.ErrMAC},
		{"through nothing", `"through": 4711`, `"through": 0`, sidecar.ErrMAC},
		{"through removed", ",\n    \"through\": 4711", "", sidecar.ErrMalformed},
		{"state: active key", `"storage": 7`, `"storage": 8`, sidecar.ErrMAC},
		{"state: container", `"p0RLAg=="`, `"p0RLAw=="`, sidecar.ErrMAC},
		{"state: empty list", `"none": []`, `"none": {}`, sidecar.ErrMAC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(string(data), tt.old))
			changed := strings.Replace(string(data), tt.old, tt.new, 1)
			require.ErrorIs(t, refused(t, with(t, []byte(changed)), node, w), tt.want)
		})
	}
	t.Run("state removed", func(t *testing.T) {
		changed := regexp.MustCompile(`(?s)"state": \{.*\n  \}`).ReplaceAll(data, []byte(`"state": null`))
		require.Less(t, len(changed), len(data))
		require.ErrorIs(t, refused(t, with(t, changed), node, w), sidecar.ErrMAC)
	})
	t.Run("state is its hash", func(t *testing.T) {
		// What stands for the state in the MAC's message does not stand for it
		// in the file.
		changed := regexp.MustCompile(`(?s)"state": \{.*\n  \}`).ReplaceAll(data, []byte(`"state": "`+strings.Repeat("0", 64)+`"`))
		require.ErrorIs(t, refused(t, with(t, changed), node, w), sidecar.ErrMAC)
	})
	t.Run("MAC", func(t *testing.T) {
		changed := regexp.MustCompile(`"mac": "[0-9a-f]{64}"`).ReplaceAll(data, []byte(`"mac": "`+strings.Repeat("0", 64)+`"`))
		require.ErrorIs(t, refused(t, with(t, changed), node, w), sidecar.ErrMAC)
	})
}

var fileKeyField = regexp.MustCompile(`"file_key": "[^"]*"`)

// withFileKeyOf returns a file with the container of another.
func withFileKeyOf(data, other []byte) []byte {
	return fileKeyField.ReplaceAll(data, fileKeyField.Find(other))
}

func TestContainersOfTwoNodesSwapped(t *testing.T) {
	w := newKEKs("a")
	_, one := filled(t, 1, w)
	_, two := filled(t, 2, w)
	require.ErrorIs(t, refused(t, with(t, withFileKeyOf(one, two)), 1, w), sidecar.ErrOtherNode)
	require.ErrorIs(t, refused(t, with(t, withFileKeyOf(two, one)), 2, w), sidecar.ErrOtherNode)
}

// The KEK alone tells a container that claims to be of this node.
func TestContainerOfAnotherNodeRenamed(t *testing.T) {
	w := newKEKs("a")
	_, one := filled(t, 1, w)
	_, two := filled(t, 2, w)
	c, err := key.ParseFileContainer(containerOf(t, two))
	require.NoError(t, err)
	c.Node = 1
	forged, err := c.Append(nil)
	require.NoError(t, err)
	require.ErrorIs(t, refused(t, with(t, withContainer(one, forged)), 1, w), sidecar.ErrFileKey)
}

// A container of this node's from another file holds another file key.
func TestForeignFileKey(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	_, other := filled(t, node, w)
	require.ErrorIs(t, refused(t, with(t, withFileKeyOf(data, other)), node, w), sidecar.ErrMAC)
}

func TestContainerOfAnotherKEK(t *testing.T) {
	_, data := filled(t, node, newKEKs("a"))
	_, other := filled(t, node, newKEKs("b"))
	changed := withFileKeyOf(data, other)
	require.ErrorIs(t, refused(t, with(t, changed), node, newKEKs("a")), sidecar.ErrFileKey)
	require.ErrorIs(t, refused(t, with(t, changed), node, newKEKs("b")), sidecar.ErrMAC)
	require.ErrorIs(t, refused(t, with(t, changed), node, newKEKs("ab")), sidecar.ErrMAC)
}

// The container is under the MAC, too: an older one of the same file key, wrapped
// under a KEK that is no longer configured, does not come back.
func TestContainerFromBeforeARewrap(t *testing.T) {
	w := newKEKs("a")
	fsys, before := filled(t, node, w)
	f := mustOpen(t, fsys, node, w)
	w.use("b")
	require.NoError(t, f.Rewrap(t.Context()))
	require.NoError(t, f.Close())
	changed := withFileKeyOf(read(t, fsys, path), before)
	require.ErrorIs(t, refused(t, with(t, changed), node, newKEKs("ab")), sidecar.ErrMAC)
}

func TestContainerRemoved(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	for name, changed := range map[string][]byte{
		"empty":           withContainer(data, nil),
		"not there":       regexp.MustCompile(`  "file_key": "[^"]*",\n`).ReplaceAll(data, nil),
		"null":            fileKeyField.ReplaceAll(data, []byte(`"file_key": null`)),
		"of no KEK":       withContainer(data, containerOf(t, data)[:29]),
		"of a DEK":        withContainer(data, dekContainer(t)),
		"not a container": withContainer(data, []byte("something else")),
		"very long":       withContainer(data, make([]byte, 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, data, changed)
			calls := w.calls.Load()
			require.ErrorIs(t, refused(t, with(t, changed), node, w), sidecar.ErrMalformed)
			require.Equal(t, calls, w.calls.Load(), "no KEK is asked")
		})
	}
}

// A whole directory copied to another node.
func TestFileOfAnotherNode(t *testing.T) {
	w := newKEKs("a")
	fsys, _ := filled(t, 1, w)
	calls := w.calls.Load()
	require.ErrorIs(t, refused(t, fsys, 2, w), sidecar.ErrOtherNode)
	require.Equal(t, calls, w.calls.Load(), "no KEK is asked")
	mustOpen(t, fsys, 1, w)
}

// Parts of two versions of one file do not make a third.
func TestOldPartsInANewFile(t *testing.T) {
	w := newKEKs("a")
	fsys, before := filled(t, node, w)
	f := mustOpen(t, fsys, node, w)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error {
		return errors.Join(tx.SetEpoch(7, 4), tx.SetReserved(7, sidecar.Usage{Seals: 1 << 30}), tx.SetThrough(4712), tx.SetState([]byte("{}")))
	}))
	require.NoError(t, f.Close())
	after := read(t, fsys, path)
	for _, part := range []string{
		`(?s)"epochs": \{.*?\n    \}`, `(?s)"reserved": \{.*?\n    \}`, `"through": [0-9]+`, `(?s)"state": \{(.*\n  )?\}`, `"mac": "[^"]*"`,
	} {
		re := regexp.MustCompile(part)
		old := re.Find(before)
		require.NotNil(t, old)
		require.NotEqual(t, old, re.Find(after))
		require.ErrorIs(t, refused(t, with(t, re.ReplaceAllLiteral(after, old)), node, w), sidecar.ErrMAC)
	}
}

// What this package cannot notice, and says so: an older file, whole.
func TestOlderFileOpens(t *testing.T) {
	w := newKEKs("a")
	fsys, before := filled(t, node, w)
	f := mustOpen(t, fsys, node, w)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 4) }))
	require.NoError(t, f.Close())
	require.EqualValues(t, 3, mustOpen(t, with(t, before), node, w).Epoch(7))
}

// An error about a file's content names the line and shows none of it.
func TestErrorsShowNoContent(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	changed := bytes.Replace(data, []byte(`"p0RLAg=="`), []byte(`p0RLAg==`), 1)
	err := refused(t, with(t, changed), node, w)
	require.ErrorContains(t, err, "line 30")
	require.NotContains(t, err.Error(), "p0RL")
}
