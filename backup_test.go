package atrest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/stream"
)

var backup1 = applier.BackupID{1}

// dump writes a host's store.
func dump(store map[string]value) func(io.Writer) error {
	return func(w io.Writer) error {
		for _, k := range slices.Sorted(maps.Keys(store)) {
			if _, err := fmt.Fprintf(w, "%s %v %x\n", k, store[k].sealed, store[k].out); err != nil {
				return err
			}
		}
		return nil
	}
}

// loaded is the store that dump wrote.
func loaded(t testing.TB, r io.Reader) map[string]value {
	t.Helper()
	store := map[string]value{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		store[f[0]] = value{must(hex.DecodeString(f[2])), f[1] == "true"}
	}
	require.NoError(t, lines.Err())
	return store
}

// A cluster is lost but for a backup and the KEK.
func TestBackupIsAllThatIsLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.started("a", "b", "c")
		a := ms[0]
		w.put(a, "early", "in-clear")
		w.commit(a, must(a.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(a, must(a.node.NewEnableStorage()))
		w.commit(a, must(a.node.NewEnableRaft()))
		want := map[string]string{"early": "in-clear"}
		for i := range 3 {
			k := fmt.Sprintf("k%d", i)
			want[k] = strings.Repeat(k, 10)
			w.put(a, k, want[k])
			w.commit(a, must(a.node.NewRotation(t.Context(), key.Storage)))
		}
		w.commit(a, must(a.node.NewBackup(backup1)))
		var file bytes.Buffer
		info, err := a.node.WriteBackup(t.Context(), &file, backup1, a.disk.applied, dump(a.disk.store))
		require.NoError(t, err)
		require.Equal(t, a.active(key.Storage), info.Key)
		require.Len(t, info.Keys, 5)
		keks := a.set()
		w.end()

		got, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file.Bytes()), keks)
		require.NoError(t, err)
		require.Equal(t, info, got)
		require.Contains(t, got.String(), "backup 01000000000000000000000000000000 of cluster ")

		b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file.Bytes()), keks)
		require.NoError(t, err)
		anew := newWorld(t)
		defer anew.end()
		n := anew.join("n")[0]
		n.backup, n.disk.store = b.Part(), loaded(t, b)
		require.Equal(t, info, b.Info())
		require.NoError(t, n.start())
		require.NotEqual(t, info.Cluster, n.node.State().Cluster())
		for k, v := range want {
			got, err := n.get(k)
			require.NoError(t, err, k)
			require.Equal(t, v, got)
		}
		anew.put(n, "later", "x")
		require.Equal(t, "x", must(n.get("later")))
	})
}

// What a registered backup needs is not destroyed while it exists.
func TestBackupKeepsItsKeys(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("a")[0]
		id := m.active(key.Storage)
		write := func() error {
			_, err := m.node.WriteBackup(t.Context(), io.Discard, backup1, m.disk.applied, dump(m.disk.store))
			return err
		}
		require.ErrorIs(t, write(), atrest.ErrOrder)
		w.commit(m, must(m.node.NewBackup(backup1)))
		require.NoError(t, write())
		w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage)))
		require.ErrorIs(t, write(), atrest.ErrOrder, "a value may be under a key that it does not name")

		w.commit(m, must(m.node.NewStop(id)))
		destroy := func() error {
			i := m.disk.applied
			_, err := m.node.NewDestroy(id, []nodeid.ID{m.node.ID()}, []applier.Evidence{{Node: m.node.ID(), Taken: i, FirstLog: i + 1}})
			return err
		}
		require.ErrorIs(t, destroy(), applier.ErrBackup)
		w.commit(m, must(m.node.NewBackupForgotten(backup1)))
		require.NoError(t, destroy())
	})
}

func TestBackupsThatAreNotWritten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("a")[0]
		write := func(ctx context.Context, out io.Writer, f func(io.Writer) error) error {
			info, err := m.node.WriteBackup(ctx, out, backup1, 7, f)
			if err != nil {
				require.Zero(t, info)
			}
			return err
		}
		require.ErrorIs(t, write(t.Context(), io.Discard, dump(nil)), atrest.ErrOrder, "without keys")
		w.commit(m, must(m.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(m, must(m.node.NewBackup(backup1)))

		failed := errors.New("failed")
		require.ErrorIs(t, write(t.Context(), io.Discard, func(io.Writer) error { return failed }), failed)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, write(canceled, io.Discard, dump(nil)), context.Canceled)

		var whole bytes.Buffer
		value := bytes.Repeat([]byte("value"), 40_000)
		data := func(w io.Writer) error { _, err := w.Write(value); return err }
		require.NoError(t, write(t.Context(), &whole, data))
		for _, n := range []int{0, 1, 31, 100, 1000, 100_000, whole.Len() - 1} {
			err := write(t.Context(), &limited{n: n, err: failed}, data)
			require.ErrorIs(t, err, failed, n)
			// Nor does it become one where the host looks away.
			lost := limited{n: n, err: failed}
			require.Error(t, write(t.Context(), &lost, func(w io.Writer) error { _ = data(w); return nil }))
			_, err = atrest.VerifyBackup(t.Context(), &lost.got, m.set())
			require.ErrorIs(t, err, atrest.ErrBackup)
		}
		require.NoError(t, m.node.Close())
		require.ErrorIs(t, write(t.Context(), io.Discard, dump(nil)), atrest.ErrClosed)
	})
}

// limited is a disk that gets full.
type limited struct {
	got bytes.Buffer
	n   int
	err error
}

func (l *limited) Write(b []byte) (int, error) {
	n, _ := l.got.Write(b[:min(len(b), l.n-l.got.Len())])
	if n < len(b) {
		return n, l.err
	}
	return n, nil
}

// localBackup is a backup of an embedded database with some data.
func localBackup(t testing.TB, data []byte, keks *kek.Set) []byte {
	t.Helper()
	disk := newDisk()
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, atrest.WithFS(disk))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, l.Backup(backup1))
	var file bytes.Buffer
	info, err := l.Node().WriteBackup(t.Context(), &file, backup1, 0x1122, func(w io.Writer) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 1000))
		return err
	})
	require.NoError(t, err)
	require.EqualValues(t, len(data), info.Bytes)
	require.Equal(t, sha256.Sum256(data), info.Digest)
	return file.Bytes()
}

func set(t testing.TB, ids ...string) *kek.Set {
	t.Helper()
	keks := make([]kek.KEK, 0, len(ids))
	for _, id := range ids {
		keks = append(keks, kektest.New(id))
	}
	return must(kek.NewSet(keks[0], keks[1:]...))
}

// What was written is read, however large and in whatever pieces.
func TestBackupRoundTrip(t *testing.T) {
	keks := set(t, "kms:a")
	for _, n := range []int{0, 1, 31, 32, 33, 1000, stream.DefaultSegment - 33, stream.DefaultSegment - 32, stream.DefaultSegment - 31, stream.DefaultSegment, 3*stream.DefaultSegment + 7} {
		data := bytes.Repeat([]byte("0123456789abcde"), n/15+1)[:n]
		file := localBackup(t, data, keks)
		for _, wrap := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader,
		} {
			b, err := atrest.ReadBackup(t.Context(), wrap(bytes.NewReader(file)), keks)
			require.NoError(t, err)
			require.Zero(t, b.Info().Bytes)
			require.NoError(t, iotest.TestReader(b, data), n)
			require.Equal(t, uint64(n), b.Info().Bytes)
			require.Equal(t, sha256.Sum256(data), b.Info().Digest)
			require.EqualValues(t, 0x1122, b.Info().Index)
			require.Equal(t, backup1, b.Info().ID)
		}
	}
}

func TestBackupProperty(t *testing.T) {
	keks := set(t, "kms:a")
	rapid.Check(t, func(rt *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(rt, "data")
		file := localBackup(t, data, keks)
		b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file), keks)
		require.NoError(rt, err)
		got, err := io.ReadAll(b)
		require.NoError(rt, err)
		require.True(rt, bytes.Equal(data, got))
		at := rapid.IntRange(0, len(file)-1).Draw(rt, "at")
		file[at] ^= rapid.ByteRange(1, 255).Draw(rt, "with")
		_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
		require.ErrorIs(rt, err, atrest.ErrBackup)
	})
}

// Every bit of a backup counts, and every byte.
func TestChangedBackups(t *testing.T) {
	keks := set(t, "kms:a", "kms:b")
	data := []byte("some data of the host, in the clear")
	file := localBackup(t, data, keks)
	refused := func(what string, i int, b []byte) {
		t.Helper()
		info, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(b), keks)
		require.ErrorIs(t, err, atrest.ErrBackup, "%s %d", what, i)
		require.NotErrorIs(t, err, atrest.ErrRetry, "%s %d", what, i)
		require.Zero(t, info)
		r, err := atrest.ReadBackup(t.Context(), bytes.NewReader(b), keks)
		if err != nil {
			require.Nil(t, r)
			return
		}
		got, err := io.ReadAll(r)
		require.ErrorIs(t, err, atrest.ErrBackup)
		require.True(t, bytes.HasPrefix(data, got))
		_, again := r.Read(make([]byte, 1))
		require.Equal(t, err, again)
	}
	for bit := range 8 * len(file) {
		b := bytes.Clone(file)
		b[bit/8] ^= 1 << (bit % 8)
		refused("bit", bit, b)
	}
	for n := range file {
		refused("length", n, file[:n])
	}
	refused("longer", 0, append(bytes.Clone(file), 0))
	refused("twice", 0, append(bytes.Clone(file), file...))

	// The key state of one and the data of another.
	other := localBackup(t, data, keks)
	part := func(b []byte) []byte { return b[:32+int(b[30])<<8+int(b[31])] }
	refused("spliced", 0, append(bytes.Clone(part(other)), file[len(part(file)):]...))
}

func TestBackupsAndOtherKEKs(t *testing.T) {
	file := localBackup(t, []byte("data"), set(t, "kms:a", "kms:b"))
	for _, id := range []string{"kms:a", "kms:b"} {
		_, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), set(t, id, "kms:c"))
		require.NoError(t, err)
	}
	_, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), set(t, "kms:c"))
	require.ErrorIs(t, err, atrest.ErrBackup)
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.ErrorContains(t, err, "no configured KEK opens it")

	wrong := kektest.New("kms:a")
	wrong.WrongKey()
	_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), must(kek.NewSet(wrong)))
	require.ErrorIs(t, err, kek.ErrWrongKey)

	away := kektest.New("kms:a")
	away.FailNext(100, kek.ErrUnreachable)
	_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), must(kek.NewSet(away)))
	require.ErrorIs(t, err, atrest.ErrRetry)
	require.NotErrorIs(t, err, atrest.ErrBackup)

	_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), nil)
	require.ErrorIs(t, err, guard.ErrNoKEK)
}

// What is wrong with the source is not blamed on the backup.
func TestBackupSourceFails(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, bytes.Repeat([]byte("data"), 40_000), keks)
	failed := errors.New("failed")
	for _, n := range []int{0, 10, 100, len(file) / 2, len(file) - 1, len(file)} {
		_, err := atrest.VerifyBackup(t.Context(), io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(failed)), keks)
		require.ErrorIs(t, err, failed, n)
		require.NotErrorIs(t, err, atrest.ErrBackup, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b, err := atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(b)
	require.ErrorIs(t, err, context.Canceled)
	_, err = atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
	require.ErrorIs(t, err, context.Canceled)
}
