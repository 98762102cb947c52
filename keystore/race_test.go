//go:build race

package keystore_test

// scale makes counts smaller where the race detector makes everything slower.
const scale = 20
