package ring

import (
	"maps"
	"time"
)

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
	// HeldOff are the identifiers of unsteady members, and until when this
	// member refuses to merge with them.
	HeldOff  map[NodeID]time.Time
	Locks    []LockStatus
	Counters Counters
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
	Strain
	Calls   uint64
	Refused map[string]uint64 // calls of others, by reason
	Views   map[Cause]uint64  // installed, by cause
	Dropped map[string]uint64 // messages, by reason
	Entries uint64            // delivered
	Octets  uint64            // delivered payload
	HeldOff uint64            // merges refused to unsteady members
}

// Strain says how close members came to being left out. It counts from the start on.
type Strain struct {
	// LateHops are tokens that were acknowledged after more than half of
	// HopTimeout, LongestHop is the longest time that one took.
	LateHops   uint64
	LongestHop time.Duration
	// Stalls counts when this member itself was called late, because its process
	// or machine was held up, LongestStall is by how much at most.
	Stalls       uint64
	LongestStall time.Duration
}

// Strain returns what Status tells of it.
func (m *Machine) Strain() Strain { return m.counters.Strain }

// Status returns a snapshot.
func (m *Machine) Status() Status {
	s := Status{
		Self: m.self, State: m.currentState(), View: m.view, Synced: m.synced, Cause: m.cause,
		Hop: m.hop, Seq: m.seq, Stable: m.stable, Rotation: m.rotation,
		Queue: m.queue.len(), QueueOctets: m.queue.octets, Outside: m.sortedOutside(), Counters: m.counters,
	}
	if m.copy != nil {
		s.InToken = m.copy.entries()
	}
	for _, name := range m.lockNames() {
		l := m.locks.locks[name]
		ls := LockStatus{Name: name, Holder: l.holder, Fence: l.fence}
		for _, c := range l.queue {
			ls.Queue = append(ls.Queue, c.member)
		}
		s.Locks = append(s.Locks, ls)
	}
	for id, d := range m.steady {
		if id != anybody && d.until.After(m.now) {
			if s.HeldOff == nil {
				s.HeldOff = make(map[NodeID]time.Time)
			}
			s.HeldOff[id] = d.until
		}
	}
	s.Counters.Refused = maps.Clone(m.counters.Refused)
	s.Counters.Views = maps.Clone(m.counters.Views)
	s.Counters.Dropped = maps.Clone(m.counters.Dropped)
	return s
}
