package guard

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

const (
	doMismatch    = "configure or restore the KEK that wrapped the key"
	doUnreachable = "check the key service and the way to it, then start again"
	doDenied      = "check its credentials and policy"
)

// KEK refuses to go on without KEKs.
func KEK(set *kek.Set) error {
	if set != nil {
		return nil
	}
	return &Refusal{
		Reason: ErrNoKEK,
		Do:     "configure the KEK of this cluster: a key file outside the data directory, or a key service",
	}
}

// Unwrap is what became of unwrapping one key.
type Unwrap struct {
	ID      key.ID
	Purpose key.Purpose
	Active  bool
	Err     error // of [kek.Set.UnwrapDEK], nil if it was unwrapped
}

// Unwrapped refuses a start with the wrong KEKs: it names the key of the lowest id
// that they will never open. If there is none, but there are active keys and not
// one of them was unwrapped, it refuses with [ErrKEKUnreachable]: nothing could be
// sealed. What else is missing can be unwrapped later.
func Unwrapped(results []Unwrap) error {
	sorted := slices.SortedStableFunc(slices.Values(results), func(a, b Unwrap) int { return cmp.Compare(a.ID, b.ID) })
	var (
		unreachable *Unwrap // the first active key
		came        bool    // an active key
	)
	for _, u := range sorted {
		switch {
		case errors.Is(u.Err, kek.ErrWrongKey):
			return u.refusal(ErrKEKMismatch, doMismatch)
		case u.Active && u.Err == nil:
			came = true
		case u.Active && unreachable == nil:
			unreachable = &u
		}
	}
	switch {
	case came || unreachable == nil:
		return nil
	case errors.Is(unreachable.Err, kek.ErrDenied):
		return unreachable.refusal(ErrKEKUnreachable, doDenied)
	default:
		return unreachable.refusal(ErrKEKUnreachable, doUnreachable)
	}
}

func (u *Unwrap) refusal(reason error, do string) error {
	detail := fmt.Sprintf("a %s key", u.Purpose)
	if u.Active {
		detail = fmt.Sprintf("the active %s key", u.Purpose)
	}
	return &Refusal{Reason: reason, Key: u.ID, Detail: detail, Do: do, Err: u.Err}
}
