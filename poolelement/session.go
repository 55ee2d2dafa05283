package poolelement

import (
	"context"
	"fmt"
	"io"
	"sync"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// Kind tells what Session.Receive returns.
type Kind int

// Kinds of Incoming.
const (
	// Data: a message of the application.
	Data Kind = iota + 1
	// Resumed: the user comes from another element and has brought the state
	// that was saved there last. It comes before the data, if at all.
	Resumed
	// CardReceived: the user, as an element of a pool itself, has named the
	// elements to turn to when it fails.
	CardReceived
	// Draining: the server stops; the session should end soon. It comes once.
	Draining
)

func (k Kind) String() string {
	if k < Data || k > Draining {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return [...]string{Data: "data", Resumed: "resumed", CardReceived: "card received", Draining: "draining"}[k]
}

// Incoming is what came for a session: a message, or an event.
type Incoming struct {
	Kind Kind
	// Message is set for Data. Its octets belong to the receiver.
	transport.Message
	// State is set for Resumed. It must not be changed.
	State []byte
	// Card is set for CardReceived.
	Card *asap.BusinessCard
}

// Session is a session in message style at the element. Receive is for one
// goroutine at a time; the other methods may be called concurrently.
//
// A session has two goroutines: the handler's and one that receives.
type Session struct {
	Control
	in   inbox
	told bool // of draining
}

// Receive waits for the next message or event. Errors: io.EOF when the user has
// ended the session, ErrCookieRefused, ErrDrained, ctx's cause, or how the
// connection was lost.
func (s *Session) Receive(ctx context.Context) (Incoming, error) {
	s.idle()
	in, err := s.receive(ctx)
	s.busy()
	return in, err
}

func (s *Session) receive(ctx context.Context) (Incoming, error) {
	for {
		if in, err, ok := s.in.take(); ok {
			return in, err
		}
		draining := s.server.draining
		if s.told {
			draining = nil
		}
		select {
		case <-s.in.arrived:
		case <-draining:
			s.told = true
			return Incoming{Kind: Draining}, nil
		case <-ctx.Done():
			// What has come still counts, and how the connection ended says
			// more.
			if in, err, ok := s.in.take(); ok {
				return in, err
			}
			return Incoming{}, context.Cause(ctx)
		}
	}
}

// Send sends messages of the application to the user; none may have ASAP's PPID.
func (s *Session) Send(ctx context.Context, msgs ...transport.Message) error {
	defer s.give()()
	for _, m := range msgs {
		if m.PPID == transport.PPIDASAP {
			return fmt.Errorf("send: PPID %d belongs to ASAP", m.PPID)
		}
	}
	return s.conn.Send(ctx, msgs...)
}

// read receives for the session until the connection ends.
func (s *Session) read() {
	defer close(s.gone)
	next := transport.Receiver(s.conn)
	for {
		ctx, err := s.beat.wait(s.ctx)
		if err == nil {
			var m transport.Message
			if m, err = next(ctx); err == nil {
				err = s.take(m)
			} else if ctx.Err() != nil && s.ctx.Err() == nil {
				continue // the handler is busy for too long
			}
		}
		if err == nil {
			continue
		}
		s.in.fail(err)
		if err != io.EOF {
			s.cancel(err)
		}
		if s.mute.Load() {
			discard(next)
		}
		return
	}
}

// discard receives until the connection is closed, by either side.
func discard(next func(context.Context) (transport.Message, error)) {
	for {
		if _, err := next(context.Background()); err != nil {
			return
		}
	}
}

// take puts a message, or what it means, into the inbox.
func (s *Session) take(m transport.Message) error {
	if s.mute.Load() {
		return nil
	}
	in := Incoming{Kind: Data, Message: m}
	if m.PPID == transport.PPIDASAP {
		var err error
		var ok bool
		if !s.on {
			s.server.stats.ignored.Add(1)
			return nil
		}
		if in, ok, err = s.receiveASAP(m.Data); err != nil || !ok {
			return err
		}
	}
	return s.in.put(s.ctx, in, len(m.Data), s.server.cfg.Queue)
}

// inbox holds what came for the handler, in order. put is for one goroutine, take
// for another.
type inbox struct {
	arrived chan struct{} // holds one: there is something
	room    chan struct{} // holds one: something was taken

	mu     sync.Mutex
	queue  []entry
	octets int
	over   bool  // nobody takes any more
	err    error // what take returns when the queue is empty
}

type entry struct {
	Incoming
	size int // of the message that it came as, and some more
}

// overhead is what an entry counts beside its octets.
const overhead = 128

func (i *inbox) init() {
	i.arrived = make(chan struct{}, 1)
	i.room = make(chan struct{}, 1)
}

// put waits until there is room for a message of this size.
func (i *inbox) put(ctx context.Context, in Incoming, size, limit int) error {
	size += overhead
	for {
		i.mu.Lock()
		fits := i.over || i.octets == 0 || i.octets+size <= limit
		if fits && !i.over {
			i.queue = append(i.queue, entry{in, size})
			i.octets += size
		}
		i.mu.Unlock()
		if fits {
			wake(i.arrived)
			return nil
		}
		select {
		case <-i.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close lets put go on: what comes is for nobody.
func (i *inbox) close() {
	i.mu.Lock()
	i.over, i.queue, i.octets = true, nil, 0
	i.mu.Unlock()
	wake(i.room)
}

// fail says how it ended; the first word counts.
func (i *inbox) fail(err error) {
	i.mu.Lock()
	if i.err == nil {
		i.err = err
	}
	i.mu.Unlock()
	wake(i.arrived)
}

// take returns the first entry, or the end, and whether there is either.
func (i *inbox) take() (Incoming, error, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.queue) == 0 {
		return Incoming{}, i.err, i.err != nil
	}
	first := i.queue[0]
	i.queue[0] = entry{}
	if i.queue = i.queue[1:]; len(i.queue) == 0 {
		i.queue = nil
	}
	i.octets -= first.size
	wake(i.room)
	return first.Incoming, nil, true
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
