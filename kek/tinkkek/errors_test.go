package tinkkek_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
	"github.com/atrestdb/atrest/key"
)

// failing is an AEAD that fails, or answers.
type failing struct{ err error }

func (f *failing) EncryptWithContext(_ context.Context, p, _ []byte) ([]byte, error) {
	return append([]byte("x"), p...), f.err
}

func (f *failing) DecryptWithContext(_ context.Context, c, _ []byte) ([]byte, error) {
	return c[1:], f.err
}

// codeError and statusError are errors as the clients of AWS have them.
type (
	codeError   struct{ code string }
	statusError struct{ status int }
)

func (e codeError) Error() string         { return "operation error KMS: Decrypt, " + e.code + ": it failed" }
func (e codeError) ErrorCode() string     { return e.code }
func (e statusError) Error() string       { return "https response error" }
func (e statusError) HTTPStatusCode() int { return e.status }

func TestErrors(t *testing.T) {
	vault := func(code int, text string) error {
		return fmt.Errorf("Error making API request.\n\nURL: PUT http://127.0.0.1:8200/v1/transit/decrypt/k\nCode: %d. Errors:\n\n* %s", code, text)
	}
	grpc := func(code, text string) error { return fmt.Errorf("rpc error: code = %s desc = %s", code, text) }
	rest := func(code int, text string) error { return fmt.Errorf("googleapi: Error %d: %s", code, text) }
	tests := []struct {
		err  error
		want error // nil: unclassified
	}{
		{errors.New("it fell over"), nil},
		{errors.New("aead_factory: decryption failed"), nil},
		{io.ErrUnexpectedEOF, nil},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, nil},
		{fmt.Errorf("inside: %w", kek.ErrUnreachable), kek.ErrUnreachable},
		{fmt.Errorf("inside: %w", kek.ErrDenied), kek.ErrDenied},
		{fmt.Errorf("inside: %w", kek.ErrWrongKey), kek.ErrWrongKey},
		{errors.Join(kek.ErrWrongKey, kek.ErrUnreachable), kek.ErrUnreachable},

		{codeError{"InvalidCiphertextException"}, kek.ErrWrongKey},
		{fmt.Errorf("outside: %w", codeError{"IncorrectKeyException"}), kek.ErrWrongKey},
		{codeError{"AccessDeniedException"}, kek.ErrDenied},
		{codeError{"DisabledException"}, kek.ErrDenied},
		{codeError{"KMSInvalidStateException"}, kek.ErrDenied},
		{codeError{"ThrottlingException"}, kek.ErrUnreachable},
		{codeError{"KMSInternalException"}, kek.ErrUnreachable},
		{codeError{"SomethingNew"}, kek.ErrUnreachable},
		{codeError{}, nil},
		{statusError{403}, kek.ErrDenied},
		{statusError{400}, kek.ErrDenied},
		{statusError{503}, kek.ErrUnreachable},

		{grpc("InvalidArgument", "Decryption failed: verify that 'name' refers to the correct CryptoKey."), kek.ErrWrongKey},
		{grpc("InvalidArgument", "no such resource name"), kek.ErrDenied},
		{grpc("PermissionDenied", "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied"), kek.ErrDenied},
		{grpc("Unauthenticated", "no token"), kek.ErrDenied},
		{grpc("NotFound", "CryptoKey not found"), kek.ErrDenied},
		{grpc("FailedPrecondition", "the version is disabled"), kek.ErrDenied},
		{grpc("Unavailable", "message authentication failed"), kek.ErrUnreachable},
		{grpc("ResourceExhausted", "quota"), kek.ErrUnreachable},
		{rest(400, "Decryption failed: verify that 'name' refers to the correct CryptoKey., badRequest"), kek.ErrWrongKey},
		{rest(400, "bad name"), kek.ErrDenied},
		{rest(403, "no"), kek.ErrDenied},
		{rest(404, "no"), kek.ErrDenied},
		{rest(429, "slow down"), kek.ErrUnreachable},
		{rest(503, "Decryption failed: backend"), kek.ErrUnreachable},

		{vault(400, "cipher: message authentication failed"), kek.ErrWrongKey},
		{vault(400, "invalid ciphertext: no prefix"), kek.ErrWrongKey},
		{vault(400, "ciphertext or signature version is disallowed by policy (too old)"), kek.ErrDenied},
		{vault(403, "permission denied"), kek.ErrDenied},
		{vault(404, "no handler for route"), kek.ErrDenied},
		{vault(500, "internal error"), kek.ErrUnreachable},
		{vault(503, "Vault is sealed"), kek.ErrUnreachable},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.err.Error(), "/", "_"), func(t *testing.T) {
			k, err := tinkkek.New("a", &failing{tt.err})
			require.NoError(t, err)
			for _, call := range []func(context.Context, []byte, []byte) ([]byte, error){k.Wrap, k.Unwrap} {
				out, err := call(t.Context(), make([]byte, 32), nil)
				require.Nil(t, out)
				require.ErrorIs(t, err, tt.err)
				if tt.want == nil {
					require.Equal(t, tt.err, err)
					continue
				}
				require.ErrorIs(t, err, tt.want)
			}
			// In a set it is of one kind, and what nobody knows is not final.
			want := tt.want
			if want == nil {
				want = kek.ErrUnreachable
			}
			_, err = newSet(t, k).WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, key.NewDEK())
			requireOnly(t, err, want)

			k, err = tinkkek.New("a", &failing{tt.err}, tinkkek.WithErrors(func(err error) error {
				if errors.Is(err, tt.err) {
					return kek.ErrDenied
				}
				return nil
			}))
			require.NoError(t, err)
			_, err = k.Unwrap(t.Context(), make([]byte, 32), nil)
			require.ErrorIs(t, err, kek.ErrDenied)
		})
	}
}
