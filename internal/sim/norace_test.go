//go:build !race

package sim_test

// everyday is the number of scenarios unless another one is asked for.
const everyday = 2000
