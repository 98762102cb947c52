package archtest_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// fixture is a whole set-up whose keys are known: a value of every exported type
// of the root module that is not an interface, and the keys hidden in them.
type fixture struct {
	values map[string]any // by package and name
	keys   [][]byte
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	dek, err := insecurekey.New(fixedBytes(1))
	require.NoError(t, err)
	set, keks := kekValues(t, dek)
	f := fixture{values: keyValues(), keys: [][]byte{fixedBytes(1), fixedBytes(2)}}
	f.values["key.DEK"] = dek
	maps.Copy(f.values, keks)
	sources, sourceKeys := sourceValues(t)
	maps.Copy(f.values, sources)
	f.keys = append(f.keys, sourceKeys...)
	maps.Copy(f.values, envelopeValues(t, dek))
	maps.Copy(f.values, keystoreValues(t, dek))
	streams, streamKeys := streamValues(t, dek)
	maps.Copy(f.values, streams)
	f.keys = append(f.keys, streamKeys...)
	maps.Copy(f.values, guardValues())
	sidecars, fileKey := sidecarValues(t, set)
	maps.Copy(f.values, sidecars)
	nodes, deks := nodeValues(t, set)
	maps.Copy(f.values, nodes)
	for _, dek := range deks {
		f.keys = append(f.keys, insecurekey.Bytes(dek))
	}

	// What is derived from a key is as secret as the key.
	for _, label := range []string{"atrest/v2/xaes-256-gcm", "test-label"} {
		f.keys = append(f.keys, secret.Expand(dek, label, secret.Size))
	}
	f.keys = append(f.keys, insecurekey.Bytes(fileKey), secret.Expand(fileKey, "atrest/v2/keys.json", secret.Size))
	return f
}

func keyValues() map[string]any {
	header := key.Header{Cluster: key.ClusterID{1}, ID: 7, Purpose: key.Storage}
	recipient := key.Recipient{KEK: "kms:a", Wrap: []byte("wrapped")}
	return map[string]any{
		"key.ID":            key.ID(7),
		"key.Purpose":       key.Storage,
		"key.State":         key.Active,
		"key.ClusterID":     key.ClusterID{1},
		"key.Check":         key.Check{2},
		"key.Header":        header,
		"key.Recipient":     recipient,
		"key.Container":     key.Container{Header: header, Recipients: []key.Recipient{recipient}},
		"key.FileHeader":    key.FileHeader{Node: 3},
		"key.FileContainer": key.FileContainer{Recipients: []key.Recipient{recipient}},

		"nodeid.ID":        nodeid.Derive("n1"),
		"nodeid.Member":    nodeid.Member{Name: "n1", ID: 1},
		"nodeid.Collision": nodeid.Collision{A: nodeid.Member{Name: "n1", ID: 1}, B: nodeid.Member{Name: "n2", ID: 1}},
	}
}

// kekValues holds fixedBytes(2) as a KEK.
func kekValues(t *testing.T, dek key.DEK) (*kek.Set, map[string]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	require.NoError(t, os.WriteFile(path, fixedBytes(2), 0o600))
	aes, err := kek.File(path)
	require.NoError(t, err)
	set, err := kek.NewSet(aes)
	require.NoError(t, err)

	// Errors that were met with the keys at hand.
	container, err := set.WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, dek)
	require.NoError(t, err)
	fake := kektest.New("kms:a")
	fakes, err := kek.NewSet(fake)
	require.NoError(t, err)
	_, _, err = fakes.UnwrapDEK(t.Context(), container)
	unwrap := as[*kek.UnwrapError](t, err)
	fake.FailNext(1, kek.ErrDenied)
	_, err = fakes.WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, dek)
	denied := as[*kek.Error](t, err)

	long := filepath.Join(t.TempDir(), "long")
	require.NoError(t, os.WriteFile(long, append(fixedBytes(2), 1), 0o600))
	_, err = kek.File(long)
	source := as[*kek.SourceError](t, err)

	return set, map[string]any{
		"kek.AES":         aes,
		"kek.Set":         set,
		"kek.FileOption":  kek.AllowSymlink(),
		"kek.Error":       denied,
		"kek.UnwrapError": unwrap,
		"kek.SourceError": source,
		"kektest.KEK":     fake,
		"kektest.Calls":   fake.Calls(),
	}
}

func as[E error](t *testing.T, err error) E {
	t.Helper()
	var e E
	require.ErrorAs(t, err, &e)
	return e
}

func envelopeValues(t *testing.T, dek key.DEK) map[string]any {
	t.Helper()
	c, err := envelope.NewCipher(7, dek)
	require.NoError(t, err)
	s, err := c.NewSealer(nil)
	require.NoError(t, err)
	env, err := s.SealStorage(nil, []byte("value"), nil)
	require.NoError(t, err)
	_, err = c.OpenStorage(nil, env, nil)
	require.NoError(t, err)
	return map[string]any{
		"envelope.Suite":     envelope.AES256GCM,
		"envelope.Header":    envelope.Header{Suite: envelope.AES256GCM, KeyID: 7},
		"envelope.Usage":     envelope.Usage{Seals: 1},
		"envelope.Writer":    envelope.Writer{Node16: 1, Epoch: 2},
		"envelope.RaftGroup": envelope.RaftGroup{Label: "group"},
		"envelope.Cipher":    c,
		"envelope.Sealer":    s,
	}
}

func keystoreValues(t *testing.T, dek key.DEK) map[string]any {
	t.Helper()
	st, err := keystore.New()
	require.NoError(t, err)
	require.NoError(t, st.Install(7, key.Storage, dek))
	require.NoError(t, st.ActivateCounted(7, envelope.Writer{Node16: 1, Epoch: 1}))
	_, err = st.Storage().Seal(nil, []byte("value"), nil)
	require.NoError(t, err)
	_, err = st.MAC(7, "test-label")
	require.NoError(t, err)
	_, err = st.Subkey(7, "test-label")
	require.NoError(t, err)
	other, err := insecurekey.New(fixedBytes(2))
	require.NoError(t, err)
	conflict := as[*keystore.KeyError](t, st.Install(7, key.Storage, other))
	return map[string]any{
		"keystore.Store":     st,
		"keystore.Storage":   st.Storage(),
		"keystore.Raft":      st.Raft(envelope.RaftGroup{Label: "group"}),
		"keystore.Limits":    keystore.DefaultLimits,
		"keystore.Option":    keystore.WithLimits(keystore.DefaultLimits),
		"keystore.KeyStatus": st.Status()[0],
		"keystore.KeyError":  conflict,
	}
}

func guardValues() map[string]any {
	unwrap := guard.Unwrap{ID: 7, Purpose: key.Storage, Active: true, Err: kek.ErrWrongKey}
	return map[string]any{
		"guard.Refusal": guard.Unwrapped([]guard.Unwrap{unwrap}),
		"guard.Unwrap":  unwrap,
		"guard.Range":   guard.Range{State: 1},
	}
}

// sidecarValues also returns the file key, which is random.
func sidecarValues(t *testing.T, set *kek.Set) (map[string]any, key.DEK) {
	t.Helper()
	dir := t.TempDir()
	file, err := sidecar.Create(t.Context(), dir, 1, set)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	var tx *sidecar.Tx
	require.NoError(t, file.Update(func(t *sidecar.Tx) error {
		tx = t
		return t.SetEpoch(7, 1)
	}))
	_, err = sidecar.Open(t.Context(), dir, 1, set)
	locked := as[*sidecar.LockedError](t, err)

	var content struct {
		FileKey string `json:"file_key"`
	}
	text, err := os.ReadFile(file.Path())
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &content))
	container, err := base64.StdEncoding.DecodeString(content.FileKey)
	require.NoError(t, err)
	fileKey, err := set.UnwrapFileKey(t.Context(), 1, container)
	require.NoError(t, err)

	return map[string]any{
		"sidecar.File":        file,
		"sidecar.Tx":          tx,
		"sidecar.Option":      sidecar.WithFS(nil),
		"sidecar.Usage":       sidecar.Usage{Seals: 1},
		"sidecar.LockedError": locked,
	}, fileKey
}
