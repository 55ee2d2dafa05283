package ringnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// peers is the table of the members that this one knows, and of the configured
// addresses where others may be. It belongs to the one who has the turn.
type peers struct {
	g       *Group
	members map[ring.Member]*peer
	targets map[string]*target // by endpoint
	looked  time.Time          // when names were looked up last
	looking bool
	// addresses are the targets of each configured peer, as last looked up.
	addresses map[string][]transport.Endpoint
	retryAt   time.Time // when attempts that failed are due again; zero: there are none
	turn      time.Time // when a member was asked in turn for its clock
}

// peer is a member that is, or may be, reached over one or more connections.
type peer struct {
	node   ring.Node
	proven bool    // it told its contact itself
	conns  []*conn // the one to send on first
	inView bool
	used   time.Time // when there was a connection, or something to send

	dial     attempts
	redialed time.Time
	seen     seen
	queued   []byte // frames that wait for a connection
	messages uint64 // in there
	dropped  uint64
	past     PeerStatus // counts of former connections
	skewed   time.Time  // when the log said that the clock differs; zero: it does not
}

// target is a configured address.
type target struct {
	endpoint transport.Endpoint
	member   ring.Member // who was there
	current  bool        // still configured, or among the addresses of its name
	dial     attempts
	said     string    // the latest error in the log
	saidAt   time.Time // and since when it is there
}

// attempts is the state of dialling somewhere.
type attempts struct {
	running  bool
	failures int
	next     time.Time
	err      error // the latest
}

// maxDoublings bounds the pause between two attempts, together with
// Timers.ProbeInterval.
const maxDoublings = 5

// failed notes a failure and sets the pause.
func (a *attempts) failed(err error, longest time.Duration, now time.Time) {
	pause := longest >> max(0, maxDoublings-a.failures)
	a.running, a.err = false, err
	a.failures++
	a.next = now.Add(pause/2 + rand.N(pause/2+1))
}

func (a *attempts) ready(now time.Time) bool { return !a.running && !now.Before(a.next) }

const (
	// maxConns bounds the connections with one member: what both dialled at the
	// same time, and what the other side has given up and we don't know yet.
	maxConns = 4
	// strangersShare is by how much less may wait for a member outside the view.
	strangersShare = 16
	// lookUpEvery is how often names are looked up, in probe intervals.
	lookUpEvery = 10
	// forgetAfter is for how many probe intervals a member is remembered that
	// nobody needs.
	forgetAfter = 20
)

func (p *peers) init(g *Group) {
	p.g = g
	p.members, p.targets = make(map[ring.Member]*peer), make(map[string]*target)
	p.addresses = make(map[string][]transport.Endpoint)
}

// limit bounds the members known at once: those of the view, those outside of
// it, and as many that have just been restarted.
func (p *peers) limit() int {
	l := p.g.cfg.Limits.WithDefaults()
	return 2 * (l.Members + l.Outside)
}

// claim says why a member is to be in the table, in growing order.
type claim int

const (
	heard    claim = iota // another one named it
	connects              // it has a connection
	belongs               // it is in the view
)

// peer returns the entry of a member, nil when there are too many with a better
// claim. What others tell of a contact does not replace what the member told.
func (p *peers) peer(n ring.Node, why claim, now time.Time) *peer {
	m := p.members[n.Member]
	if m == nil {
		if len(p.members) >= p.limit() && !p.evict(why) {
			return nil
		}
		m = &peer{node: n}
		p.members[n.Member] = m
	}
	if n.Contact != "" && (why == connects || !m.proven) {
		m.node.Contact = n.Contact
	}
	m.proven = m.proven || why == connects
	m.used = now
	return m
}

// evict makes room in the table: the one goes that was needed least lately among
// those with a lesser claim, and among idle ones with the same.
func (p *peers) evict(why claim) bool {
	var worst *peer
	for _, m := range p.members {
		has := heard
		switch {
		case m.inView:
			has = belongs
		case len(m.conns) > 0:
			has = connects
		}
		idle := has == heard && !m.dial.running
		if (has < why || idle) && (worst == nil || m.used.Before(worst.used)) {
			worst = m
		}
	}
	if worst == nil {
		return false
	}
	delete(p.members, worst.node.Member)
	for _, c := range worst.conns {
		p.g.refusals.add(&refusal{refusedMany, "more members than there can be"}, c.node.Member.String())
		c.end(false)
	}
	return true
}

// send queues a message on the member's connection, and opens one if need be.
func (p *peers) send(e *ring.Envelope) {
	now := time.Now()
	m := p.peer(e.To, heard, now)
	if m == nil {
		return
	}
	bound := p.g.cfg.SendQueue
	if !m.inView {
		bound /= strangersShare
	}
	if e.Redial && now.Sub(m.redialed) >= p.g.cfg.Timers.HopRetry {
		m.redialed = now
		p.redial(m, now)
	}
	if len(m.conns) > 0 {
		c := m.conns[0]
		queued, err := c.put(e.Message, bound)
		if queued {
			p.g.loop.touched = append(p.g.loop.touched, c)
		}
		p.unsent(err)
		return
	}
	if len(m.queued) > bound || !m.dial.running && !p.dialMember(m, now) {
		m.dropped++
		return
	}
	var err error
	if m.queued, err = appendMessage(m.queued, e.Message); err != nil {
		p.unsent(err)
		return
	}
	m.messages++
}

// unsent logs that a message has no wire form, which can't happen.
func (p *peers) unsent(err error) {
	if err != nil {
		p.g.cfg.Log.WithError(err).Error("ring: message not sent")
	}
}

// redial gives a stuck connection up. Another one that the member has opened
// meanwhile takes its place, else a new one is dialled without a pause. Where the
// network can tell that it is the member that is slow, the connection stays: what
// is on its way there would only have to go again.
func (p *peers) redial(m *peer, now time.Time) {
	if len(m.conns) == 0 {
		return
	}
	c := m.conns[0]
	if s, ok := c.Conn.(stucker); ok && !s.Stuck(p.g.cfg.Timers.HopRetry) {
		return
	}
	p.g.cfg.Log.WithFields(c.fields()).Debug("ring: late hop, connection given up")
	m.forget(c)
	c.end(true)
	if len(m.conns) == 0 {
		m.dial.next = now
		p.dialMember(m, now)
	}
}

// forget keeps the counts of a connection that is no more.
func (m *peer) forget(c *conn) {
	m.past.add(c)
	m.conns = slices.DeleteFunc(m.conns, func(x *conn) bool { return x == c })
}

// dialMember starts an attempt to reach a member; false: not now.
func (p *peers) dialMember(m *peer, now time.Time) bool {
	if !m.dial.ready(now) {
		return false
	}
	endpoints := parseContact(m.node.Contact)
	if len(endpoints) == 0 {
		p.failed(&m.dial, errors.New("no address known"), now)
		return false
	}
	m.dial.running = true
	member := m.node.Member
	// A lost packet must not cost the second that the kernel waits then.
	timeout := min(p.g.cfg.Timers.HopRetry<<min(m.dial.failures, maxDoublings), p.longestDial())
	p.g.dial(endpoints, timeout, func(c *conn, err error, now time.Time) {
		m.dial.running = false
		switch {
		case err != nil:
			p.failed(&m.dial, err, now)
		case c.node.Member != member:
			// Somebody else is there now, most probably its next life.
			p.failed(&m.dial, errors.New("another member answers there"), now)
			p.established(c, now)
		default:
			p.established(c, now)
		}
		if len(m.conns) > 0 {
			return
		}
		if errors.Is(err, context.DeadlineExceeded) && now.Sub(m.redialed) < p.g.cfg.Timers.HopTimeout {
			m.dial.next = now // it says nothing about the member yet
			p.dialMember(m, now)
			return
		}
		m.queued, m.messages, m.dropped = nil, 0, m.dropped+m.messages
		p.lost(member, now)
	})
	return true
}

// established takes a connection into use, unless there is a better one already.
func (p *peers) established(c *conn, now time.Time) {
	g := p.g
	if c.node.Member == g.self.Member {
		c.end(false)
		return
	}
	m := p.peer(c.node, connects, now)
	if m == nil {
		g.refusals.add(&refusal{refusedMany, "more members than there can be"}, c.node.Member.String())
		c.end(false)
		return
	}
	m.dial.failures, m.dial.next, m.dial.err = 0, now, nil
	if c.dialled {
		if len(m.conns) > 0 && (m.conns[0].dialled || !c.lower(g.self.Member)) {
			c.end(false) // it was never used: no Ready
			return
		}
		c.queued = appendFrame(c.queued, frameReady, nil)
	}
	before := len(m.conns)
	c.inView.Store(m.inView)
	m.conns = append(m.conns, c)
	g.cfg.Log.WithFields(c.fields()).Debug("ring: connected")
	// Both sides choose alike: the one that the lower member dialled, and of
	// several the latest.
	slices.SortStableFunc(m.conns, func(a, b *conn) int {
		if la, lb := a.lower(g.self.Member), b.lower(g.self.Member); la != lb {
			if la {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.since.UnixNano(), a.since.UnixNano())
	})
	for i, c := range m.conns {
		if c.retired = (time.Time{}); i > 0 {
			c.retired = now
		}
	}
	for len(m.conns) > maxConns {
		last := m.conns[len(m.conns)-1]
		g.refusals.add(&refusal{refusedFlood, fmt.Sprintf("more than %d connections of one member", maxConns)}, last.node.Member.String())
		m.forget(last)
		last.end(true)
	}
	if len(m.queued) > 0 {
		m.conns[0].putFrames(m.queued, m.messages)
		m.queued, m.messages = nil, 0
		m.conns[0].flush(g.ctx)
	}
	g.workers.Go(func() { c.write(g.ctx) })
	g.workers.Go(func() { g.read(c, g.frames(c)) })
	c.flush(g.ctx)
	if before == 0 {
		g.loop.machine.Found(m.node, now)
		g.act()
	}
}

// ended takes a connection out of use.
func (p *peers) ended(c *conn, err error, now time.Time) {
	p.g.refusals.add(err, c.node.Member.String())
	c.end(false)
	m := p.members[c.node.Member]
	if m == nil || !slices.Contains(m.conns, c) {
		return // given up before
	}
	m.forget(c)
	p.g.cfg.Log.WithError(err).WithFields(c.fields()).WithField("others", len(m.conns)).Debug("ring: connection ended")
	if len(m.conns) > 0 {
		m.conns[0].retired = time.Time{}
		return
	}
	if !errors.Is(err, net.ErrClosed) {
		m.dial.err = err
	}
	m.dial.next = now
	p.lost(c.node.Member, now)
	if m.inView {
		p.dialMember(m, now)
	}
}

func (p *peers) lost(m ring.Member, now time.Time) {
	p.g.loop.machine.Lost(m, now)
	p.g.act()
}

// installed notes who is in the view, so that they are kept connected.
func (p *peers) installed(v ring.View, now time.Time) {
	for _, m := range p.members {
		m.setInView(false)
	}
	for _, n := range v.Members {
		if n.Member == p.g.self.Member {
			continue
		}
		if m := p.peer(n, belongs, now); m != nil {
			m.setInView(true)
		}
	}
}

func (m *peer) setInView(is bool) {
	m.inView = is
	for _, c := range m.conns {
		c.inView.Store(is)
	}
}

// connected lists the members that can be sent to.
func (p *peers) connected() []ring.Node {
	var nodes []ring.Node
	for _, m := range p.members {
		if len(m.conns) > 0 {
			nodes = append(nodes, m.node)
		}
	}
	slices.SortFunc(nodes, func(a, b ring.Node) int { return a.Compare(b.Member) })
	return nodes
}

// maintain dials who is missing, closes what is not needed, and forgets whom
// nobody needs. It is called each ProbeInterval.
func (p *peers) maintain(now time.Time) {
	probe := p.g.cfg.Timers.ProbeInterval
	p.lookUp(now)
	for member, m := range p.members {
		for _, c := range slices.Clone(m.conns) {
			if !c.retired.IsZero() && now.Sub(c.retired) >= probe {
				m.forget(c)
				c.end(false)
			}
		}
		switch {
		case len(m.conns) > 0:
			m.used = now
			if !m.inView && m.hangs(probe) {
				p.redial(m, now)
			}
		case m.inView:
			p.dialMember(m, now)
		case !m.dial.running && now.Sub(m.used) > forgetAfter*probe:
			delete(p.members, member)
		}
	}
	p.clocks(now)
	p.dialTargets(now)
}

// seen is what was known of a peer's first connection when it was looked at last.
type seen struct {
	conn           *conn
	sent, received uint64 // messages
	unanswered     int    // looks at which there was something new sent, and nothing received
}

// hangs reports whether a connection to a member outside the view has gone through a
// cut link: something was sent since the last look, nothing came, and the kernel
// waits longer and longer before it tries again. Hops show that for members of the
// view. Where the network can't tell, two looks without an answer are taken for that.
func (m *peer) hangs(since time.Duration) bool {
	c := m.conns[0]
	last := m.seen
	m.seen = seen{conn: c, sent: c.counts.sentMessages.Load(), received: c.counts.receivedMessages.Load()}
	if last.conn != c || m.seen.sent == last.sent || m.seen.received > last.received {
		return false
	}
	m.seen.unanswered = last.unanswered + 1
	if s, ok := c.Conn.(stucker); ok {
		return s.Stuck(since)
	}
	return m.seen.unanswered > 1
}

// idle reports whether all that is queued was sent.
func (p *peers) idle() bool {
	for _, m := range p.members {
		for _, c := range m.conns {
			if !c.idle() {
				return false
			}
		}
	}
	return true
}

func (p *peers) endAll() {
	for _, m := range p.members {
		for _, c := range m.conns {
			c.end(false)
		}
	}
}

// sorted returns the members in their order.
func (p *peers) sorted() []*peer {
	return slices.SortedFunc(maps.Values(p.members), func(a, b *peer) int { return a.node.Compare(b.node.Member) })
}
