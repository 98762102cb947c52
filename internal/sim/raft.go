package sim

import "slices"

// entry is one committed entry of the log. It does not change.
type entry struct {
	index uint64
	term  uint64
	data  []byte // as it lies in the log; nil in an entry of the engine's own
	plain []byte // what was sealed
	prop  *proposal
	verdict
}

// proposal is a payload on its way into the log.
type proposal struct {
	plain, data []byte
	answer      func(err error) // tells who proposed it what became of it; may be nil
	by          *proc
}

func (p *proposal) resolve(err error) {
	if p.answer != nil {
		p.answer(err)
	}
}

// raft is a log and what Raft says of it, without its messages: a leader appends
// proposals to its tail; a majority makes them an entry for good; a leader that
// goes away leaves a part of its tail to the next one.
type raft struct {
	log  []*entry // committed: index i at log[i-1]
	tail []*proposal
	term uint64
}

// last is the index of the last committed entry.
func (r *raft) last() uint64 { return uint64(len(r.log)) }

// at returns a committed entry.
func (r *raft) at(index uint64) *entry { return r.log[index-1] }

// between returns committed entries, both ends included.
func (r *raft) between(from, to uint64) []*entry {
	if from > to {
		return nil
	}
	return slices.Clip(r.log[from-1 : to])
}

// propose appends to the leader's tail.
func (r *raft) propose(p *proposal) { r.tail = append(r.tail, p) }

// next takes the next proposal out of the tail and makes it an entry, which becomes
// committed with append.
func (r *raft) next() *entry {
	p := r.tail[0]
	r.tail = r.tail[1:]
	return &entry{index: r.last() + 1, term: r.term, data: p.data, plain: p.plain, prop: p}
}

func (r *raft) append(e *entry) { r.log = append(r.log, e) }

// elect begins a term whose leader has got so many of the former one's proposals,
// and returns those that are lost. A leader begins with an entry of its own, so
// indexes have gaps as far as the host's payloads go.
func (r *raft) elect(survive int) (lost []*proposal) {
	survive = min(survive, len(r.tail))
	lost = r.tail[survive:]
	r.tail = append(slices.Clone(r.tail[:survive]), &proposal{})
	r.term++
	return lost
}

// truncate forgets committed entries, as a majority does that is set back.
func (r *raft) truncate(last uint64) {
	r.log = slices.Clone(r.log[:last])
	r.tail = nil
	r.term++
}
