// Package ringtest proves a ring: stories in data files, and a simulator with
// virtual time that runs seeded schedules of faults and checks the promises of
// docs/ring.md after every step.
package ringtest

import (
	"math/rand/v2"
	"time"

	"rserpool/enrp/ring"
)

// App is the application on top of one member in a simulation. The simulator
// calls it as a driver would: Handle for each event, in order, and then Outbox.
type App interface {
	// Handle applies an event.
	Handle(e ring.Event, now time.Time)
	// Outbox returns payloads to propose, and whether to call End. What the
	// ring has no room for is offered again later, before new ones.
	Outbox(now time.Time) (proposals [][]byte, end bool)
	// Next returns when Outbox should be asked although no event came; zero:
	// never.
	Next() time.Time
}

// Actor is an App that makes its own proposals: the simulator calls Act where the
// schedule has the member propose, and Outbox next. Other Apps get opaque payloads
// of the simulator's own between theirs.
type Actor interface {
	App
	// Act does something that a client of this member might ask for.
	Act(r *rand.Rand, now time.Time)
}
