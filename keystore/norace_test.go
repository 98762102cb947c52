//go:build !race

package keystore_test

const scale = 1
