package insecurekey_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

func TestNewAndBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
		d, err := insecurekey.New(b)
		if len(b) != 32 {
			require.Error(t, err)
			require.True(t, d.IsZero())
			return
		}
		require.NoError(t, err)
		require.Equal(t, b, insecurekey.Bytes(d))
	})
}

// Neither direction shares memory with the key.
func TestCopies(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 32)
	d, err := insecurekey.New(b)
	require.NoError(t, err)
	b[0] = 0
	insecurekey.Bytes(d)[1] = 0
	require.Equal(t, bytes.Repeat([]byte{7}, 32), insecurekey.Bytes(d))
}

func TestZero(t *testing.T) {
	require.Nil(t, insecurekey.Bytes(key.DEK{}))
}

func Example() {
	d, err := insecurekey.New(bytes.Repeat([]byte{0xab}, 32))
	if err != nil {
		panic(err)
	}
	fmt.Println(d)
	fmt.Printf("%x\n", insecurekey.Bytes(d)[:4])
	// Output:
	// [redacted key]
	// abababab
}
