package tinkkek_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
	"github.com/atrestdb/atrest/key"
)

// ctrHMAC are the keys that work in every FIPS mode.
func ctrHMAC() *tinkpb.KeyTemplate { return aead.AES256CTRHMACSHA256KeyTemplate() }

var templates = map[string]func() *tinkpb.KeyTemplate{
	"AES128_GCM":        aead.AES128GCMKeyTemplate,
	"AES256_GCM":        aead.AES256GCMKeyTemplate,
	"AES256_GCM_RAW":    aead.AES256GCMNoPrefixKeyTemplate,
	"AES256_GCM_SIV":    aead.AES256GCMSIVKeyTemplate,
	"AES256_CTR_HMAC":   ctrHMAC,
	"XAES_192":          aead.XAES256GCM192BitNonceKeyTemplate,
	"XAES_160":          aead.XAES256GCM160BitNonceKeyTemplate,
	"CHACHA20_POLY1305": aead.ChaCha20Poly1305KeyTemplate,
	"XCHACHA20":         aead.XChaCha20Poly1305KeyTemplate,
}

func handle(t testing.TB, template *tinkpb.KeyTemplate) *keyset.Handle {
	t.Helper()
	h, err := keyset.NewHandle(template)
	require.NoError(t, err)
	return h
}

func aeadOf(t testing.TB, h *keyset.Handle) tink.AEAD {
	t.Helper()
	a, err := aead.New(h)
	require.NoError(t, err)
	return a
}

func newSet(t require.TestingT, first kek.KEK, more ...kek.KEK) *kek.Set {
	s, err := kek.NewSet(first, more...)
	require.NoError(t, err)
	return s
}

// roundTrip wraps a DEK with one KEK and unwraps it with another.
func roundTrip(t testing.TB, from, to kek.KEK) {
	t.Helper()
	dek := key.NewDEK()
	c, err := newSet(t, from).WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, dek)
	require.NoError(t, err)
	_, got, err := newSet(t, to).UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))
}

// requireOnly checks that an error is of one kind and of no other.
func requireOnly(t require.TestingT, err, kind error) {
	for _, k := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrWrongKey, kek.ErrFaulty} {
		if k == kind {
			require.ErrorIs(t, err, k)
		} else {
			require.NotErrorIs(t, err, k)
		}
	}
}

func TestFromHandle(t *testing.T) {
	for name, template := range templates {
		t.Run(name, func(t *testing.T) {
			h := handle(t, template())
			k, err := tinkkek.FromHandle(h)
			if fips140.Enforced() && name != "AES256_CTR_HMAC" {
				require.Nil(t, k)
				require.ErrorIs(t, err, kek.ErrFIPS)
				return
			}
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("tink-keyset:", h.KeysetInfo().GetPrimaryKeyId()), k.ID())
			require.NoError(t, kek.Verify(t.Context(), k))

			w, err := k.Wrap(t.Context(), make([]byte, 32), []byte("ad"))
			require.NoError(t, err)
			for bit := range 8 * len(w) {
				changed := bytes.Clone(w)
				changed[bit/8] ^= 1 << (bit % 8)
				got, err := k.Unwrap(t.Context(), changed, []byte("ad"))
				requireOnly(t, err, kek.ErrWrongKey)
				require.Nil(t, got)
			}
			for n := range w {
				_, err := k.Unwrap(t.Context(), w[:n], []byte("ad"))
				requireOnly(t, err, kek.ErrWrongKey)
			}
			other, err := tinkkek.FromHandle(handle(t, template()), tinkkek.WithID("other"))
			require.NoError(t, err)
			require.Equal(t, "other", other.ID())
			_, err = other.Unwrap(t.Context(), w, []byte("ad"))
			requireOnly(t, err, kek.ErrWrongKey)

			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = k.Wrap(ctx, make([]byte, 32), nil)
			requireOnly(t, err, kek.ErrUnreachable)
			require.ErrorIs(t, err, context.Canceled)
			_, err = k.Unwrap(ctx, w, nil)
			requireOnly(t, err, kek.ErrUnreachable)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

func TestFromHandleRefuses(t *testing.T) {
	envelope, err := aead.CreateKMSEnvelopeAEADKeyTemplate("fake-kms://a", ctrHMAC())
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		h    *keyset.Handle
		opts []tinkkek.Option
		is   error
		text string
	}{
		"nil":   {nil, nil, tinkkek.ErrKeyset, "it is empty"},
		"empty": {new(keyset.Handle), nil, tinkkek.ErrKeyset, "it is empty"},
		"mac":   {handle(t, mac.HMACSHA256Tag256KeyTemplate()), nil, tinkkek.ErrKeyset, `key type "HmacKey" is none of an AEAD in memory`},
		"kms":   {handle(t, envelope), nil, tinkkek.ErrKeyset, `key type "KmsEnvelopeAeadKey" is none of`},
		"id":    {handle(t, ctrHMAC()), []tinkkek.Option{tinkkek.WithID("two words")}, key.ErrContainer, "printable ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := tinkkek.FromHandle(tt.h, tt.opts...)
			require.Nil(t, k)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, tt.text)
			var source *kek.SourceError
			require.ErrorAs(t, err, &source)
			require.Equal(t, "tink", source.Source)
		})
	}
}

// A rotated keyset under an id of its own opens what it wrapped before; under the
// id of its primary key it is another KEK.
func TestRotatedKeyset(t *testing.T) {
	h := handle(t, ctrHMAC())
	old, err := tinkkek.FromHandle(h, tinkkek.WithID("mine"))
	require.NoError(t, err)
	derived, err := tinkkek.FromHandle(h)
	require.NoError(t, err)

	m := keyset.NewManagerFromHandle(h)
	id, err := m.Add(ctrHMAC())
	require.NoError(t, err)
	require.NoError(t, m.SetPrimary(id))
	rotated, err := m.Handle()
	require.NoError(t, err)
	next, err := tinkkek.FromHandle(rotated, tinkkek.WithID("mine"))
	require.NoError(t, err)
	roundTrip(t, old, next)
	nextDerived, err := tinkkek.FromHandle(rotated)
	require.NoError(t, err)
	require.NotEqual(t, derived.ID(), nextDerived.ID())
	require.Equal(t, fmt.Sprint("tink-keyset:", id), nextDerived.ID())

	// A disabled key does not count: one of a type that is refused does not matter.
	bad, err := m.Add(mac.HMACSHA256Tag256KeyTemplate())
	require.NoError(t, err)
	mixed, err := m.Handle()
	require.NoError(t, err)
	_, err = tinkkek.FromHandle(mixed)
	require.ErrorIs(t, err, tinkkek.ErrKeyset)
	require.NoError(t, m.Disable(bad))
	mixed, err = m.Handle()
	require.NoError(t, err)
	k, err := tinkkek.FromHandle(mixed, tinkkek.WithID("mine"))
	require.NoError(t, err)
	roundTrip(t, old, k)
}

func TestRoundTrip(t *testing.T) {
	k, err := tinkkek.FromHandle(handle(t, ctrHMAC()))
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "plaintext")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "ad")
		before, adBefore := bytes.Clone(plaintext), bytes.Clone(ad)
		w, err := k.Wrap(t.Context(), plaintext, ad)
		require.NoError(rt, err)
		got, err := k.Unwrap(t.Context(), w, ad)
		require.NoError(rt, err)
		require.Equal(rt, plaintext, got)
		_, err = k.Unwrap(t.Context(), w, append(ad, 0))
		requireOnly(rt, err, kek.ErrWrongKey)
		require.Equal(rt, before, plaintext)
		require.Equal(rt, adBefore, ad[:len(adBefore)])
	})
}

type writing struct {
	name   string
	writer func(io.Writer) keyset.Writer
}

var writings = []writing{
	{"json", func(w io.Writer) keyset.Writer { return keyset.NewJSONWriter(w) }},
	{"binary", func(w io.Writer) keyset.Writer { return keyset.NewBinaryWriter(w) }},
}

func inClear(t testing.TB, h *keyset.Handle, w writing) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, insecurecleartextkeyset.Write(h, w.writer(&b)))
	return b.Bytes()
}

func encrypted(t testing.TB, h *keyset.Handle, w writing, master tink.AEAD) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, h.Write(w.writer(&b), master))
	return b.Bytes()
}

func write(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path
}

func TestFiles(t *testing.T) {
	master := aeadOf(t, handle(t, ctrHMAC()))
	for _, w := range writings {
		t.Run(w.name, func(t *testing.T) {
			h := handle(t, ctrHMAC())
			want, err := tinkkek.FromHandle(h)
			require.NoError(t, err)
			open, sealed := write(t, inClear(t, h, w)), write(t, encrypted(t, h, w, master))

			k, err := tinkkek.InsecureCleartextFile(open)
			require.NoError(t, err)
			require.Equal(t, want.ID(), k.ID())
			roundTrip(t, want, k)
			k, err = tinkkek.EncryptedFile(t.Context(), sealed, tinkkek.WithContext(master))
			require.NoError(t, err)
			require.Equal(t, want.ID(), k.ID())
			roundTrip(t, want, k)
			k, err = tinkkek.EncryptedFile(t.Context(), sealed, tinkkek.WithContext(master), tinkkek.WithID("mine"))
			require.NoError(t, err)
			require.Equal(t, "mine", k.ID())

			// The one for the other.
			_, err = tinkkek.InsecureCleartextFile(sealed)
			require.ErrorIs(t, err, tinkkek.ErrKeyset)
			_, err = tinkkek.EncryptedFile(t.Context(), open, tinkkek.WithContext(master))
			require.Error(t, err)
			showsNothing(t, err, inClear(t, h, w))

			// Another master.
			other := aeadOf(t, handle(t, ctrHMAC()))
			_, err = tinkkek.EncryptedFile(t.Context(), sealed, tinkkek.WithContext(other),
				tinkkek.WithErrors(func(error) error { return kek.ErrWrongKey }))
			requireOnly(t, err, kek.ErrWrongKey)
			_, err = tinkkek.EncryptedFile(t.Context(), sealed, nil)
			require.ErrorContains(t, err, "there is no AEAD")

			// The checks of kek.File.
			link := open + "-link"
			require.NoError(t, os.Symlink(open, link))
			_, err = tinkkek.InsecureCleartextFile(link)
			require.ErrorIs(t, err, kek.ErrInsecure)
			_, err = tinkkek.InsecureCleartextFile(link, tinkkek.WithFile(kek.AllowSymlink()))
			require.NoError(t, err)
			for _, path := range []string{open, sealed} {
				if os.Getuid() >= 0 {
					require.NoError(t, os.Chmod(path, 0o640))
				}
			}
			if os.Getuid() >= 0 {
				_, err = tinkkek.InsecureCleartextFile(open)
				require.ErrorIs(t, err, kek.ErrInsecure)
				_, err = tinkkek.EncryptedFile(t.Context(), sealed, tinkkek.WithContext(master))
				require.ErrorIs(t, err, kek.ErrInsecure)
			}
			_, err = tinkkek.InsecureCleartextFile(open + "-gone")
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
	for _, text := range []string{"", "{", "{}", "null", "not a keyset", `{"primaryKeyId": 1}`, `{"primaryKeyId": 1, "key": [{}]}`, "\x08\x01"} {
		path := write(t, []byte(text))
		k, err := tinkkek.InsecureCleartextFile(path)
		require.Nil(t, k)
		require.ErrorIs(t, err, tinkkek.ErrKeyset, text)
		k, err = tinkkek.EncryptedFile(t.Context(), path, tinkkek.WithContext(master))
		require.Nil(t, k)
		require.Error(t, err, text)
	}
	_, err := tinkkek.InsecureCleartextFile(write(t, make([]byte, 1<<20+1)))
	require.ErrorIs(t, err, kek.ErrTooLong)
}

// showsNothing looks for 12 characters in a row of a keyset in an error.
func showsNothing(t testing.TB, err error, text []byte) {
	t.Helper()
	for i := 0; i+12 <= len(text); i++ {
		require.NotContains(t, err.Error(), string(text[i:i+12]))
		require.NotContains(t, err.Error(), hex.EncodeToString(text[i:i+12]))
	}
}

// Whatever stands in a keyset's file, opening it ends in a KEK or in an error, and
// what does not parse is not shown.
func FuzzKeyset(f *testing.F) {
	master, err := keyset.NewHandle(ctrHMAC())
	if err != nil {
		f.Fatal(err)
	}
	a := aeadOf(f, master)
	h, err := keyset.NewHandle(ctrHMAC())
	if err != nil {
		f.Fatal(err)
	}
	for _, w := range writings {
		f.Add(inClear(f, h, w))
		f.Add(encrypted(f, h, w, a))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := write(t, text)
		check := func(k *tinkkek.KEK, err error, not string) {
			t.Helper()
			switch {
			case err == nil:
				require.NoError(t, key.CheckKEKID(k.ID()))
			case strings.Contains(err.Error(), "it is not one"):
				require.EqualError(t, err, "kek: tink "+path+": no usable AEAD keyset: it is not one, or "+not)
				fallthrough
			default:
				require.Nil(t, k)
				require.True(t, strings.HasPrefix(err.Error(), "kek: tink "+path+": "))
			}
		}
		k, err := tinkkek.InsecureCleartextFile(path)
		check(k, err, "encrypted")
		k, err = tinkkek.EncryptedFile(t.Context(), path, tinkkek.WithContext(a))
		check(k, err, "not encrypted")
	})
}

// Tink's envelopes, whose outer key a service has and whose inner one is in memory:
// every type says in its own words that something does not open.
func TestEnvelopes(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("most of their types do not work in strict FIPS mode")
	}
	master := aeadOf(t, handle(t, ctrHMAC()))
	for name, template := range templates {
		e, err := aead.NewKMSEnvelopeAEADWithContext(template(), tinkkek.WithContext(master))
		if err != nil {
			continue // not every type can be the inner one
		}
		k, err := tinkkek.New("envelope", e)
		require.NoError(t, err, name)
		require.NoError(t, kek.Verify(t.Context(), k), name)
		roundTrip(t, k, k)
	}
}

func TestNilAndZeroKEKs(t *testing.T) {
	for _, k := range []*tinkkek.KEK{nil, {}} {
		_, err := kek.NewSet(k)
		require.ErrorIs(t, err, kek.ErrConfig)
		require.ErrorIs(t, kek.Verify(t.Context(), k), kek.ErrFaulty)
		var source *kek.SourceError
		_, err = k.Wrap(t.Context(), make([]byte, 32), nil)
		require.ErrorAs(t, err, &source)
		_, err = k.Unwrap(t.Context(), make([]byte, 60), nil)
		require.ErrorAs(t, err, &source)
		require.Empty(t, k.ID())
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := tinkkek.New("a", nil)
	require.ErrorContains(t, err, "there is no AEAD")
	_, err = tinkkek.New("a", tinkkek.WithContext(nil))
	require.ErrorContains(t, err, "there is no AEAD")
	for _, id := range []string{"", "a b", strings.Repeat("a", 256)} {
		k, err := tinkkek.New(id, new(failing))
		require.Nil(t, k)
		require.ErrorIs(t, err, key.ErrContainer)
	}
	// The id that is required is the one that counts.
	k, err := tinkkek.New("a", new(failing), tinkkek.WithID("b"))
	require.NoError(t, err)
	require.Equal(t, "a", k.ID())
}
