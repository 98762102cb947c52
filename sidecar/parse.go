package sidecar

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/atrestdb/atrest/key"
)

// parsed is what a file says, as long as nobody has checked its MAC.
type parsed struct {
	content content
	keyNode uint64 // the node that the file key's container names
	head    []byte // the file up to the state, not a copy
	mac     [sha256.Size]byte
}

// parse reads a file. It accepts exactly what content.appendTo writes: the text
// between the values is compared, not interpreted, so there is no second way to
// spell anything. The result is nil after an error; its content shares no memory
// with data.
func parse(data []byte) (*parsed, error) {
	if err := checkVersion(data); err != nil {
		return nil, err
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, errUTF8)
	}
	r := reader{data: data}
	p := r.file()
	if r.err != nil {
		return nil, fmt.Errorf("%w: line %d: %w", ErrMalformed, 1+bytes.Count(data[:r.pos], []byte("\n")), r.err)
	}
	return p, nil
}

// reader reads what comes next in data. After an error it does nothing more.
type reader struct {
	data []byte
	pos  int
	err  error
}

func (r *reader) file() *parsed {
	var p parsed
	c := &p.content
	r.want(textNode)
	c.node = r.number(math.MaxUint64)
	if c.node == 0 {
		r.fail("node id 0 names no node")
	}
	r.want(textEpochs)
	c.epochs = readTable(r, (*reader).epoch)
	r.want(textReserved)
	c.reserved = readTable(r, (*reader).usage)
	r.want(textThrough)
	c.through = r.number(math.MaxUint64)
	r.want(textFileKey)
	c.fileKey = r.base64()
	p.keyNode = r.container(c.fileKey)
	r.want(textState)
	p.head = r.data[:r.pos]
	c.state = r.state()
	r.want(textMAC)
	r.mac(&p.mac)
	r.want(textEnd)
	if r.pos < len(r.data) {
		r.fail("%d bytes behind the end", len(r.data)-r.pos)
	}
	return &p
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// skip steps over text if it comes next.
func (r *reader) skip(text string) bool {
	if r.err != nil || !bytes.HasPrefix(r.data[r.pos:], []byte(text)) {
		return false
	}
	r.pos += len(text)
	return true
}

// want steps over text, which must come next.
func (r *reader) want(text string) {
	if r.err != nil || r.skip(text) {
		return
	}
	for r.pos < len(r.data) && text != "" && r.data[r.pos] == text[0] {
		r.pos, text = r.pos+1, text[1:]
	}
	if r.pos == len(r.data) {
		r.fail("the file ends; want %q next", text)
	}
	r.fail("want %q next", text)
}

func (r *reader) number(limit uint64) uint64 {
	start := r.pos
	for r.err == nil && r.pos < len(r.data) && isDigit(r.data[r.pos]) && r.pos-start < 20 {
		r.pos++
	}
	digits := string(r.data[start:r.pos])
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > limit || len(digits) > 1 && digits[0] == '0' {
		r.fail("want a decimal number up to %d without leading zeros", limit)
		return 0
	}
	return n
}

func (r *reader) epoch() uint16 { return uint16(r.number(math.MaxUint16)) }

func (r *reader) usage() (u Usage) {
	r.want(textSeals)
	u.Seals = r.number(math.MaxUint64)
	r.want(textBytes)
	u.Bytes = r.number(math.MaxUint64)
	r.want(textUsed)
	return u
}

func readTable[V comparable](r *reader, value func(*reader) V) (t table[V]) {
	if r.skip(textEmpty) {
		return nil
	}
	last := key.ID(0)
	for before := textFirst; r.err == nil; before = textNext {
		if len(t) > 0 && r.skip(textLast) {
			return t
		}
		r.want(before)
		id := key.ID(r.number(math.MaxUint32))
		r.want(textValue)
		v := value(r)
		if id <= last {
			r.fail("key id %s after %s", id, last)
		}
		var zero V
		if v == zero {
			r.fail("key id %s has nothing to say", id)
		}
		last, t = id, append(t, row[V]{id, v})
	}
	return nil
}

// quoted returns what lies before the next quote, which stays.
func (r *reader) quoted() []byte {
	if r.err != nil {
		return nil
	}
	n := bytes.IndexByte(r.data[r.pos:], '"')
	if n < 0 {
		r.fail("want a quote")
		return nil
	}
	r.pos += n
	return r.data[r.pos-n : r.pos]
}

// base64 reads a container. The decoder lets line breaks pass, and they would
// get lost.
func (r *reader) base64() []byte {
	text := r.quoted()
	if limit := base64.StdEncoding.EncodedLen(key.MaxContainer); len(text) > limit {
		r.fail("want at most %d characters of base64", limit)
	}
	if r.err != nil {
		return nil
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") {
		r.fail("want base64")
		return nil
	}
	return b
}

// container returns the node that a file key is wrapped for.
func (r *reader) container(b []byte) (node uint64) {
	if r.err != nil {
		return 0
	}
	c, err := key.ParseFileContainer(b)
	if err != nil {
		r.fail("%w", err)
	}
	return c.Node
}

func (r *reader) state() state {
	if r.err != nil {
		return state{}
	}
	text, n, err := readState(r.data[r.pos:])
	r.pos += n
	if err != nil {
		r.fail("state: %w", err)
		return state{}
	}
	return newState(text)
}

func (r *reader) mac(mac *[sha256.Size]byte) {
	text := r.quoted()
	if r.err != nil {
		return
	}
	if n, err := hex.Decode(mac[:], text[:min(len(text), hex.EncodedLen(len(mac)))]); err != nil || n != len(mac) ||
		hex.EncodeToString(mac[:]) != string(text) {
		r.fail("want %d lower-case hexadecimal digits", hex.EncodedLen(len(mac)))
	}
}

// checkVersion finds files of other versions. These have other members, so they
// would be malformed, which says less.
func checkVersion(data []byte) error {
	rest := data
	for _, token := range []string{"{", `"version"`, ":"} {
		var ok bool
		if rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(token)); !ok {
			return fmt.Errorf(`%w: want {"version": at the start`, ErrMalformed)
		}
	}
	rest = bytes.TrimLeft(rest, " \t\r\n")
	digits := rest[:len(rest)-len(bytes.TrimLeft(rest, "0123456789"))]
	got, err := strconv.ParseUint(string(digits), 10, 64)
	if err == nil && got != version && (len(digits) == 1 || digits[0] != '0') {
		hint := ""
		if got == 1 || got == 2 {
			hint = ", a file of the reference system: atrest.WithGeneration1 takes it over, and atrest.Upgrade goes on from there"
		}
		return fmt.Errorf("%w: got %d, want %d%s", ErrVersion, got, version, hint)
	}
	return nil
}
