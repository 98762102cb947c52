package sidecar

import (
	"bytes"
	"errors"

	"github.com/atrestdb/atrest/internal/secret"
)

// CreateWithKey is Create with a file key that a test chose.
var CreateWithKey = create

// Parse reads a file without any key and returns it as it would be written
// again, with the MAC that it has.
func Parse(data []byte) ([]byte, error) {
	p, err := parse(data)
	if err != nil {
		if p != nil {
			return nil, errors.New("a result beside an error")
		}
		return nil, err
	}
	again := p.content.appendTo(nil, secret.Random())
	end := len(again) - len(textEnd) - 64
	again = append(again[:end], data[end:end+64]...)
	return append(again, textEnd...), nil
}

// State returns a state as it stands in the file, and as File.State gives it.
func State(value []byte) (text, compacted []byte, err error) {
	text, err = canonicalState(value)
	if err != nil {
		return text, nil, err
	}
	return text, compact(text), nil
}

// ReadState reads a state at the start of src.
func ReadState(src []byte) (text []byte, err error) {
	text, n, err := readState(src)
	if err == nil && !bytes.Equal(text, src[:n]) {
		return nil, errors.New("a state that is not what was read")
	}
	return text, err
}

const MaxDepth = maxDepth
