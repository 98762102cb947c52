package tinkkek_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
	"github.com/atrestdb/atrest/key"
)

// service is a key service with one key, and Tink's client of it. A call waits for
// held, if there is one, and fails with err, if there is one.
type service struct {
	uri  string
	aead tink.AEAD
	err  error
	held chan struct{}
	late chan []byte // where a held call puts its answer too

	mu    sync.Mutex
	calls int
}

func newService(t testing.TB, uri string) *service {
	t.Helper()
	return &service{uri: uri, aead: aeadOf(t, handle(t, ctrHMAC()))}
}

func (s *service) Supported(uri string) bool { return uri == s.uri }

func (s *service) GetAEAD(string) (tink.AEAD, error) {
	if s.held != nil {
		<-s.held
	}
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

func (s *service) Encrypt(p, ad []byte) ([]byte, error) { return s.call(s.aead.Encrypt, p, ad) }

func (s *service) Decrypt(c, ad []byte) ([]byte, error) {
	out, err := s.call(s.aead.Decrypt, c, ad)
	if err != nil && s.err == nil {
		return nil, errors.New("googleapi: Error 400: Decryption failed: verify that 'name' refers to the correct CryptoKey., badRequest")
	}
	return out, err
}

func (s *service) call(do func([]byte, []byte) ([]byte, error), in, ad []byte) ([]byte, error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	if s.held != nil {
		<-s.held
	}
	if s.err != nil {
		return nil, s.err
	}
	out, err := do(in, ad)
	if s.late != nil {
		s.late <- out
	}
	return out, err
}

func (s *service) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

const keyURI = "fake-kms://projects/p/cryptoKeys/k"

func TestFromKMS(t *testing.T) {
	s := newService(t, keyURI)
	k, err := tinkkek.FromKMS(t.Context(), s, keyURI)
	require.NoError(t, err)
	require.Equal(t, keyURI, k.ID())
	require.NoError(t, kek.Verify(t.Context(), k))
	roundTrip(t, k, k)
	named, err := tinkkek.FromKMS(t.Context(), s, keyURI, tinkkek.WithID("mine"))
	require.NoError(t, err)
	require.Equal(t, "mine", named.ID())

	for _, client := range []registry.KMSClient{nil, newService(t, "fake-kms://other")} {
		k, err := tinkkek.FromKMS(t.Context(), client, keyURI)
		require.Nil(t, k)
		require.ErrorIs(t, err, kek.ErrURI)
	}
	s.err = errors.New("googleapi: Error 403: no")
	k, err = tinkkek.FromKMS(t.Context(), s, keyURI)
	require.Nil(t, k)
	requireOnly(t, err, kek.ErrDenied)
	s.err = nil

	s.held = make(chan struct{})
	defer close(s.held)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	k, err = tinkkek.FromKMS(ctx, s, keyURI)
	require.Nil(t, k)
	requireOnly(t, err, kek.ErrUnreachable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A call whose context ends is answered at once; the service goes on with what it
// was given, which the caller may overwrite by then.
func TestCallsLeftBehind(t *testing.T) {
	s := newService(t, keyURI)
	k, err := tinkkek.FromKMS(t.Context(), s, keyURI)
	require.NoError(t, err)
	s.held, s.late = make(chan struct{}), make(chan []byte, 1)
	plaintext, ad := []byte("0123456789abcdef0123456789abcdef"), []byte("ad")
	want := string(plaintext)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := k.Wrap(ctx, plaintext, ad)
		done <- err
	}()
	require.Eventually(t, func() bool { return s.called() == 1 }, 10*time.Second, time.Millisecond)
	cancel()
	err = <-done
	requireOnly(t, err, kek.ErrUnreachable)
	require.ErrorIs(t, err, context.Canceled)
	for i := range plaintext {
		plaintext[i] = 0
	}
	ad[0] = 'x'
	close(s.held)
	got, err := s.aead.Decrypt(<-s.late, []byte("ad"))
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// A service that never answers takes a bounded number of goroutines, and no caller
// longer than it has time.
func TestHangingService(t *testing.T) {
	s := newService(t, keyURI)
	k, err := tinkkek.FromKMS(t.Context(), s, keyURI)
	require.NoError(t, err)
	s.held = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			_, err := k.Wrap(ctx, make([]byte, 32), nil)
			if !errors.Is(err, kek.ErrUnreachable) || !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	require.Eventually(t, func() bool { return s.called() == 64 }, 10*time.Second, time.Millisecond)
	cancel()
	wg.Wait()
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err = k.Wrap(ctx, make([]byte, 32), nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, 64, s.called())

	close(s.held) // the service is back
	require.NoError(t, kek.Verify(t.Context(), k))
}

// An AEAD that takes contexts gets them.
func TestWithContextPassesOn(t *testing.T) {
	both := struct {
		tink.AEAD
		tink.AEADWithContext
	}{newService(t, keyURI), new(failing)}
	require.Equal(t, tink.AEADWithContext(both), tinkkek.WithContext(both))
	require.Nil(t, tinkkek.WithContext(nil))
}

func TestKMSConcurrently(t *testing.T) {
	s := newService(t, keyURI)
	k, err := tinkkek.FromKMS(t.Context(), s, keyURI)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				roundTrip(t, k, k)
			}
		})
	}
	wg.Wait()
}

func TestOpenURI(t *testing.T) {
	master := newService(t, keyURI)
	registry.RegisterKMSClient(master)
	t.Cleanup(registry.ClearKMSClients)
	h := handle(t, ctrHMAC())
	want, err := tinkkek.FromHandle(h)
	require.NoError(t, err)
	open, sealed := write(t, inClear(t, h, writings[0])), write(t, encrypted(t, h, writings[1], master.aead))
	link := open + "-link"
	require.NoError(t, os.Symlink(open, link))

	for uri, id := range map[string]string{
		"tink-keyset:" + open:                                                    want.ID(),
		"tink-keyset://" + open + "?id=mine":                                     "mine",
		"tink-keyset:" + link + "?symlink=allow":                                 want.ID(),
		"tink-keyset:" + sealed + "?master=" + keyURI:                            want.ID(),
		"tink-keyset:" + sealed + "?id=a&master=" + keyURI:                       "a",
		"tink-keyset:" + sealed + "?master=fake-kms%3A//projects/p/cryptoKeys/k": want.ID(),
	} {
		k, err := kek.OpenURI(t.Context(), uri)
		require.NoError(t, err, uri)
		require.Equal(t, id, k.ID())
		w, err := want.Wrap(t.Context(), make([]byte, 32), nil)
		require.NoError(t, err)
		_, err = k.Unwrap(t.Context(), w, nil)
		require.NoError(t, err)
	}
	for uri, is := range map[string]error{
		"tink-keyset:" + open + "?master=" + keyURI:          tinkkek.ErrKeyset,
		"tink-keyset:" + sealed:                              tinkkek.ErrKeyset,
		"tink-keyset:" + sealed + "?master=fake-kms://other": kek.ErrURI,
		"tink-keyset:" + open + "?password=x":                kek.ErrURI,
		"tink-keyset:" + open + "?symlink=no":                kek.ErrURI,
		"tink-keyset:" + open + "?id=a%20b":                  key.ErrContainer,
		"tink-keyset:" + link:                                kek.ErrInsecure,
		"tink-keyset:":                                       os.ErrNotExist,
	} {
		k, err := kek.OpenURI(t.Context(), uri)
		require.Nil(t, k, uri)
		require.ErrorIs(t, err, is, uri)
	}
	master.err = errors.New("rpc error: code = PermissionDenied desc = no")
	_, err = kek.OpenURI(t.Context(), "tink-keyset:"+sealed+"?master="+keyURI)
	requireOnly(t, err, kek.ErrDenied)
}
