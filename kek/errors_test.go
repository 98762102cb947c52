package kek_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
)

// An error says who, what for, what happened and what to do, each once.
func TestErrorText(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{
			&kek.Error{KEK: "a", Op: "wrap raft DEK 7", Kind: kek.ErrUnreachable, Err: io.ErrUnexpectedEOF},
			"kek: wrap raft DEK 7: KEK a: KEK unreachable: unexpected EOF; try again",
		},
		{
			&kek.Error{KEK: "a", Op: "unwrap", Kind: kek.ErrDenied, Err: fmt.Errorf("%w: 403", kek.ErrDenied)},
			"kek: unwrap: KEK a: KEK denied access: 403; check its credentials and policy",
		},
		{
			&kek.Error{KEK: "a", Op: "unwrap", Kind: kek.ErrWrongKey, Err: kek.ErrWrongKey},
			"kek: unwrap: KEK a: wrong KEK; configure or restore the KEK that wrapped the key",
		},
		{
			&kek.Error{KEK: "a", Op: "verify", Kind: kek.ErrFaulty, Err: errors.New("it ignores associated data")},
			"kek: verify: KEK a: faulty KEK: it ignores associated data; do not use this KEK",
		},
		{
			&kek.UnwrapError{
				Key: "raft DEK 7", Kind: kek.ErrDenied, Absent: []string{"c"},
				Failed: []*kek.Error{{KEK: "a", Kind: kek.ErrWrongKey, Err: kek.ErrWrongKey}, {KEK: "b", Kind: kek.ErrDenied, Err: errors.New("403")}},
			},
			"kek: no KEK opens raft DEK 7: KEK a: wrong KEK; KEK b: KEK denied access: 403; KEK c: not configured here; check its credentials and policy",
		},
		{
			&kek.SourceError{Source: "file", Name: "/etc/kek", Err: fmt.Errorf("%w: mode 0644", kek.ErrInsecure)},
			"kek: file /etc/kek: insecure KEK file: mode 0644",
		},
	}
	for _, tt := range tests {
		require.EqualError(t, tt.err, tt.want)
	}
}

// An error of a KEK keeps what it wraps, unless that is of two kinds.
func TestErrorMatches(t *testing.T) {
	e := &kek.Error{Kind: kek.ErrDenied, Err: fmt.Errorf("%w: %w", kek.ErrDenied, io.EOF)}
	requireOnly(t, e, kek.ErrDenied)
	require.ErrorIs(t, e, io.EOF)
	e = &kek.Error{Kind: kek.ErrDenied, Err: errors.Join(kek.ErrDenied, kek.ErrWrongKey, io.EOF)}
	requireOnly(t, e, kek.ErrDenied)

	u := &kek.UnwrapError{Kind: kek.ErrUnreachable, Failed: []*kek.Error{
		{Kind: kek.ErrWrongKey, Err: errors.Join(kek.ErrWrongKey, io.EOF)},
		{Kind: kek.ErrUnreachable, Err: context.DeadlineExceeded},
	}}
	requireOnly(t, u, kek.ErrUnreachable)
	require.ErrorIs(t, u, context.DeadlineExceeded)
	require.NotErrorIs(t, u, io.EOF, "of a KEK whose answer does not decide")
	var one *kek.Error
	require.ErrorAs(t, u, &one)
	require.Equal(t, kek.ErrUnreachable, one.Kind)
}
