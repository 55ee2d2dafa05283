package peer

import (
	"rserpool/asap/param"
	"rserpool/enrp"
)

// Link names a connection with another registrar. The driver chooses the numbers
// and never uses one twice; 0 is none.
type Link uint64

// Action is something to be done for a Machine.
type Action interface{ action() }

// Send has a message sent. What goes to one link goes in this order; a link that is
// down is reported by LinkDown, not by an error.
type Send struct {
	Link Link
	// Message, or Octets if that is nil: a message that is encoded already. The
	// same Message may be in several Sends.
	Message enrp.Message
	Octets  []byte
}

// Multicast has a presence sent to the multicast group.
type Multicast struct{ Message *enrp.Presence }

// Dial has a connection set up. The driver reports LinkUp or DialFailed, the
// latter at the latest after Timers.NoResponse.
type Dial struct {
	ID uint64 // never used twice
	// To is the peer's ENRP endpoint; absent for a mentor.
	To param.Transport
	// Mentor is the number of a configured mentor, from 0; -1 for others.
	Mentor int
}

// HangUp has a connection closed that is not needed. LinkDown need not be
// reported.
type HangUp struct{ Link Link }

// Import has an element stored or replaced as it is, unchecked (AMB-38). Its home
// is set. It changes nothing if the same is stored already.
type Import struct {
	From    param.RegistrarID
	Element Element
}

// Forget has an element removed.
type Forget struct {
	From param.RegistrarID
	Key  Key
	// Home: only if this still is its home. 0: whatever its home is; an element
	// of this registrar or its cluster is then asked whether it is alive, and comes back when
	// it answers (AMB-77).
	Home param.RegistrarID
}

// TakeOver has the elements of one home get another one: Self, when this registrar
// has won the takeover, and then they are told by a keep-alive with H=1.
type TakeOver struct{ Target, Home param.RegistrarID }

// Serve says that the handlespace is here: elements and users can be answered from
// now on.
type Serve struct {
	// Alone: no mentor was of any help.
	Alone bool
}

// Changed says that a peer has got another state.
type Changed struct {
	Peer  param.RegistrarID
	State State
	Why   string // in a few words
}

func (Send) action()      {}
func (Multicast) action() {}
func (Dial) action()      {}
func (HangUp) action()    {}
func (Import) action()    {}
func (Forget) action()    {}
func (TakeOver) action()  {}
func (Serve) action()     {}
func (Changed) action()   {}

// State is the state of a peer.
type State int

// The states of a peer.
const (
	// Active: it was heard lately.
	Active State = iota + 1
	// Suspect: it was silent for too long and has been asked.
	Suspect
	// TakingOver: it is dead, and this registrar wants to take it over.
	TakingOver
	// TakenOver: another registrar is taking it over.
	TakenOver
	// Dead: it is dead, and it is not for this registrar to take it over, or not
	// yet.
	Dead
	// Gone: it is not a peer any more.
	Gone
)

// String names the state in a few words.
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Suspect:
		return "suspect"
	case TakingOver:
		return "taking over"
	case TakenOver:
		return "taken over"
	case Dead:
		return "dead"
	}
	return "gone"
}
