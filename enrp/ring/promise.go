package ring

import "rserpool/enrp/ring/internal/fault"

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
	if c.Cause == CauseMerge && m.answerTo != nil && m.answerTo.From.Member == c.From.Member {
		m.blame() // after a merge that failed comes another call, but no merge
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
	m.send(c.From, m.promise(c.View.ID))
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
