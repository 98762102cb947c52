package sim_test

import (
	"strconv"

	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/sim"
)

// weights says how often an operation comes up by itself. Those that are not here
// come up in stories only.
var weights = []struct {
	op     string
	weight int
}{
	{"put", 12},
	{"inject", 1},
	{"commit", 8},
	{"deliver", 8},
	{"elect", 5},
	{"slow", 2},
	{"arrive", 2},
	{"settle", 14},
	{"tick", 4},
	{"again", 2},
	{"start", 8},
	{"stop", 2},
	{"kill", 3},
	{"power", 3},
	{"fault", 7},
	{"sync", 1},
	{"wipe", 2},
	{"save", 3},
	{"restore", 3},
	{"clone", 2},
	{"swap", 1},
	{"backup", 1},
	{"return", 1},
	{"second", 1},
	{"edit", 1},
	{"foreign", 1},
	{"lose", 1},
	{"kms", 4},
	{"kek", 2},
	{"snapshot", 4},
	{"compact", 4},
	{"install", 3},
	{"tamper", 2},
	{"join", 2},
	{"promote", 2},
	{"remove", 1},
	{"bootstrap", 2},
	{"enable", 3},
	{"rotate", 6},
	{"rewrap", 2},
	{"retire", 3},
	{"rewrite", 2},
	{"destroy", 2},
	{"gone", 1},
	{"register", 2},
	{"keep", 1},
	{"forget", 1},
	{"rebootstrap", 1},
	{"stopactive", 1},
	{"forge", 2},
	{"swapwraps", 1},
	{"malformed", 1},
}

// pool has each operation as often as its weight says.
var pool = func() (ops []string) {
	for _, w := range weights {
		for range w.weight {
			ops = append(ops, w.op)
		}
	}
	return ops
}()

// uniform draws a number below n. Rapid's own numbers are mostly small ones; here
// only its shrinking goes for those.
func uniform(t *rapid.T, n int, label string) int {
	u := 0
	for limit := 1; limit < 4*n; limit *= 2 {
		u *= 2
		if coin.Draw(t, label) {
			u++
		}
	}
	return u % n
}

var coin = rapid.Bool()

func sample[T any](t *rapid.T, from []T, label string) T { return from[uniform(t, len(from), label)] }

// draw draws the arguments of an operation. Members that are there come up most.
func draw(t *rapid.T, op string, members int) sim.Step {
	s := sim.Step{Op: op}
	for _, a := range sim.Grammar[op] {
		s.Args = append(s.Args, drawArg(t, a, members))
	}
	return s
}

func drawArg(t *rapid.T, a sim.Arg, members int) int {
	if !a.IsWho() {
		return uniform(t, a.Limit, "arg")
	}
	i := uniform(t, 4*members, "who")
	switch {
	case i < 3*members:
		return i % members
	case a.Any() && i < 4*members-1:
		return sim.All
	}
	return sim.MaxMembers + i%members
}

// stories are steps that make sense together, and that chance alone would hardly put
// in this order: of members x and y, and a number N.
var stories = []string{
	// a key at the end of its life
	"rotate x storage prepared; settle; retire x 0; settle; rewrite all; snapshot all now; put x 1; settle; snapshot all now; put x 2; settle; snapshot all now; compact all snapshot; destroy x 0; settle",
	"rotate x raft prepared; settle; retire x 0; put x 1; settle; snapshot all now; put x 2; settle; snapshot all now; compact all snapshot; destroy x 0; settle",
	// the same while it is still needed
	"put x 5; settle; rotate x storage alone; settle; retire x 0; settle; forge y 0 W; settle; put y 2; settle",
	// an active key that is not there, and the one before it stopped
	"kms y down; rotate x storage alone; settle; retire x 0; settle; put x 3; settle; kms y up; tick 1m",
	"kms y held; rotate x raft alone; settle; retire x 0; settle; put y 3; put x 4; settle; kms y up; tick 1m",
	"kms y down; rotate x raft alone; commit 1; deliver y 1; retire y 0; commit 0; kms y up; settle; kill y; start y; settle",
	// crashes
	"fault y N kill; settle; start y; settle",
	"fault y N power-loss; put x 1; settle; start y; settle",
	"rotate x storage prepared; fault y N power-loss; settle; start y; settle",
	"stop y; fault y N F; start y; settle; start y",
	"stop all; start all; settle",
	// disks that are older than they were
	"save y; rotate x raft alone; settle; kill y; restore y 0 all; start y; settle",
	"save y; rotate x storage prepared; put x 4; settle; restore y 0 keys; start y; settle",
	"save y; kill y; start y; settle; put y 2; kill y; restore y 0 all; start y; put y 3; settle",
	"clone y; settle; put x 0; settle; swap y; start y; settle",
	"clone y; kill y; start y; settle; put y 1; put x 1; settle",
	"backup; rotate x storage alone; put x 1; settle; return; start all; settle; put x 1; rotate x storage alone; settle",
	"backup; stop y; start y; put y 1; settle; return; start all; settle; stop y; start y; put y 1; settle",
	"save y; put x 1; settle; rotate x storage alone; settle; compact all store; lose y wipe; start y; settle",
	// members that have nothing, or too little
	"snapshot x now; compact x snapshot; wipe y; start y; settle; elect y 0; put y 5; settle",
	"kill y; put x 1; rotate x storage alone; settle; snapshot x now; compact x snapshot; start y; settle",
	"join y; settle; promote y; settle; put y 1; elect y 1; settle",
	"remove y; settle; gone x y; settle; join y; settle",
	// proposals that come late
	"slow y on; rotate y raft alone; put y 2; elect x 1; settle; rotate x raft alone; settle; arrive y; slow y off; settle",
	"slow y on; put y 1; settle; rotate x raft alone; settle; retire x 0; settle; arrive y; slow y off; settle",
	"put x 1; rotate x storage alone; elect y 1; settle",
	// epochs
	"register y 3; settle; stop y; start y; settle; put y 1; settle",
	"kek x a,b; stop x; start x; settle; rewrap x 0; settle; kms all flaky; stop y; start y; settle",
	"compact all store; put x 1; settle",
}

// tell draws the members of a story.
func tell(t *rapid.T, story string, members int) []sim.Step {
	letter := func(label string) string { return string(rune('a' + uniform(t, members, label))) }
	steps, err := sim.ParseSteps(story, map[string]string{
		"x": letter("x"), "y": letter("y"), "N": strconv.Itoa(uniform(t, 60, "N")),
		"F": sample(t, []string{"not-done", "but-done", "short-write", "no-space", "broken", "kill", "power-loss"}, "F"),
		"W": sample(t, []string{"nothing", "live", "log", "snapshot", "early", "absent"}, "W"),
	})
	if err != nil {
		panic(err)
	}
	return steps
}

// scenario draws a script.
func scenario(t *rapid.T) sim.Script {
	n := sample(t, []int{3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 7}, "members")
	s := sim.Script{Seed: rapid.Uint64().Draw(t, "seed")}
	for i := range n {
		m := sim.Member{Host: sample(t, []sim.Host{sim.Sync, sim.NoSync, sim.NoSync, sim.Memory}, "host")}
		if i >= 3 {
			m.Role = sample(t, []sim.Role{sim.Voter, sim.Learner, sim.Absent, sim.Absent}, "role")
		}
		s.Members = append(s.Members, m)
	}
	for _, intro := range []string{"elect a 0; put a 0; settle", "bootstrap a; settle", "enable a storage; put a 1; settle", "enable a raft; put a 2; settle"} {
		if uniform(t, 16, "intro") < 15 {
			steps, err := sim.ParseSteps(intro, nil)
			if err != nil {
				panic(err)
			}
			s.Steps = append(s.Steps, steps...)
		}
	}
	block := rapid.Custom(func(t *rapid.T) []sim.Step {
		if uniform(t, 8, "story") == 7 {
			return tell(t, sample(t, stories, "story"), n)
		}
		return []sim.Step{draw(t, sample(t, pool, "op"), n)}
	})
	for range 4 { // a slice has five elements on average
		for _, b := range rapid.SliceOf(block).Draw(t, "steps") {
			s.Steps = append(s.Steps, b...)
		}
	}
	return s
}
