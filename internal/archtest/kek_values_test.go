package archtest_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"golang.org/x/crypto/argon2"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
)

// sourceValues are KEKs of other sources, after use, and the keys in them.
func sourceValues(t *testing.T) (map[string]any, [][]byte) {
	t.Helper()
	cost := kek.Cost{Time: kek.MinTime, Memory: kek.MinMemory, Threads: 1}
	passphrase, err := kek.Passphrase(fixedBytes(3), kek.WithCost(cost))
	require.NoError(t, err)
	params, _, err := passphrase.WrapParams(t.Context(), fixedBytes(4), nil)
	require.NoError(t, err)
	derived := argon2.IDKey(fixedBytes(3), params[len(params)-16:], cost.Time, cost.Memory, cost.Threads, 32)

	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	primary, err := handle.Primary()
	require.NoError(t, err)
	gcm, ok := primary.Key().(*aesgcm.Key)
	require.True(t, ok)
	var text bytes.Buffer
	require.NoError(t, insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)))
	path := filepath.Join(t.TempDir(), "keyset")
	require.NoError(t, os.WriteFile(path, text.Bytes(), 0o600))
	tink, err := tinkkek.InsecureCleartextFile(path)
	require.NoError(t, err)
	require.NoError(t, kek.Verify(t.Context(), tink))

	opener := kek.Opener(func(context.Context, string, map[string]string) (kek.KEK, error) { return tink, nil })
	return map[string]any{
		"kek.Argon2id":         passphrase,
		"kek.Cost":             cost,
		"kek.PassphraseOption": kek.WithCost(cost),
		"kek.Opener":           opener,
		"tinkkek.KEK":          tink,
		"tinkkek.Option":       tinkkek.WithID("a"),
	}, [][]byte{fixedBytes(3), derived, gcm.KeyBytes().Data(insecuresecretdataaccess.Token{})}
}
