package atrest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// A download that breaks off with an error of its own, io.ErrUnexpectedEOF or one that
// wraps io.EOF, is not a damaged backup: nobody deletes a good one for it.
func TestBrokenDownloadIsNotADamagedBackup(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, bytes.Repeat([]byte("data"), 40_000), keks)
	for _, broken := range []error{io.ErrUnexpectedEOF, fmt.Errorf("connection lost: %w", io.EOF)} {
		for _, n := range []int{0, 10, 100, len(file) / 2, len(file) - 1} {
			_, err := atrest.VerifyBackup(t.Context(), io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken)), keks)
			require.ErrorIs(t, err, broken, n)
			require.NotErrorIs(t, err, atrest.ErrBackup, n)
		}
	}
	// The end itself, however it is told.
	for _, n := range []int{0, 10, 100, len(file) / 2, len(file) - 1} {
		_, err := atrest.VerifyBackup(t.Context(), iotest.DataErrReader(bytes.NewReader(file[:n])), keks)
		require.ErrorIs(t, err, atrest.ErrBackup, n)
	}
}

// zeros is a source without end that counts what was read of it.
type zeros struct{ n int }

func (z *zeros) Read(b []byte) (int, error) {
	clear(b)
	z.n += len(b)
	return len(b), nil
}

// The length of the key state is a claim of whoever wrote the file: it is bounded, and
// a context ends the reading of it.
func TestBackupWithAnEndlessKeyState(t *testing.T) {
	head := func(size uint32) []byte {
		b := append([]byte("\xa7BK\x02"), make([]byte, 24)...)
		return binary.BigEndian.AppendUint32(b, size)
	}
	src := &zeros{}
	_, err := atrest.ReadBackup(t.Context(), io.MultiReader(bytes.NewReader(head(64<<20+1)), src), set(t, "kms:a"))
	require.ErrorIs(t, err, atrest.ErrBackup)
	require.Zero(t, src.n)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = atrest.ReadBackup(ctx, src, set(t, "kms:a"))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, src.n)
	ctx, cancel = context.WithCancel(t.Context())
	end := iotest.ErrReader(nil)
	_, err = atrest.ReadBackup(ctx, io.MultiReader(bytes.NewReader(head(64<<20)), calling{cancel}, src, end), set(t, "kms:a"))
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, src.n, 1<<20)
}

// calling is an empty source that calls a function.
type calling struct{ f func() }

func (c calling) Read([]byte) (int, error) {
	c.f()
	return 0, io.EOF
}

// A wrong MAC is found after one unwrap: a backup that somebody made does not get all
// its containers, or that many calls to a key service, tried.
func TestBackupWithAWrongMACCostsOneUnwrap(t *testing.T) {
	k := kektest.New("kms:a")
	keks := must(kek.NewSet(k))
	file := localBackup(t, []byte("data"), keks)
	before := k.Calls().Unwraps
	require.NoError(t, func() error { _, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks); return err }())
	require.Equal(t, 2, k.Calls().Unwraps-before, "a storage and a Raft key")
	file[32+8] ^= 1 // of the MAC
	before = k.Calls().Unwraps
	_, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
	require.ErrorIs(t, err, atrest.ErrBackup)
	require.Equal(t, 1, k.Calls().Unwraps-before)
}

// What was read is compared with the digest behind it, although the stream has
// authenticated both.
func TestBackupWithTheDigestOfOtherData(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, []byte("data"), keks)
	b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file), keks)
	require.NoError(t, err)
	store, active := storeOf(t, b.Part(), keks)
	require.NoError(t, store.Activate(active))
	head := file[:32+len(b.Part())]
	digest := sha256.Sum256(b.Part())
	place := stream.Place{Label: "atrest/backup", Data: append(bytes.Clone(file[4:28]), digest[:]...)}
	for data, want := range map[string]error{"data": nil, "dada": atrest.ErrBackup} {
		out := bytes.NewBuffer(bytes.Clone(head))
		w, err := stream.NewWriter(t.Context(), out, store, place)
		require.NoError(t, err)
		sum := sha256.Sum256([]byte("data"))
		_, err = w.Write(append([]byte(data), sum[:]...))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = atrest.VerifyBackup(t.Context(), out, keks)
		require.ErrorIs(t, err, want)
	}
}

// storeOf has the keys of a backup's part, and the id of the active storage key.
func storeOf(t *testing.T, part []byte, keks *kek.Set) (*keystore.Store, key.ID) {
	t.Helper()
	s, err := applier.ParseSnapshot(part[40:])
	require.NoError(t, err)
	store := must(keystore.New())
	for k := range s.Keys() {
		_, dek, err := keks.UnwrapDEK(t.Context(), k.Container)
		require.NoError(t, err)
		require.NoError(t, store.Install(k.ID, k.Purpose, dek))
	}
	active, _ := s.Active(key.Storage)
	return store, active.ID
}

// The nonces of a backup do not count: a machine may be cloned while it writes one.
func TestBackupDrawsItsNonces(t *testing.T) {
	file := localBackup(t, bytes.Repeat([]byte("x"), 2*stream.DefaultSegment), set(t, "kms:a"))
	const segment = stream.DefaultSegment + stream.Overhead
	first := len(file) - sha256.Size - stream.Overhead - 2*segment // the digest fills the last one
	require.NotEqual(t, file[first:][:8], file[first+segment:][:8])
}

// A key state that no backup has.
func TestBackupOfAKeylessState(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("a")[0]
		part := must(m.node.Snapshot())
		file := append([]byte("\xa7BK\x02"), make([]byte, 24)...)
		file = binary.BigEndian.AppendUint32(file, uint32(len(part)))
		_, err := atrest.ReadBackup(t.Context(), bytes.NewReader(append(file, part...)), m.set())
		require.ErrorIs(t, err, atrest.ErrBackup)
	})
}

// Data from before the registration may need a key that was destroyed before it, and
// data from after a rotation one that the backup does not bring.
func TestBackupOfTheWrongMoment(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("a")[0]
		w.commit(m, must(m.node.NewBackup(backup1)))
		registered := m.disk.applied
		_, err := m.node.WriteBackup(t.Context(), io.Discard, backup1, registered-1, dump(m.disk.store))
		require.ErrorIs(t, err, atrest.ErrOrder)
		_, err = m.node.WriteBackup(t.Context(), io.Discard, backup1, registered, dump(m.disk.store))
		require.NoError(t, err)

		// The host's view of its store is older than the rotation, or newer.
		rotate := func() { w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage))) }
		var file bytes.Buffer
		info, err := m.node.WriteBackup(t.Context(), &file, backup1, registered, func(out io.Writer) error {
			if _, err := out.Write([]byte("a")); err != nil {
				return err
			}
			rotate()
			_, err := out.Write([]byte("b"))
			return err
		})
		require.NoError(t, err)
		require.EqualValues(t, 2, info.Bytes)

		second := applier.BackupID{2}
		w.commit(m, must(m.node.NewBackup(second)))
		_, err = m.node.WriteBackup(t.Context(), io.Discard, second, m.disk.applied, func(out io.Writer) error {
			rotate()
			w.put(m, "after", "y")
			return dump(m.disk.store)(out)
		})
		require.ErrorIs(t, err, atrest.ErrOrder)
	})
}

// An import with the wrong KEK says so, and does not spoil the directory.
func TestImportWithTheWrongKEK(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, nil, keks)
	b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file), keks)
	require.NoError(t, err)
	disk := newDisk()
	begin := func(keks *kek.Set) (*atrest.Local, error) {
		return atrest.ImportLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, b.Part(), atrest.WithFS(disk))
	}
	_, err = begin(set(t, "kms:b"))
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.ErrorIs(t, err, atrest.ErrSnapshot)
	_, err = disk.Lstat(keysJSON)
	require.Error(t, err)
	l, err := begin(keks)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// After Close nothing is imported.
func TestImportIntoAClosedNode(t *testing.T) {
	keks := set(t, "kms:a")
	b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(localBackup(t, nil, keks)), keks)
	require.NoError(t, err)
	disk := newDisk()
	n, err := atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n", KEK: keks, Propose: noPropose}, atrest.WithFS(disk))
	require.NoError(t, err)
	require.NoError(t, n.Close())
	require.ErrorIs(t, n.Import(t.Context(), b.Part()), atrest.ErrClosed)
}

// The backup of an embedded database has the index of its key state.
func TestLocalWriteBackup(t *testing.T) {
	disk := newDisk()
	keks := set(t, "kms:a")
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, atrest.WithFS(disk))
	require.NoError(t, err)
	defer l.Close()
	var file bytes.Buffer
	data := func(w io.Writer) error { _, err := io.WriteString(w, "data"); return err }
	_, err = l.WriteBackup(t.Context(), &file, backup1, data)
	require.ErrorIs(t, err, atrest.ErrOrder)
	require.NoError(t, l.Backup(backup1))
	info, err := l.WriteBackup(t.Context(), &file, backup1, data)
	require.NoError(t, err)
	require.Positive(t, info.Index)
	require.LessOrEqual(t, info.Index, l.Node().State().Index(), "a registration may have come since")
	got, err := atrest.VerifyBackup(t.Context(), &file, keks)
	require.NoError(t, err)
	require.Equal(t, info, got)
}

// A context whose cause is io.EOF does not make a part of a backup a whole one.
func TestBackupContextThatEndsWithEOF(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, bytes.Repeat([]byte("data"), 400_000), keks)
	ctx, cancel := context.WithCancelCause(t.Context())
	b, err := atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
	require.NoError(t, err)
	_, err = io.ReadFull(b, make([]byte, 100))
	require.NoError(t, err)
	cancel(io.EOF)
	_, err = io.Copy(io.Discard, b)
	require.Error(t, err)
	require.NotErrorIs(t, err, atrest.ErrBackup)
}

// A KEK that opens the key of the MAC and not the others is the wrong one, not one to
// wait for, and spoils no directory either.
func TestImportWithAKEKForSomeKeys(t *testing.T) {
	disk := newDisk()
	first := set(t, "kms:a")
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: first}, atrest.WithFS(disk))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	l, err = atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: set(t, "kms:b", "kms:a")}, atrest.WithFS(disk))
	require.NoError(t, err)
	_, err = l.Rotate(t.Context())
	require.NoError(t, err)
	part, err := l.Snapshot()
	require.NoError(t, err)
	require.NoError(t, l.Close())

	to := newDisk()
	begin := func(keks *kek.Set) error {
		l, err := atrest.ImportLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, part, atrest.WithFS(to))
		if err == nil {
			err = l.Close()
		}
		return err
	}
	err = begin(set(t, "kms:b"))
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.ErrorIs(t, err, atrest.ErrSnapshot)
	require.NotErrorIs(t, err, atrest.ErrRetry)
	away := kektest.New("kms:a")
	away.FailNext(math.MaxInt, kek.ErrUnreachable)
	require.ErrorIs(t, begin(must(kek.NewSet(kektest.New("kms:b"), away))), atrest.ErrRetry)
	names, err := to.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, begin(first))
}

// A write that looks away from an error of its writer does not make a backup of nothing.
func TestBackupWhoseWriteLooksAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("a")[0]
		w.commit(m, must(m.node.NewBackup(backup1)))
		_, err := m.node.WriteBackup(t.Context(), io.Discard, backup1, m.disk.applied, func(out io.Writer) error {
			w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage)))
			_, _ = out.Write([]byte("rows"))
			return nil
		})
		require.ErrorIs(t, err, atrest.ErrOrder)
	})
}

// On a member whose active key is not loaded a backup is one to wait for.
func TestBackupWhileTheActiveKeyIsMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("a", "b")
		a, b := ms[0], ms[1]
		b.keks[0].FailNext(math.MaxInt, kek.ErrUnreachable)
		w.commit(a, must(a.node.NewRotation(t.Context(), key.Storage)))
		w.commit(a, must(a.node.NewBackup(backup1)))
		var out bytes.Buffer
		_, err := b.node.WriteBackup(t.Context(), &out, backup1, b.disk.applied, dump(b.disk.store))
		require.ErrorIs(t, err, atrest.ErrRetry)
		require.Zero(t, out.Len())
		b.keks[0].Heal()
		w.advance(time.Minute)
		_, err = b.node.WriteBackup(t.Context(), &out, backup1, b.disk.applied, dump(b.disk.store))
		require.NoError(t, err)
	})
}

// Each backup has a registration of its own.
func TestBackupOfAnotherRegistration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("a")[0]
		write := func(id applier.BackupID) error {
			_, err := m.node.WriteBackup(t.Context(), io.Discard, id, m.disk.applied, dump(m.disk.store))
			return err
		}
		w.commit(m, must(m.node.NewBackup(backup1)))
		require.ErrorIs(t, write(applier.BackupID{2}), atrest.ErrOrder)
		w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage)))
		w.commit(m, must(m.node.NewBackup(applier.BackupID{2})))
		require.ErrorIs(t, write(backup1), atrest.ErrOrder, "it does not name the key")
		require.NoError(t, write(applier.BackupID{2}))
	})
}

// What a context was ended for is no verdict on a backup that was being read, nor on one
// whose KEK was being asked.
func TestCauseOfAContextIsNoVerdictOnABackup(t *testing.T) {
	k := kektest.New("kms:a")
	keks := must(kek.NewSet(k))
	file := localBackup(t, bytes.Repeat([]byte("data"), 400_000), keks)
	for _, cause := range []error{atrest.ErrBackup, atrest.ErrSnapshot, stream.ErrIntegrity, io.EOF} {
		ctx, cancel := context.WithCancelCause(t.Context())
		b, err := atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
		require.NoError(t, err)
		cancel(cause)
		_, err = io.Copy(io.Discard, b)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, cause)

		ctx, cancel = context.WithCancelCause(t.Context())
		arrived, release := k.Hold()
		go func() {
			<-arrived
			cancel(cause)
		}()
		_, err = atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
		release()
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, cause)
	}
}

// rogue is a source that does not keep to what io.Reader says.
type rogue func(b []byte) (int, error)

func (r rogue) Read(b []byte) (int, error) { return r(b) }

func TestBackupFromARogueSource(t *testing.T) {
	keks := set(t, "kms:a")
	for _, r := range []rogue{
		func([]byte) (int, error) { return -1, nil },
		func(b []byte) (int, error) { return len(b) + 1, nil },
		func([]byte) (int, error) { return 0, nil },
	} {
		_, err := atrest.ReadBackup(t.Context(), r, keks)
		require.Error(t, err)
		require.NotErrorIs(t, err, atrest.ErrBackup)
	}
}

// The options of readers are looked at as those of Open are.
func TestBackupReadersCheckTheirOptions(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, nil, keks)
	part := func() []byte {
		b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file), keks, atrest.WithGeneration1(atrest.Generation1{}))
		require.NoError(t, err, "how the node runs is no matter")
		return b.Part()
	}()
	for _, opt := range []atrest.Option{atrest.WithObserver(nil), atrest.WithKEKTimeout(0)} {
		_, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks, opt)
		require.ErrorIs(t, err, atrest.ErrConfig)
		_, err = atrest.ImportLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, part, opt)
		require.ErrorIs(t, err, atrest.ErrConfig)
	}
}

// A backup of a later version says that it is one.
func TestBackupOfALaterVersion(t *testing.T) {
	keks := set(t, "kms:a")
	file := localBackup(t, nil, keks)
	file[3] = 3
	_, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
	require.ErrorIs(t, err, atrest.ErrVersion)
	require.ErrorIs(t, err, atrest.ErrBackup)
	require.ErrorContains(t, err, "version 3")
	require.ErrorContains(t, err, atrest.ErrBackup.Error())
	file[3] = 2
	file[0] = 1
	_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
	require.NotErrorIs(t, err, atrest.ErrVersion)
}

// A backup brings keys that were destroyed as what they are.
func TestBackupWithADestroyedKey(t *testing.T) {
	disk := newDisk()
	keks := set(t, "kms:a")
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, atrest.WithFS(disk))
	require.NoError(t, err)
	defer l.Close()
	old, _ := l.Node().State().Active(key.Storage)
	_, err = l.Rotate(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Stop(old.ID))
	require.NoError(t, l.Destroy(old.ID, 0))
	require.NoError(t, l.Backup(backup1))
	var file bytes.Buffer
	info, err := l.WriteBackup(t.Context(), &file, backup1, func(io.Writer) error { return nil })
	require.NoError(t, err)
	require.NotContains(t, info.Keys, old.ID)
	_, err = atrest.VerifyBackup(t.Context(), &file, keks)
	require.NoError(t, err)
}

// Of several imports at once one begins the cluster.
func TestImportsAtOnce(t *testing.T) {
	keks := set(t, "kms:a")
	b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(localBackup(t, nil, keks)), keks)
	require.NoError(t, err)
	disk := newDisk()
	n, err := atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n", KEK: keks, Propose: noPropose}, atrest.WithFS(disk))
	require.NoError(t, err)
	defer n.Close()
	results := make(chan error)
	for range 8 {
		go func() { results <- n.Import(t.Context(), b.Part()) }()
	}
	began := 0
	for range 8 {
		if err := <-results; err == nil {
			began++
		} else {
			require.ErrorIs(t, err, atrest.ErrOrder)
		}
	}
	require.Equal(t, 1, began)
}
