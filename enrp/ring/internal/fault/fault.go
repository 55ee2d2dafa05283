// Package fault names ways to break the ring on purpose. Each takes away one rule
// of docs/ring.md. Tests switch them on, one at a time, to show that the simulator
// would find the mistake.
package fault

// Set is a set of faults.
type Set uint64

// Has reports whether f is in the set.
func (s Set) Has(f Set) bool { return s&f != 0 }
