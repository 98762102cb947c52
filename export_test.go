package atrest

import (
	"time"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// What tests need to see from inside.
const (
	MaxPrepared  = maxPrepared
	KeepPrepared = keepPrepared
)

var (
	InParallel = inParallel
	Batches    = batches
)

type Prepared = prepared

func (p *prepared) Keep(h key.Header, dek key.DEK, now time.Time) { p.keep(h, dek, now) }

func (p *prepared) Take(k applier.Key, now time.Time) (key.DEK, bool) { return p.take(k, now) }

// Prepared is how many DEKs a node keeps until their entries commit.
func (n *Node) Prepared() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.prepared.forget(time.Now())
	return len(n.prepared)
}
