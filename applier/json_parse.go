package applier

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// ParseJSON reads the readable form of a state. It accepts only what AppendJSON
// makes of a state that entries can lead to: the text between the values is
// compared, not interpreted, so there is no second way to spell anything. The
// result holds copies; on error it is nil.
func ParseJSON(b []byte) (*State, error) {
	if string(b) == "null" {
		return New(Generation2), nil
	}
	r := textReader{b: b}
	s := r.state()
	if r.pos < len(b) {
		r.fail("%d bytes behind its end", len(b)-r.pos)
	}
	if r.err == nil && s.gen == Generation2 && !s.Bootstrapped() {
		r.fail("no keys, want null")
	}
	if r.err != nil {
		return nil, errors.Wrapf(ErrForm, "applier: byte %d: %v", r.pos, r.err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// textReader reads what comes next in b. After an error it does nothing more.
type textReader struct {
	b   []byte
	pos int
	err error
}

func (r *textReader) state() *State {
	s := New(0)
	r.want(`{"generation":`)
	s.gen = Generation(r.number(math.MaxUint8))
	if r.skip(`,"cluster":"`) {
		r.hex(s.cluster[:])
		r.want(`"`)
		if s.cluster.IsZero() {
			r.fail("the cluster id is zero")
		}
	}
	r.want(`,"index":`)
	s.index = r.number(math.MaxUint64)
	s.storage = r.cutover(`,"storage_cutover":{"index":`)
	s.raft = r.cutover(`,"raft_cutover":{"index":`)
	r.want(`,"keys":[`)
	s.keys = readList[Key](r, nil, `]`, MaxKeys, (*textReader).key)
	r.want(`,"writers":{`)
	s.writers = r.writers()
	r.want(`,"gone":[`)
	s.gone = readList(r, nil, `]`, MaxGone, (*textReader).node)
	r.want(`,"backups":[`)
	s.backups = readList(r, nil, `]`, MaxBackups, (*textReader).backup)
	r.want(`}`)
	return s
}

func (r *textReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = errors.Newf(format, args...)
	}
}

// skip steps over text if it comes next.
func (r *textReader) skip(text string) bool {
	if r.err != nil || len(r.b)-r.pos < len(text) || string(r.b[r.pos:r.pos+len(text)]) != text {
		return false
	}
	r.pos += len(text)
	return true
}

// want steps over text, which must come next.
func (r *textReader) want(text string) {
	if !r.skip(text) {
		r.fail("want %s next", text)
	}
}

// number reads a number as strconv writes it.
func (r *textReader) number(limit uint64) (n uint64) {
	start := r.pos
	for r.err == nil && r.pos < len(r.b) && r.b[r.pos]-'0' < 10 && r.pos-start < 20 {
		r.pos++
	}
	digits := r.b[start:r.pos]
	if len(digits) > 1 && digits[0] == '0' {
		r.fail("a number with a leading zero")
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || n > limit {
		r.fail("want a number up to %d", limit)
	}
	return n
}

// positive reads a number that is left out where it is 0.
func (r *textReader) positive() uint64 {
	n := r.number(math.MaxUint64)
	if n == 0 {
		r.fail("a 0 that should have been left out")
	}
	return n
}

// hex fills dst.
func (r *textReader) hex(dst []byte) {
	text := r.b[r.pos:min(r.pos+hex.EncodedLen(len(dst)), len(r.b))]
	if r.err != nil {
		return
	}
	n, err := hex.Decode(dst, text)
	if err != nil || n < len(dst) || bytes.ContainsAny(text, "ABCDEF") {
		r.fail("want %d lower-case hexadecimal digits", hex.EncodedLen(len(dst)))
		return
	}
	r.pos += len(text)
}

// quoted returns what lies before the next quote, and steps over both.
func (r *textReader) quoted() []byte {
	if r.err != nil {
		return nil
	}
	n := bytes.IndexByte(r.b[r.pos:], '"')
	if n < 0 {
		r.fail("want a quote")
		return nil
	}
	r.pos += n + 1
	return r.b[r.pos-n-1 : r.pos-1]
}

func (r *textReader) word(v encoding.TextUnmarshaler) {
	text := r.quoted()
	if r.err != nil {
		return
	}
	if err := v.UnmarshalText(text); err != nil {
		r.fail("%v", err)
	}
}

// readList appends what comes up to end to list.
func readList[T any](r *textReader, list []T, end string, limit int, item func(*textReader) T) []T {
	for before := len(list); r.err == nil && !r.skip(end); {
		if len(list) > before {
			r.want(`,`)
		}
		if len(list) == limit {
			r.fail("more than %d in a list", limit)
		}
		if r.err == nil {
			list = append(list, item(r))
		}
	}
	return list
}

func (r *textReader) cutover(before string) (c Cutover) {
	if c.Active = r.skip(before); c.Active {
		c.Index = r.number(math.MaxUint64)
		r.want(`}`)
	}
	return c
}

func (r *textReader) id() key.ID { return key.ID(r.number(math.MaxUint32)) }

func (r *textReader) key() (k Key) {
	r.want(`{"id":`)
	k.ID = r.id()
	r.want(`,"purpose":"`)
	r.word(&k.Purpose)
	r.want(`,"state":"`)
	r.word(&k.State)
	if r.skip(`,"check":"`) {
		r.hex(k.Check[:])
		r.want(`"`)
		if k.Check == (key.Check{}) {
			r.fail("a check value of 0 that should have been left out")
		}
	}
	r.want(`,"created":`)
	k.Created = r.number(math.MaxUint64)
	for _, at := range [...]struct {
		name  string
		index *uint64
	}{{`,"rewrapped":`, &k.Rewrapped}, {`,"retired":`, &k.Retired}, {`,"stopped":`, &k.Stopped}, {`,"destroyed":`, &k.Destroyed}} {
		if r.skip(at.name) {
			*at.index = r.positive()
		}
	}
	if r.skip(`,"container":"`) {
		k.Container = r.container()
	}
	r.want(`}`)
	return k
}

// container reads base64. The decoder lets line breaks pass, and they would get
// lost.
func (r *textReader) container() []byte {
	text := r.quoted()
	if len(text) == 0 || len(text) > base64.StdEncoding.EncodedLen(key.MaxContainer) || bytes.ContainsAny(text, "\r\n") {
		r.fail("a container of %d characters", len(text))
		return nil
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	if err != nil {
		r.fail("a container that is not base64")
		return nil
	}
	return b[:n:n]
}

// writers reads the rows, which stand in lists by key.
func (r *textReader) writers() (rows []Writer) {
	for r.err == nil && !r.skip(`}`) {
		before := len(rows)
		if before > 0 {
			r.want(`,`)
		}
		r.want(`"`)
		id := r.id()
		r.want(`":[`)
		rows = readList(r, rows, `]`, MaxWriters, func(r *textReader) Writer { return r.writer(id) })
		if len(rows) == before {
			r.fail("no rows of key %s", id)
		}
	}
	return rows
}

func (r *textReader) writer(id key.ID) Writer {
	r.want(`"`)
	w := Writer{Key: id, Node: nodeid.ID(r.number(math.MaxUint64))}
	r.want(` `)
	w.First = uint16(r.number(math.MaxUint16))
	r.want(` `)
	w.Last = uint16(r.number(math.MaxUint16))
	if r.skip(` `) {
		r.hex(w.Load[:])
		if w.Load == (LoadID{}) {
			r.fail("a load id of 0 that should have been left out")
		}
	}
	r.want(`"`)
	return w
}

func (r *textReader) node() nodeid.ID {
	r.want(`"`)
	n := r.number(math.MaxUint64)
	r.want(`"`)
	return nodeid.ID(n)
}

func (r *textReader) backup() (b Backup) {
	r.want(`{"id":"`)
	r.hex(b.ID[:])
	r.want(`","index":`)
	b.Index = r.number(math.MaxUint64)
	r.want(`,"keys":[`)
	b.Keys = readList(r, nil, `]`, MaxKeys, (*textReader).id)
	r.want(`}`)
	return b
}
