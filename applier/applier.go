// Package applier is the replicated key state: which keys there are, which are
// active, who may seal under them, and whether values and log payloads are sealed.
// It is a state machine inside the host's state machine, and pure: no clock, no
// file, no goroutine and no randomness. What the entries of the log say decides
// it, and nothing else.
//
// A [State] never changes; [State.Apply] returns the one that an entry leads to.
// [Machine] is an [Applier] over it for hosts that need no more. Entries are made
// by [Generation.Append] and read by [Generation.Parse].
//
// # What an entry does
//
// It is applied, or does nothing, or is rejected: see [Outcome]. All replicas
// decide alike. An error instead of an outcome stops the replica: the entry is of a
// later version, or the state is damaged. An entry whose index is not above the
// state's has been applied and does nothing, so a log can be replayed from
// anywhere. Only an entry that changes the state advances its index.
//
// Two states of one log with the same index are equal, byte by byte
// ([State.AppendSnapshot], [State.AppendJSON]). Both forms and all limits are
// stable; docs/FORMATS.md draws them.
package applier

// Applier is what a host calls for each committed entry, in log order. An error
// stops the host: it does not advance, and after a restart it gets the same entry
// again.
type Applier interface {
	Apply(index uint64, entry []byte) (Outcome, error)
}

// Machine is an Applier over a State. It may be used by one goroutine at a time.
type Machine struct{ state *State }

// NewMachine returns a machine whose state is s.
func NewMachine(s *State) *Machine { return &Machine{state: s} }

// State returns the present state.
func (m *Machine) State() *State { return m.state }

// Apply applies a committed entry. The entry is not kept.
func (m *Machine) Apply(index uint64, entry []byte) (Outcome, error) {
	next, outcome, err := m.state.ApplyBytes(index, entry)
	if err == nil {
		m.state = next
	}
	return outcome, err
}
