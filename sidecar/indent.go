package sidecar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deeply lists and objects of the state may lie in one another.
// With it, a short text cannot become a long one by indentation alone.
const maxDepth = 64

const indentation = "  "

var (
	errSyntax  = errors.New("not valid JSON")
	errDepth   = fmt.Errorf("nested more than %d deep", maxDepth)
	errLong    = errors.New("too long")
	errUTF8    = errors.New("not valid UTF-8")
	errSpacing = errors.New("not indented as this library does it")

	spaces = strings.Repeat(indentation, 1+maxDepth)
)

// canonicalState returns the JSON value src as it stands in the file: the way
// json.Indent writes it, with every token as it is in src. Only white space may
// surround the value. The result is not part of src and depends on the tokens of
// src alone.
func canonicalState(src []byte) ([]byte, error) {
	if !utf8.Valid(src) {
		return nil, errUTF8
	}
	in := indenter{src: src, dst: make([]byte, 0, len(src)+len(src)/4), limit: MaxSize}
	in.space()
	ok := in.value()
	in.space()
	if !ok || in.pos < len(src) {
		in.fail(errSyntax)
		return nil, fmt.Errorf("%w, at byte %d", in.err, in.pos)
	}
	return in.dst, nil
}

// readState is canonicalState for a value in the file, which other things
// follow and which must be in canonical form. The text must be UTF-8.
// n is how many bytes were read.
func readState(src []byte) (text []byte, n int, err error) {
	in := indenter{src: src, dst: make([]byte, 0, len(src)), limit: len(src)}
	if !in.value() {
		return nil, in.pos, in.err
	}
	if !bytes.Equal(in.dst, src[:in.pos]) {
		return nil, 0, errSpacing
	}
	return in.dst, in.pos, nil
}

// indenter walks over the JSON value at src[pos:] and appends it to dst, until
// dst is longer than limit. Its methods report whether they could; if value
// could not, err says why.
type indenter struct {
	src, dst []byte
	pos      int
	depth    int // of lists and objects within the state
	limit    int
	err      error
}

func (in *indenter) fail(err error) bool {
	if in.err == nil {
		in.err = err
	}
	return false
}

// peek returns 0, with which nothing in JSON begins, at the end.
func (in *indenter) peek() byte {
	if in.pos < len(in.src) {
		return in.src[in.pos]
	}
	return 0
}

func (in *indenter) space() {
	for in.pos < len(in.src) {
		switch in.src[in.pos] {
		case ' ', '\n', '\t', '\r':
			in.pos++
		default:
			return
		}
	}
}

// copyFrom appends what lies between start and pos.
func (in *indenter) copyFrom(start int) bool {
	in.dst = append(in.dst, in.src[start:in.pos]...)
	return true
}

// take copies c if it comes next.
func (in *indenter) take(c byte) bool {
	if in.peek() != c {
		return false
	}
	in.pos++
	in.dst = append(in.dst, c)
	return true
}

func (in *indenter) newline() bool {
	if len(in.dst) > in.limit {
		return in.fail(errLong)
	}
	in.dst = append(in.dst, '\n')
	in.dst = append(in.dst, spaces[:(1+in.depth)*len(indentation)]...)
	return true
}

func (in *indenter) value() bool {
	switch c := in.peek(); {
	case c == '{':
		return in.list('{', '}')
	case c == '[':
		return in.list('[', ']')
	case c == '"':
		return in.text()
	case c == '-' || isDigit(c):
		return in.number()
	}
	return in.word("true") || in.word("false") || in.word("null") || in.fail(errSyntax)
}

func (in *indenter) list(opening, closing byte) bool {
	if in.depth++; in.depth > maxDepth {
		return in.fail(errDepth)
	}
	in.take(opening)
	in.space()
	if in.take(closing) {
		in.depth--
		return true
	}
	for more := true; more; more = in.take(',') {
		in.space()
		if !in.newline() || opening == '{' && !in.name() || !in.value() {
			return false
		}
		in.space()
	}
	in.depth--
	return in.newline() && in.take(closing) || in.fail(errSyntax)
}

func (in *indenter) name() bool {
	if in.peek() != '"' {
		return in.fail(errSyntax)
	}
	if !in.text() {
		return false
	}
	in.space()
	if !in.take(':') {
		return in.fail(errSyntax)
	}
	in.dst = append(in.dst, ' ')
	in.space()
	return true
}

func (in *indenter) text() bool {
	start := in.pos
	in.pos++
	for {
		in.pos += plain(in.src[in.pos:])
		switch in.peek() {
		case '"':
			in.pos++
			return in.copyFrom(start)
		case '\\':
			if !in.escape() {
				return in.fail(errSyntax)
			}
		default:
			return in.fail(errSyntax)
		}
	}
}

func (in *indenter) escape() bool {
	in.pos++
	c := in.peek()
	if strings.IndexByte(`"\/bfnrtu`, c) < 0 {
		return false
	}
	in.pos++
	for n := 0; c == 'u' && n < 4; n++ {
		if !isHex(in.peek()) {
			return false
		}
		in.pos++
	}
	return true
}

// plain returns how many bytes at the start of s stand for themselves within
// quotes. It looks at eight of them at a time, since most of a state is base64.
func plain(s []byte) int {
	i := 0
	for ; i+8 <= len(s) && !anySpecial(binary.LittleEndian.Uint64(s[i:])); i += 8 {
	}
	for i < len(s) && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// anySpecial reports whether one of eight bytes is a control character, a quote
// or a backslash.
func anySpecial(w uint64) bool {
	const each, high = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
	quote, backslash := w^each*'"', w^each*'\\'
	return ((w-each*' ')&^w|(quote-each)&^quote|(backslash-each)&^backslash)&high != 0
}

func (in *indenter) number() bool {
	start := in.pos
	if in.peek() == '-' {
		in.pos++
	}
	zero := in.peek() == '0'
	if n := in.digits(); n == 0 || zero && n > 1 {
		return in.fail(errSyntax)
	}
	if in.peek() == '.' {
		in.pos++
		if in.digits() == 0 {
			return in.fail(errSyntax)
		}
	}
	if c := in.peek(); c == 'e' || c == 'E' {
		in.pos++
		if c := in.peek(); c == '+' || c == '-' {
			in.pos++
		}
		if in.digits() == 0 {
			return in.fail(errSyntax)
		}
	}
	return in.copyFrom(start)
}

func (in *indenter) digits() (n int) {
	for isDigit(in.peek()) {
		in.pos++
		n++
	}
	return n
}

func (in *indenter) word(w string) bool {
	if !strings.HasPrefix(string(in.src[in.pos:min(len(in.src), in.pos+len(w))]), w) {
		return false
	}
	in.pos += len(w)
	return in.copyFrom(in.pos - len(w))
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// compact returns a state without the white space between its tokens.
func compact(state []byte) []byte {
	in := indenter{src: state, dst: make([]byte, 0, len(state))}
	for in.pos < len(state) {
		if c := in.peek(); c != '"' || !in.text() {
			in.take(c)
		}
		in.space()
	}
	return in.dst
}
