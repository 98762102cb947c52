package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha3"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

// The accumulated vector of the C2SP reference code: 10,000 inputs from SHAKE128,
// the ciphertexts hashed.
func TestXAESAccumulated(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("strict FIPS mode lets nobody choose the nonces")
	}
	const want = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	s, d := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		_, err := s.Read(b)
		require.NoError(t, err)
		return b
	}
	for range 10_000 {
		k, nonce := read(32), read(24)
		plaintext := read(int(read(1)[0]))
		aad := read(int(read(1)[0]))
		gcm := envelope.NewXAES(t, hexBytes(k).dek(t), nonce)
		ciphertext := gcm.Seal(nil, nonce[12:], plaintext, aad)
		_, err := d.Write(ciphertext)
		require.NoError(t, err)
		got, err := gcm.Open(nil, nonce[12:], ciphertext, aad)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
	}
	sum := make([]byte, 32)
	_, err := d.Read(sum)
	require.NoError(t, err)
	require.Equal(t, want, hex.EncodeToString(sum))
}

// newTink returns Tink's X-AES-GCM with 192-bit nonces under the key that suite
// 0x03 of a cipher made by NewCipherForSuiteKey has.
func newTink(t *testing.T, k key.DEK) tink.AEAD {
	t.Helper()
	params, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, 12)
	require.NoError(t, err)
	tk, err := xaesgcm.NewKey(secretdata.NewBytesFromData(insecurekey.Bytes(k), insecuresecretdataaccess.Token{}), 0, params)
	require.NoError(t, err)
	m := keyset.NewManager()
	id, err := m.AddKey(tk)
	require.NoError(t, err)
	require.NoError(t, m.SetPrimary(id))
	handle, err := m.Handle()
	require.NoError(t, err)
	a, err := aead.New(handle)
	require.NoError(t, err)
	return a
}

// What Tink seals opens here, and the other way round: the body of an envelope of
// suite 0x03 is what X-AES-GCM makes of the same associated data.
func TestXAESEqualsTink(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("Tink's X-AES-GCM does not work in strict FIPS mode")
	}
	for size := range 300 {
		k := key.NewDEK()
		theirs := newTink(t, k)
		c := envelope.NewCipherForSuiteKey(t, keyID, k)
		plaintext := bytes.Repeat([]byte{byte(size)}, size)
		h := envelope.Header{Suite: envelope.XAES256GCM, KeyID: keyID}
		aad := envelope.AppendStorageAAD(nil, h, location)
		head := envelope.AppendStorageAAD(nil, h, nil) // without a location, it is the header

		body, err := theirs.Encrypt(plaintext, aad)
		require.NoError(t, err)
		got, err := c.OpenStorage(nil, append(bytes.Clone(head), body...), location)
		require.NoError(t, err)
		require.Equal(t, plaintext, got)

		env, err := extended(t, c, nil).SealStorage(nil, plaintext, location)
		require.NoError(t, err)
		got, err = theirs.Decrypt(env[len(head):], aad)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
	}
}
