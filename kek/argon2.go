package kek

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Cost is what turning a passphrase into a key costs, by Argon2id (RFC 9106).
type Cost struct {
	Time    uint32 // passes over the memory
	Memory  uint32 // KiB
	Threads uint8  // lanes
}

// The least that is accepted, in wrapping and in unwrapping alike: what is
// cheaper to compute is cheaper to guess.
const (
	MinTime   = 2
	MinMemory = 19 << 10 // KiB: 19 MiB
)

var (
	defaultCost = Cost{Time: 3, Memory: 64 << 10, Threads: 4} // RFC 9106, section 4, the second choice
	defaultMax  = Cost{Time: 16, Memory: 256 << 10, Threads: 64}
)

func (c Cost) checkMin() error {
	switch {
	case c.Time < MinTime:
		return fmt.Errorf("%w: %d passes, want at least %d", ErrCost, c.Time, MinTime)
	case c.Memory < MinMemory:
		return fmt.Errorf("%w: %d KiB of memory, want at least %d", ErrCost, c.Memory, MinMemory)
	case c.Threads == 0:
		return fmt.Errorf("%w: no threads, want at least 1", ErrCost)
	}
	return nil
}

func (c Cost) checkMax(limit Cost) error {
	switch {
	case c.Time > limit.Time:
		return fmt.Errorf("%w: %d passes, want at most %d here", ErrCost, c.Time, limit.Time)
	case c.Memory > limit.Memory:
		return fmt.Errorf("%w: %d KiB of memory, want at most %d here", ErrCost, c.Memory, limit.Memory)
	case c.Threads > limit.Threads:
		return fmt.Errorf("%w: %d threads, want at most %d here", ErrCost, c.Threads, limit.Threads)
	}
	return nil
}

// atLeast returns the larger of two costs, field by field.
func (c Cost) atLeast(o Cost) Cost {
	return Cost{Time: max(c.Time, o.Time), Memory: max(c.Memory, o.Memory), Threads: max(c.Threads, o.Threads)}
}

// params are the parameters of a wrap under a passphrase:
//
//	version 1 | time 4 | memory 4 | threads 1 | salt 16
//
// They stand before the associated data of the wrap.
type params [paramsSize]byte

const (
	paramsVersion = 1
	saltSize      = 16
	paramsSize    = 1 + 4 + 4 + 1 + saltSize
)

type salt [saltSize]byte

func newParams(c Cost, s salt) (p params) {
	p[0] = paramsVersion
	binary.BigEndian.PutUint32(p[1:5], c.Time)
	binary.BigEndian.PutUint32(p[5:9], c.Memory)
	p[9] = c.Threads
	copy(p[10:], s[:])
	return p
}

// parseParams accepts what newParams makes of a cost that is high enough.
// Whether it is too high is for who opens it to say.
func parseParams(b []byte) (params, error) {
	if len(b) != paramsSize {
		return params{}, fmt.Errorf("%w: %d bytes of parameters, want %d", ErrWrongKey, len(b), paramsSize)
	}
	p := params(b)
	if p[0] != paramsVersion {
		return params{}, fmt.Errorf("%w: parameters of version %d, want %d", ErrWrongKey, p[0], paramsVersion)
	}
	if err := p.cost().checkMin(); err != nil {
		return params{}, fmt.Errorf("%w: %w", ErrWrongKey, err)
	}
	return p, nil
}

func (p params) cost() Cost {
	return Cost{Time: binary.BigEndian.Uint32(p[1:5]), Memory: binary.BigEndian.Uint32(p[5:9]), Threads: p[9]}
}

func (p params) salt() []byte { return p[10:] }

// aad binds the parameters to the wrap. They are of one length, so what follows
// needs none.
func (p params) aad(ad []byte) []byte { return slices.Concat(p[:], ad) }
