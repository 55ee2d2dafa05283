package pooltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rserpool/pooluser"
)

// history is what happened to a session, as seen from three places: the application at
// the user, the octets between the user and the network, and the handlers at the
// elements. It notes what must not be.
type history struct {
	delivery pooluser.Delivery
	total    time.Duration // that a failover may take
	// prompt tells that elements save the state before each answer.
	prompt bool

	mu     sync.Mutex
	wrong  []string
	counts map[string]int // of what is to happen often enough

	// At the application.
	sent      map[uint64]bool // Send returned nil
	uncertain map[uint64]bool // Send said that the request may have arrived
	answers   map[uint64]int
	failing   bool // between FailoverBegun and FailedOver
	since     time.Time
	end       error // of the session

	// At the network. Connections are numbered from 1 on.
	conns    int
	left     map[uint64][]int // connections on which octets of a request left
	latest   map[int]uint64   // request that left on each connection
	answered map[uint64]bool
	newest   uint64       // number of the newest state whose cookie came
	had      map[int]bool // connections that began when there was a cookie
	echoed   map[int]bool // and those on which it went out

	// At the elements.
	received map[uint64]int
	states   map[uint64]state // saved, by number
}

func newHistory(delivery pooluser.Delivery, total time.Duration, prompt bool) *history {
	return &history{
		delivery: delivery, total: total, prompt: prompt, counts: map[string]int{},
		sent: map[uint64]bool{}, uncertain: map[uint64]bool{}, answers: map[uint64]int{},
		left: map[uint64][]int{}, latest: map[int]uint64{}, answered: map[uint64]bool{}, had: map[int]bool{}, echoed: map[int]bool{},
		received: map[uint64]int{}, states: map[uint64]state{},
	}
}

func (h *history) violate(format string, args ...any) {
	h.wrong = append(h.wrong, fmt.Sprintf(format, args...))
}

func (h *history) locked(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *history) count(what string) { h.locked(func() { h.counts[what]++ }) }

// state is what the service keeps for a session: the requests that it has seen.
type state struct {
	number uint64 // tells all states of a test apart
	seen   []uint64
}

func (s state) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.number)
	for _, id := range s.seen {
		b = binary.BigEndian.AppendUint16(b, uint16(id))
	}
	return b
}

func decodeState(b []byte) (s state) {
	s.number = binary.BigEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[2:] {
		s.seen = append(s.seen, uint64(binary.BigEndian.Uint16(b)))
	}
	return s
}

// save numbers a state that is to be saved.
func (h *history) save(s *state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.number = uint64(len(h.states) + 1)
	h.states[s.number] = state{s.number, slices.Clone(s.seen)}
}

// resumed: an element has got a state.
func (h *history) resumed(s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts["resumed"]++
	if saved := h.states[s.number]; !slices.Equal(saved.seen, s.seen) {
		h.violate("state %d came back as %v, was saved as %v", s.number, s.seen, saved.seen)
	}
}

// request: an element has got a request.
func (h *history) request(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.received[id]++
	if h.received[id] > 1 {
		h.counts["received again"]++
		if h.delivery == pooluser.AtMostOnce {
			h.violate("request %d was received %d times", id, h.received[id])
		}
	}
}

// connected: the user has a connection to an element.
func (h *history) connected() (conn int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns++
	h.had[h.conns] = h.newest != 0
	return h.conns
}

// gotCookie: a cookie has come to the user.
func (h *history) gotCookie(s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newest = s.number
}

// gotAnswer: an answer has come to the user.
func (h *history) gotAnswer(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered[id] = true
}

// echo: the user hands a cookie to an element.
func (h *history) echo(conn int, s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.echoed[conn] = true
	if s.number != h.newest {
		h.violate("connection %d begins with state %d, the newest that came is %d", conn, s.number, h.newest)
	}
	if n := uint64(len(h.states)); n > s.number {
		h.counts["cookie lost"]++
	}
	if h.prompt {
		for id := range h.answered {
			if !slices.Contains(s.seen, id) {
				h.violate("request %d was answered and is not in state %d", id, s.number)
			}
		}
	}
}

// leaves: octets of a request go to an element.
func (h *history) leaves(conn int, id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.had[conn] && !h.echoed[conn] {
		h.violate("request %d goes out on connection %d before the cookie", id, conn)
	}
	if id <= h.latest[conn] {
		h.violate("request %d goes out on connection %d behind %d", id, conn, h.latest[conn])
	}
	h.latest[conn] = id
	h.left[id] = append(h.left[id], conn)
	if len(h.left[id]) > 1 {
		h.counts["sent again"]++
		if h.delivery == pooluser.AtMostOnce {
			h.violate("request %d goes out on connections %v", id, h.left[id])
		}
	}
}

// answer: the application has got an answer.
func (h *history) answer(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answers[id]++; h.answers[id] > 1 {
		h.counts["answered again"]++
		if h.delivery == pooluser.AtMostOnce {
			h.violate("request %d is answered %d times", id, h.answers[id])
		}
	}
	if len(h.left[id]) == 0 {
		h.violate("request %d is answered and was never sent", id)
	}
}

// notice: the application has got a notification.
func (h *history) notice(n pooluser.Notification) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[n.Kind.String()]++
	switch n.Kind {
	case pooluser.FailoverBegun:
		if h.failing || n.Err == nil {
			h.violate("%v: begun already %v, reason %v", n.Kind, h.failing, n.Err)
		}
		h.failing, h.since = true, time.Now()
	case pooluser.FailedOver:
		if !h.failing || len(n.Tried) == 0 {
			h.violate("%v: begun %v, tried %v", n.Kind, h.failing, n.Tried)
		}
		h.failing = false
		// The application may have napped before it heard of this.
		if took := time.Since(h.since); took > h.total+time.Second {
			h.violate("a failover took %v, at most %v is allowed", took, h.total)
		}
	}
}

// over: the session has ended. excused tells whether it could not have gone on.
func (h *history) over(err error, excused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end != nil {
		return
	}
	h.end = err
	h.counts["session ended"]++
	if why := (*pooluser.DialError)(nil); !errors.As(err, &why) || len(why.Attempts) == 0 {
		h.violate("the session ended and does not say what was tried: %v", err)
	}
	if !excused {
		h.violate("the session ended although an element was well all the time: %v", err)
	}
}

// conclude looks at the whole when all is over: every answer that will come has come.
func (h *history) conclude() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.sent {
		switch {
		case h.answers[id] > 0:
			h.counts["answered"]++
		case h.end != nil:
		case len(h.left[id]) == 0:
			h.violate("request %d was taken and never left", id)
		case h.delivery == pooluser.AtLeastOnce:
			h.violate("request %d, sent on connections %v of %d, is not answered", id, h.left[id], h.conns)
		case slices.Contains(h.left[id], h.conns):
			h.violate("request %d, sent on connection %d, which lives, is not answered", id, h.conns)
		default:
			h.counts["unanswered"]++
		}
	}
	for id := range h.uncertain {
		if h.delivery == pooluser.AtLeastOnce && h.end == nil && h.answers[id] == 0 {
			h.violate("Send left request %d uncertain, and it is not answered", id)
		}
	}
	slices.Sort(h.wrong)
	return h.wrong
}
