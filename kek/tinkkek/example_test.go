package tinkkek_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
	"github.com/atrestdb/atrest/key"
)

func ExampleFromHandle() {
	ctx := context.Background()
	handle, err := keyset.NewHandle(aead.AES256CTRHMACSHA256KeyTemplate())
	check(err)
	// An id of its own keeps the KEK the same when the keyset is rotated.
	k, err := tinkkek.FromHandle(handle, tinkkek.WithID("tink-keyset:orders"))
	check(err)
	check(kek.Verify(ctx, k))
	keks, err := kek.NewSet(k)
	check(err)
	container, err := keks.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, key.NewDEK())
	check(err)
	c, err := key.ParseContainer(container)
	check(err)
	fmt.Println(c.ID, c.Recipients[0].KEK)
	// Output: 7 tink-keyset:orders
}

// A keyset that another AEAD encrypts: that of a key service where it matters.
func ExampleEncryptedFile() {
	ctx := context.Background()
	masterHandle, err := keyset.NewHandle(aead.AES256CTRHMACSHA256KeyTemplate())
	check(err)
	master, err := aead.New(masterHandle)
	check(err)
	handle, err := keyset.NewHandle(aead.AES256CTRHMACSHA256KeyTemplate())
	check(err)
	var text bytes.Buffer
	check(handle.Write(keyset.NewJSONWriter(&text), master))
	dir, err := os.MkdirTemp("", "keyset")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "keyset.json")
	check(os.WriteFile(path, text.Bytes(), 0o600))

	k, err := tinkkek.EncryptedFile(ctx, path, tinkkek.WithContext(master), tinkkek.WithID("mine"))
	check(err)
	fmt.Println(k.ID(), kek.Verify(ctx, k))
	// Output: mine <nil>
}

// Importing the package is what makes the scheme known.
func ExampleInsecureCleartextFile() {
	handle, err := keyset.NewHandle(aead.AES256CTRHMACSHA256KeyTemplate())
	check(err)
	var text bytes.Buffer
	check(insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)))
	dir, err := os.MkdirTemp("", "keyset")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "keyset.json")
	check(os.WriteFile(path, text.Bytes(), 0o600))

	k, err := tinkkek.InsecureCleartextFile(path, tinkkek.WithID("mine"))
	check(err)
	byURI, err := kek.OpenURI(context.Background(), "tink-keyset:"+path+"?id=mine")
	check(err)
	fmt.Println(k.ID() == byURI.ID())
	// Output: true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
