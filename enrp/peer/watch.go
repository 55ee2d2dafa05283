package peer

import (
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// meet notes that a registrar has spoken over a link; whoever is unknown becomes a
// peer and is asked for its presence (section 3.4.1). It returns nil when there is
// no room for another peer.
func (m *Machine) meet(id param.RegistrarID, l Link, conn *link, now time.Time) *peer {
	p := m.peers[id]
	if p == nil {
		if p = m.add(id, now); p == nil {
			return nil
		}
		p.link = l
		m.set(p, Active, "it spoke first")
		m.send(l, m.presence(0, true)) // AMB-73
	}
	if conn.mentor >= 0 {
		m.mentors[conn.mentor].id = id
	}
	m.use(p, l, conn)
	m.alive(p, now)
	return p
}

// add makes a peer, nil if there are too many.
func (m *Machine) add(id param.RegistrarID, now time.Time) *peer {
	if len(m.peers) >= m.cfg.Limits.Peers {
		m.refused++
		return nil
	}
	p := &peer{id: id, added: now, heard: now}
	m.peers[id] = p
	return p
}

// use makes l the link to a peer. When there are two, both sides keep the one that
// the higher identifier has set up (AMB-22), and that side closes the other.
func (m *Machine) use(p *peer, l Link, conn *link) {
	old := m.links[p.link]
	switch {
	case p.link == l:
		return
	case old == nil || old.dialled == conn.dialled:
		p.link = l // it comes anew before the end of its old link was seen
		return
	}
	unneeded := l
	if conn.dialled == (m.self > p.id) {
		unneeded, p.link = p.link, l
	}
	if m.self > p.id && !m.shared(unneeded) {
		m.do(HangUp{unneeded})
		if c := m.links[unneeded]; c.mentor >= 0 {
			m.mentors[c.mentor].link = p.link
			m.links[p.link].mentor = c.mentor
			if m.start.link == unneeded {
				m.start.link = p.link
			}
		}
		delete(m.links, unneeded)
	}
}

// shared reports whether a link is some peer's.
func (m *Machine) shared(l Link) bool {
	for _, p := range m.peers {
		if p.link == l {
			return true
		}
	}
	return false
}

// alive notes a sign of life of a peer.
func (m *Machine) alive(p *peer, now time.Time) {
	p.heard = now
	p.answerBy = time.Time{}
	if p.state != Active {
		p.takeover = nil
		m.set(p, Active, "it was heard")
	}
}

// tells takes what a presence says of its sender.
func (p *peer) tells(msg *enrp.Presence) {
	p.present = true
	if msg.Server.ID == p.id && !msg.Server.Transport.IsZero() {
		p.transport = msg.Server.Transport
	}
}

// hearsay adds a peer that others told of.
func (m *Machine) hearsay(id param.RegistrarID, at param.Transport, now time.Time) {
	if id == 0 || id == m.self || m.cfg.InCluster(id) {
		return // AMB-49
	}
	p := m.peers[id]
	if p == nil {
		if p = m.add(id, now); p == nil {
			return
		}
		p.transport = at
		m.set(p, Active, "others know it")
	} else if p.transport.IsZero() {
		p.transport = at
	}
	m.reach(p)
}

// reach has a connection to a peer set up unless there is one.
func (m *Machine) reach(p *peer) {
	if p.link != 0 || p.dial != 0 || p.transport.IsZero() {
		return
	}
	p.dial = m.dialTo(Dial{To: p.transport, Mentor: -1}, dialled{peer: p.id})
}

func (m *Machine) dialTo(d Dial, who dialled) uint64 {
	m.lastDial++
	d.ID = m.lastDial
	m.dials[d.ID] = who
	m.do(d)
	return d.ID
}

// ask asks a peer for its presence; it is dead unless it answers in time.
func (m *Machine) ask(p *peer, now time.Time) {
	p.answerBy = now.Add(m.cfg.Timers.NoResponse)
	m.send(p.link, m.presence(p.id, true))
	m.reach(p)
}

// dead decides that a peer is dead.
func (m *Machine) dead(p *peer, why string, now time.Time) {
	p.answerBy = time.Time{}
	p.sync = nil
	m.unawait(p.id)
	switch {
	case !m.owns(p.id) && (!p.present || p.link == 0 && !m.established(p)):
		m.drop(p, why)
	case !m.arbiter || !m.Serving():
		m.set(p, Dead, why)
	default:
		m.takeOver(p, why, now)
	}
}

// established reports whether a peer has been there for longer than tools are that
// only read the table.
func (m *Machine) established(p *peer) bool {
	return p.present && p.heard.Sub(p.added) >= m.cfg.Timers.NoResponse || m.owns(p.id)
}

// drop forgets a peer. Takeovers don't wait for it any more (AMB-42).
func (m *Machine) drop(p *peer, why string) {
	delete(m.peers, p.id)
	delete(m.dials, p.dial)
	m.set(p, Gone, why)
	m.unawait(p.id)
}

// Tick does what is due; Next says when that is.
func (m *Machine) Tick(now time.Time) {
	m.tickStart(now)
	for _, p := range m.sorted() {
		if m.peers[p.id] == p {
			m.watch(p, now)
		}
	}
	if !now.Before(m.heartbeat) {
		m.heartbeat = now.Add(m.cfg.Timers.Heartbeat)
		m.beat(now)
	}
}

// watch does what is due for one peer.
func (m *Machine) watch(p *peer, now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if p.sync != nil && due(p.sync.deadline) {
		p.sync = nil // ENRP-3.6.3-08
	}
	if p.state == TakenOver && due(p.until) { // AMB-46
		m.set(p, Active, "nobody has taken it over")
	}
	switch {
	case p.state == TakingOver && due(p.takeover.deadline):
		m.insist(p, now)
	case !p.monitored():
		p.answerBy = time.Time{}
	case due(p.answerBy):
		m.dead(p, "it does not answer", now)
	case p.answerBy.IsZero() && due(p.heard.Add(m.cfg.Timers.LastHeard)):
		m.set(p, Suspect, "it was silent for too long")
		m.ask(p, now)
	}
}

// monitored reports whether a peer's silence counts.
func (p *peer) monitored() bool { return p.state == Active || p.state == Suspect }

// beat is the heartbeat (section 3.4.2). It also looks for who is missing.
func (m *Machine) beat(now time.Time) {
	if m.cfg.Multicast {
		m.do(Multicast{m.presence(0, false)})
	}
	for _, p := range m.sorted() {
		m.send(p.link, m.presence(p.id, false))
		if p.monitored() {
			m.reach(p)
		}
	}
	// The home of an element is a registrar, even if it has not been heard.
	homes := make(map[param.RegistrarID]bool)
	for _, id := range m.cfg.Table.Homes() {
		homes[id] = true
		if m.peers[id] == nil && !m.won[id] && m.Serving() {
			m.hearsay(id, param.Transport{}, now)
		}
	}
	for id := range m.won {
		if !homes[id] {
			delete(m.won, id)
		}
	}
	if m.Serving() {
		m.seekMentors()
	}
}

// Next returns when Tick has something to do.
func (m *Machine) Next() time.Time {
	next := m.heartbeat
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	earlier(m.start.next(m.cfg.Timers))
	for _, p := range m.peers {
		earlier(p.answerBy)
		if p.sync != nil {
			earlier(p.sync.deadline)
		}
		switch p.state {
		case Active:
			if p.answerBy.IsZero() {
				earlier(p.heard.Add(m.cfg.Timers.LastHeard))
			}
		case TakenOver:
			earlier(p.until)
		case TakingOver:
			earlier(p.takeover.deadline)
		}
	}
	return next
}
