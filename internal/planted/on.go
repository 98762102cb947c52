//go:build planted

package planted

import "sync/atomic"

var set atomic.Uint32

// Has reports whether a bug is planted.
func Has(b Bug) bool { return set.Load()&(1<<b) != 0 }

// Plant plants a bug in this process and returns what removes it.
func Plant(b Bug) (remove func()) {
	set.Or(1 << b)
	return func() { set.And(^uint32(1 << b)) }
}
