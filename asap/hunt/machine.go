package hunt

import (
	"slices"
	"time"

	"net/netip"
	"rserpool/asap"
	"rserpool/asap/param"
)

// Link names a connection to a registrar within its Machine: one that the
// machine asked for, or one that a registrar opened. Never 0.
type Link uint64

// Dial asks for a connection. The caller reports Up or Failed, or closes the
// attempt when Ready names it in Close.
type Dial struct {
	Link     Link
	Endpoint Endpoint
}

// Send asks for a message to be sent. A failure is reported with Down.
type Send struct {
	Link    Link
	Message asap.Message
}

// Result ends a request, with an answer or an error.
type Result struct {
	Request RequestID
	Answer  asap.Message
	Err     error
}

// EventKind tells the kinds of Event apart.
type EventKind int

// Kinds of events.
const (
	HomeFound EventKind = iota + 1 // Link is the home registrar now
	HomeLost                       // Link isn't the home registrar any more and no other is known
	Round                          // a hunt round begins
)

// Event tells what became of the hunt.
type Event struct {
	Kind EventKind
	Link Link
	// Round counts the rounds of a hunt from 1, for Round.
	Round int
	// T5 is the length of the round, for Round.
	T5 time.Duration
}

// Output is what is to be done, in this order: close, dial, send, tell.
type Output struct {
	// Close ends connections and attempts. Their failures need no report.
	Close   []Link
	Dials   []Dial
	Sends   []Send
	Results []Result
	Events  []Event
	// Lookup asks for the names of static registrars to be resolved again;
	// the result comes by SetStatic, soon or never.
	Lookup bool
}

// Empty reports whether there is nothing to do.
func (o *Output) Empty() bool {
	return !o.Lookup && len(o.Close)+len(o.Dials)+len(o.Sends)+len(o.Results)+len(o.Events) == 0
}

// Stats counts what was dropped at a bound.
type Stats struct {
	AnnouncementsIgnored uint64 // transports: table full, unusable address
	NoticesDropped       uint64 // messages without answer: queue full
}

// Home describes the home registrar.
type Home struct {
	Link Link
	// Endpoint is where it was reached; zero when it opened the connection.
	Endpoint Endpoint
	// ID is the registrar's identifier, 0 until a keep-alive told it.
	ID param.RegistrarID
}

// connection is one connection or attempt.
type connection struct {
	id        Link
	registrar *registrar // nil for incoming ones
	up        bool
	server    param.RegistrarID
}

// Machine finds a home registrar and keeps requests to it going (RFC 5352,
// sections 3.6 and 3.7). It is not safe for concurrent use. Methods that take
// now never see time go back. After each call the caller does what Ready says
// and calls Tick at Deadline.
type Machine struct {
	cfg Config
	out Output

	list  *list
	links map[Link]*connection
	home  *connection
	// lost is the registrar that was the home last: it is tried when nothing
	// else is left to try (section 3.7.1).
	lost *registrar

	hunting bool
	started bool
	round   int    // of this hunt, from 1
	rounds  uint64 // of all hunts
	t5      time.Duration
	t5Ends  time.Time
	redial  time.Time // when a registrar that was put off may be tried

	requests map[RequestID]*request
	queues   map[key][]*request
	notices  []asap.Message
	stats    Stats

	lastLink      Link
	lastRequest   RequestID
	attempts      uint64
	transmissions uint64
}

// New returns a machine that knows no registrars yet. The configuration must be
// valid.
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:      cfg.withDefaults(),
		links:    map[Link]*connection{},
		requests: map[RequestID]*request{},
		queues:   map[key][]*request{},
	}
	m.t5 = m.cfg.T5
	m.list = newList(&m.cfg)
	return m
}

// Start begins the first hunt.
func (m *Machine) Start(now time.Time) {
	m.started = true
	m.startHunt(now)
}

// SetStatic replaces the static registrars, which never expire. A home or an
// attempt that isn't in the list any more stays.
func (m *Machine) SetStatic(endpoints []Endpoint, now time.Time) {
	m.list.setStatic(endpoints)
	m.fill(now)
}

// Announce takes in a SERVER_ANNOUNCE that came from source. Announcements are
// hints, never proof of identity.
func (m *Machine) Announce(msg *asap.ServerAnnounce, source netip.AddrPort, now time.Time) {
	m.list.announce(msg, source, now)
	m.fill(now)
}

// Up reports that an attempt succeeded.
func (m *Machine) Up(id Link, now time.Time) {
	c := m.links[id]
	if c == nil || c.up {
		return // dropped meanwhile; Close has been asked for
	}
	c.up = true
	if !m.hunting {
		m.close(c)
		return
	}
	old := m.home
	m.setHome(c)
	for _, other := range m.inLinkOrder() {
		// A former home that was left by Adopt is superseded when it is
		// found again.
		if other == old || other != c && other.registrar == c.registrar {
			m.close(other)
		}
	}
	m.moveTo(now)
}

// Failed reports that an attempt failed; another address takes its place in the
// round.
func (m *Machine) Failed(id Link, now time.Time) {
	if c := m.links[id]; c != nil && !c.up {
		delete(m.links, id)
		m.fill(now)
	}
}

// Down reports that a connection was lost or a message could not be sent on it.
func (m *Machine) Down(id Link, now time.Time) {
	c := m.links[id]
	if c == nil {
		return
	}
	if !c.up {
		m.Failed(id, now)
		return
	}
	delete(m.links, id)
	if c == m.home {
		m.loseHome()
	}
	m.lostLink(id, now)
	if m.home == nil {
		m.startHunt(now)
	}
}

// Incoming names a connection that a registrar opened.
func (m *Machine) Incoming() Link {
	c := m.add(nil)
	c.up = true
	return c.id
}

// Adopt makes the registrar at the other end of the connection the home, as its
// ENDPOINT_KEEP_ALIVE with H=1 asks for (AMB-85). peers are its addresses; with
// port 3863 they join the list of registrars (AMB-86). A connection to the
// former home stays up. It reports whether the home changed.
func (m *Machine) Adopt(id Link, server param.RegistrarID, peers []netip.Addr, network string, now time.Time) bool {
	c := m.links[id]
	if c == nil || !c.up {
		return false
	}
	c.server = server
	if c == m.home || (m.home != nil && server != 0 && m.home.server == server) {
		return false
	}
	if c.registrar == nil && len(peers) > 0 {
		e := Endpoint{Network: network}
		for _, p := range peers {
			e.Addrs = append(e.Addrs, netip.AddrPortFrom(p, asap.Port))
		}
		m.list.adopt(e)
	}
	m.setHome(c)
	m.resume(now)
	return true
}

// Identify notes the identifier of the registrar at the other end of a
// connection.
func (m *Machine) Identify(id Link, server param.RegistrarID) {
	if c := m.links[id]; c != nil && server != 0 {
		c.server = server
	}
}

// Abandon gives up the home registrar, if there is one, and hunts for another.
func (m *Machine) Abandon(now time.Time) {
	if m.home != nil {
		id := m.home.id
		m.loseHome()
		m.release(id, now)
		m.startHunt(now)
	}
}

// Notify sends a message that has no answer to the home registrar or, when
// there is none, to the next (AMB-32).
func (m *Machine) Notify(msg asap.Message) {
	if m.home != nil {
		m.out.Sends = append(m.out.Sends, Send{m.home.id, msg})
		return
	}
	if len(m.notices) >= m.cfg.MaxNotices {
		m.notices = m.notices[1:]
		m.stats.NoticesDropped++
	}
	m.notices = append(m.notices, msg)
}

// Home returns the home registrar, and false while there is none.
func (m *Machine) Home() (Home, bool) {
	if m.home == nil {
		return Home{}, false
	}
	h := Home{Link: m.home.id, ID: m.home.server}
	if r := m.home.registrar; r != nil {
		h.Endpoint = r.endpoint
	}
	return h, true
}

// Known returns the registrars known now, in the order in which a hunt would
// try them.
func (m *Machine) Known() []Endpoint {
	var out []Endpoint
	for _, r := range m.list.inOrder() {
		out = append(out, r.endpoint)
	}
	return out
}

// Stats returns what was dropped so far.
func (m *Machine) Stats() Stats {
	s := m.stats
	s.AnnouncementsIgnored = m.list.ignored
	return s
}

// Tick lets time pass.
func (m *Machine) Tick(now time.Time) {
	m.list.expire(now)
	m.expireRequests(now)
	if m.hunting && !m.t5Ends.After(now) {
		m.t5 = min(2*m.t5, m.cfg.RetranMax)
		m.dropAttempts()
		m.newRound(now)
	}
	m.fill(now)
}

// Deadline returns when Tick is next due, and false for never.
func (m *Machine) Deadline() (time.Time, bool) {
	at := m.list.deadline()
	for _, q := range m.queues {
		at = earlier(at, q[0].due)
	}
	if m.hunting {
		at = earlier(earlier(at, m.t5Ends), m.redial)
	}
	return at, !at.IsZero()
}

// Ready returns what is to be done and forgets it.
func (m *Machine) Ready() Output {
	out := m.out
	m.out = Output{}
	// Some connections and attempts were given up within the same output: what
	// was to go on them goes elsewhere or has failed.
	out.Dials = slices.DeleteFunc(out.Dials, func(d Dial) bool { return m.links[d.Link] == nil })
	out.Sends = slices.DeleteFunc(out.Sends, func(s Send) bool { return m.links[s.Link] == nil })
	return out
}

func (m *Machine) add(r *registrar) *connection {
	m.lastLink++
	c := &connection{id: m.lastLink, registrar: r}
	m.links[c.id] = c
	return c
}

func (m *Machine) close(c *connection) {
	delete(m.links, c.id)
	m.out.Close = append(m.out.Close, c.id)
}

// setHome makes c the home registrar and ends the hunt (SH3, SH6).
func (m *Machine) setHome(c *connection) {
	m.home, m.lost = c, nil
	m.stopHunt()
	m.out.Events = append(m.out.Events, Event{Kind: HomeFound, Link: c.id})
}

// loseHome leaves the machine without a home and closes the connection.
func (m *Machine) loseHome() {
	c := m.home
	m.home, m.lost = nil, c.registrar
	if m.links[c.id] != nil {
		m.close(c)
	}
	m.out.Events = append(m.out.Events, Event{Kind: HomeLost, Link: c.id})
}

// moveTo sends everything that is outstanding to the home that the hunt found.
func (m *Machine) moveTo(now time.Time) {
	for _, r := range m.outstanding() {
		if r.link != m.home.id {
			m.dispatch(r, now)
		}
	}
	m.flush()
}

// resume sends what waited for a home. What is outstanding elsewhere stays.
func (m *Machine) resume(now time.Time) {
	for _, r := range m.outstanding() {
		if r.link == 0 {
			m.dispatch(r, now)
		}
	}
	m.flush()
}

func (m *Machine) flush() {
	for _, msg := range m.notices {
		m.out.Sends = append(m.out.Sends, Send{m.home.id, msg})
	}
	m.notices = nil
}

func (m *Machine) startHunt(now time.Time) {
	if m.hunting || !m.started {
		return
	}
	m.hunting, m.round = true, 0
	m.newRound(now)
	m.fill(now)
}

// stopHunt drops the attempts and resets T5 (SH3).
func (m *Machine) stopHunt() {
	m.hunting = false
	m.t5 = m.cfg.T5
	m.dropAttempts()
}

func (m *Machine) dropAttempts() {
	for _, c := range m.inLinkOrder() {
		if !c.up {
			m.close(c)
		}
	}
}

func (m *Machine) inLinkOrder() []*connection {
	out := make([]*connection, 0, len(m.links))
	for _, c := range m.links {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *connection) int { return int(a.id) - int(b.id) })
	return out
}

// newRound starts T5 (SH2).
func (m *Machine) newRound(now time.Time) {
	m.round++
	m.rounds++
	t5 := m.t5
	if m.cfg.Jitter > 0 {
		t5 -= time.Duration(m.cfg.Jitter * m.cfg.Rand() * float64(t5))
	}
	m.t5Ends = now.Add(t5)
	m.out.Lookup = true
	m.out.Events = append(m.out.Events, Event{Kind: Round, Round: m.round, T5: t5})
}

// free returns how many more attempts may run (SH1).
func (m *Machine) free() int {
	n := m.cfg.Parallel
	for _, c := range m.links {
		if !c.up {
			n--
		}
	}
	return n
}

// fill starts attempts to registrars that this round has not tried, as many as
// may run at a time (SH1, SH4).
func (m *Machine) fill(now time.Time) {
	if !m.hunting {
		return
	}
	m.redial = time.Time{}
	free := m.free()
	var last *registrar
	for _, r := range m.list.inOrder() {
		if free == 0 {
			return
		}
		if r.round == m.rounds || (m.home != nil && r == m.home.registrar) {
			continue
		}
		if r.notBefore.After(now) {
			m.redial = earlier(m.redial, r.notBefore)
			continue
		}
		if r == m.lost {
			last = r
			continue
		}
		m.dial(r, now)
		free--
	}
	if last != nil && free == m.cfg.Parallel {
		m.dial(last, now)
	}
}

func (m *Machine) dial(r *registrar, now time.Time) {
	m.attempts++
	r.tried, r.round, r.notBefore = m.attempts, m.rounds, now.Add(m.cfg.Redial)
	c := m.add(r)
	m.out.Dials = append(m.out.Dials, Dial{Link: c.id, Endpoint: r.endpoint})
}
