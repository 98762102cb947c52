package keystore_test

import (
	"crypto/fips140"
	"encoding/hex"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// Strict FIPS mode is a matter of how a process starts, so the test runs itself.
func TestStrictFIPSMode(t *testing.T) {
	if !fips140.Enforced() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStrictFIPSMode$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestStrictFIPSMode")
		return
	}
	s := newStore(t)
	require.NoError(t, s.Install(1, key.Storage, key.NewDEK()))
	require.NoError(t, s.Install(2, key.Raft, key.NewDEK()))
	w := envelope.Writer{Node16: 1, Epoch: 1}
	for _, activate := range []func(key.ID) error{
		s.Activate,
		func(id key.ID) error { return s.ActivateCounted(id, w) },
	} {
		require.NoError(t, activate(1))
		require.NoError(t, activate(2))
		env, err := s.Storage().Seal(nil, value, location)
		require.NoError(t, err)
		require.Equal(t, byte(envelope.XAES256GCM), env[0])
		got, err := s.Storage().Open(nil, env, location)
		require.NoError(t, err)
		require.Equal(t, value, got)
		env, err = s.Raft(group).Seal(nil, value)
		require.NoError(t, err)
		require.Equal(t, byte(envelope.XAES256GCM), env[0])
		got, err = s.Raft(group).Open(nil, env)
		require.NoError(t, err)
		require.Equal(t, value, got)
	}
	requireKeyError(t, s.ActivateCounted(1, w), 1, keystore.ErrEpochUsed)

	mac, err := s.MAC(1, "label", value)
	require.NoError(t, err)
	require.NoError(t, s.VerifyMAC(1, "label", mac[:], value))
	_, err = s.Subkey(1, "label")
	require.NoError(t, err)

	// What another process sealed with counted nonces opens.
	openCounted7(t, s)
}

// counted7 is the envelope of value at location under suite 0x01 and key 7, all
// bytes of which are 7. It was made by another implementation of AES-GCM.
var counted7, _ = hex.DecodeString("010000000007abcd000700000000000000ff22e03c42fc080f886c786905d2329208280b123cec4115feb842033113fb62498d0dc5d3a1ce")

func TestCountedVector(t *testing.T) { openCounted7(t, newStore(t)) }

func openCounted7(t *testing.T, s *keystore.Store) {
	t.Helper()
	require.NoError(t, s.Install(7, key.Storage, fixedDEK(t, 7)))
	got, err := s.Storage().Open(nil, counted7, location)
	require.NoError(t, err)
	require.Equal(t, value, got)
}
