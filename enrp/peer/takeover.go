package peer

import (
	"maps"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// takeover is the arbitration of who takes a dead peer over (section 3.5.1).
type takeover struct {
	awaited  map[param.RegistrarID]bool // who has to acknowledge
	deadline time.Time                  // then those that did not are asked again
}

func (m *Machine) initiate(target param.RegistrarID) *enrp.InitTakeover {
	return &enrp.InitTakeover{Servers: m.to(0), Target: target}
}

// takeOver begins an arbitration.
func (m *Machine) takeOver(p *peer, why string, now time.Time) {
	p.takeover = &takeover{awaited: make(map[param.RegistrarID]bool), deadline: now.Add(m.cfg.Timers.NoResponse)}
	m.set(p, TakingOver, why)
	m.cast(m.initiate(p.id)) // the target gets a copy, too
	for _, other := range m.peers {
		if other != p && m.votes(other) {
			p.takeover.awaited[other.id] = true
		}
	}
	m.decide(p)
}

// votes reports whether a peer's acknowledgement is waited for. Who is dead
// itself can't give one; tools that only read the table have no say.
func (m *Machine) votes(p *peer) bool {
	return p.monitored() && m.established(p)
}

// decide ends an arbitration that is won (section 3.5.2).
func (m *Machine) decide(p *peer) {
	if len(p.takeover.awaited) > 0 {
		return
	}
	m.won[p.id] = true
	p.takeover = nil
	m.drop(p, "taken over by this registrar")
	m.cast(&enrp.TakeoverServer{Servers: m.to(0), Target: p.id})
	m.do(TakeOver{Target: p.id, Home: m.self})
}

// insist asks those again that did not acknowledge in time, and whether they are
// alive at all (AMB-42).
func (m *Machine) insist(p *peer, now time.Time) {
	p.takeover.deadline = now.Add(m.cfg.Timers.NoResponse)
	for _, id := range slices.Sorted(maps.Keys(p.takeover.awaited)) {
		other := m.peers[id]
		m.send(other.link, m.initiate(p.id))
		if other.answerBy.IsZero() {
			m.ask(other, now)
		}
	}
}

// unawait takes a peer that can't acknowledge out of all arbitrations.
func (m *Machine) unawait(id param.RegistrarID) {
	for _, p := range m.sorted() {
		if p.state == TakingOver && p.takeover.awaited[id] {
			delete(p.takeover.awaited, id)
			m.decide(p)
		}
	}
}

// initTakeover takes another registrar's wish to take a target over.
func (m *Machine) initTakeover(from *peer, l Link, target param.RegistrarID, now time.Time) {
	if target == m.self {
		m.announceSelf()
		return
	}
	if target == from.id || m.cfg.InCluster(target) && m.cfg.Alive(target) {
		return // it lives; who asks has only lost sight of it
	}
	if p := m.peers[target]; p != nil {
		if p.state == TakingOver && !m.yields(from.id) {
			return
		}
		p.takeover = nil
		p.answerBy = time.Time{}
		p.sync = nil
		p.until = now.Add(m.cfg.Timers.LastHeard)
		m.set(p, TakenOver, "by "+from.id.String())
		m.unawait(target)
	}
	m.send(l, &enrp.InitTakeoverAck{Servers: m.to(from.id), Target: target})
}

// yields reports whether this registrar gives up when another one wants to take over
// the same (AMB-41).
func (m *Machine) yields(other param.RegistrarID) bool {
	if m.cfg.LowerIDWinsTakeover {
		return other < m.self
	}
	return other > m.self
}

// announceSelf tells all peers that this registrar is alive.
func (m *Machine) announceSelf() {
	for _, p := range m.sorted() {
		m.send(p.link, m.presence(p.id, false))
	}
	if m.cfg.Multicast {
		m.do(Multicast{m.presence(0, false)})
	}
}

func (m *Machine) acknowledged(from *peer, target param.RegistrarID) {
	p := m.peers[target]
	if p == nil || p.state != TakingOver || !p.takeover.awaited[from.id] {
		return
	}
	delete(p.takeover.awaited, from.id)
	m.decide(p)
}

// takeoverServer takes the news that another registrar has taken a target over.
func (m *Machine) takeoverServer(from *peer, target param.RegistrarID, now time.Time) {
	switch {
	case target == from.id, target == 0:
		return
	case target == m.self: // AMB-47
		m.do(TakeOver{Target: target, Home: from.id})
		m.heartbeat = now // when the elements are gone
		return
	case m.cfg.InCluster(target):
		return // its elements have got new homes in the cluster
	}
	if p := m.peers[target]; p != nil {
		m.drop(p, "taken over by "+from.id.String())
	}
	m.do(TakeOver{Target: target, Home: from.id})
}
