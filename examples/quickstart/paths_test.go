package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIsNew(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		fresh bool
		err   string
	}{
		{name: "empty", fresh: true},
		{name: "only a lock", files: []string{"keys.json.lock"}, fresh: true},
		{name: "ours", files: []string{"keys.json", "db/CURRENT"}},
		{name: "ours, killed early", files: []string{"keys.json", "keys.json.lock", "keys.json.x.tmp"}},
		{name: "ours, without its lock", files: []string{"keys.json", "db/CURRENT"}},
		{name: "ours and more", files: []string{"keys.json", "keys.json.lock", "a note"}},
		{name: "another keys.json", files: []string{"keys.json"}, err: "neither empty nor a store"},
		{name: "another keys.json with more", files: []string{"keys.json", "a note"}, err: "neither empty nor a store"},
		{name: "not ours", files: []string{"a note"}, err: "neither empty nor a store"},
		{name: "not ours, with a lock", files: []string{"keys.json.lock", "a note"}, err: "neither empty nor a store"},
		{name: "another database", files: []string{"db/CURRENT"}, err: "neither empty nor a store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range c.files {
				write(t, filepath.Join(dir, filepath.FromSlash(name)), []byte("x"))
			}
			fresh, err := isNew(dir)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.fresh, fresh)
		})
	}
	dir := t.TempDir()
	fresh, err := isNew(filepath.Join(dir, "none"))
	require.NoError(t, err)
	require.True(t, fresh)
	write(t, filepath.Join(dir, "file"), nil)
	_, err = isNew(filepath.Join(dir, "file"))
	require.ErrorContains(t, err, "cannot be used")
}

func TestCheckApart(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "in", "sub"), 0o755))
	require.NoError(t, os.Symlink("in", filepath.Join(root, "link")))
	for _, c := range []struct{ in, out, kek, err string }{
		{in: "in", out: "out", kek: "out.kek"},
		{in: "in", out: "in.out", kek: "in.out.kek"},
		{in: "in", out: "in", kek: "kek", err: "lie in one another"},
		{in: "in", out: "in/out", kek: "kek", err: "lie in one another"},
		{in: "in", out: "link/out", kek: "kek", err: "lie in one another"},
		{in: "link", out: "in/sub/none/out", kek: "kek", err: "lie in one another"},
		{in: "in/sub", out: "in", kek: "kek", err: "lie in one another"},
		{in: "in", out: "out", kek: "out/kek", err: "inside -out"},
		{in: "in", out: "out", kek: "out/../out/kek", err: "inside -out"},
		{in: "in", out: "out", kek: "link/kek", err: "inside -in"},
		{in: "in", out: "out", kek: "..kek"},
	} {
		err := checkApart(filepath.Join(root, c.in), filepath.Join(root, c.out), root+"/"+c.kek)
		if c.err == "" {
			require.NoError(t, err, "%+v", c)
		} else {
			require.ErrorContains(t, err, c.err, "%+v", c)
		}
	}
}

func TestEnsureKEK(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kek")
	made, err := ensureKEK(path)
	require.NoError(t, err)
	require.True(t, made)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 32, info.Size())
	require.EqualValues(t, 0o600, info.Mode().Perm())
	first, err := os.ReadFile(path)
	require.NoError(t, err)

	made, err = ensureKEK(path)
	require.NoError(t, err)
	require.False(t, made)
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, first, again)

	other := filepath.Join(dir, "other")
	_, err = ensureKEK(other)
	require.NoError(t, err)
	second, err := os.ReadFile(other)
	require.NoError(t, err)
	require.NotEqual(t, first, second)

	_, err = ensureKEK(filepath.Join(dir, "none", "kek"))
	require.ErrorContains(t, err, "cannot be made")
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink("target", dangling))
	made, err = ensureKEK(dangling)
	require.NoError(t, err)
	require.False(t, made, "a link is left to the KEK's own checks")
}
