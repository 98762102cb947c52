package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	shards     = 64
	blockSeals = 1 << 10 // seals of one block
	blockBytes = 1 << 26 // bytes that one block asks for, unless one seal needs more
	maxGrant   = 1 << 46 // bytes that one block can count
	maxCounted = 1 << 48 // counted nonces of one sealer
	maxSalted  = 1 << 24 // seals under one salt
)

// issuer hands out nonces, and with each the right to seal so many bytes.
//
// It does so from blocks, one for each of 64 shards. A goroutine finds its shard
// by the address of its stack, so that two goroutines rarely share a block; that
// they may is why a nonce is claimed by compare-and-swap: first the check that
// there is one left, then the advance. A used-up block never comes back. The next
// one is made under the mutex, after asking the meter.
type issuer struct {
	shards [shards]atomic.Pointer[block]

	c       *Cipher
	meter   Meter
	counted bool
	chacha  bool // extended nonces are those of suite 0x04
	writer  Writer
	start   uint64 // the first counted nonce

	mu      sync.Mutex
	issued  uint64 // counted nonces in blocks so far
	salt    *salted
	salted  uint64 // seals in blocks under salt so far
	stopped bool
}

// block is a number of seals, all of one suite. Only its word changes: the bytes
// used, above 16 bits for the seals used, which are all ones once it is closed.
type block struct {
	word   atomic.Uint64
	seals  uint64
	bytes  uint64
	base   uint64 // counted nonce of the first seal
	aead   *aead
	header Header
	head   int              // size of header and nonce
	prefix [prefixSize]byte // what all headers and nonces of the block begin with
	_      [40]byte         // two cache lines that nothing else is in
}

const (
	closed     = 1<<16 - 1
	prefixSize = HeaderSize + saltSize
)

// spent is where every shard begins and ends.
var spent = func() *block {
	b := new(block)
	b.word.Store(closed)
	return b
}()

// fits reports whether a block whose word is w has room for one more seal.
func (b *block) fits(w uint64, size int) bool {
	return w&closed < b.seals && w>>16+uint64(size) <= b.bytes
}

// fast reports whether a plaintext can be sealed without further ado.
func (b *block) fast(w uint64, plaintext []byte) bool {
	return len(plaintext) <= MaxPlaintext && b.fits(w, len(plaintext)) && b.aead.fast()
}

// claim takes the next seal if the word is still w. Only who claims it may use
// what put wrote for w.
func (b *block) claim(w uint64, size int) bool {
	return b.word.CompareAndSwap(w, w+uint64(size)<<16+1)
}

// layout returns where in dst the ciphertext would start and the envelope end.
func (b *block) layout(dst, plaintext []byte) (start, end int) {
	start = len(dst) + b.head
	return start, start + len(plaintext) + TagSize
}

// put writes header and nonce of the seal that is next when the word is w.
func (b *block) put(dst []byte, w uint64) {
	*(*[16]byte)(dst) = [16]byte(b.prefix[:])
	if b.header.Suite == AES256GCM {
		binary.BigEndian.PutUint64(dst[HeaderSize+4:], b.base+w&closed)
		return
	}
	b.putExtended(dst)
}

// putExtended writes an extended nonce. Of suite 0x03 half of it is the salt, half
// is fresh for each message, and strict FIPS mode draws that half itself; of suite
// 0x04 all of it is fresh.
func (b *block) putExtended(dst []byte) {
	copy(dst, b.prefix[:])
	switch {
	case b.header.Suite == XChaCha20Poly1305:
		rand.Read(dst[HeaderSize:])
	case !b.aead.random:
		rand.Read(dst[prefixSize:])
	}
}

// left returns what is not used of the block.
func (b *block) left(w uint64) Usage {
	if w&closed == closed {
		return Usage{}
	}
	return Usage{Seals: b.seals - w&closed, Bytes: b.bytes - w>>16}
}

// close ends the block and returns what was not used of it.
func (b *block) close() Usage { return b.left(b.word.Or(closed)) }

func (s *issuer) init(c *Cipher, m Meter) {
	s.c, s.meter = c, m
	for i := range s.shards {
		s.shards[i].Store(spent)
	}
}

// here returns the shard of the calling goroutine. It depends on how deep its
// stack is too, so a seal asks once.
func here() int {
	var local byte
	p := uint64(uintptr(unsafe.Pointer(&local))) >> 11 // no stack is smaller than 2 KiB
	return int(p * 0x9e3779b97f4a7c15 >> 58)           // upper bits of the product with the golden ratio
}

// current returns the shard of the calling goroutine, its block, and the block's
// word.
func (s *issuer) current() (shard int, b *block, w uint64) {
	shard = here()
	b = s.shards[shard].Load()
	return shard, b, b.word.Load()
}

// take claims one seal of size bytes from the block of shard i, or from the next
// shard's when another goroutine is at this one. It returns the block and its
// word before.
func (s *issuer) take(i, size int) (*block, uint64, error) {
	for {
		b := s.shards[i].Load()
		w := b.word.Load()
		switch {
		case !b.fits(w, size):
			if err := s.refill(i, b, uint64(size)); err != nil {
				return nil, 0, err
			}
		case b.claim(w, size):
			return b, w, nil
		default:
			i = (i + 1) % shards
		}
	}
}

// refill puts a new block in the place of old, which has no room for size bytes.
// The meter is never called under the mutex: it may stop this very sealer.
func (s *issuer) refill(i int, old *block, size uint64) error {
	if err := s.alive(); err != nil {
		return err
	}
	grant, err := s.reserve(size)
	if err != nil {
		return err
	}
	unused, err := s.replace(i, old, grant)
	s.giveBack(unused)
	return err
}

// replace makes a block of the grant and puts it in the place of old, unless that
// was replaced meanwhile. It returns what is left of both.
func (s *issuer) replace(i int, old *block, grant Usage) (unused Usage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return grant, s.stoppedError()
	}
	if s.shards[i].Load() != old {
		return grant, nil
	}
	b, err := s.newBlock(grant)
	if err != nil {
		return grant, err
	}
	s.shards[i].Store(b)
	return old.close().add(Usage{Seals: grant.Seals - b.seals, Bytes: grant.Bytes - b.bytes}), nil
}

// newBlock makes a block of at most what was granted, within what is left of the
// counted nonces or of the salt. The mutex is held.
func (s *issuer) newBlock(grant Usage) (*block, error) {
	b := &block{seals: min(grant.Seals, blockSeals), bytes: min(grant.Bytes, maxGrant)}
	switch {
	case s.counted && s.issued < maxCounted:
		b.seals = min(b.seals, maxCounted-s.issued)
		b.base = s.start + s.issued
		s.issued += b.seals
		b.aead = s.c.gcm
		b.header = Header{Suite: AES256GCM, KeyID: s.c.id}
		binary.BigEndian.PutUint16(b.prefix[HeaderSize:], s.writer.Node16)
		binary.BigEndian.PutUint16(b.prefix[HeaderSize+2:], s.writer.Epoch)
	case s.chacha:
		a, err := s.c.xchacha()
		if err != nil {
			return nil, err
		}
		b.aead = a
		b.header = Header{Suite: XChaCha20Poly1305, KeyID: s.c.id}
	default:
		if err := s.freshSalt(); err != nil {
			return nil, err
		}
		b.seals = min(b.seals, maxSalted-s.salted)
		s.salted += b.seals
		b.aead = s.salt.aead
		b.header = Header{Suite: XAES256GCM, KeyID: s.c.id}
		copy(b.prefix[HeaderSize:], s.salt.salt[:])
	}
	b.head = HeaderSize + b.header.Suite.NonceSize()
	b.header.append(b.prefix[:0])
	return b, nil
}

// freshSalt draws a salt if there is none or it has served long enough. The mutex
// is held.
func (s *issuer) freshSalt() error {
	if s.salt != nil && s.salted < maxSalted {
		return nil
	}
	x, err := s.c.extended()
	if err != nil {
		return err
	}
	var salt [saltSize]byte
	rand.Read(salt[:])
	m, err := x.derive(salt)
	if err != nil {
		return fmt.Errorf("envelope: key %s: %w", s.c.id, err)
	}
	x.keep(m)
	s.salt, s.salted = m, 0
	return nil
}

// reserve gets the right to seal a block, at least size bytes in one seal. Where
// that is refused it gives back what lies unused in the shards and asks for the
// one seal.
func (s *issuer) reserve(size uint64) (Usage, error) {
	if s.meter == nil {
		return Usage{Seals: blockSeals, Bytes: maxGrant}, nil
	}
	u, err := s.meter.Reserve(Usage{Seals: blockSeals, Bytes: max(size, blockBytes)})
	if err == nil && u.Seals > 0 && u.Bytes >= size {
		return u, nil
	}
	if err == nil {
		s.giveBack(u)
	}
	s.giveBack(s.recall())
	if u, err = s.meter.Reserve(Usage{Seals: 1, Bytes: size}); err != nil {
		return Usage{}, fmt.Errorf("envelope: key %s: %w", s.c.id, err)
	}
	if u.Seals == 0 || u.Bytes < size {
		s.giveBack(u)
		return Usage{}, fmt.Errorf("%w: key %s, no budget for %d bytes", ErrExhausted, s.c.id, size)
	}
	return u, nil
}

func (s *issuer) giveBack(u Usage) {
	if s.meter != nil && u != (Usage{}) {
		s.meter.Return(u)
	}
}

// recall closes all blocks and returns what was not used of them.
func (s *issuer) recall() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeAll()
}

// closeAll is recall while the mutex is held.
func (s *issuer) closeAll() Usage {
	var u Usage
	for i := range s.shards {
		u = u.add(s.shards[i].Swap(spent).close())
	}
	return u
}

func (s *issuer) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return s.stoppedError()
	}
	return nil
}

func (s *issuer) stoppedError() error { return fmt.Errorf("%w: key %s", ErrStopped, s.c.id) }

func (s *issuer) stop() {
	s.mu.Lock()
	s.stopped = true
	u := s.closeAll()
	s.mu.Unlock()
	s.giveBack(u)
}

func (s *issuer) unused() Usage {
	var u Usage
	if s.meter == nil {
		return u
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.shards {
		b := s.shards[i].Load()
		u = u.add(b.left(b.word.Load()))
	}
	return u
}

func (s *issuer) suite() Suite {
	if _, b, w := s.current(); b.fits(w, 0) {
		return b.header.Suite
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.counted && s.issued < maxCounted:
		return AES256GCM
	case s.chacha:
		return XChaCha20Poly1305
	}
	return XAES256GCM
}
