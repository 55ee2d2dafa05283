package ring

import "time"

// Machine is one member; see the package comment.
type Machine struct{}

// New returns a member that is alone: its first Output installs a view of itself
// that is not synced.
func New(cfg Config, now time.Time) (*Machine, error) { panic("unfinished") }

// Step takes a message. It keeps parts of it, which must not be changed any more.
// A message that is not for this member, or makes no sense, is counted and has no
// other effect.
func (m *Machine) Step(msg Message, now time.Time) {}

// Tick does what is due. Early or superfluous calls are harmless.
func (m *Machine) Tick(now time.Time) {}

// Next returns when Tick is due.
func (m *Machine) Next() time.Time { return time.Time{} }

// Ready returns what there is to do, and true if that is anything. It must be
// called, and its output handled, after each other method but Status, Next and
// View.
func (m *Machine) Ready() (Output, bool) { return Output{}, false }

// Propose hands in a payload, which belongs to the machine from then on. Own
// proposals are numbered from 1 on, ordered, and become stable, in this order.
func (m *Machine) Propose(payload []byte, now time.Time) (uint64, error) { return 0, nil }

// End orders the END of the exchange of the installed view. The coordinator of a
// view with an exchange calls it once. When the view changes before END is ordered,
// it is void.
func (m *Machine) End(now time.Time) error { return nil }

// Lock asks for a lock, Unlock gives it or the place in its queue back. Granted
// and Released tell what became of it.
func (m *Machine) Lock(name string, now time.Time) error   { return nil }
func (m *Machine) Unlock(name string, now time.Time) error { return nil }

// Found says that a node is there and can be sent to. The driver repeats it while
// that is so, or calls Lost. It may be, or become, a member of the view or not.
func (m *Machine) Found(n Node, now time.Time) {}

// Lost says that the connection to a member fell, or could not be set up.
func (m *Machine) Lost(member Member, now time.Time) {}

// Leave begins to leave. State is Left when it is done.
func (m *Machine) Leave(now time.Time) {}

// View returns the installed view.
func (m *Machine) View() View { return View{} }

// Status describes a member at one moment; plain data, for people and tests.
type Status struct {
	Self   Node
	State  State
	View   View
	Synced ViewID
	Cause  Cause  // of the installed view
	Hop    uint64 // newest seen or made
	Seq    uint64 // newest delivered in this view
	Stable uint64 // newest that all members have, in this view
	// Rotation is the time of the last full round of the token, 0 before.
	Rotation time.Duration
	// Queue are own proposals that wait for the token, QueueOctets their size;
	// InToken are entries in the token when it was last here.
	Queue, QueueOctets, InToken int
	Outside                     []Node // known outside the view
	Locks                       []LockStatus
	Counters                    Counters
}

// LockStatus is one lock of the view.
type LockStatus struct {
	Name   string
	Holder Member
	Fence  Fence
	Queue  []Member
}

// Counters count from the start on.
type Counters struct {
	Entered   [Left + 1]uint64 // states entered
	TokenLost [Left + 1]uint64 // token losses noticed, by the state in which
	Hops      uint64           // tokens accepted
	Rotations uint64
	Resent    uint64 // tokens sent again
	Duplicate uint64 // tokens and messages that were there before
	Calls     uint64
	Refused   map[string]uint64 // calls of others, by reason
	Views     map[Cause]uint64  // installed, by cause
	Dropped   map[string]uint64 // messages, by reason
	Entries   uint64            // delivered
	Octets    uint64            // delivered payload
	HeldOff   uint64            // merges refused to unsteady members
}

// Status returns a snapshot.
func (m *Machine) Status() Status { return Status{} }
