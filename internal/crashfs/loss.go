package crashfs

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2" //nolint:depguard // only tests use this package, and they want to repeat a run
	"slices"
	"strings"
)

// Restart returns the file system as the next process finds it when this one
// ends and the machine runs on: everything as it was seen, what was not durable
// still not durable, no locks, no faults. f stays as it is.
func (f *FS) Restart() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := New()
	after.inodes, after.names = f.inodes, f.names
	clones := map[*inode]*inode{nil: nil}
	clone := func(n *inode) *inode {
		if _, ok := clones[n]; !ok {
			clones[n] = n.clone()
		}
		return clones[n]
	}
	for name, d := range f.dirs {
		c := newDirectory()
		for base, n := range d.entries {
			c.entries[base] = clone(n)
		}
		for base, p := range d.pending {
			q := &pendingName{order: p.order}
			for _, n := range p.versions {
				q.versions = append(q.versions, clone(n))
			}
			c.pending[base] = q
		}
		after.dirs[name] = c
	}
	return after
}

// Crash returns the file system after a power loss, where r chooses what
// survives of what is not durable. f stays as it is.
func (f *FS) Crash(r *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.undecided()
	return p.restore(p.random(r))
}

// PowerLosses yields the states in which a power loss can leave the file system,
// each once, with a text that says what survived. If there are more than limit
// combinations, it yields those where nothing survives, everything, everything
// but one thing, and nothing but one thing, and then limit others at random from
// seed. f must not change meanwhile.
func (f *FS) PowerLosses(limit int, seed uint64) iter.Seq2[string, *FS] {
	return func(yield func(string, *FS) bool) {
		f.mu.Lock()
		p := f.undecided()
		f.mu.Unlock()
		seen := map[[sha256.Size]byte]bool{}
		for choice := range p.choices(limit, seed) {
			after := p.restore(choice)
			if id := after.fingerprint(); !seen[id] {
				seen[id] = true
				if !yield(p.describe(choice), after) {
					return
				}
			}
		}
	}
}

// axis is one thing about which a power loss decides by itself: it takes one of
// n values, of which 0 is the durable one and now is what processes see.
type axis struct {
	what   string
	n, now int
}

// undecided is all that a power loss decides about. The axes of the names come
// first, then for each file its size and its blocks.
type undecided struct {
	f     *FS
	axes  []axis
	names []namePlan
	files []filePlan
}

type namePlan struct {
	dir, base string
	versions  []*inode
}

type filePlan struct {
	n      *inode
	sizes  []int
	blocks []int // the numbers of the blocks with versions
}

func (f *FS) undecided() *undecided {
	p := &undecided{f: f}
	p.addNames()
	for _, n := range p.reachable() {
		p.addFile(n)
	}
	return p
}

func (p *undecided) addNames() {
	orders := map[*pendingName]namePlan{}
	for dir, d := range p.f.dirs {
		for base, pending := range d.pending {
			orders[pending] = namePlan{dir: dir, base: base, versions: unique(pending.versions)}
		}
	}
	byOrder := func(a, b *pendingName) int { return cmp.Compare(a.order, b.order) }
	for _, pending := range slices.SortedFunc(maps.Keys(orders), byOrder) {
		plan := orders[pending]
		p.names = append(p.names, plan)
		now := p.f.dirs[plan.dir].entries[plan.base]
		p.axes = append(p.axes, axis{what: plan.base, n: len(plan.versions), now: slices.Index(plan.versions, now)})
	}
}

// reachable returns the files that a name may stand for, in a fixed order.
func (p *undecided) reachable() []*inode {
	found := map[*inode]bool{}
	for _, d := range p.f.dirs {
		for _, n := range d.entries {
			found[n] = true
		}
	}
	for _, name := range p.names {
		for _, n := range name.versions {
			found[n] = true
		}
	}
	delete(found, nil)
	return slices.SortedFunc(maps.Keys(found), func(a, b *inode) int { return cmp.Compare(a.number, b.number) })
}

func (p *undecided) addFile(n *inode) {
	plan := filePlan{n: n, sizes: []int{len(n.data)}, blocks: slices.Sorted(maps.Keys(n.blocks))}
	if len(n.sizes) > 0 {
		plan.sizes = unique(n.sizes)
	}
	p.files = append(p.files, plan)
	p.axes = append(p.axes, axis{
		what: fmt.Sprintf("size of #%d", n.number),
		n:    len(plan.sizes), now: slices.Index(plan.sizes, len(n.data)),
	})
	for _, i := range plan.blocks {
		p.axes = append(p.axes, axis{
			what: fmt.Sprintf("block %d of #%d", i, n.number),
			n:    len(n.blocks[i]), now: len(n.blocks[i]) - 1,
		})
	}
}

// unique keeps the first of equal values.
func unique[T comparable](values []T) []T {
	var out []T
	for _, v := range values {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// restore returns the file system that the choice leaves: one number an axis.
func (p *undecided) restore(choice []int) *FS {
	next := func() (c int) {
		c, choice = choice[0], choice[1:]
		return c
	}
	after := New()
	after.inodes = p.f.inodes
	chosen := map[string]map[string]*inode{}
	for dir, d := range p.f.dirs {
		after.dirs[dir] = newDirectory()
		chosen[dir] = maps.Clone(d.entries)
	}
	for _, name := range p.names {
		chosen[name.dir][name.base] = name.versions[next()]
	}
	files := map[*inode]*inode{}
	for _, file := range p.files {
		files[file.n] = file.restore(next)
	}
	for dir, entries := range chosen {
		for base, n := range entries {
			if n != nil {
				after.dirs[dir].entries[base] = files[n]
			}
		}
	}
	return after
}

func (p filePlan) restore(next func() int) *inode {
	data := make([]byte, p.sizes[next()])
	copy(data, p.n.data)
	for _, i := range p.blocks {
		if version := p.n.blocks[i][next()]; i*BlockSize < len(data) {
			copy(data[i*BlockSize:], version)
		}
	}
	return restored(p.n.number, p.n.mode, data)
}

// describe says what survived, in the axes where that is not what was seen.
func (p *undecided) describe(choice []int) string {
	var lost []string
	for i, a := range p.axes {
		if choice[i] != a.now {
			lost = append(lost, fmt.Sprintf("%s: version %d of %d", a.what, choice[i]+1, a.n))
		}
	}
	if len(lost) == 0 {
		return "everything survived"
	}
	return "not the newest survived: " + strings.Join(lost, ", ")
}

// choices yields choices, some of which may lead to the same file system.
func (p *undecided) choices(limit int, seed uint64) iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		all := 1
		for _, a := range p.axes {
			if all *= a.n; all > limit {
				_ = p.edges(yield) && p.sample(limit, seed, yield)
				return
			}
		}
		p.every(yield)
	}
}

// every counts through all choices.
func (p *undecided) every(yield func([]int) bool) {
	choice := make([]int, len(p.axes))
	for {
		if !yield(choice) {
			return
		}
		i := 0
		for ; i < len(choice); i++ {
			if choice[i]++; choice[i] < p.axes[i].n {
				break
			}
			choice[i] = 0
		}
		if i == len(choice) {
			return
		}
	}
}

// edges yields the choices where at most one thing differs from nothing having
// survived, or from everything.
func (p *undecided) edges(yield func([]int) bool) bool {
	nothing, everything := make([]int, len(p.axes)), make([]int, len(p.axes))
	for i, a := range p.axes {
		everything[i] = a.now
	}
	for _, base := range [][]int{nothing, everything} {
		if !yield(base) {
			return false
		}
		for i, a := range p.axes {
			choice := slices.Clone(base)
			for choice[i] = range a.n {
				if choice[i] != base[i] && !yield(choice) {
					return false
				}
			}
		}
	}
	return true
}

func (p *undecided) sample(limit int, seed uint64, yield func([]int) bool) bool {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // see the import
	for range limit {
		if !yield(p.random(r)) {
			return false
		}
	}
	return true
}

func (p *undecided) random(r *rand.Rand) []int {
	choice := make([]int, len(p.axes))
	for i, a := range p.axes {
		choice[i] = r.IntN(a.n)
	}
	return choice
}

// fingerprint tells apart what processes could see as different.
func (f *FS) fingerprint() [sha256.Size]byte {
	var b bytes.Buffer
	for _, dir := range slices.Sorted(maps.Keys(f.dirs)) {
		entries := f.dirs[dir].entries
		for _, base := range slices.Sorted(maps.Keys(entries)) {
			n := entries[base]
			fmt.Fprintf(&b, "%q %q %d %o %d:", dir, base, n.number, n.mode, len(n.data))
			b.Write(n.data)
		}
	}
	return sha256.Sum256(b.Bytes())
}
