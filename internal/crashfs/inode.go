package crashfs

import (
	"io/fs"
	"maps"
	"slices"
)

// inode is a file: what processes see, and what of it a power loss may take.
type inode struct {
	number int
	mode   fs.FileMode
	data   []byte // what processes see
	// sizes and blocks hold what may be found after a power loss: the durable
	// state first, the newest last. Empty: what processes see.
	sizes  []int
	blocks map[int][]string
	// stuck has the blocks, and sizeStuck says whether it is the size, that a
	// failed sync has left clean but not durable.
	stuck     map[int]bool
	sizeStuck bool
}

func newInode(number int, mode fs.FileMode) *inode {
	return &inode{number: number, mode: mode, blocks: map[int][]string{}, stuck: map[int]bool{}}
}

// restored returns a file with nothing left open.
func restored(number int, mode fs.FileMode, data []byte) *inode {
	n := newInode(number, mode)
	n.data = data
	return n
}

func (n *inode) clone() *inode {
	c := *n
	c.data = slices.Clone(n.data)
	c.sizes = slices.Clone(n.sizes)
	c.stuck = maps.Clone(n.stuck)
	c.blocks = make(map[int][]string, len(n.blocks))
	for i, v := range n.blocks {
		c.blocks[i] = slices.Clone(v)
	}
	return &c
}

// write puts b at offset off, filling a gap with zeros.
func (n *inode) write(off int, b []byte) {
	if len(b) == 0 {
		return
	}
	first, last := off/BlockSize, (off+len(b)-1)/BlockSize
	before := n.blockRange(first, last)
	if end := off + len(b); end > len(n.data) {
		n.resize(end)
	}
	copy(n.data[off:], b)
	n.recordBlocks(first, before)
}

// truncate drops all bytes.
func (n *inode) truncate() {
	if len(n.data) == 0 {
		return
	}
	before := n.blockRange(0, (len(n.data)-1)/BlockSize)
	n.resize(0)
	n.recordBlocks(0, before)
}

func (n *inode) blockRange(first, last int) []string {
	var blocks []string
	for i := first; i <= last; i++ {
		blocks = append(blocks, blockOf(n.data, i))
	}
	return blocks
}

// blockOf returns block i of data, filled up with zeros.
func blockOf(data []byte, i int) string {
	var b [BlockSize]byte
	if off := i * BlockSize; off < len(data) {
		copy(b[:], data[off:])
	}
	return string(b[:])
}

func (n *inode) recordBlocks(first int, before []string) {
	for j, old := range before {
		i := first + j
		delete(n.stuck, i)
		now := blockOf(n.data, i)
		if now == old {
			continue
		}
		if len(n.blocks[i]) == 0 {
			n.blocks[i] = []string{old}
		}
		if mixed := torn(old, now); mixed != old {
			n.blocks[i] = append(n.blocks[i], mixed)
		}
		n.blocks[i] = append(n.blocks[i], now)
	}
}

// torn is now up to the middle of what changed, and old behind it. It is old if
// only one byte changed.
func torn(old, now string) string {
	first, last := 0, len(now)-1
	for old[first] == now[first] {
		first++
	}
	for old[last] == now[last] {
		last--
	}
	cut := (first + last + 1) / 2
	return now[:cut] + old[cut:]
}

func (n *inode) resize(size int) {
	old := len(n.data)
	if len(n.sizes) == 0 {
		n.sizes = []int{old}
	}
	n.sizes = append(n.sizes, (old+size)/2, size)
	n.sizeStuck = false
	if size <= old {
		n.data = n.data[:size:size]
		return
	}
	n.data = append(n.data, make([]byte, size-old)...)
}

// sync makes durable what a failed sync has not left stuck.
func (n *inode) sync() {
	if !n.sizeStuck {
		n.sizes = nil
	}
	maps.DeleteFunc(n.blocks, func(i int, _ []string) bool { return !n.stuck[i] })
}

// failSync leaves what is not durable so, whatever syncs follow.
func (n *inode) failSync() {
	n.sizeStuck = len(n.sizes) > 0
	for i := range n.blocks {
		n.stuck[i] = true
	}
}

// settle makes everything durable, come what may.
func (n *inode) settle() {
	clear(n.stuck)
	n.sizeStuck = false
	n.sync()
}
