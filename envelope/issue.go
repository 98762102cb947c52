package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Usage counts seals and the plaintext bytes in them.
type Usage struct{ Seals, Bytes uint64 }

func (u Usage) add(v Usage) Usage { return Usage{u.Seals + v.Seals, u.Bytes + v.Bytes} }

// Meter grants the right to seal, a block of seals at a time, off the hot path.
// A sealer calls it from the goroutine that seals and holds no lock meanwhile; it
// must be safe for concurrent use and must not wait for I/O.
type Meter interface {
	// Reserve grants at least one seal and at most want.Seals, and any number of
	// bytes. Where a grant does not do for the seal at hand, the sealer returns
	// all that it holds and asks for exactly this one seal; the error, or a grant
	// that is too small again, then fails the seal.
	Reserve(want Usage) (Usage, error)
	// Return takes back what of earlier grants was not used.
	Return(unused Usage)
}

const (
	shards     = 64
	blockSeals = 1024
	blockBytes = 1 << 26
	maxGrant   = 1 << 46 // bytes of one block, so that they fit its word
	maxCounted = 1 << 48 // counted nonces of one sealer
	maxSalted  = 1 << 24 // seals under one salt
)

// issuer hands out nonces, and with each the right to seal so many bytes.
//
// It does so from blocks of up to 1024 seals, one for each of 64 shards. A
// goroutine finds its shard by the address of its stack, so that goroutines
// rarely meet in one. A block is used up by compare-and-swap on one word and
// never used again; a new one is made under the mutex, after asking the meter.
type issuer struct {
	shards [shards]shard

	c       *Cipher
	meter   Meter
	counted bool
	writer  Writer
	start   uint64 // the first counted nonce

	mu      sync.Mutex
	issued  uint64 // counted nonces in blocks so far
	salt    *salted
	salted  uint64 // seals in blocks under salt so far
	stopped bool
}

type shard struct {
	block atomic.Pointer[block]
	_     [56]byte
}

// block is a number of seals, all of one suite. Its word holds the bytes used
// above 16 bits for the seals used; closed, those are all ones. The rest does not
// change.
type block struct {
	word   atomic.Uint64
	seals  uint64
	bytes  uint64
	base   uint64 // counted nonce of seal 0
	aead   *aead
	header Header
	head   int               // size of header and nonce
	prefix [maxHeadSize]byte // what header and nonce have in common
	_      [40]byte          // its own pair of cache lines
}

// maxHeadSize is the size of a header and the part of a nonce that is the same
// for all seals of a block.
const maxHeadSize = HeaderSize + saltSize

const closed = 1<<16 - 1

// spent is where every shard begins and ends.
var spent = new(block)

func (s *issuer) init(c *Cipher, m Meter) {
	s.c, s.meter = c, m
	for i := range s.shards {
		s.shards[i].block.Store(spent)
	}
}

// fits reports whether a block whose word is w has room for one more seal.
func (b *block) fits(w, size uint64) bool {
	return w&closed < b.seals && w>>16+size <= b.bytes
}

// put writes header and nonce of seal i. Half of an extended nonce is the salt,
// half is fresh for each message; strict FIPS mode draws that itself.
func (b *block) put(dst []byte, i uint64) {
	*(*[16]byte)(dst) = [16]byte(b.prefix[:])
	if b.header.Suite == AES256GCM {
		binary.BigEndian.PutUint64(dst[HeaderSize+4:], b.base+i)
		return
	}
	*(*[2]byte)(dst[16:]) = [2]byte(b.prefix[16:])
	if !b.aead.random {
		rand.Read(dst[HeaderSize+saltSize:]) //nolint:errcheck // crypto/rand.Read never returns an error.
	}
}

// close ends the block and returns what was not used of it.
func (b *block) close() Usage {
	w := b.word.Or(closed)
	if w&closed == closed {
		return Usage{}
	}
	return Usage{Seals: b.seals - w&closed, Bytes: b.bytes - w>>16}
}

// left returns what is not used of the block.
func (b *block) left() Usage {
	w := b.word.Load()
	if w&closed == closed {
		return Usage{}
	}
	return Usage{Seals: b.seals - w&closed, Bytes: b.bytes - w>>16}
}

// here returns the shard of the calling goroutine.
func here() int {
	var local byte
	return int(uint64(uintptr(unsafe.Pointer(&local))>>12) * 0x9e3779b97f4a7c15 >> 58)
}

// take issues one seal of size bytes: a block and the index in it.
func (s *issuer) take(size uint64) (*block, uint64, error) {
	i := here()
	b := s.shards[i].block.Load()
	w := b.word.Load()
	if b.fits(w, size) && b.word.CompareAndSwap(w, w+size<<16+1) {
		return b, w & closed, nil
	}
	return s.takeSlow(i, size)
}

func (s *issuer) takeSlow(i int, size uint64) (*block, uint64, error) {
	for {
		b := s.shards[i].block.Load()
		w := b.word.Load()
		if !b.fits(w, size) {
			if err := s.refill(i, b, size); err != nil {
				return nil, 0, err
			}
			continue
		}
		if b.word.CompareAndSwap(w, w+size<<16+1) {
			return b, w & closed, nil
		}
		i = (i + 1) % shards // somebody else is here
	}
}

// refill puts a new block in the place of old, which has no room for size bytes.
func (s *issuer) refill(i int, old *block, size uint64) error {
	grant, err := s.reserve(size)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.stopped || s.shards[i].block.Load() != old {
		err := s.ifStopped()
		s.mu.Unlock()
		s.giveBack(grant)
		return err
	}
	b, err := s.newBlock(grant)
	if err != nil {
		s.mu.Unlock()
		s.giveBack(grant)
		return err
	}
	grant.Seals -= b.seals
	grant.Bytes = 0
	s.shards[i].block.Store(b)
	rest := old.close()
	s.mu.Unlock()
	s.giveBack(grant.add(rest))
	return nil
}

// newBlock makes a block of what the meter granted, within what is left of the
// counted nonces or of the salt. The mutex is held.
func (s *issuer) newBlock(grant Usage) (*block, error) {
	b := &block{seals: min(grant.Seals, blockSeals), bytes: min(grant.Bytes, maxGrant)}
	if s.counted && s.issued < maxCounted {
		b.seals = min(b.seals, maxCounted-s.issued)
		b.base = s.start + s.issued
		b.aead, b.header, b.head = &s.c.gcm, Header{Suite: AES256GCM, KeyID: s.c.id}, HeaderSize+gcmNonceSize
		h := b.header.append(b.prefix[:0])
		h = binary.BigEndian.AppendUint16(h, s.writer.Node16)
		binary.BigEndian.AppendUint16(h, s.writer.Epoch)
		s.issued += b.seals
		return b, nil
	}
	if s.salt == nil || s.salted == maxSalted {
		x, err := s.c.extended()
		if err != nil {
			return nil, err
		}
		var salt [saltSize]byte
		rand.Read(salt[:]) //nolint:errcheck // crypto/rand.Read never returns an error.
		m, err := x.derive(salt)
		if err != nil {
			return nil, fmt.Errorf("envelope: key %s: %w", s.c.id, err)
		}
		x.keep(m)
		s.salt, s.salted = m, 0
	}
	b.seals = min(b.seals, maxSalted-s.salted)
	b.aead, b.header, b.head = &s.salt.aead, Header{Suite: XAES256GCM, KeyID: s.c.id}, HeaderSize+saltSize+gcmNonceSize
	copy(b.header.append(b.prefix[:0])[:maxHeadSize][HeaderSize:], s.salt.salt[:])
	s.salted += b.seals
	return b, nil
}

// reserve gets the right to seal a block, at least size bytes in one seal.
func (s *issuer) reserve(size uint64) (Usage, error) {
	s.mu.Lock()
	err := s.ifStopped()
	s.mu.Unlock()
	if err != nil {
		return Usage{}, err
	}
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
		return Usage{}, fmt.Errorf("%w: key %s: no budget for %d bytes", ErrExhausted, s.c.id, size)
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

func (s *issuer) closeAll() Usage {
	var u Usage
	for i := range s.shards {
		if b := s.shards[i].block.Swap(spent); b != spent {
			u = u.add(b.close())
		}
	}
	return u
}

func (s *issuer) ifStopped() error {
	if s.stopped {
		return fmt.Errorf("%w: key %s", ErrStopped, s.c.id)
	}
	return nil
}

func (s *issuer) stop() {
	s.mu.Lock()
	s.stopped = true
	u := s.closeAll()
	s.mu.Unlock()
	s.giveBack(u)
}

func (s *issuer) unused() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var u Usage
	if s.meter != nil {
		for i := range s.shards {
			u = u.add(s.shards[i].block.Load().left())
		}
	}
	return u
}

func (s *issuer) suite() Suite {
	if b := s.shards[here()].block.Load(); b.fits(b.word.Load(), 0) {
		return b.header.Suite
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counted && s.issued < maxCounted {
		return AES256GCM
	}
	return XAES256GCM
}
