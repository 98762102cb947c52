//go:build race

package sim_test

// everyday is the number of scenarios unless another one is asked for. The race
// detector makes each take ten times as long.
const everyday = 300

// serial says that one goroutine runs at a time. Here they may race.
const serial = false
