// Package pinned fixes what is random elsewhere, for this module's own tests.
//
// Counted nonces start at a random number, so that even two processes that
// wrongly share a key, a node and an epoch do not repeat a nonce, except once in
// many lifetimes. A test that looks for such sharing must not be saved by that
// luck: with the start pinned, sharing shows as a repeated nonce at once.
//
// The package lies under internal, so nothing outside this module can import it,
// and no environment variable or build tag reaches it. A start that is pinned is
// as good as none: files of this module that are no tests only ask [Start].
package pinned

import "sync/atomic"

var start atomic.Pointer[uint64]

// Start returns the number that counted nonces start at, if it is pinned.
func Start() (uint64, bool) {
	if p := start.Load(); p != nil {
		return *p, true
	}
	return 0, false
}

// PinStart makes counted nonces of all sealers that are made from now on start at
// n, in the whole process. restore undoes this call, whatever was pinned before.
func PinStart(n uint64) (restore func()) {
	before := start.Swap(&n)
	return func() { start.Store(before) }
}
