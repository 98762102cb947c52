package atrest_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

// rowStore is a host's store of rows of the registry.
type rowStore struct {
	mu   sync.Mutex
	rows map[string]string
	err  error
}

func (s *rowStore) SetRegistryRows(rows []applier.RegistryRow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for _, r := range rows {
		s.rows[string(r.Key)] = string(r.Value)
	}
	return nil
}

func (s *rowStore) has(t *testing.T, want *applier.State) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range applier.RegistryRows(want) {
		require.Equal(t, string(r.Value), s.rows[string(r.Key)])
	}
}

// A host that wants it has every row of the registry in its own store, and a crash
// between the key state and the row is made good by the next start.
func TestMirrorOfTheRegistry(t *testing.T) {
	keks, err := kek.NewSet(kektest.New("kms:a"))
	require.NoError(t, err)
	cfg := atrest.LocalConfig{Dir: t.TempDir(), KEK: keks}
	store := &rowStore{rows: map[string]string{}}
	l, err := atrest.OpenLocal(t.Context(), cfg, atrest.WithMirror(store))
	require.NoError(t, err)
	_, err = l.Rotate(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	store.has(t, l.Node().State())
	_, ok := l.Node().State().Active(key.Storage)
	require.True(t, ok)

	clear(store.rows)
	l, err = atrest.OpenLocal(t.Context(), cfg, atrest.WithMirror(store))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	store.has(t, l.Node().State())

	store.err = errors.New("the store is full")
	_, err = atrest.OpenLocal(t.Context(), cfg, atrest.WithMirror(store))
	require.ErrorIs(t, err, store.err)
}
