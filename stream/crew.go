package stream

import (
	"sync"
)

// slot is one segment on its way through.
type slot struct {
	buf    []byte // room for a sealed segment
	in     []byte // what to seal or open
	dst    []byte // where to open it to, nil for in place
	out    []byte // what came of it
	err    error
	number uint64
	last   bool
	done   bool
	aad    aad
}

// crew works on slots, several at once, and gives them back in order. The slots
// form a ring: those from head to tail are in use, those from next to tail wait
// for somebody to work on them. The caller does so itself while it waits for the
// oldest, and helpers do as long as there is something left; then they end. So
// nobody has to end them.
type crew struct {
	do   func(*slot)
	size int // of a buffer
	ring []slot
	help func() // c.helper, made once

	mu               sync.Mutex
	finished         sync.Cond // some slot is done
	head, next, tail uint64
	helpers, most    int
	waiting          bool
}

func newCrew(workers, size int, do func(*slot)) *crew {
	n := 1
	if workers > 1 {
		n = 2 * workers
	}
	c := &crew{do: do, size: size, ring: make([]slot, n), most: workers - 1}
	c.finished.L = &c.mu
	c.help = c.helper
	return c
}

func (c *crew) at(i uint64) *slot { return &c.ring[i%uint64(len(c.ring))] }

// full and empty look at numbers that only the caller changes.
func (c *crew) full() bool  { return c.tail-c.head == uint64(len(c.ring)) }
func (c *crew) empty() bool { return c.tail == c.head }

// free returns the slot to fill next; the crew must not be full.
func (c *crew) free() *slot {
	s := c.at(c.tail)
	if s.buf == nil {
		s.buf = getBuffer(c.size)
	}
	return s
}

// start puts the slot that free returned to work. The caller will do one slot that
// waits; helpers are for more, and not for what takes less time than to wake one.
func (c *crew) start() {
	if c.most == 0 {
		c.tail++
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail++
	if c.tail-c.next > 1 && c.helpers < c.most && len(c.at(c.tail-1).in) >= MinSegment {
		c.helpers++
		go c.help()
	}
}

// oldest returns the oldest slot when it is done.
func (c *crew) oldest() *slot {
	s := c.at(c.head)
	if c.most == 0 {
		if c.next == c.head {
			c.next++
			c.do(s)
		}
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for !s.done {
		if !c.work() {
			c.wait()
		}
	}
	return s
}

// release makes the oldest slot free again.
func (c *crew) release() {
	s := c.at(c.head)
	s.in, s.dst, s.out, s.err, s.done = nil, nil, nil, nil, false
	c.head++
}

// work does one slot that waits, if there is one. c.mu is held, but not meanwhile.
func (c *crew) work() bool {
	if c.next == c.tail {
		return false
	}
	s := c.at(c.next)
	c.next++
	c.mu.Unlock()
	c.do(s)
	c.mu.Lock()
	s.done = true
	return true
}

func (c *crew) helper() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.work() {
		if c.waiting {
			c.finished.Signal()
		}
	}
	c.helpers--
	if c.waiting {
		c.finished.Signal()
	}
}

func (c *crew) wait() {
	c.waiting = true
	c.finished.Wait()
	c.waiting = false
}

// stop drops what waits, waits for what is being done, and gives the buffers back.
func (c *crew) stop() {
	c.mu.Lock()
	c.next = c.tail
	for c.helpers > 0 {
		c.wait()
	}
	c.mu.Unlock()
	c.head = c.tail
	for i := range c.ring {
		putBuffer(c.ring[i].buf)
		c.ring[i] = slot{}
	}
}

// buffers are kept for the next stream: making and clearing them takes as long as
// sealing a part of them.
var buffers sync.Pool

func getBuffer(size int) []byte {
	if b, ok := buffers.Get().(*[]byte); ok && cap(*b) >= size {
		return (*b)[:size]
	}
	return make([]byte, size)
}

func putBuffer(b []byte) {
	if b != nil {
		buffers.Put(&b)
	}
}
