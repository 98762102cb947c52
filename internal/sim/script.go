package sim

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Script is a scenario.
type Script struct {
	Seed    uint64   // of what is random: keys, nonces, what a power loss leaves
	Members []Member // named a, b, c, in this order
	Steps   []Step
	Wants   map[string]int // counts of Stats that a run must at least reach
}

// Member is how a member begins.
type Member struct {
	Host Host
	Role Role
}

// Host is the kind of database that a member runs.
type Host uint8

// The hosts.
const (
	Sync   Host = iota // its store is durable at once
	NoSync             // its store is durable from time to time
	Memory             // its store is in memory, and in snapshots
)

var hostNames = []string{"sync", "nosync", "memory"}

func (h Host) String() string { return hostNames[h] }

// Role is a member's place in the cluster.
type Role uint8

// The roles.
const (
	Voter Role = iota
	Learner
	Absent // not a member, yet or any more
)

var roleNames = []string{"voter", "learner", "absent"}

func (r Role) String() string { return roleNames[r] }

// Step is one thing that happens. Args are as the operation's line in grammar says.
type Step struct {
	Op   string
	Args []int
}

// MaxMembers bounds the members of a script.
const MaxMembers = 7

// All as an argument stands for all running members.
const All = -1

// kind is what an argument means.
type kind uint8

const (
	who    kind = iota // a member; from MaxMembers on its clone
	anyone             // a member or All
	num                // a number below the limit
	word               // one of the words
)

// Arg describes an argument of an operation.
type Arg struct {
	kind  kind
	Limit int // values are 0 to Limit-1, for members too
	words []string
}

// Any reports whether All is a value.
func (a Arg) Any() bool { return a.kind == anyone }

// IsWho reports whether the argument is a member.
func (a Arg) IsWho() bool { return a.kind == who || a.kind == anyone }

func node() Arg                 { return Arg{kind: who, Limit: 2 * MaxMembers} }
func nodes() Arg                { return Arg{kind: anyone, Limit: 2 * MaxMembers} }
func number(limit int) Arg      { return Arg{kind: num, Limit: limit} }
func words(words ...string) Arg { return Arg{kind: word, Limit: len(words), words: words} }

var purposeWords = words("storage", "raft")

// Grammar has the operations and their arguments.
var Grammar = map[string][]Arg{
	// clients and the log
	"put":     {node(), number(valueKeys)},                // a client writes
	"inject":  {node(), words("entry", "frame")},          // a client sends what only nodes may
	"commit":  {number(9)},                                // so many proposals commit; 0: all
	"deliver": {nodes(), number(9)},                       // so many committed entries reach a member; 0: all
	"elect":   {node(), number(5)},                        // a new leader; so many proposals in flight survive
	"slow":    {node(), words("off", "on")},               // its proposals lie in the network
	"arrive":  {nodes()},                                  // they reach the leader
	"settle":  {},                                         // the network and the disks have a quiet minute
	"tick":    {words("100ms", "1s", "10s", "1m", "15m")}, // time passes
	"again":   {number(32)},                               // an old payload is proposed once more

	// processes and disks
	"start":   {nodes()},
	"stop":    {nodes()},                    // in good order
	"kill":    {nodes()},                    // the process ends
	"power":   {nodes(), number(1 << 16)},   // the machine stops
	"fault":   {node(), number(80), faults}, // at so many operations of its disk from now on
	"sync":    {nodes()},
	"wipe":    {node()},                                  // its disk is lost
	"save":    {node()},                                  // its disk is copied
	"restore": {node(), number(3), words("all", "keys")}, // a copy is put back
	"clone":   {node()},                                  // a second process on a copy of its disk
	"swap":    {node()},                                  // the clone takes its place
	"backup":  {},                                        // all disks are copied
	"return":  {},                                        // all copies are put back: the log loses its end
	"second":  {node()},                                  // a second process in the same directory
	"edit":    {node(), number(1 << 16)},                 // keys.json with another bit, which must not start
	"foreign": {node(), node()},                          // keys.json of another member
	"lose":    {node(), words("keep", "wipe")},           // keys.json is gone
	"kms":     {nodes(), words("up", "down", "held", "flaky", "lossy")},
	"kek":     {node(), words("a", "a,b", "b,a")}, // what it is configured with from its next start on

	// snapshots
	"snapshot": {nodes(), words("now", "late")},             // late: the key state is taken one step later
	"compact":  {nodes(), words("snapshot", "store")},       // the log, up to the snapshot or to the store
	"install":  {node(), node(), words("restore", "store")}, // the second one's snapshot on the first; what comes first
	"tamper":   {node(), node(), number(1 << 16)},           // with another bit, which must be refused

	// members
	"join":    {node()},
	"promote": {node()},
	"remove":  {node()},

	// keys
	"bootstrap": {node()},
	"enable":    {node(), purposeWords},
	"rotate":    {node(), purposeWords, words("alone", "prepared")},
	"rewrap":    {node(), number(4)}, // all that need it, or one
	"retire":    {node(), number(4)}, // stop a key
	"rewrite":   {nodes()},           // values that are not sealed under the active key
	"destroy":   {node(), number(4)},
	"gone":      {node(), node()},
	"register":  {node(), number(4)}, // a registration by another load of the member
	"keep":      {node(), number(3)}, // a backup needs all keys
	"forget":    {node(), number(3)},

	// entries that must be rejected
	"rebootstrap": {node()},
	"stopactive":  {node(), purposeWords},
	"forge":       {node(), number(4), words("nothing", "live", "log", "snapshot", "early", "absent")}, // a destroy
	"swapwraps":   {node()},
	"malformed":   {node(), number(4)},
}

func lettersOf(i int) string {
	if i >= MaxMembers {
		return string(rune('A' + i - MaxMembers))
	}
	return string(rune('a' + i))
}

func (a Arg) format(v int) string {
	switch {
	case a.kind == anyone && v == All:
		return "all"
	case a.IsWho():
		return lettersOf(v)
	case a.kind == word:
		return a.words[v]
	}
	return strconv.Itoa(v)
}

func (a Arg) parse(s string) (int, error) {
	v := -1
	switch {
	case a.kind == anyone && s == "all":
		return All, nil
	case a.IsWho() && len(s) == 1 && s[0] >= 'a':
		v = int(s[0] - 'a')
		if v >= MaxMembers {
			v = -1
		}
	case a.IsWho() && len(s) == 1 && s[0] >= 'A':
		v = int(s[0]-'A') + MaxMembers
	case a.kind == word:
		v = slices.Index(a.words, s)
	case a.kind == num:
		var err error
		if v, err = strconv.Atoi(s); err != nil {
			return 0, err
		}
	}
	if v < 0 || v >= a.Limit {
		return 0, fmt.Errorf("%q is not an argument here", s)
	}
	return v, nil
}

// String returns the step's line.
func (s Step) String() string {
	var b strings.Builder
	b.WriteString(s.Op)
	for i, a := range Grammar[s.Op] {
		b.WriteByte(' ')
		b.WriteString(a.format(s.Args[i]))
	}
	return b.String()
}

// String returns the script as text that Parse reads.
func (s Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n", s.Seed)
	for i, m := range s.Members {
		fmt.Fprintf(&b, "member %s %v %v\n", lettersOf(i), m.Host, m.Role)
	}
	for _, st := range s.Steps {
		b.WriteString(st.String())
		b.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(s.Wants)) {
		fmt.Fprintf(&b, "want %s %d\n", name, s.Wants[name])
	}
	return b.String()
}

// Parse reads a script. Empty lines, and what follows a #, are left out.
func Parse(text string) (Script, error) {
	var s Script
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if err := s.parseLine(f); err != nil {
			return Script{}, fmt.Errorf("sim: line %d: %q: %w", n, line, err)
		}
	}
	if len(s.Members) == 0 {
		return Script{}, errors.New("sim: a script without members")
	}
	return s, sc.Err()
}

// ParseSteps reads steps that stand between semicolons. Words that are in subst stand
// for others.
func ParseSteps(text string, subst map[string]string) ([]Step, error) {
	var s Script
	for line := range strings.SplitSeq(text, ";") {
		f := strings.Fields(line)
		for i, w := range f {
			if v, ok := subst[w]; ok {
				f[i] = v
			}
		}
		if err := s.parseLine(f); err != nil {
			return nil, fmt.Errorf("sim: %q: %w", line, err)
		}
	}
	return s.Steps, nil
}

func (s *Script) parseLine(f []string) (err error) {
	switch {
	case f[0] == "seed" && len(f) == 2:
		s.Seed, err = strconv.ParseUint(f[1], 10, 64)
		return err
	case f[0] == "member" && len(f) == 4:
		host, role := slices.Index(hostNames, f[2]), slices.Index(roleNames, f[3])
		if host < 0 || role < 0 || f[1] != lettersOf(len(s.Members)) || len(s.Members) == MaxMembers {
			return errors.New("want: member, the next letter, sync or nosync or memory, voter or learner or absent")
		}
		s.Members = append(s.Members, Member{Host: Host(host), Role: Role(role)})
		return nil
	case f[0] == "want" && len(f) == 3 && (Stats{}).Count(f[1]) >= 0:
		if s.Wants == nil {
			s.Wants = map[string]int{}
		}
		s.Wants[f[1]], err = strconv.Atoi(f[2])
		return err
	}
	args, ok := Grammar[f[0]]
	if !ok || len(f) != 1+len(args) {
		return errors.New("no operation with so many arguments")
	}
	st := Step{Op: f[0]}
	for i, a := range args {
		v, err := a.parse(f[1+i])
		if err != nil {
			return err
		}
		st.Args = append(st.Args, v)
	}
	s.Steps = append(s.Steps, st)
	return nil
}
