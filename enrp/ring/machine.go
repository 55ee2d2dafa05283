package ring

import (
	"fmt"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// Machine is one member; see the package comment.
type Machine struct {
	cfg    Config
	limits Limits
	faults fault.Set
	self   Node

	// now is the time of the current call, on a clock that never goes back:
	// that of the caller plus skew.
	now  time.Time
	skew time.Duration

	installed       // the view and its token
	queue     queue // own proposals that were not in a token yet
	own       progress
	locks     lockTable
	claims    ownLocks

	// promised is the highest view that this member promised or called. While
	// it is not the installed one, that is over for this member.
	promised ViewID
	// answerTo is the call that was promised last, until the install.
	answerTo *Call
	waits    waits
	blamed   ViewID // promised, and held against the one who called it
	// bound are the members of the last call, made or promised, until the
	// install.
	bound []Node
	// counter is the highest view counter heard of.
	counter uint64

	ask  *ask  // questions that are out
	call *call // the own call that collects promises
	// failed counts calls, own and promised ones, since the last install;
	// deferred how often a starving member left the call to a better one.
	failed, deferred int
	// vain counts, since the last install, the own calls that a member refused
	// or let wait.
	vain          map[Member]int
	patience      time.Time // when this member begins to starve
	nonce, answer uint64
	answers       map[Member][]proof // latest answers to others' Pings
	heard         map[Member]time.Time
	// lost are members whose connection fell, and who were not heard or found since,
	// and until when a caller waits for them.
	lost map[Member]time.Time

	outside map[NodeID]Node // known nodes that are not in the view
	probe   *probe
	probeAt time.Time
	behind  time.Time // since when there is a group with a higher view
	steady  steadiness
	clashes map[Member]bool // reported in this view

	leaving bool
	leaveBy time.Time
	left    bool
	excused bool // its latest delay was
	// leftOutAt is when this member went on that had done nothing for longer than
	// HopTimeout, or heard from another one that goes on without it.
	leftOutAt time.Time

	out      Output
	handed   bool // out was returned by Ready
	entries  []Entry
	reported int // entries before are in events
	state    State
	counters Counters
}

// installed is what belongs to the installed view.
type installed struct {
	view     View
	me       int // own place in it
	cause    Cause
	exchange bool
	ended    bool // END was delivered, or none is needed
	synced   ViewID
	with     Member // the lowest of those that knew the same at the install; zero: all do

	seq        uint64 // delivered
	stable     uint64 // all members have
	accepted   uint64 // hop that was accepted last
	hop        uint64 // newest accepted or made
	copy       *Copy  // newest accepted or made; nil: none in this view
	made       *Copy  // newest made
	tokenAt    time.Time
	madeAt     time.Time
	acceptedAt time.Time
	proofAt    time.Time // when it made the token that came back last
	rotation   time.Duration

	holding   bool // it keeps an idle token, until keepUntil
	keepUntil time.Time
	passing   *passing
	rush      uint64 // somebody waits for this hop
	wanted    uint64 // hop for which it said Want
	returned  bool   // a token that it made in this view came back
	served    bool   // the token brought back own proposals when it came last
	leavers   map[Member]bool

	endQueued   bool
	endAfter    uint64 // proposal after which END goes
	endSeq      uint64 // sequence number of END
	endReported bool
	lateEnd     ViewID // view whose END was delivered and not reported stable
}

// passing is a token on its way to the next member.
type passing struct {
	to       Node
	token    *Token
	sentAt   time.Time
	resendAt time.Time
	until    time.Time
	redialed bool
	resumed  int // times that it went on after the next member answered
}

// New returns a member that is alone: its first Output installs a view of itself
// that is not synced.
func New(cfg Config, now time.Time) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Machine{
		cfg: cfg, limits: cfg.Limits.WithDefaults(), faults: cfg.Faults, self: cfg.Self, now: now,
		answers: map[Member][]proof{}, heard: map[Member]time.Time{}, lost: map[Member]time.Time{}, vain: map[Member]int{},
		outside: map[NodeID]Node{}, steady: steadiness{}, clashes: map[Member]bool{},
		counters: Counters{Refused: map[string]uint64{}, Views: map[Cause]uint64{}, Dropped: map[string]uint64{}},
		claims:   ownLocks{wanted: map[string]Fence{}, lapsed: map[string]bool{}},
	}
	if cfg.Size > 0 {
		m.counter = cfg.Durable.Counter
	}
	m.begin(now)
	id := m.nextView()
	m.promised = id
	m.install(&Copy{View: id, Install: &Install{
		View: View{ID: id, Members: []Node{m.self}}, Cause: CauseStart, Exchange: true,
		Origins: []Origin{{Member: m.self.Member}},
	}})
	m.visitAlone()
	m.end()
	return m, nil
}

// keptEntries is how many entries there is always room for; a token of the default
// size has half as many at most.
const keptEntries = 1 << 17

// begin starts each call from outside.
func (m *Machine) begin(now time.Time) {
	if m.handed {
		m.handed = false
		clear(m.out.Events)
		clear(m.out.Messages)
		clear(m.entries)
		m.out = Output{Events: m.out.Events[:0], Messages: m.out.Messages[:0]}
		m.entries, m.reported = m.entries[:0], 0
		if cap(m.entries) > keptEntries {
			m.entries = nil
		}
	}
	before := m.now
	m.now = m.clock(now)
	m.noteHeldUp(before)
}

// clock returns a time of the caller on the machine's clock.
func (m *Machine) clock(now time.Time) time.Time {
	now = now.Add(m.skew)
	if now.Before(m.now) {
		m.skew += m.now.Sub(now)
		now = m.now
	}
	return now
}

// end ends each call from outside.
func (m *Machine) end() {
	m.tryLeave()
	m.flush()
	if s := m.currentState(); s != m.state {
		m.state = s
		m.counters.Entered[s]++
	}
}

// currentState says what the member does; see State.
func (m *Machine) currentState() State {
	switch {
	case m.left:
		return Left
	case m.ask != nil && m.ask.cause == CauseStarved:
		return Starving
	case m.call != nil, m.ask != nil && m.ask.cause != CauseMerge:
		return Calling
	case m.away():
		return Promised
	case m.holding, m.passing != nil, m.alone():
		return Eating
	}
	return Hungry
}

// away reports whether this member promised another view than the installed one,
// which it can't go on in.
func (m *Machine) away() bool { return m.promised != m.view.ID }

// alone reports whether the installed view has no other member, and so no token.
func (m *Machine) alone() bool { return len(m.view.Members) == 1 }

// same compares members.
func (m *Machine) same(a, b Member) bool {
	if m.faults.Has(fault.RestartedMemberIsItself) {
		return a.ID == b.ID
	}
	return a == b
}

// index is View.Index by the machine's notion of sameness.
func (m *Machine) index(v *View, member Member) int {
	for i := range v.Members {
		if m.same(v.Members[i].Member, member) {
			return i
		}
	}
	return -1
}

// send puts a message into the output.
func (m *Machine) send(to Node, msg Message) {
	m.post(Envelope{To: to, Message: msg})
}

func (m *Machine) post(e Envelope) {
	*e.Message.Head() = m.header(e.To)
	m.out.Messages = append(m.out.Messages, e)
}

func (m *Machine) header(to Node) Header { return Header{From: m.self, To: to.Member} }

// emit puts an event into the output, behind the entries delivered before.
func (m *Machine) emit(e Event) {
	m.flush()
	m.out.Events = append(m.out.Events, e)
}

// flush turns the entries delivered since the last event into one. All are of the
// installed view.
func (m *Machine) flush() {
	if n := len(m.entries); n > m.reported {
		m.out.Events = append(m.out.Events, Delivered{View: m.view.ID, Entries: m.entries[m.reported:n:n]})
		m.reported = n
	}
}

// drop counts a message that has no effect.
func (m *Machine) drop(reason string) { m.counters.Dropped[reason]++ }

// Ready returns what there is to do, and true if that is anything. It must be
// called, and its output handled, after each other method but Status, Next and
// View.
func (m *Machine) Ready() (Output, bool) {
	if m.handed {
		return Output{}, false
	}
	m.handed = true
	o := m.out
	return o, o.Persist != nil || len(o.Events) > 0 || len(o.Messages) > 0
}

// View returns the installed view.
func (m *Machine) View() View { return m.view }

// Found says that a node is there and can be sent to. The driver repeats it while
// that is so, or calls Lost. It may be, or become, a member of the view or not.
func (m *Machine) Found(n Node, now time.Time) {
	m.begin(now)
	m.found(n)
	m.end()
}

// Lost says that the connection to a member fell, or could not be set up.
func (m *Machine) Lost(member Member, now time.Time) {
	m.begin(now)
	if !m.left {
		m.lostMember(member)
	}
	m.end()
}

// Step takes a message. It keeps parts of it, which must not be changed any more.
// A message that is not for this member, or makes no sense, is counted and has no
// other effect.
func (m *Machine) Step(msg Message, now time.Time) {
	m.begin(now)
	if !m.left {
		m.step(msg)
	}
	m.end()
}

// misled says why a message is none for this member; empty: it is one.
func (m *Machine) misled(h *Header) string {
	switch {
	case !m.same(h.To, m.self.Member):
		return "not for this member"
	case h.From.ID == 0 || h.From.Member == m.self.Member:
		return "sender"
	}
	return ""
}

func (m *Machine) step(msg Message) {
	if why := m.misled(msg.Head()); why != "" {
		m.drop(why)
		return
	}
	m.hear(msg.Head().From.Member)
	if m.faults.Has(fault.LatePacketIsJoin) && m.lateJoin(msg) {
		return
	}
	switch msg := msg.(type) {
	case *Ping:
		m.onPing(msg)
	case *Pong:
		m.onPong(msg)
	case *Hear:
	case *Call:
		m.onCall(msg)
	case *Promise:
		m.onPromise(msg)
	case *Refuse:
		m.onRefuse(msg)
	case *Token:
		m.onToken(msg)
	case *TokenAck:
		m.onAck(msg)
	case *Want:
		m.onWant(msg)
	case *Leave:
		m.onLeave(msg)
	default:
		m.drop(fmt.Sprintf("%T", msg))
	}
}
