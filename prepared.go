package atrest

import (
	"slices"
	"time"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// What is unwrapped before its entry commits is kept within bounds: most proposals
// commit at once, and those that do not are forgotten.
const (
	maxPrepared  = 64
	keepPrepared = 10 * time.Minute
)

// prepared are DEKs whose entry has not been applied yet, the oldest first. The
// zero value is empty. n.mu is held.
type prepared []preparedKey

type preparedKey struct {
	header key.Header
	dek    key.DEK
	until  time.Time
}

// keep adds a DEK, in place of the oldest one if there are too many. One that is
// there already is kept longer.
func (p *prepared) keep(h key.Header, dek key.DEK, now time.Time) {
	p.forget(now)
	if i := slices.IndexFunc(*p, func(e preparedKey) bool { return e.header == h }); i >= 0 {
		p.drop(i)
	}
	if len(*p) == maxPrepared {
		p.drop(0)
	}
	*p = append(*p, preparedKey{header: h, dek: dek, until: now.Add(keepPrepared)})
}

// take returns and forgets the DEK of a key.
func (p *prepared) take(k applier.Key, now time.Time) (key.DEK, bool) {
	p.forget(now)
	for i, e := range *p {
		if h := e.header; h.ID == k.ID && h.Check == k.Check && (h.Purpose == k.Purpose || h.Purpose == 0) { // generation 1 does not say it
			p.drop(i)
			return e.dek, true
		}
	}
	return key.DEK{}, false
}

// forget drops what has been kept long enough.
func (p *prepared) forget(now time.Time) {
	for len(*p) > 0 && !now.Before((*p)[0].until) {
		p.drop(0)
	}
}

// drop removes one, and leaves no copy behind the end.
func (p *prepared) drop(i int) {
	copy((*p)[i:], (*p)[i+1:])
	(*p)[len(*p)-1] = preparedKey{}
	*p = (*p)[:len(*p)-1]
}
