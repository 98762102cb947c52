package guard_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/guard"
)

var reasons = []error{
	guard.ErrEncryptionOff, guard.ErrNoKEK, guard.ErrKEKMismatch, guard.ErrKEKUnreachable, guard.ErrFilesystem,
	guard.ErrInUse, guard.ErrOtherNode, guard.ErrTampered, guard.ErrKeysMissing, guard.ErrBehindLog,
	guard.ErrDivergence, guard.ErrCollision, guard.ErrEpochRollback, guard.ErrEpochExhausted,
}

// refusal requires a refusal for want and for no other reason, which says what to
// do, and returns it.
func refusal(t testing.TB, err, want error) *guard.Refusal {
	t.Helper()
	var r *guard.Refusal
	require.ErrorAs(t, err, &r)
	for _, reason := range reasons {
		require.Equal(t, errors.Is(reason, want), errors.Is(err, reason), "%v: %v", reason, err)
	}
	require.NotEmpty(t, r.Do)
	require.Contains(t, err.Error(), r.Do)
	return r
}

func requireRefusal(t testing.TB, err, want error) {
	t.Helper()
	require.NotNil(t, refusal(t, err, want))
}

func TestRefusal(t *testing.T) {
	cause := fmt.Errorf("read: %w", fs.ErrPermission)
	full := &guard.Refusal{Reason: guard.ErrTampered, Key: 7, Member: "node 1", Detail: "found", Do: "do this", Err: cause}
	require.EqualError(t, full, "guard: keys.json cannot be used as it is: key 7: node 1: found: read: permission denied; do this")
	for _, err := range []error{full, fmt.Errorf("start: %w", full)} {
		require.ErrorIs(t, err, guard.ErrTampered)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.NotErrorIs(t, err, guard.ErrInUse)
	}

	full.Do = "permission denied"
	require.EqualError(t, full, "guard: keys.json cannot be used as it is: key 7: node 1: found: read: permission denied")
	bare := &guard.Refusal{Reason: guard.ErrNoKEK}
	require.EqualError(t, bare, "guard: no KEK is configured")
	require.ErrorIs(t, bare, guard.ErrNoKEK)
	require.Len(t, bare.Unwrap(), 1)
}
