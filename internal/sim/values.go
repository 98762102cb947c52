package sim

import (
	"bytes"
	"fmt"
	"strconv"
)

// A value names its key and its number, so that every byte of it is known. The
// command that writes it is the value itself.
func value(k int, n uint64) []byte {
	return strconv.AppendUint(append([]byte("key "), byte('0'+k), ' '), n, 10)
}

func parseValue(b []byte) (k int, n uint64, err error) {
	head, tail, _ := bytes.Cut(bytes.TrimPrefix(b, []byte("key ")), []byte(" "))
	if k, err = strconv.Atoi(string(head)); err == nil {
		n, err = strconv.ParseUint(string(tail), 10, 64)
	}
	if err != nil || k < 0 || k >= valueKeys {
		return 0, 0, fmt.Errorf("a command that nobody wrote: %q", b)
	}
	return k, n, nil
}

// location is what the value of a key is bound to.
func location(k int) []byte { return strconv.AppendInt([]byte("store/"), int64(k), 10) }
