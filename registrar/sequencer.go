package registrar

import (
	"time"

	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica"
)

// sequencer puts commands into the one order in which all registrars of a cluster
// apply them, and applies them to this one's handlespace. The owner loop alone
// calls its methods.
type sequencer interface {
	// propose hands in a command. Token, not 0, is how the proposer knows it
	// when something happens to it.
	propose(token uint64, cmd handlespace.Command, now time.Time)
	// take returns what happened since the last call, in order. It is valid until
	// the next one.
	take(now time.Time) []replica.Event
	// full reports whether what clients ask for has to be refused for want of
	// room.
	full() bool
	// tick does what is due; next returns when that is (zero: never).
	tick(now time.Time)
	next() time.Time
}

// alone is the order of a registrar without others: its own.
type alone struct {
	space           *handlespace.Space
	happened, taken []replica.Event
	swept           time.Time
}

func (a *alone) propose(token uint64, cmd handlespace.Command, _ time.Time) {
	a.happened = append(a.happened,
		replica.Applied{Token: token, Events: a.space.Apply(cmd)},
		replica.Answer{Token: token})
}

func (a *alone) take(time.Time) []replica.Event {
	clear(a.taken)
	a.happened, a.taken = a.taken[:0], a.happened
	return a.taken
}

func (a *alone) full() bool { return false }

// sweepGap is the least time between two sweeps of tombstones.
const sweepGap = time.Second

func (a *alone) tick(now time.Time) {
	if at := a.next(); !at.IsZero() && !now.Before(at) {
		a.swept = now
		a.space.Apply(handlespace.Sweep{Now: now})
	}
}

func (a *alone) next() time.Time {
	at, ok := a.space.NextSweep()
	if earliest := a.swept.Add(sweepGap); ok && at.Before(earliest) {
		return earliest
	}
	return at
}
