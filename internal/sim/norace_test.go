//go:build !race

package sim_test

// everyday is the number of scenarios unless another one is asked for.
const everyday = 2000

// serial says that one goroutine runs at a time, so that a run can be repeated as
// far as that goes.
const serial = true
