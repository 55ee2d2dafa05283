package ring

import "time"

// Leave begins to leave. State is Left when it is done.
func (m *Machine) Leave(now time.Time) {
	m.begin(now)
	if !m.leaving && !m.left {
		m.leaving = true
		m.leaveBy = m.now.Add(4 * m.cfg.Timers.Starving())
	}
	m.end()
}

// done reports whether all that this member proposed is stable.
func (m *Machine) done() bool {
	return m.queue.len() == 0 && len(m.own.marks) == 0 && m.own.reported == m.queue.next && !m.away()
}

// tryLeave leaves when that is polite, or has taken too long.
func (m *Machine) tryLeave() {
	if !m.leaving || m.left || !m.done() && m.now.Before(m.leaveBy) {
		return
	}
	if n := m.queue.len(); n > 0 {
		m.emit(NotDelivered{First: m.queue.first(), Last: m.queue.next})
	}
	for i, n := range m.view.Members {
		if i != m.me {
			m.send(n, &Leave{View: m.view.ID})
		}
	}
	for _, n := range m.sortedOutside() { // who may be calling a merge
		m.send(n, &Leave{View: m.view.ID})
	}
	m.left = true
	m.queue = queue{next: m.queue.next}
	m.ask, m.call, m.probe, m.passing, m.holding = nil, nil, nil, nil, false
}

// onLeave notes that a member is gone. The first in the list that stays calls a view
// without it; an own call that waits for it begins anew, and who is asking doesn't call it.
func (m *Machine) onLeave(l *Leave) {
	c := m.call
	called := c != nil && m.index(&c.view, l.From.Member) >= 0 && c.promises[l.From.Member] == nil
	m.notOutside(l.From.Member)
	m.askNoMore(l.From.Member)
	if !called && m.index(&m.view, l.From.Member) < 0 {
		return
	}
	m.leavers[l.From.Member] = true
	if called {
		m.call = nil
		m.callRest(c)
		return
	}
	if m.away() || c != nil {
		return
	}
	for i, n := range m.view.Members {
		if m.leavers[n.Member] {
			continue
		}
		if i == m.me {
			if m.ask == nil || m.ask.cause == CauseMerge {
				m.startAsk(CauseLeave, m.everybody(nil), nil)
			}
			return
		}
		break
	}
	m.patience = earlier(m.patience, m.now.Add(m.cfg.Timers.HopTimeout+m.cfg.Timers.CollectWait))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
