package keystore_test

import (
	"bytes"
	"crypto/fips140"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
)

var (
	group    = envelope.RaftGroup{Cluster: key.ClusterID{1, 2, 3}, Label: "group 1"}
	location = []byte("table/7/row/42")
	value    = []byte("a value of some length")
)

func newStore(t testing.TB, opts ...keystore.Option) *keystore.Store {
	t.Helper()
	s, err := keystore.New(opts...)
	require.NoError(t, err)
	return s
}

// fixedDEK returns a DEK that is the same in every run.
func fixedDEK(t testing.TB, n byte) key.DEK {
	t.Helper()
	dek, err := insecurekey.New(bytes.Repeat([]byte{n}, 32))
	require.NoError(t, err)
	return dek
}

// install adds storage keys with random DEKs.
func install(t testing.TB, s *keystore.Store, ids ...key.ID) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, s.Install(id, key.Storage, key.NewDEK()))
	}
}

// sealing returns a store whose storage key 1 is active.
func sealing(t testing.TB, opts ...keystore.Option) *keystore.Store {
	t.Helper()
	s := newStore(t, opts...)
	install(t, s, 1)
	require.NoError(t, s.ActivateCounted(1, envelope.Writer{Node16: 1, Epoch: 1}))
	return s
}

// requireKeyError requires a KeyError about id that is want.
func requireKeyError(t require.TestingT, err error, id key.ID, want error) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	var ke *keystore.KeyError
	require.ErrorAs(t, err, &ke)
	require.Equal(t, id, ke.ID)
	require.ErrorIs(t, err, want)
}

func status(t testing.TB, s *keystore.Store, id key.ID) keystore.KeyStatus {
	t.Helper()
	for _, k := range s.Status() {
		if k.ID == id {
			return k
		}
	}
	t.Fatalf("no status of key %s", id)
	return keystore.KeyStatus{}
}

func countedSuite() envelope.Suite {
	if fips140.Enforced() {
		return envelope.XAES256GCM
	}
	return envelope.AES256GCM
}

func TestInstallIsSetOnce(t *testing.T) {
	s := newStore(t)
	a, b := fixedDEK(t, 1), fixedDEK(t, 2)
	require.NoError(t, s.Install(7, key.Storage, a))
	require.NoError(t, s.Install(7, key.Storage, fixedDEK(t, 1)), "the same bytes")
	requireKeyError(t, s.Install(7, key.Storage, b), 7, keystore.ErrKeyConflict)
	requireKeyError(t, s.Install(7, key.Raft, a), 7, keystore.ErrKeyConflict)
	requireKeyError(t, s.Install(7, key.Storage, key.DEK{}), 7, keystore.ErrKeyConflict)
	require.Equal(t, key.OpenOnly, status(t, s, 7).State, "a new key only opens")

	require.ErrorIs(t, s.Install(0, key.Storage, a), key.ErrReservedID)
	require.ErrorIs(t, s.Install(8, 3, a), key.ErrPurpose)
	require.ErrorContains(t, s.Install(8, key.Storage, key.DEK{}), "zero DEK")
	require.Len(t, s.Status(), 1)
}

// Of many that install different keys under one id, one wins, and it alone can
// install its key again.
func TestInstallRace(t *testing.T) {
	for range 50 {
		s := newStore(t)
		var (
			wg   sync.WaitGroup
			deks [4]key.DEK
			errs [4]error
		)
		for i := range deks {
			deks[i] = key.NewDEK()
			wg.Go(func() { errs[i] = s.Install(1, key.Storage, deks[i]) })
		}
		wg.Wait()
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
			} else {
				requireKeyError(t, err, 1, keystore.ErrKeyConflict)
			}
			require.Equal(t, err, s.Install(1, key.Storage, deks[i]))
		}
		require.Equal(t, 1, won)
	}
}

// A key that is installed while an Open looks for it is found or unknown, never
// said to be destroyed.
func TestInstallMeetsOpen(t *testing.T) {
	s := newStore(t)
	env := append([]byte{1, 0, 0, 0, 0, 7}, make([]byte, 40)...)
	requireKeyError(t, keystore.LookupAgain(s, env), 7, keystore.ErrUnknownKey)
	install(t, s, 7)
	require.NoError(t, keystore.LookupAgain(s, env))
}

func TestTombstones(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.InstallDestroyed(7, key.Storage))
	require.NoError(t, s.InstallDestroyed(7, key.Storage))
	requireKeyError(t, s.InstallDestroyed(7, key.Raft), 7, keystore.ErrKeyConflict)
	requireKeyError(t, s.Install(7, key.Storage, key.NewDEK()), 7, keystore.ErrDestroyed)
	require.NoError(t, s.Destroy(7))
	install(t, s, 8)
	requireKeyError(t, s.InstallDestroyed(8, key.Storage), 8, keystore.ErrKeyConflict)
	require.ErrorIs(t, s.InstallDestroyed(0, key.Storage), key.ErrReservedID)
	require.ErrorIs(t, s.InstallDestroyed(9, 0), key.ErrPurpose)

	env := append([]byte{1, 0, 0, 0, 0, 7}, make([]byte, 40)...)
	_, err := s.Storage().Open(nil, env, nil)
	requireKeyError(t, err, 7, keystore.ErrDestroyed)
}

// A key's life, with everything that is refused on the way.
func TestLife(t *testing.T) {
	s := newStore(t)
	dek := key.NewDEK()
	v := s.Storage()
	w := envelope.Writer{Node16: 9, Epoch: 3}

	for _, f := range []func() error{
		func() error { return s.Activate(7) },
		func() error { return s.ActivateCounted(7, w) },
		func() error { return s.Stop(7) },
		func() error { return s.Destroy(7) },
		func() error { _, err := s.Usage(7); return err },
		func() error { return s.SetReserved(7, envelope.Usage{}) },
		func() error { return s.Reserved(7, envelope.Usage{}) },
		func() error { _, err := s.MAC(7, "l"); return err },
		func() error { return s.VerifyMAC(7, "l", nil) },
		func() error { _, err := s.Subkey(7, "l"); return err },
	} {
		requireKeyError(t, f(), 7, keystore.ErrUnknownKey)
	}
	_, err := v.Seal(nil, value, location)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)
	_, err = s.Raft(group).Seal(nil, value)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)

	require.NoError(t, s.Install(7, key.Storage, dek))
	_, err = v.Seal(nil, value, location)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey, "installing is not activating")
	requireKeyError(t, s.Destroy(7), 7, keystore.ErrNotStopped)

	require.NoError(t, s.ActivateCounted(7, w))
	id, ok := s.Active(key.Storage)
	require.True(t, ok)
	require.Equal(t, key.ID(7), id)
	_, ok = s.Active(key.Raft)
	require.False(t, ok)
	_, ok = s.Active(99)
	require.False(t, ok)
	env, err := v.Seal(nil, value, location)
	require.NoError(t, err)
	requireKeyError(t, s.Stop(7), 7, keystore.ErrActive)
	requireKeyError(t, s.Destroy(7), 7, keystore.ErrNotStopped)

	install(t, s, 8)
	require.NoError(t, s.Activate(8))
	require.Equal(t, key.OpenOnly, status(t, s, 7).State)
	require.NoError(t, s.Stop(7))
	require.NoError(t, s.Stop(7))
	require.Equal(t, key.Stopped, status(t, s, 7).State)
	requireKeyError(t, s.Activate(7), 7, keystore.ErrStopped)
	requireKeyError(t, s.ActivateCounted(7, envelope.Writer{Epoch: 9}), 7, keystore.ErrStopped)
	require.NoError(t, s.Install(7, key.Storage, dek), "still the same key")
	got, err := v.Open(nil, env, location)
	require.NoError(t, err, "a stopped key opens")
	require.Equal(t, value, got)

	require.NoError(t, s.Destroy(7))
	require.NoError(t, s.Destroy(7))
	require.Equal(t, key.Destroyed, status(t, s, 7).State)
	for _, f := range []func() error{
		func() error { return s.Install(7, key.Storage, dek) },
		func() error { return s.Activate(7) },
		func() error { return s.ActivateCounted(7, envelope.Writer{Epoch: 9}) },
		func() error { return s.Stop(7) },
		func() error { _, err := v.Open(nil, env, location); return err },
		func() error { _, err := s.MAC(7, "l"); return err },
		func() error { return s.VerifyMAC(7, "l", nil) },
		func() error { _, err := s.Subkey(7, "l"); return err },
	} {
		requireKeyError(t, f(), 7, keystore.ErrDestroyed)
	}
}

func TestEpochs(t *testing.T) {
	for _, opts := range [][]keystore.Option{nil, {keystore.WithExtendedOnly()}} {
		s := newStore(t, opts...)
		install(t, s, 1, 2)
		counted := func(id key.ID, epoch uint16) error {
			return s.ActivateCounted(id, envelope.Writer{Node16: 5, Epoch: epoch})
		}
		require.NoError(t, counted(1, 0), "0 is an epoch")
		requireKeyError(t, counted(1, 0), 1, keystore.ErrEpochUsed)
		require.NoError(t, counted(1, 5))
		require.NoError(t, counted(2, 5), "epochs belong to a key")
		requireKeyError(t, counted(1, 5), 1, keystore.ErrEpochUsed)
		requireKeyError(t, counted(1, 4), 1, keystore.ErrEpochUsed)
		id, _ := s.Active(key.Storage)
		require.Equal(t, key.ID(2), id, "a refusal changes nothing")
		require.NoError(t, s.Activate(1), "extended nonces need no epoch")
		requireKeyError(t, counted(1, 5), 1, keystore.ErrEpochUsed)
		require.NoError(t, counted(1, 65535))
		requireKeyError(t, counted(1, 65535), 1, keystore.ErrEpochUsed)
	}
}

func TestSuites(t *testing.T) {
	s := newStore(t)
	install(t, s, 1, 2)
	v := s.Storage()
	suite := func() envelope.Suite {
		t.Helper()
		env, err := v.Seal(nil, value, location)
		require.NoError(t, err)
		h, err := envelope.ParseHeader(env)
		require.NoError(t, err)
		id, _ := s.Active(key.Storage)
		require.Equal(t, id, h.KeyID)
		require.Equal(t, h.Suite, status(t, s, id).Suite)
		return h.Suite
	}
	require.NoError(t, s.Activate(1))
	require.Equal(t, envelope.XAES256GCM, suite(), "before an epoch is durable")
	require.Zero(t, status(t, s, 2).Suite, "seals nothing")
	require.NoError(t, s.ActivateCounted(1, envelope.Writer{Epoch: 1}))
	require.Equal(t, countedSuite(), suite())
	require.NoError(t, s.Activate(1), "active already: stays counted")
	require.Equal(t, countedSuite(), suite())
	require.NoError(t, s.Activate(2))
	require.Equal(t, envelope.XAES256GCM, suite())
	require.NoError(t, s.Activate(1))
	require.Equal(t, envelope.XAES256GCM, suite(), "an epoch serves once")

	s = newStore(t, keystore.WithExtendedOnly())
	v = s.Storage()
	install(t, s, 1)
	require.NoError(t, s.ActivateCounted(1, envelope.Writer{Epoch: 1}))
	require.Equal(t, envelope.XAES256GCM, suite())
}

func TestPurposes(t *testing.T) {
	s := newStore(t)
	dek := key.NewDEK() // one DEK under two ids: only the purpose differs
	require.NoError(t, s.Install(1, key.Storage, dek))
	require.NoError(t, s.Install(2, key.Raft, dek))
	v, r := s.Storage(), s.Raft(group)

	require.NoError(t, s.Activate(1))
	_, err := r.Seal(nil, value)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey, "a storage key seals no payload")
	require.NoError(t, s.Activate(2))

	env, err := v.Seal(nil, value, location)
	require.NoError(t, err)
	payload, err := r.Seal(nil, value)
	require.NoError(t, err)

	_, err = r.Open(nil, env)
	requireKeyError(t, err, 1, keystore.ErrPurpose)
	_, err = v.Open(nil, payload, location)
	requireKeyError(t, err, 2, keystore.ErrPurpose)
	got, err := r.Open(nil, payload)
	require.NoError(t, err)
	require.Equal(t, value, got)
	_, err = s.Raft(envelope.RaftGroup{Cluster: group.Cluster, Label: "group 2"}).Open(nil, payload)
	require.ErrorIs(t, err, envelope.ErrIntegrity)
}

// An envelope that cannot be opened says what is wrong with it, not with a key
// that it happens to name.
func TestOpenErrors(t *testing.T) {
	s := sealing(t)
	env, err := s.Storage().Seal(nil, value, location)
	require.NoError(t, err)
	change := func(i int, b byte) []byte {
		e := bytes.Clone(env)
		e[i] = b
		return e
	}
	for name, c := range map[string]struct {
		env  []byte
		want error
	}{
		"nothing":          {nil, envelope.ErrShort},
		"five bytes":       {env[:5], envelope.ErrShort},
		"header only":      {env[:6], envelope.ErrShort},
		"unknown version":  {change(0, 9), envelope.ErrSuite},
		"unknown flag":     {change(1, 7), envelope.ErrSuite},
		"another suite":    {append([]byte{2, 1}, env[2:]...), envelope.ErrIntegrity},
		"no key":           {change(5, 0), key.ErrReservedID},
		"unknown key":      {change(5, 3), keystore.ErrUnknownKey},
		"neither":          {append([]byte{9, 9, 9, 9, 9, 9}, env[6:]...), envelope.ErrSuite},
		"changed nonce":    {change(8, env[8]^1), envelope.ErrIntegrity},
		"changed tag":      {change(len(env)-1, env[len(env)-1]^1), envelope.ErrIntegrity},
		"one byte missing": {env[:len(env)-1], envelope.ErrIntegrity},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.Storage().Open(nil, c.env, location)
			require.ErrorIs(t, err, c.want)
			require.Nil(t, got)
		})
	}
	_, err = s.Storage().Open(nil, env, []byte("elsewhere"))
	require.ErrorIs(t, err, envelope.ErrIntegrity)
}

func TestSealErrors(t *testing.T) {
	s := sealing(t)
	require.NoError(t, s.Install(2, key.Raft, key.NewDEK()))
	require.NoError(t, s.Activate(2))
	got, err := s.Storage().Seal(nil, value, make([]byte, envelope.MaxLocation+1))
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.Nil(t, got)
	long := envelope.RaftGroup{Label: string(make([]byte, envelope.MaxGroup+1))}
	got, err = s.Raft(long).Seal(nil, value)
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.Nil(t, got)
}

func TestErrorTexts(t *testing.T) {
	s := sealing(t, keystore.WithLimits(keystore.Limits{Seals: 1, Bytes: 1 << 20, Refuse: true}))
	v := s.Storage()
	_, err := v.Seal(nil, value, nil)
	require.NoError(t, err)
	_, err = v.Seal(nil, value, nil)
	require.EqualError(t, err, "keystore: key 1: sealed as much as it may")
	require.EqualError(t, s.Stop(1), "keystore: key 1: is the active key")
	require.EqualError(t, s.Stop(2), "keystore: key 2: not in this keystore")
	_, err = s.Raft(group).Seal(nil, nil)
	require.EqualError(t, err, "keystore: no active key")
}

func TestStatusIsSorted(t *testing.T) {
	s := newStore(t)
	require.Empty(t, s.Status())
	for _, id := range []key.ID{5, 1 << 31, 1, 77, 3} {
		install(t, s, id)
	}
	var ids []key.ID
	for _, k := range s.Status() {
		ids = append(ids, k.ID)
		require.Equal(t, keystore.KeyStatus{ID: k.ID, Purpose: key.Storage, State: key.OpenOnly}, k)
	}
	require.Equal(t, []key.ID{1, 3, 5, 77, 1 << 31}, ids)
}

func TestNewRefusesZeroLimits(t *testing.T) {
	for _, l := range []keystore.Limits{{}, {Seals: 1}, {Bytes: 1}} {
		s, err := keystore.New(keystore.WithLimits(l))
		require.ErrorIs(t, err, keystore.ErrLimits)
		require.Nil(t, s)
	}
}

// Values stay readable however many rotations lie between.
func TestRotations(t *testing.T) {
	s := newStore(t)
	v := s.Storage()
	var envs [][]byte
	for id := key.ID(1); id <= 100; id++ {
		install(t, s, id)
		require.NoError(t, s.ActivateCounted(id, envelope.Writer{Epoch: 1}))
		env, err := v.Seal(nil, []byte(id.String()), location)
		require.NoError(t, err)
		envs = append(envs, env)
	}
	for i, env := range envs {
		got, err := v.Open(nil, env, location)
		require.NoError(t, err)
		require.Equal(t, key.ID(i+1).String(), string(got))
	}
}

func TestAllocations(t *testing.T) {
	for name, s := range map[string]*keystore.Store{
		"counted":  sealing(t),
		"extended": sealing(t, keystore.WithExtendedOnly()),
	} {
		require.NoError(t, s.Install(2, key.Raft, key.NewDEK()))
		require.NoError(t, s.ActivateCounted(2, envelope.Writer{Epoch: 1}))
		v, r := s.Storage(), s.Raft(group)
		dst := make([]byte, 0, 1024)
		env, err := v.Seal(nil, value, location)
		require.NoError(t, err)
		payload, err := r.Seal(nil, value)
		require.NoError(t, err)
		for what, f := range map[string]func() error{
			"storage seal": func() error { _, err := v.Seal(dst, value, location); return err },
			"storage open": func() error { _, err := v.Open(dst, env, location); return err },
			"raft seal":    func() error { _, err := r.Seal(dst, value); return err },
			"raft open":    func() error { _, err := r.Open(dst, payload); return err },
		} {
			got := testing.AllocsPerRun(5000, func() {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			})
			require.Zero(t, got, "%s, %s", name, what)
		}
	}
}

// How keys seal is an option; all of it opens in every store.
func TestSealingOptions(t *testing.T) {
	value, location := bytes.Repeat([]byte("value "), 20), []byte("location")
	s := newStore(t, keystore.WithSealing(envelope.WithCompression()))
	require.NoError(t, s.Install(7, key.Storage, fixedDEK(t, 1)))
	require.NoError(t, s.Activate(7))
	env, err := s.Storage().Seal(nil, value, location)
	require.NoError(t, err)
	require.Equal(t, []byte{byte(envelope.XAES256GCM), 1}, env[:2])
	require.Less(t, len(env), len(value))

	plain := newStore(t)
	require.NoError(t, plain.Install(7, key.Storage, fixedDEK(t, 1)))
	got, err := plain.Storage().Open(nil, env, location)
	require.NoError(t, err)
	require.Equal(t, value, got)
}
