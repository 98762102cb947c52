// Package sim runs clusters of real nodes in one process and looks for what must
// never happen.
//
// A [Script] says who the members are and what happens to them, one [Step] a line:
// writes, changes of keys, leader changes, crashes at any operation of a disk,
// outages of the key service, old directories put back, disks cloned. Scripts are
// text, so that one which found a bug can be kept and run again. [Run] runs one, on
// simulated disks and a simulated Raft log, with the nodes of package atrest. It
// must be called in a bubble of testing/synctest, whose clock costs nothing.
//
// After every step an oracle compares each node with what a model says: the same
// key state at the same index, every value there and open, nothing sealed under a
// stopped key, no (key, nonce) pair twice, nothing refused or halted that should not
// be, and everything refused that should be. At the end all faults are healed, and
// everything has to come right again.
//
// A step that makes no sense where it stands (a stop of a node that is down) does
// nothing. So any part of a script is a script, and one that fails can be cut down.
package sim
