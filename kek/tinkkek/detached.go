package tinkkek

import (
	"context"
	"slices"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// maxDetached bounds the calls that one AEAD may have under way.
const maxDetached = 64

// WithContext gives contexts to an AEAD that takes none; one that takes them is
// returned as it is. Each call runs in a goroutine. When its context ends the
// caller is answered, and the call itself goes on until the AEAD returns, which may
// mean that a key service still does what it was asked. At most 64 calls are under
// way; where all of them hang, further ones wait for their contexts.
func WithContext(a tink.AEAD) tink.AEADWithContext {
	if c, ok := a.(tink.AEADWithContext); ok || a == nil {
		return c
	}
	return &detached{aead: func() tink.AEAD { return a }, slots: make(chan struct{}, maxDetached)}
}

type detached struct {
	aead  func() tink.AEAD
	slots chan struct{}
}

// EncryptWithContext implements [tink.AEADWithContext].
func (d *detached) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return d.call(ctx, d.aead().Encrypt, plaintext, ad)
}

// DecryptWithContext implements [tink.AEADWithContext].
func (d *detached) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	return d.call(ctx, d.aead().Decrypt, ciphertext, ad)
}

func (d *detached) call(ctx context.Context, do func(in, ad []byte) ([]byte, error), in, ad []byte) ([]byte, error) {
	// The caller's slices are its own again as soon as it is answered.
	in, ad = slices.Clone(in), slices.Clone(ad)
	return await(ctx, d.slots, func() ([]byte, error) { return do(in, ad) })
}

// await runs do in a goroutine, once there is a slot for it, and waits for it no
// longer than ctx.
func await[T any](ctx context.Context, slots chan struct{}, do func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	type answer struct {
		out T
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-slots }()
		out, err := do()
		answered <- answer{out, err}
	}()
	select {
	case a := <-answered:
		return a.out, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// inMemory is an AEAD that answers at once.
type inMemory struct{ tink.AEAD }

// EncryptWithContext implements [tink.AEADWithContext].
func (m inMemory) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.Encrypt(plaintext, ad)
}

// DecryptWithContext implements [tink.AEADWithContext].
func (m inMemory) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.Decrypt(ciphertext, ad)
}
