package key

import (
	"encoding/binary"
	"slices"
)

// CheckKEKID returns nil if id can name a KEK in a container: 1 to 255 printable
// ASCII characters, no spaces.
func CheckKEKID(id string) error {
	if len(id) == 0 || len(id) > MaxKEKID {
		return malformed("the id of a KEK has %d bytes, want 1 to %d", len(id), MaxKEKID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return malformed("the id of a KEK holds byte %#02x, want printable ASCII without spaces", id[i])
		}
	}
	return nil
}

func (r Recipient) validate() error {
	if err := CheckKEKID(r.KEK); err != nil {
		return err
	}
	if len(r.Params) > MaxParams {
		return malformed("%d bytes of parameters for KEK %s, want at most %d", len(r.Params), r.KEK, MaxParams)
	}
	if len(r.Wrap) == 0 || len(r.Wrap) > MaxWrap {
		return malformed("a wrap of %d bytes for KEK %s, want 1 to %d", len(r.Wrap), r.KEK, MaxWrap)
	}
	return nil
}

func validateRecipients(rs []Recipient) error {
	if len(rs) == 0 || len(rs) > MaxRecipients {
		return malformed("%d recipients, want 1 to %d", len(rs), MaxRecipients)
	}
	for i, r := range rs {
		if err := r.validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(rs[:i], func(o Recipient) bool { return o.KEK == r.KEK }) {
			return malformed("two recipients for KEK %s", r.KEK)
		}
	}
	return nil
}

func appendRecipients(dst []byte, rs []Recipient) []byte {
	dst = append(dst, byte(len(rs)))
	for _, r := range rs {
		dst = appendField(dst, r.KEK)
		dst = appendField(dst, r.Params)
		dst = appendField(dst, r.Wrap)
	}
	return dst
}

func appendField[T string | []byte](dst []byte, field T) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(field))), field...)
}

// parseRecipients reads all that follows a header. Lengths are believed only as
// far as there are bytes behind them.
func parseRecipients(b []byte) ([]Recipient, error) {
	if len(b) == 0 {
		return nil, malformed("it ends before the number of recipients")
	}
	n := int(b[0])
	b = b[1:]
	if n == 0 || n > MaxRecipients {
		return nil, malformed("%d recipients, want 1 to %d", n, MaxRecipients)
	}
	rs := make([]Recipient, 0, n)
	for range n {
		var fields [3][]byte
		for i := range fields {
			var err error
			if fields[i], b, err = cutField(b); err != nil {
				return nil, err
			}
		}
		rs = append(rs, Recipient{KEK: string(fields[0]), Params: slices.Clone(fields[1]), Wrap: slices.Clone(fields[2])})
	}
	if len(b) != 0 {
		return nil, malformed("%d bytes behind the last recipient, want none", len(b))
	}
	if err := validateRecipients(rs); err != nil {
		return nil, err
	}
	return rs, nil
}

// cutField splits off a field; nil if it is empty.
func cutField(b []byte) (field, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, malformed("it ends within the length of a field")
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n > len(b) {
		return nil, nil, malformed("it ends %d bytes into a field of %d", len(b), n)
	}
	if n == 0 {
		return nil, b, nil
	}
	return b[:n], b[n:], nil
}
