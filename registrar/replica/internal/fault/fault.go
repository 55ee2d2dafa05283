// Package fault names ways to break a replica on purpose. Each takes away one rule
// of how registrars of a ring keep their handlespaces the same. Tests switch them
// on, one at a time, to show that they would notice the mistake.
package fault

// Set is a set of faults.
type Set uint64

// Has reports whether f is in the set.
func (s Set) Has(f Set) bool { return s&f != 0 }

// The faults, and what goes wrong with each.
const (
	// ApplyAtStable applies own commands when they are stable, not in order.
	ApplyAtStable Set = 1 << iota
	// RemovalWithoutGeneration lets removals take what is stored, whatever life
	// of the element they mean.
	RemovalWithoutGeneration
	// MergeByRegistrar lets the larger home win at a merge, whatever the
	// generations.
	MergeByRegistrar
	// ResponseBeforeEnd answers commands that wait for END.
	ResponseBeforeEnd
	// ExchangeSkipped ends an exchange that follows an interrupted one at once.
	ExchangeSkipped
	// QueueDropped forgets what was delivered in an exchange that was interrupted.
	QueueDropped
	// ApplyBeforeEnd applies commands during an exchange as ever.
	ApplyBeforeEnd
	// HomeWithoutIncarnation takes a restarted home for its former self.
	HomeWithoutIncarnation
	// NegativeBeforeEnd says during an exchange that something does not exist.
	NegativeBeforeEnd
	// TakeoverOnce leaves takeovers to the coordinator that saw the member go.
	TakeoverOnce
	// WithoutTombstones exchanges entries only.
	WithoutTombstones
	// AbsentForgotten grants deregistrations of what is absent and keeps no mark.
	AbsentForgotten
	// MinMembersIgnored answers in views that are too small.
	MinMembersIgnored
	// HomesOnly exchanges nothing that has its home outside the view.
	HomesOnly
)
