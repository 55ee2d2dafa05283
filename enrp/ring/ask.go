package ring

import (
	"maps"
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// ask is a round of questions: who is there, and how far?
type ask struct {
	cause      Cause // of the view that it is for
	nonce      uint64
	candidates []Node
	answers    map[Member]*Pong
	sides      []View // that a merge brings together, the own one first
	again      time.Time
	until      time.Time
}

// proof is an answer that was given to a Ping.
type proof struct {
	answer uint64
	at     time.Time
}

// maxProofs is how many answers to one asker count.
const maxProofs = 8

// heardFor is how long a packet proves that its sender can be heard: as long as a
// round of questions takes, and its answers.
func (m *Machine) heardFor() time.Duration { return 2 * m.cfg.Timers.CollectWait }

// proofFor is how long an answer proves that the asker got it.
func (m *Machine) proofFor() time.Duration {
	return m.cfg.Timers.HopTimeout + 2*m.cfg.Timers.CollectWait
}

// hear notes a sign of life.
func (m *Machine) hear(from Member) {
	delete(m.lost, from)
	m.heard[from] = m.now
	if len(m.heard) > maxMembers {
		for member, at := range m.heard {
			if m.now.Sub(at) > m.heardFor() {
				delete(m.heard, member)
			}
		}
	}
	if len(m.heard) > 2*maxMembers {
		clear(m.heard)
	}
}

// startAsk begins to ask candidates, of which this member is one, for a new view.
func (m *Machine) startAsk(cause Cause, candidates []Node, sides []View) {
	m.nonce++
	m.ask = &ask{
		cause: cause, nonce: m.nonce, candidates: candidates, sides: sides, answers: map[Member]*Pong{},
		until: m.now.Add(m.cfg.Timers.CollectWait),
	}
	maps.DeleteFunc(m.lost, func(member Member, _ time.Time) bool { return !m.concerned(member) })
	if len(candidates) == 1 {
		m.decide()
		return
	}
	m.askAgain()
}

// askAgain asks those whose answer doesn't say enough. Answers name whom a
// candidate heard, so all are asked until that is enough, too.
func (m *Machine) askAgain() {
	m.ask.again = m.now.Add(m.cfg.Timers.CollectWait / 4)
	for _, n := range m.ask.candidates {
		if n.Member != m.self.Member {
			m.send(n, &Ping{Nonce: m.ask.nonce, Candidates: m.ask.candidates})
		}
	}
}

// onPing answers, and lets all candidates hear this member.
func (m *Machine) onPing(p *Ping) {
	if len(p.Candidates) > 2*m.limits.Members {
		m.drop("oversized ping")
		return
	}
	m.answer++
	proofs := append(m.answers[p.From.Member], proof{m.answer, m.now})
	if len(proofs) > maxProofs {
		proofs = slices.Delete(proofs, 0, len(proofs)-maxProofs)
	}
	m.answers[p.From.Member] = proofs
	m.forgetAnswers()
	for _, c := range p.Candidates {
		if c.Member != m.self.Member && c.Member != p.From.Member {
			m.send(c, &Hear{})
		}
	}
	pong := &Pong{
		Nonce: p.Nonce, Answer: m.answer, View: m.view, Hop: m.hop, State: m.currentState(), Promised: m.promised,
		HoldOff: m.holdOff(append(p.Candidates[:len(p.Candidates):len(p.Candidates)], p.From)),
	}
	if !m.alone() {
		pong.Age = m.now.Sub(m.tokenAt)
	}
	for member, at := range m.heard {
		if m.now.Sub(at) <= m.heardFor() && len(pong.Heard) < maxMembers {
			pong.Heard = append(pong.Heard, member)
		}
	}
	slices.SortFunc(pong.Heard, Member.Compare)
	m.send(p.From, pong)
}

// forgetAnswers bounds the answers kept.
func (m *Machine) forgetAnswers() {
	if len(m.answers) <= maxMembers {
		return
	}
	for asker, proofs := range m.answers {
		if m.now.Sub(proofs[len(proofs)-1].at) > m.proofFor() {
			delete(m.answers, asker)
		}
	}
	if len(m.answers) > 2*maxMembers {
		clear(m.answers)
	}
}

// proven reports whether a caller got one of the latest answers.
func (m *Machine) proven(caller Member, answer uint64) bool {
	return slices.ContainsFunc(m.answers[caller], func(p proof) bool {
		return p.answer == answer && m.now.Sub(p.at) <= m.proofFor()
	})
}

// askNoMore takes a member that is gone off the candidates, whatever it answered.
func (m *Machine) askNoMore(member Member) {
	if a := m.ask; a != nil {
		a.candidates = slices.DeleteFunc(slices.Clone(a.candidates), func(n Node) bool { return n.Member == member })
		delete(a.answers, member)
	}
}

func (m *Machine) onPong(p *Pong) {
	if !m.plausible(&p.View) || p.View.Index(p.From.Member) < 0 || p.View.ID.Compare(p.Promised) > 0 || !m.believable(p.Promised) {
		m.drop("forged view")
		return
	}
	switch {
	case m.probe != nil && p.Nonce == m.probe.nonce:
		m.onProbed(p)
		return
	case m.waiting() && p.Nonce == m.waits.nonce:
		m.onInquired(p)
		return
	case m.ask == nil || p.Nonce != m.ask.nonce || !slices.ContainsFunc(m.ask.candidates, func(n Node) bool { return m.same(n.Member, p.From.Member) }):
		m.drop("late answer")
		return
	}
	m.counter = max(m.counter, p.Promised.Counter)
	for _, n := range m.ask.candidates {
		if m.same(n.Member, p.From.Member) {
			m.ask.answers[n.Member] = p
		}
	}
	if m.elsewhere(p) && m.index(&m.view, p.From.Member) >= 0 {
		m.leftOutAt = m.now
	}
	switch {
	case m.ask.cause == CauseStarved && m.deferred < maxDeferred && m.goesOnWithout(p):
		// The token is alive: this member only missed it for a while.
		m.ask = nil
		m.deferred++
		left := m.cfg.Timers.Starving() - p.Age
		m.patience = m.now.Add(max(left, m.cfg.Timers.CollectWait))
		if m.wants() {
			m.sayWant(m.view.Members) // who keeps it has not heard it
		}
	case m.ask.cause == CauseNoAck && m.passing != nil && p.View.ID == m.view.ID && p.Hop >= m.hop && p.Promised == p.View.ID:
		m.passed() // only the acknowledgement was lost
	case m.ask.cause == CauseMerge && m.mergeReady(), m.ask.cause != CauseMerge && m.enough():
		m.decide()
	}
}

// goesOnWithout reports whether an answer shows a view with this member that goes
// on, and where the token was seen lately.
func (m *Machine) goesOnWithout(p *Pong) bool {
	return p.Promised == p.View.ID && m.index(&p.View, m.self.Member) >= 0 && len(p.View.Members) > 1 && m.newer(p.View.ID, p.Hop, p.From.Member) &&
		p.Age < m.cfg.Timers.Starving() && !m.faults.Has(fault.StarvedCallAlwaysPromised)
}

// newer reports whether a member with this view and hop has a newer token than this
// one. Of two with the same hop one made it and the other accepted it.
func (m *Machine) newer(view ViewID, hop uint64, member Member) bool {
	if view != m.view.ID {
		return view.Compare(m.view.ID) > 0
	}
	if hop != m.hop {
		return hop > m.hop
	}
	return int(hop%uint64(len(m.view.Members))) == m.index(&m.view, member)
}

// maxDeferred is how often in a row a starving member believes others that the token
// is alive.
const maxDeferred = 8

// believable reports whether a view number may be true. Numbers grow by one with
// each call, and nobody has made one in each microsecond since 1970. Without a bound
// a liar would use the numbers up. One that goes by what was heard before would let
// him drive members so far apart that they don't believe each other.
func (m *Machine) believable(id ViewID) bool {
	return id.Counter <= uint64(max(m.now.UnixMicro(), 1<<32))
}

// plausible reports whether an honest member could have made a view.
func (m *Machine) plausible(v *View) bool {
	if len(v.Members) == 0 || len(v.Members) > m.limits.Members || v.Members[0].Member != v.ID.Coordinator {
		return false
	}
	seen := make(map[NodeID]bool, len(v.Members))
	for _, n := range v.Members {
		if n.ID == 0 || seen[n.ID] {
			return false
		}
		seen[n.ID] = true
	}
	return true
}

// enough reports whether all candidates answered and all can be placed.
func (m *Machine) enough() bool {
	for _, n := range m.ask.candidates {
		if n.Member != m.self.Member && m.ask.answers[n.Member] == nil {
			return false
		}
	}
	list := m.joinable()
	return len(m.order(list)) == len(list)
}

// joinable lists the candidates that answered and whose own view does not go on
// without this member, this member first.
func (m *Machine) joinable() []Node {
	list := []Node{m.self}
	for _, n := range m.ask.candidates {
		if n.Member == m.self.Member {
			continue
		}
		if p := m.ask.answers[n.Member]; p != nil && !m.elsewhere(p) || m.faults.Has(fault.PromiseToDeafCaller) {
			list = append(list, n)
		}
	}
	return list
}

// elsewhere reports whether a member is in another view that goes on. Those meet
// by merging.
func (m *Machine) elsewhere(p *Pong) bool {
	return p.Promised == p.View.ID && m.index(&p.View, m.self.Member) < 0
}

// decide ends a round of questions.
func (m *Machine) decide() {
	a := m.ask
	if a.cause == CauseMerge {
		m.decideMerge()
		return
	}
	list := m.joinable()
	if a.cause == CauseStarved && m.deferred < 2 && !m.faults.Has(fault.StarvedCallAlwaysPromised) {
		for _, n := range list {
			if p := a.answers[n.Member]; p != nil && m.newer(p.View.ID, p.Hop, n.Member) {
				// It starves as well, or will soon: let it call.
				m.ask = nil
				m.deferred++
				m.patience = m.now.Add(m.jitter(m.cfg.Timers.HopTimeout + 2*m.cfg.Timers.CollectWait))
				return
			}
		}
	}
	if a.cause == CauseNoAck && m.passing != nil {
		if p := a.answers[m.passing.to.Member]; p != nil && p.Promised == m.view.ID {
			if m.passing.resumed < 2 {
				// It is alive: once more.
				m.ask = nil
				m.passing.resumed++
				m.passing.until = m.now.Add(m.cfg.Timers.HopTimeout)
				m.resend(false)
				return
			}
			// It answers, and yet can't take the token: as good as dead.
			list = slices.DeleteFunc(list, func(n Node) bool { return n.Member == m.passing.to.Member })
		}
	}
	m.startCall(a.cause, m.order(list))
}

// jitter returns a time between d and 1.5 d.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return d + time.Duration(m.cfg.Rand.Int64N(int64(d)/2+1))
}
