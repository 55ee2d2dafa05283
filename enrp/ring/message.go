package ring

import "time"

// Message is one message between members. Implementations are the pointer types
// of this package; Append and Decode are their wire form. A message that was sent
// or received is not changed any more.
type Message interface {
	// Head returns sender and receiver.
	Head() *Header
}

// Header begins every message.
type Header struct {
	From Node
	To   Member // a message for another incarnation is dropped
}

// Head returns the header itself.
func (h *Header) Head() *Header { return h }

// Ping asks a node how it is. Nodes that get it say Hear to all Candidates.
type Ping struct {
	Header
	Nonce      uint64
	Candidates []Node // of a view that is thought of; none: just a probe
}

// Pong answers a Ping.
type Pong struct {
	Header
	Nonce    uint64 // of the Ping
	Answer   uint64 // number of this answer, for Call.Proof
	View     View   // installed
	Hop      uint64 // newest seen or made in it
	Age      time.Duration
	State    State
	Promised ViewID // highest; View.ID if its view can go on
	Heard    []Member
	// HoldOff is how long the asker and its candidates are not merged with.
	HoldOff time.Duration
}

// Hear only says that a node can be heard.
type Hear struct{ Header }

// Call asks for a promise for a new view.
type Call struct {
	Header
	View      View
	Cause     Cause
	Installed ViewID // the caller's
	Hop       uint64
	Proof     uint64 // Pong.Answer of the callee that the caller got last
}

// Promise answers a Call: from here on the sender accepts, extends, sends and
// delivers from no token of an older view.
type Promise struct {
	Header
	View      ViewID // that was called
	Installed ViewID // view of the sender
	Synced    ViewID
	With      Member // see Origin
	Delivered uint64 // last sequence number that it delivered in Installed
	Copy      *Copy  // nil: it comes from a view of one
}

// Refuse answers a Call that is not promised.
type Refuse struct {
	Header
	View     ViewID
	Reason   Reason
	Promised ViewID // highest of the sender
}

// Reason says why a call was refused.
type Reason uint8

// Reasons.
const (
	RefusedPromised Reason = iota // the same or a higher number is promised
	RefusedProof                  // no fresh proof that the caller hears the callee
	RefusedYoung                  // starved, but the token was here a moment ago
	RefusedHoldOff                // a merge with an unsteady member
	RefusedDrops                  // a merge that leaves out members
	RefusedStranger               // not a merge, and the callee's view goes on without the caller
)

// String names the reason in a word or two, as metrics do.
func (r Reason) String() string {
	switch r {
	case RefusedPromised:
		return "promised"
	case RefusedProof:
		return "no-proof"
	case RefusedYoung:
		return "young-token"
	case RefusedHoldOff:
		return "hold-off"
	case RefusedDrops:
		return "drops-members"
	case RefusedStranger:
		return "stranger"
	}
	return "unknown"
}

// Token passes the token to its receiver.
type Token struct {
	Header
	Copy
}

// TokenAck says that a hop was accepted.
type TokenAck struct {
	Header
	View ViewID
	Hop  uint64
}

// Want says that the sender waits for the token, and for which hop.
type Want struct {
	Header
	View ViewID
	Hop  uint64
}

// Leave says that the sender is gone for good.
type Leave struct {
	Header
	View ViewID
}
