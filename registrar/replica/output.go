package replica

import (
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// Output is what the owner loop does for a Replica, in the order of the fields.
type Output struct {
	Events []Event
	// Proposals go to the ring, each once and in this order (the caller keeps
	// what the ring has no room for yet).
	Proposals [][]byte
	// End: call the ring's End, after the Proposals, unless another view was
	// installed since.
	End bool
}

// Event is something for the registrar.
type Event interface{ event() }

// Applied says that a command was applied to the Space, and what it changed.
type Applied struct {
	Token  uint64 // 0: proposed by another member, or by none
	Events []handlespace.Event
}

// Answer says that the answer to a proposed command may go out. Applied came before.
type Answer struct{ Token uint64 }

// Refused says that a proposed command will never be applied.
type Refused struct{ Token uint64 }

// Readiness says what users may be told from now on; nothing before the first one.
type Readiness struct {
	// Serve: ASAP is answered and the registrar announces itself: it has seen
	// its first END.
	Serve bool
	// Negative: that something does not exist may be said, too. Not so between
	// a merge and its END.
	Negative bool
}

// Merged reports a state exchange.
type Merged struct {
	View  ring.View
	Sides []ring.ViewID // the synced views that met
	// Entries lists what differed and how it was decided, up to a bound; Omitted
	// counts the rest.
	Entries []handlespace.MergeEntry
	Omitted int
	// Octets is the size of what was exchanged.
	Octets int
}

func (Applied) event()   {}
func (Answer) event()    {}
func (Refused) event()   {}
func (Readiness) event() {}
func (Merged) event()    {}
