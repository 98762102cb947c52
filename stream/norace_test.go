//go:build !race

package stream_test

const race = false
