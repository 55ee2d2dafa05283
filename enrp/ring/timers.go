package ring

import (
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// Tick does what is due. Early or superfluous calls are harmless.
func (m *Machine) Tick(now time.Time) {
	before := m.now
	m.begin(now)
	if !m.left {
		m.excuse(before)
		m.due()
	}
	m.end()
}

func (m *Machine) due() {
	passed := func(t time.Time) bool { return !t.IsZero() && !m.now.Before(t) }
	if passed(m.leaseEnd()) {
		m.lapse()
	}
	if m.openLocks() {
		m.hurry()
	}
	if p := m.passing; p != nil {
		switch {
		case passed(p.until) && (m.ask == nil || m.ask.cause == CauseMerge):
			m.noAck()
		case passed(p.resendAt):
			m.resend(!p.redialed)
			p.redialed = true
		}
	}
	if m.holding && passed(m.keepUntil) {
		m.pass(*m.copy)
	}
	if a := m.ask; a != nil {
		switch {
		case passed(a.until):
			m.decide()
		case passed(a.again):
			m.askAgain()
		}
	}
	if c := m.call; c != nil {
		switch {
		case passed(c.until), passed(m.lostUntil(c)):
			m.callExpired()
		case passed(c.again):
			m.callAgain()
		}
	}
	if m.waiting() && passed(m.waits.at) {
		m.inquire()
	}
	if m.canStarve() && passed(m.patience) {
		m.counters.TokenLost[m.currentState()]++
		m.blame()
		m.startAsk(CauseStarved, m.everybody(m.bound), nil)
	}
	if m.probe != nil && passed(m.probe.until) {
		m.probed()
	}
	if m.probing() && passed(m.probeAt) {
		m.startProbe()
	}
}

// canStarve reports whether this member waits for a token.
func (m *Machine) canStarve() bool {
	return !m.holding && m.passing == nil && m.call == nil && (m.ask == nil || m.ask.cause == CauseMerge) && (!m.alone() || m.away())
}

// probing reports whether there is anybody to probe.
func (m *Machine) probing() bool { return len(m.outside) > 0 && m.mayProbe() && m.ask == nil }

// noAck begins a view change because the next member does not take the token.
func (m *Machine) noAck() {
	if m.faults.Has(fault.SkipDeadMember) && m.skip() {
		return
	}
	m.counters.TokenLost[Eating]++
	m.startAsk(CauseNoAck, m.everybody(nil), nil)
}

// skip is a deliberate fault: it passes the token to the member after the next.
func (m *Machine) skip() bool {
	n := uint64(len(m.view.Members))
	hop := m.passing.token.Hop + 1
	if hop%n == uint64(m.me) {
		return false
	}
	m.accepted = hop - 1
	m.pass(*m.made)
	return true
}

// resend sends the token again, over a new connection if the old one may be stuck.
func (m *Machine) resend(redial bool) {
	p := m.passing
	p.resendAt = m.now.Add(m.cfg.Timers.HopRetry)
	m.counters.Resent++
	m.out.Messages = append(m.out.Messages, Envelope{To: p.to, Message: p.token, Redial: redial})
}

// hopTimeout is how long to wait for an acknowledgement: less if the connection to
// the member fell.
func (m *Machine) hopTimeout(to Member) time.Duration {
	if _, lost := m.lost[to]; lost {
		return m.cfg.Timers.LostWait
	}
	return m.cfg.Timers.HopTimeout
}

// lostMember takes the hint that a connection fell: the token is not kept, or sent or
// asked for again, and patience gets shorter. A call goes there once more.
func (m *Machine) lostMember(member Member) {
	m.notOutside(member)
	i := m.index(&m.view, member)
	if member == m.self.Member || !m.concerned(member) {
		return
	}
	if _, known := m.lost[member]; !known {
		m.lost[member] = m.now.Add(m.cfg.Timers.LostWait)
		m.callLost(member)
	}
	if i < 0 || m.away() {
		return
	}
	n := len(m.view.Members)
	if m.faults.Has(fault.LostIsWanted) {
		m.rush = max(m.rush, m.nextVisit())
	}
	t := m.cfg.Timers
	if m.wants() {
		m.sayWant(m.view.Members[i : i+1]) // it may not have heard it
	}
	switch {
	case m.holding:
		m.rush = max(m.rush, m.nextVisit())
		m.visit()
	case m.passing != nil && m.passing.to.Member == member:
		m.passing.until = earlier(m.passing.until, m.now.Add(t.LostWait))
		m.resend(true)
		m.passing.redialed = true
	case m.passing != nil:
	case (m.me+1)%n == i:
		m.patience = earlier(m.patience, m.now.Add(t.LostWait))
	default:
		m.patience = earlier(m.patience, m.now.Add(2*t.LostWait+t.CollectWait))
	}
}

// Next returns when Tick is due; zero: never.
func (m *Machine) Next() time.Time {
	next := m.next()
	if next.IsZero() {
		return next
	}
	return next.Add(-m.skew)
}

// next is Next on the machine's clock.
func (m *Machine) next() time.Time {
	var next time.Time
	if m.left {
		return next
	}
	at := func(t time.Time, active bool) {
		if active && !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	at(m.leaveBy, m.leaving)
	at(m.leaseEnd(), true)
	at(m.locks.openAt, m.locks.closed && !m.locks.opening && m.me == 0 && m.primary() && !m.away() && (m.alone() || m.returned) && m.leased())
	if p := m.passing; p != nil {
		at(p.resendAt, true)
		at(p.until, m.ask == nil || m.ask.cause == CauseMerge)
	}
	at(m.waits.at, m.waiting())
	at(m.keepUntil, m.holding)
	if a := m.ask; a != nil {
		at(a.until, true)
		at(a.again, true)
	}
	if c := m.call; c != nil {
		at(c.until, true)
		at(c.again, true)
		at(m.lostUntil(c), true)
	}
	at(m.patience, m.canStarve())
	if m.probe != nil {
		at(m.probe.until, true)
	}
	at(m.probeAt, m.probing())
	return next
}
