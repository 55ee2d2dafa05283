package ring

import (
	"cmp"
	"errors"
	"fmt"
)

// NodeID identifies a member over its restarts. 0 is none.
type NodeID uint32

// Incarnation tells the lives of a member apart: a number that is larger at each
// start.
type Incarnation uint64

// Member is one life of one process.
type Member struct {
	ID          NodeID
	Incarnation Incarnation
}

// Compare orders members by identifier, then incarnation.
func (m Member) Compare(n Member) int {
	return cmp.Or(cmp.Compare(m.ID, n.ID), cmp.Compare(m.Incarnation, n.Incarnation))
}

// IsZero reports whether m is no member.
func (m Member) IsZero() bool { return m == Member{} }

// String writes the identifier in hexadecimal and the incarnation.
func (m Member) String() string { return fmt.Sprintf("0x%08x/%d", uint32(m.ID), m.Incarnation) }

// Node is a member and how to reach it.
type Node struct {
	Member
	// Contact is opaque to the machine, at most MaxContact octets; a driver
	// puts addresses there.
	Contact string
}

// ViewID names a view. The zero ViewID is no view.
type ViewID struct {
	Counter     uint64
	Coordinator Member
}

// Compare orders view identifiers by counter, then coordinator.
func (v ViewID) Compare(w ViewID) int {
	return cmp.Or(cmp.Compare(v.Counter, w.Counter), v.Coordinator.Compare(w.Coordinator))
}

// IsZero reports whether v is no view.
func (v ViewID) IsZero() bool { return v == ViewID{} }

// String writes counter and coordinator.
func (v ViewID) String() string { return fmt.Sprintf("%d@%s", v.Counter, v.Coordinator) }

// View is an agreed membership. Members stand in the order of the ring, the
// coordinator first. Views are not changed once made.
type View struct {
	ID      ViewID
	Members []Node
}

// Index returns the place of a member in the ring, -1 if it is none.
func (v *View) Index(m Member) int {
	for i := range v.Members {
		if v.Members[i].Member == m {
			return i
		}
	}
	return -1
}

// Has reports whether m is a member of the view.
func (v *View) Has(m Member) bool { return v.Index(m) >= 0 }

// Cause says why a view was installed.
type Cause uint8

// Causes of view changes.
const (
	CauseStart   Cause = iota // first view of a member that is alone
	CauseNoAck                // a member did not acknowledge the token
	CauseStarved              // the token was lost
	CauseMerge                // groups met
	CauseLeave                // a member left politely
)

// String names the cause in one word, as metrics and status do.
func (c Cause) String() string {
	switch c {
	case CauseStart:
		return "start"
	case CauseNoAck:
		return "no-ack"
	case CauseStarved:
		return "starved"
	case CauseMerge:
		return "merge"
	case CauseLeave:
		return "leave"
	}
	return "unknown"
}

// State is what a member does at the moment.
type State uint8

// States of a member.
const (
	Hungry   State = iota // waits for the token
	Eating                // has the token
	Starving              // missed the token and asks
	Calling               // asks or calls for a new view
	Promised              // waits for the first token of the view it promised
	Left                  // has left for good
)

// String names the state in one word.
func (s State) String() string {
	switch s {
	case Hungry:
		return "hungry"
	case Eating:
		return "eating"
	case Starving:
		return "starving"
	case Calling:
		return "calling"
	case Promised:
		return "promised"
	case Left:
		return "left"
	}
	return "unknown"
}

// Event is something for the application, in the order in which it is to be
// applied.
type Event interface{ event() }

// Origin says where a member of a new view comes from.
type Origin struct {
	Member
	Installed ViewID // its view before; zero for none
	Synced    ViewID // its synced view, with the rest of Installed delivered; zero: it brings nothing
	// With is the lowest of the members that knew the same when Installed was
	// installed; zero if all did, or do since its END. Members with the same
	// Installed and With know the same. Those with only the same Synced may not:
	// they may have gone different ways since.
	With Member
}

// Installed begins a view. All Delivered events before belong to earlier ones.
type Installed struct {
	View  View
	Cause Cause
	// Exchange says that the members' states may differ. They are to be
	// exchanged as of now; the coordinator's application calls End when it has
	// seen all. Nothing is reported stable before END is.
	Exchange bool
	// Origins lists each member of the view, in the order of the view.
	Origins []Origin
	// Left lists the members of the previous view that are not in this one.
	Left []Node
	// LeftOut says that those that left may be well, and left this member out: it did
	// nothing for longer than HopTimeout, a moment ago, or one of them said that it goes
	// on without it.
	LeftOut bool
}

// Entry is one ordered payload.
type Entry struct {
	From     Member // who proposed it
	Proposal uint64 // the proposer's number of it
	// Payload must not be changed. It is valid until the Output that brought
	// it has been handled: who keeps it copies it.
	Payload []byte
}

// Delivered brings the next entries in order, one or more, all of View.
type Delivered struct {
	View    ViewID
	Entries []Entry
}

// Stable says that all members of the view have delivered the own proposals up
// to this one, and what was delivered before them.
type Stable struct{ Proposal uint64 }

// Ended says that END was delivered: from here on all members of the view know
// the same. Exchanged state is to be applied now, and then what was delivered in
// this view since its install.
type Ended struct{ View ViewID }

// EndStable says that every member of the view has delivered END.
type EndStable struct{ View ViewID }

// NotDelivered gives own proposals back, from First to Last, that were never put
// into a token and never will be.
type NotDelivered struct{ First, Last uint64 }

// Fence numbers grants of locks. Later grants have larger fences.
type Fence struct{ Counter, Seq uint64 }

// Compare orders fences by counter, then sequence number.
func (f Fence) Compare(g Fence) int {
	return cmp.Or(cmp.Compare(f.Counter, g.Counter), cmp.Compare(f.Seq, g.Seq))
}

// Granted says that a lock has a new holder. All members of the view see it.
type Granted struct {
	Lock   string
	Holder Member
	Fence  Fence
}

// Released says that the holder of a lock holds it no more: it unlocked, left the
// view, its lease ended, or groups merged.
type Released struct {
	Lock   string
	Holder Member
	Fence  Fence
}

// Clash reports that another live process uses the identifier of a member, once in
// each view. If that member is this one, View is the one that the other has installed.
type Clash struct {
	Mine, Other Node
	View        View
}

func (Installed) event()    {}
func (Delivered) event()    {}
func (Stable) event()       {}
func (Ended) event()        {}
func (EndStable) event()    {}
func (NotDelivered) event() {}
func (Granted) event()      {}
func (Released) event()     {}
func (Clash) event()        {}

// Envelope is a message on its way.
type Envelope struct {
	To      Node
	Message Message
	// Redial says that the connection to the member seems stuck: the driver
	// closes it and sends over a new one.
	Redial bool
}

// Durable is what primary mode keeps over restarts.
type Durable struct {
	Counter uint64 // no view with this or a lower counter will be called again
}

// Output is what the caller of a Machine has to do; see the package comment for
// the order. It is valid until the next call of a method.
type Output struct {
	Persist  *Durable // nil: nothing
	Events   []Event
	Messages []Envelope
}

// Errors of Propose, Lock, Unlock and End.
var (
	// ErrFull: the queue of proposals has no room; try again when there is.
	ErrFull = errors.New("ring: queue of proposals is full")
	// ErrTooLong: the payload, or the name of a lock, is longer than allowed.
	ErrTooLong = errors.New("ring: too long")
	// ErrLeft: the member has left or is leaving.
	ErrLeft = errors.New("ring: member has left")
	// ErrNotNeeded: End without an exchange, or by another than the coordinator.
	ErrNotNeeded = errors.New("ring: no exchange to end here")
)
