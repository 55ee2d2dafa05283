// Package replica keeps the handlespaces of a ring's members the same. It is a
// pure machine between a registrar and its ring: commands go in and come out as
// ordered payloads, ring events go in, and what is to be applied, answered and
// reported comes out.
package replica

import (
	"time"

	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// Ack says when a registration or deregistration is acknowledged.
type Ack struct {
	// Local: at once, when it was applied here. Else when it is stable.
	Local bool
	// MinMembers: stable in a view of at least so many members. 0 or 1: any.
	MinMembers int
}

// Config is all that a Replica is told.
type Config struct {
	Space *handlespace.Space
	Self  ring.Member // the registrar's identifier and incarnation
	Ack   Ack
	// Alone says that no other members are configured: there is nobody to wait
	// for at the start.
	Alone bool
	// JoinWait is how long a starting member waits for others before it begins
	// alone.
	JoinWait time.Duration
	// Foreign reports whether a registrar outside the ring is alive (RFC 5353
	// peers). May be nil.
	Foreign func(home handlespace.HomeID) bool
}

// Replica is the replicated side of one registrar. It belongs to the owner loop:
// not safe for concurrent use.
type Replica struct{}

// New returns the replica of a registrar that just starts.
func New(cfg Config, now time.Time) *Replica { panic("unfinished") }

// Propose puts a command on its way. Token, not 0, comes back in Applied and
// Answer, or Refused.
func (r *Replica) Propose(token uint64, cmd handlespace.Command, now time.Time) {}

// Handle takes an event of the ring.
func (r *Replica) Handle(e ring.Event, now time.Time) {}

// Tick does what is due; Next tells when that is (zero: never).
func (r *Replica) Tick(now time.Time) {}
func (r *Replica) Next() time.Time    { return time.Time{} }

// Ready returns what there is to do, and true if that is anything; to be called
// after each other method.
func (r *Replica) Ready() (Output, bool) { return Output{}, false }

// Output is what the owner loop does for a Replica, in the order of the fields.
type Output struct {
	Events []Event
	// Proposals go to the ring, each once and in this order (the caller keeps
	// what the ring has no room for yet).
	Proposals [][]byte
	// End: call the ring's End, after the Proposals.
	End bool
}

// Event is something for the registrar.
type Event interface{ event() }

// Applied says that a command was applied to the Space, and what it changed.
type Applied struct {
	Token  uint64 // 0: proposed by another member
	Events []handlespace.Event
}

// Answer says that the answer to a proposed command may go out.
type Answer struct{ Token uint64 }

// Refused says that a proposed command will never be applied.
type Refused struct{ Token uint64 }

// Readiness says what users may be told from now on.
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
