package tinkkek

import (
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/atrestdb/atrest/kek"
)

// maxKeyset bounds the file of a keyset.
const maxKeyset = 1 << 20

// FromHandle returns a KEK over an open keyset whose enabled keys are for AEADs in
// memory: AES-GCM, AES-GCM-SIV, AES-CTR-HMAC, X-AES-GCM, ChaCha20-Poly1305 and
// XChaCha20-Poly1305. Any others are [ErrKeyset]; of a key in a service make a KEK
// by [FromKMS].
//
// Without [WithID] the id is "tink-keyset:" and the id of the primary key, in
// decimal.
func FromHandle(h *keyset.Handle, opts ...Option) (*KEK, error) {
	return newConfig(opts).fromHandle(h)
}

func (c config) fromHandle(h *keyset.Handle) (*KEK, error) {
	if h == nil || h.Len() == 0 {
		return nil, c.refuse(fmt.Errorf("%w: it is empty", ErrKeyset))
	}
	info := h.KeysetInfo()
	if c.id == "" {
		c.id = fmt.Sprintf("tink-keyset:%d", info.GetPrimaryKeyId())
	}
	for _, k := range info.GetKeyInfo() {
		if k.GetStatus() != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		if err := checkType(k.GetTypeUrl()); err != nil {
			return nil, c.refuse(fmt.Errorf("key %d: %w", k.GetKeyId(), err))
		}
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, c.refuse(fmt.Errorf("%w: %w", ErrKeyset, err))
	}
	return c.kek(inMemory{a}, wrongKey)
}

const typePrefix = "type.googleapis.com/google.crypto.tink."

// checkType accepts keys whose only error is that they do not open something.
func checkType(typeURL string) error {
	name := strings.TrimPrefix(typeURL, typePrefix)
	if !slices.Contains([]string{
		"AesGcmKey", "AesGcmSivKey", "AesCtrHmacAeadKey", "XAesGcmKey", "ChaCha20Poly1305Key", "XChaCha20Poly1305Key",
	}, name) {
		return fmt.Errorf("%w: key type %.80q is none of an AEAD in memory", ErrKeyset, name)
	}
	if fips140.Enforced() && name != "AesCtrHmacAeadKey" {
		return fmt.Errorf("%w: %s, want AesCtrHmacAeadKey", kek.ErrFIPS, name)
	}
	return nil
}

// EncryptedFile returns a KEK of a keyset in a file, in Tink's JSON or binary form,
// that master encrypted with empty associated data. The file stands up to the
// checks of [kek.File]. The master is asked once: its errors are those of a KEK.
// For the rest it is like [FromHandle].
func EncryptedFile(ctx context.Context, path string, master tink.AEADWithContext, opts ...Option) (*KEK, error) {
	c := newConfig(opts)
	c.name = path
	if master == nil {
		return nil, c.refuse(errNoAEAD)
	}
	text, err := kek.ReadFile(path, maxKeyset, c.files...)
	if err != nil {
		return nil, err
	}
	m := &answered{AEADWithContext: master}
	h, err := keyset.ReadWithContext(ctx, reader(text), m, nil)
	switch {
	case m.err != nil: // Tink passes on its text alone
		return nil, c.refuse(explain(ctx, m.err, c.errs, remote))
	case err != nil: // which may show what stands in the file
		return nil, c.refuse(fmt.Errorf("%w: it is not one, or not encrypted", ErrKeyset))
	}
	return c.fromHandle(h)
}

// answered remembers how an AEAD failed.
type answered struct {
	tink.AEADWithContext
	err error
}

// DecryptWithContext implements [tink.AEADWithContext].
func (m *answered) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	var out []byte
	if out, m.err = m.AEADWithContext.DecryptWithContext(ctx, ciphertext, ad); m.err != nil {
		return nil, errors.New("failed")
	}
	return out, nil
}

// InsecureCleartextFile returns a KEK of a keyset in a file that nothing encrypts:
// whoever reads the file has the key, as with [kek.File], whose checks it stands up
// to. For the rest it is like [FromHandle].
func InsecureCleartextFile(path string, opts ...Option) (*KEK, error) {
	c := newConfig(opts)
	c.name = path
	text, err := kek.ReadFile(path, maxKeyset, c.files...)
	if err != nil {
		return nil, err
	}
	h, err := insecurecleartextkeyset.Read(reader(text))
	if err != nil {
		return nil, c.refuse(fmt.Errorf("%w: it is not one, or encrypted", ErrKeyset))
	}
	return c.fromHandle(h)
}

// reader reads JSON where there is an object; a binary keyset does not begin like
// one.
func reader(text []byte) keyset.Reader {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return keyset.NewJSONReader(bytes.NewReader(text))
	}
	return keyset.NewBinaryReader(bytes.NewReader(text))
}
