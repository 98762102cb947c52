package tinkkek

import (
	"cmp"
	"context"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/atrestdb/atrest/kek"
)

// FromKMS returns a KEK over a key in a key service, through Tink's client of that
// service. The client takes no contexts, so [WithContext] makes its calls. Without
// [WithID] the id is the URI of the key, such as
// "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k".
func FromKMS(ctx context.Context, client registry.KMSClient, keyURI string, opts ...Option) (*KEK, error) {
	c := newConfig(opts)
	c.name, c.id = keyURI, cmp.Or(c.id, keyURI)
	a, err := c.aeadOf(ctx, client, keyURI)
	if err != nil {
		return nil, c.refuse(err)
	}
	return c.kek(a, remote)
}

func (c config) aeadOf(ctx context.Context, client registry.KMSClient, keyURI string) (tink.AEADWithContext, error) {
	if client == nil || !client.Supported(keyURI) {
		return nil, fmt.Errorf("%w: no client for the URI", kek.ErrURI)
	}
	a, err := await(ctx, make(chan struct{}, 1), func() (tink.AEAD, error) { return client.GetAEAD(keyURI) })
	if err != nil {
		return nil, explain(ctx, err, c.errs, remote)
	}
	return WithContext(a), nil
}

func init() { kek.Register("tink-keyset", openURI, "master", "id", "symlink") }

// openURI opens tink-keyset:PATH, where the file is in clear, and
// tink-keyset:PATH?master=URI, where the key of that URI encrypts it and a client
// for it is registered with Tink.
func openURI(ctx context.Context, path string, options map[string]string) (kek.KEK, error) {
	files, err := kek.FileOptions(options)
	if err != nil {
		return nil, err
	}
	opts := []Option{WithFile(files...), WithID(options["id"])}
	var k *KEK
	if uri, ok := options["master"]; ok {
		k, err = openEncrypted(ctx, path, uri, opts)
	} else {
		k, err = InsecureCleartextFile(path, opts...)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

func openEncrypted(ctx context.Context, path, masterURI string, opts []Option) (*KEK, error) {
	c := newConfig(opts)
	c.name = path
	client, err := registry.GetKMSClient(masterURI)
	if err != nil {
		return nil, c.refuse(fmt.Errorf("%w: no client for the URI of its master is registered with Tink", kek.ErrURI))
	}
	master, err := c.aeadOf(ctx, client, masterURI)
	if err != nil {
		return nil, c.refuse(err)
	}
	return EncryptedFile(ctx, path, master, opts...)
}
