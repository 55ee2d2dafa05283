package ring

import (
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// onCall promises or refuses a call.
func (m *Machine) onCall(c *Call) {
	if !m.callMakesSense(c) {
		m.drop("forged call")
		return
	}
	if m.answerTo != nil && m.answerTo.View.ID == c.View.ID && m.promised == c.View.ID {
		if sameMembers(m.answerTo.View.Members, c.View.Members) {
			m.send(c.From, m.promise(c.View.ID)) // the promise was lost, or is late
		} else {
			m.drop("second list of a call")
		}
		return
	}
	if m.answerTo != nil && (c.Cause == CauseMerge) == (m.answerTo.From.Member == c.From.Member) {
		// After a merge that failed its caller calls again, but no merge; others have
		// waited for it in vain.
		m.blame()
	}
	if reason, refused := m.refusal(c); refused {
		m.counters.Refused[reason.String()]++
		m.send(c.From, &Refuse{View: c.View.ID, Reason: reason, Promised: m.promised})
		return
	}
	if m.call != nil {
		m.call = nil
		m.failed++
	}
	// The caller's patience ends first. Merges that follow each other don't prolong
	// the time without a view.
	patience := m.now.Add(m.jitter(2 * m.cfg.Timers.Promise(len(c.View.Members), m.failed)))
	if c.Cause == CauseMerge && m.answerTo != nil {
		patience = earlier(m.patience, patience)
	} else {
		m.failed++
	}
	m.leaveOldView(c.View.ID)
	m.answerTo, m.bound, m.patience = c, c.View.Members, patience
	m.nonce++
	m.waits = waits{nonce: m.nonce, at: m.now.Add(m.inquiry())}
	m.send(c.From, m.promise(c.View.ID))
}

// waits is when a member that promised asks the caller whether it goes on: the caller
// may be dead, or its call over long since.
type waits struct {
	nonce uint64
	at    time.Time
	asked int // without an answer
}

// maxAsked is how many questions a caller may leave without an answer.
const maxAsked = 2

// inquiry is the time between two questions. A caller is given up sooner than one would
// wait for its install, and not sooner than a member that doesn't take the token.
func (m *Machine) inquiry() time.Duration {
	return max(2*m.cfg.Timers.CollectWait, (m.cfg.Timers.HopTimeout+m.cfg.Timers.CollectWait)/maxAsked)
}

// waiting reports whether this member promised and waits for the install.
func (m *Machine) waiting() bool {
	return m.answerTo != nil && m.away() && m.call == nil && m.ask == nil
}

// inquire asks the caller whether it goes on, or gives it up if it does not answer.
func (m *Machine) inquire() {
	if m.waits.asked == maxAsked {
		m.patience = m.now
		return
	}
	m.waits.asked++
	m.waits.at = m.now.Add(m.inquiry())
	m.send(m.answerTo.From, &Ping{Nonce: m.waits.nonce})
}

// onInquired takes the caller's answer. If its call is over, because it has promised
// another view or was refused, what follows has as long as a first call for its install.
func (m *Machine) onInquired(p *Pong) {
	if p.From.Member != m.answerTo.From.Member {
		return
	}
	m.waits.asked = 0
	if p.Promised != m.promised || p.View.ID != m.promised && p.State != Calling {
		m.patience = earlier(m.patience, m.now.Add(m.jitter(m.cfg.Timers.Promise(len(m.bound), 0))))
	}
}

// callMakesSense reports whether an honest member could have sent the call.
func (m *Machine) callMakesSense(c *Call) bool {
	return m.plausible(&c.View) && c.View.ID.Coordinator == c.From.Member && m.index(&c.View, m.self.Member) >= 1 &&
		m.believable(c.View.ID) && c.Cause > CauseStart && c.Cause <= CauseLeave
}

func sameMembers(a, b []Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Member != b[i].Member {
			return false
		}
	}
	return true
}

// refusal says whether, and why, a call is refused.
func (m *Machine) refusal(c *Call) (Reason, bool) {
	switch {
	case c.View.ID.Compare(m.promised) <= 0 && !(m.faults.Has(fault.PromiseLower) && c.View.ID != m.promised):
		return RefusedPromised, true
	case !m.proven(c.From.Member, c.Proof) && !m.faults.Has(fault.PromiseToDeafCaller):
		return RefusedProof, true
	}
	if c.Cause == CauseMerge {
		for _, n := range m.view.Members {
			if m.index(&c.View, n.Member) < 0 && !m.faults.Has(fault.MergeDropsMember) {
				return RefusedDrops, true
			}
		}
		if m.holdOff(c.View.Members) > 0 {
			m.counters.HeldOff++
			return RefusedHoldOff, true
		}
		return 0, false
	}
	if m.away() {
		return 0, false // this member's view is over anyway
	}
	if m.index(&m.view, c.From.Member) < 0 {
		return RefusedStranger, true
	}
	if c.Cause == CauseStarved && !m.alone() && m.now.Sub(m.tokenAt) < m.cfg.Timers.Starving() &&
		!m.newer(c.Installed, c.Hop, c.From.Member) && !m.faults.Has(fault.StarvedCallAlwaysPromised) {
		return RefusedYoung, true
	}
	return 0, false
}

// promise is what this member promises for a view: its state as it stands for good.
func (m *Machine) promise(id ViewID) *Promise {
	return &Promise{
		Header: Header{From: m.self}, View: id, Installed: m.view.ID, Synced: m.synced, With: m.with,
		Delivered: m.seq, Copy: m.copy,
	}
}
