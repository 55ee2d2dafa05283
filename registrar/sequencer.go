package registrar

import "rserpool/registrar/handlespace"

// Sequencer puts commands into the one order in which every registrar of a
// cluster applies them. The owner loop alone calls its methods.
type Sequencer interface {
	// Propose hands in a command. Token, not 0, is how the proposer knows
	// its own command when it is delivered.
	Propose(token uint64, cmd handlespace.Command)
	// Next returns what was delivered next; false: nothing now.
	Next() (Delivery, bool)
	// Wake receives a value when Next has something that no Propose brought.
	// Nil: never.
	Wake() <-chan struct{}
}

// Delivery is one step in the life of an ordered command.
type Delivery struct {
	// Token is the proposer's; 0 when another registrar proposed it.
	Token uint64
	// Command is to be applied now; nil when it was delivered before.
	Command handlespace.Command
	// Stable says that every registrar has applied the command: the answer
	// may go out.
	Stable bool
}

// localSequencer is the order of a registrar that is alone: its own.
type localSequencer struct{ queue []Delivery }

func (s *localSequencer) Propose(token uint64, cmd handlespace.Command) {
	s.queue = append(s.queue, Delivery{Token: token, Command: cmd, Stable: true})
}

func (s *localSequencer) Next() (Delivery, bool) {
	if len(s.queue) == 0 {
		return Delivery{}, false
	}
	d := s.queue[0]
	s.queue[0] = Delivery{}
	s.queue = s.queue[1:]
	return d, true
}

func (s *localSequencer) Wake() <-chan struct{} { return nil }
