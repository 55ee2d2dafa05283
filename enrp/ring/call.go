package ring

import (
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// call is an own call for a new view.
type call struct {
	view      View
	cause     Cause
	installed ViewID
	proofs    map[Member]uint64
	promises  map[Member]*Promise
	began     time.Time
	again     time.Time
	until     time.Time
	silence   time.Duration // of one who has not promised, that ends the call
	torn      bool          // installed before all had promised: a deliberate fault
}

// nextView returns a number above all that this member has seen or promised.
func (m *Machine) nextView() ViewID {
	top := max(m.counter, m.promised.Counter, m.view.ID.Counter)
	if !m.faults.Has(fault.CallSameNumber) || m.promised.Coordinator != m.self.Member || top == 0 {
		top++
	}
	m.counter = top
	return ViewID{Counter: top, Coordinator: m.self.Member}
}

// startCall calls a view of the members in the list, this one first. By that the
// caller itself has promised.
func (m *Machine) startCall(cause Cause, list []Node) {
	m.counters.Calls++
	c := &call{
		view: View{ID: m.nextView(), Members: list}, cause: cause, installed: m.view.ID,
		proofs: map[Member]uint64{}, promises: map[Member]*Promise{}, began: m.now,
	}
	// Patience grows for those that live: who says nothing at all has as long as in a
	// first call.
	first, grown := m.cfg.Timers.Promise(len(list), 0), m.cfg.Timers.Promise(len(list), m.failed)
	wait := m.jitter(grown)
	c.until, c.silence = m.now.Add(wait), wait/(grown/first)
	if m.ask != nil {
		for member, p := range m.ask.answers {
			c.proofs[member] = p.Answer
		}
	}
	m.leaveOldView(c.view.ID)
	m.call, m.answerTo, m.bound = c, nil, list
	c.promises[m.self.Member] = m.promise(c.view.ID)
	for member := range m.lost {
		m.lost[member] = m.now.Add(m.cfg.Timers.LostWait) // the call is news to them
	}
	m.callAgain()
	m.collected()
}

// leaveOldView makes good what a promise says: this member does no more in the
// installed view.
func (m *Machine) leaveOldView(id ViewID) {
	m.promised = id
	m.counter = max(m.counter, id.Counter)
	m.ask, m.probe = nil, nil
	if !m.faults.Has(fault.AcceptOldView) {
		m.passing, m.holding = nil, false
	}
}

// callAgain sends the call to those that have not promised.
func (m *Machine) callAgain() {
	c := m.call
	if m.silent(c) {
		m.callExpired()
		return
	}
	c.again = m.now.Add(m.cfg.Timers.CollectWait)
	for _, n := range c.view.Members {
		m.callTo(n)
	}
}

// callTo sends the call to a member unless it has promised.
func (m *Machine) callTo(n Node) {
	if c := m.call; c.promises[n.Member] == nil {
		m.send(n, &Call{View: c.view, Cause: c.cause, Installed: m.view.ID, Hop: m.hop, Proof: c.proofs[n.Member]})
	}
}

// concerned reports whether a member is in the view, or asked or called for a new one.
func (m *Machine) concerned(member Member) bool {
	return m.index(&m.view, member) >= 0 || m.call != nil && m.index(&m.call.view, member) >= 0 ||
		m.ask != nil && slices.ContainsFunc(m.ask.candidates, func(n Node) bool { return n.Member == member })
}

// callLost sends the call again to a member whose connection fell: it went there over
// that, or its promise did.
func (m *Machine) callLost(member Member) {
	if c := m.call; c != nil {
		if i := m.index(&c.view, member); i >= 0 {
			m.callTo(c.view.Members[i])
		}
	}
}

// lostUntil is when a call ends because all who have not promised are lost, zero if
// somebody else has not. Until then one that only connects anew is heard again.
func (m *Machine) lostUntil(c *call) time.Time {
	var until time.Time
	for _, n := range c.view.Members {
		if c.promises[n.Member] != nil {
			continue
		}
		at, lost := m.lost[n.Member]
		if !lost {
			return time.Time{}
		}
		if at.After(until) {
			until = at
		}
	}
	return until
}

// silent reports whether one who has not promised has said nothing for so long that it
// is as good as dead.
func (m *Machine) silent(c *call) bool {
	for _, n := range c.view.Members {
		heard := m.heard[n.Member]
		if heard.Before(c.began) {
			heard = c.began
		}
		if c.promises[n.Member] == nil && m.now.Sub(heard) >= c.silence {
			return true
		}
	}
	return false
}

func (m *Machine) onPromise(p *Promise) {
	c := m.call
	if c == nil || p.View != c.view.ID {
		m.drop("late promise")
		return
	}
	i := m.index(&c.view, p.From.Member)
	if i < 0 || p.Copy != nil && (!sound(p.Copy, p) || p.Copy.octets() > m.limits.most()) {
		m.drop("forged promise")
		return
	}
	member := c.view.Members[i].Member
	if c.promises[member] == nil {
		c.promises[member] = p
		m.collected()
	}
}

// sound reports whether a promised copy makes sense by itself.
func sound(c *Copy, p *Promise) bool {
	if c.View != p.Installed || c.Seq > p.Delivered {
		return false
	}
	for i := range c.Runs {
		r := &c.Runs[i]
		if r.Omitted || r.Count == 0 || r.Count > MaxMessage || r.Kind >= kinds || r.Origin == c.View && r.OriginSeq != r.Seq {
			return false
		}
	}
	return true
}

// collected installs the view when each member in the list has promised.
func (m *Machine) collected() {
	c := m.call
	if len(c.promises) < len(c.view.Members) {
		return
	}
	m.call = nil
	m.installCalled(c)
}

// onRefuse gives an own call up.
func (m *Machine) onRefuse(r *Refuse) {
	if m.believable(r.Promised) {
		m.counter = max(m.counter, r.Promised.Counter)
	}
	c := m.call
	if c == nil || r.View != c.view.ID || m.index(&c.view, r.From.Member) < 0 {
		m.drop("late refusal")
		return
	}
	m.call = nil
	m.failed++
	m.vain[r.From.Member]++
	// Promised elsewhere: that call is likely to come here, too.
	wait := m.cfg.Timers.CollectWait << min(m.failed, 5)
	if r.Reason == RefusedPromised || r.Reason == RefusedYoung {
		wait = m.cfg.Timers.Promise(len(c.view.Members), 0)
	}
	m.patience = m.now.Add(m.jitter(wait))
}

// callExpired tries again with those that answer.
func (m *Machine) callExpired() {
	c := m.call
	if m.faults.Has(fault.InstallWithoutPromises|fault.SecondFirstToken) && len(c.promises) > 1 && !c.torn {
		m.installTorn(c)
		return
	}
	m.call = nil
	m.failed++
	for _, n := range c.view.Members {
		if c.promises[n.Member] == nil {
			m.vain[n.Member]++
			if c.cause == CauseMerge {
				m.steady.dropped(n.ID, m.now, m.cfg.Timers)
			}
		}
	}
	m.callRest(c)
}

// callRest asks those who are left of a call that is given up. Those who promised can't
// go back; a merge comes again by probing, and not too soon.
func (m *Machine) callRest(c *call) {
	cause := c.cause
	if cause == CauseMerge {
		cause = CauseNoAck
	}
	m.startAsk(cause, m.everybody(c.view.Members), nil)
}

// maxVain is how many calls a member may refuse, or let wait, before it is left out
// of the next ones: one that answers and never promises would hold up all.
const maxVain = 5

// everybody lists whom to ask for a new view: the installed view without those that
// left, and others that are bound to this member by a call.
func (m *Machine) everybody(others []Node) []Node {
	list := []Node{m.self}
	add := func(nodes []Node) {
		for _, n := range nodes {
			known := m.leavers[n.Member] || m.vain[n.Member] >= maxVain
			for _, have := range list {
				known = known || have.ID == n.ID
			}
			if !known && len(list) < m.limits.Members {
				list = append(list, n)
			}
		}
	}
	add(m.view.Members)
	add(others)
	return list
}
