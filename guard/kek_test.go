package guard_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

func newSet(t testing.TB, first kek.KEK, more ...kek.KEK) *kek.Set {
	t.Helper()
	set, err := kek.NewSet(first, more...)
	require.NoError(t, err)
	return set
}

// unwrapErr returns what a set says of a container of key id that another one
// made, or its own KEK fails with.
func unwrapErr(t testing.TB, id key.ID, fail error) error {
	t.Helper()
	fake := kektest.New("kms:a")
	set := newSet(t, fake)
	from := set
	if fail == nil {
		from = newSet(t, kektest.New("kms:old"))
	}
	container, err := from.WrapDEK(t.Context(), key.ClusterID{1}, id, key.Storage, key.NewDEK())
	require.NoError(t, err)
	if fail != nil {
		fake.FailNext(1, fail)
	}
	_, _, err = set.UnwrapDEK(t.Context(), container)
	require.Error(t, err)
	return err
}

func TestKEK(t *testing.T) {
	require.NoError(t, guard.KEK(newSet(t, kektest.New("kms:a"))))
	requireRefusal(t, guard.KEK(nil), guard.ErrNoKEK)
}

func TestUnwrapped(t *testing.T) {
	var (
		wrong   = unwrapErr(t, 9, nil)
		down    = unwrapErr(t, 9, kek.ErrUnreachable)
		denied  = unwrapErr(t, 9, kek.ErrDenied)
		timeout = fmt.Errorf("unwrap: %w", context.DeadlineExceeded)
	)
	storage := func(id key.ID, err error) guard.Unwrap {
		return guard.Unwrap{ID: id, Purpose: key.Storage, Active: true, Err: err}
	}
	raft := func(id key.ID, err error) guard.Unwrap {
		return guard.Unwrap{ID: id, Purpose: key.Raft, Active: true, Err: err}
	}
	old := func(id key.ID, err error) guard.Unwrap {
		return guard.Unwrap{ID: id, Purpose: key.Storage, Err: err}
	}
	for _, tt := range []struct {
		name    string
		results []guard.Unwrap
		want    error
		id      key.ID
	}{
		{"no keys", nil, nil, 0},
		{"all came", []guard.Unwrap{old(1, nil), storage(2, nil), raft(3, nil)}, nil, 0},
		{"only old keys, all came", []guard.Unwrap{old(1, nil)}, nil, 0},
		{"only old keys, none came", []guard.Unwrap{old(1, down)}, nil, 0},
		{"an old key is unreachable", []guard.Unwrap{old(1, down), storage(2, nil), raft(3, nil)}, nil, 0},
		{"one active key is unreachable", []guard.Unwrap{storage(2, nil), raft(3, down)}, nil, 0},
		{"the other active key is unreachable", []guard.Unwrap{storage(2, denied), raft(3, nil)}, nil, 0},
		{"no active key came", []guard.Unwrap{old(1, nil), raft(3, down), storage(2, timeout)}, guard.ErrKEKUnreachable, 2},
		{"no active key came, by policy", []guard.Unwrap{storage(2, denied), raft(3, down)}, guard.ErrKEKUnreachable, 2},
		{"the wrong KEK for all", []guard.Unwrap{raft(3, wrong), storage(2, wrong), old(1, wrong)}, guard.ErrKEKMismatch, 1},
		{"the wrong KEK for one old key", []guard.Unwrap{storage(2, nil), raft(3, nil), old(9, wrong), old(8, wrong)}, guard.ErrKEKMismatch, 8},
		{"wrong comes before unreachable", []guard.Unwrap{storage(2, down), raft(3, down), old(9, wrong)}, guard.ErrKEKMismatch, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := guard.Unwrapped(tt.results)
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.Equal(t, tt.id, refusal(t, err, tt.want).Key)
		})
	}
	require.ErrorIs(t, guard.Unwrapped([]guard.Unwrap{storage(9, wrong)}), kek.ErrWrongKey)
	require.ErrorIs(t, guard.Unwrapped([]guard.Unwrap{storage(9, down)}), kek.ErrUnreachable)
}

// The order in which the keys are unwrapped makes no difference.
func TestUnwrappedIsDeterministic(t *testing.T) {
	errs := []error{nil, unwrapErr(t, 9, nil), unwrapErr(t, 9, kek.ErrUnreachable), unwrapErr(t, 9, kek.ErrDenied)}
	rapid.Check(t, func(t *rapid.T) {
		var results []guard.Unwrap
		for id := range key.ID(rapid.IntRange(0, 8).Draw(t, "keys")) {
			results = append(results, guard.Unwrap{
				ID: id + 1, Purpose: key.Storage, Active: rapid.Bool().Draw(t, "active"), Err: rapid.SampledFrom(errs).Draw(t, "error"),
			})
		}
		want := fmt.Sprint(guard.Unwrapped(results))
		require.Equal(t, want, fmt.Sprint(guard.Unwrapped(rapid.Permutation(results).Draw(t, "order"))))
	})
}
