package ring

import (
	"encoding/binary"
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// onToken takes the token, if it is one for this member.
func (m *Machine) onToken(t *Token) {
	if m.faults.Has(fault.AckUnaccepted) {
		m.send(t.From, &TokenAck{View: t.View, Hop: t.Hop})
	}
	if t.View != m.view.ID {
		if t.View == m.promised && t.Install != nil {
			m.onFirstToken(t)
			return
		}
		m.drop("token of another view")
		return
	}
	n := uint64(len(m.view.Members))
	switch {
	case m.away() && !m.faults.Has(fault.AcceptOldView):
		m.drop("token of an older view")
		return
	case t.Hop%n != uint64(m.me) || !m.same(t.From.Member, m.view.Members[(t.Hop+n-1)%n].Member) && !m.faults.Has(fault.SkipDeadMember):
		m.drop("token for another member")
		return
	case t.Hop == m.accepted && m.faults.Has(fault.AcceptSameHop):
	case t.Hop <= m.hop:
		m.counters.Duplicate++
		m.send(t.From, &TokenAck{View: t.View, Hop: t.Hop})
		return
	case t.Hop != m.accepted+n && !m.faults.Has(fault.SkipDeadMember):
		m.drop("token of the future")
		return
	}
	c, seq := t.Copy, m.seq
	if m.faults.Has(fault.AcceptSameHop) {
		seq = min(seq, c.Seq)
	}
	if why := m.check(&c, seq); why != "" {
		m.drop(why)
		return
	}
	m.accept(t, &c)
}

// onFirstToken takes the token that installs the view promised last. Only what was
// promised is accepted: the list that was called, and nothing promised since.
func (m *Machine) onFirstToken(t *Token) {
	in := t.Install
	loose := m.faults.Has(fault.SecondFirstToken | fault.InstallWithoutPromises)
	me := m.index(&in.View, m.self.Member)
	switch {
	case in.View.ID != t.View || m.answerTo == nil && !loose,
		m.answerTo != nil && (in.Cause != m.answerTo.Cause || !slices.Equal(in.View.Members, m.answerTo.View.Members)) && !loose,
		me <= 0, len(in.Origins) != len(in.View.Members):
		m.drop("forged member list")
		return
	case t.Hop != uint64(me) && !m.faults.Has(fault.SkipDeadMember),
		!m.same(t.From.Member, in.View.Members[max(me-1, 0)].Member) && !m.faults.Has(fault.SkipDeadMember):
		m.drop("token for another member")
		return
	case in.Origins[me].Installed != m.view.ID && !m.faults.Has(fault.RestartedMemberIsItself):
		m.drop("forged origin")
		return
	}
	for i, o := range in.Origins {
		if o.Member != in.View.Members[i].Member {
			m.drop("forged origin")
			return
		}
	}
	c := t.Copy
	if why := m.check(&c, 0); why != "" {
		m.drop(why)
		return
	}
	m.install(&c)
	m.accept(t, &c)
}

// check looks whether the entries of a token make sense to a member that has those
// up to seq, and puts back what was omitted. It returns what is wrong.
func (m *Machine) check(c *Copy, seq uint64) string {
	if c.octets() > m.limits.most() {
		return "oversized token"
	}
	if len(c.Runs) == 0 {
		if c.Seq != seq {
			return "token with a gap"
		}
		return ""
	}
	if c.Runs[0].Seq > seq+1 || c.Runs[0].Seq == 0 {
		return "token with a gap"
	}
	next, head, restored := c.Runs[0].Seq, true, false
	view := &m.view
	if c.Install != nil {
		view = &c.Install.View
	}
	for i := range c.Runs {
		r := &c.Runs[i]
		own := r.Origin == c.View
		switch {
		case r.Seq != next || r.Count == 0 || r.Count > MaxMessage || r.Kind >= kinds:
			return "token with a gap"
		case own && (r.OriginSeq != r.Seq || m.index(view, r.From) < 0), !own && !head:
			return "forged entry"
		case own && r.last() > seq && (r.From == m.self.Member || r.Kind == KindEnd && r.From != view.ID.Coordinator):
			return "forged entry" // what this member puts in it knows
		case r.Omitted:
			mine, ok := m.omitted(c.View, r)
			if !ok {
				return "token without what it omits"
			}
			if !restored {
				c.Runs, restored = slices.Clone(c.Runs), true
			}
			c.Runs[i] = mine
		}
		head = head && !own
		next += r.Count
	}
	if next != c.Seq+1 || c.Seq < seq {
		return "token with a gap"
	}
	return ""
}

// omitted finds an own run that came back without its data.
func (m *Machine) omitted(view ViewID, r *Run) (Run, bool) {
	if m.made != nil && m.made.View == view && r.From == m.self.Member {
		for _, mine := range m.made.Runs {
			if mine.Seq == r.Seq && mine.Count == r.Count && mine.Origin == r.Origin {
				return mine, true
			}
		}
	}
	return Run{}, false
}

// accept takes over the token, delivers what is new, takes out what has gone round
// since this member made its last one, and goes on with a visit.
func (m *Machine) accept(t *Token, c *Copy) {
	m.send(t.From, &TokenAck{View: t.View, Hop: t.Hop})
	m.counters.Hops++
	if m.made != nil {
		m.rotation = m.now.Sub(m.acceptedAt)
		m.counters.Rotations++
		m.proofAt, m.returned = m.madeAt, true
	}
	m.accepted, m.hop, m.acceptedAt, m.tokenAt = c.Hop, c.Hop, m.now, m.now
	m.passing, m.patience, m.deferred = nil, m.now.Add(m.cfg.Timers.Starving()), 0
	if m.ask != nil && m.ask.cause != CauseMerge {
		m.ask = nil
	}
	m.deliverNew(c)
	before := m.own.stable
	if m.made != nil {
		c.Runs = without(c.Runs, m.made.Seq)
		m.stableUpTo(m.made.Seq)
	}
	m.served = m.own.stable > before
	m.copy = c
	m.openLocks()
	m.visit()
}

// deliverNew delivers the entries of the installed view that are new here.
func (m *Machine) deliverNew(c *Copy) {
	for _, r := range c.Runs {
		if r.Origin == m.view.ID && r.last() > m.seq {
			m.deliver(r.after(m.seq))
		}
	}
}

// deliver delivers a run of the installed view.
func (m *Machine) deliver(r Run) {
	if r.Count == 0 {
		return
	}
	if r.Kind == KindPayload {
		data := r.Data
		for i := range r.Count {
			payload, rest, _ := cut(data)
			data = rest
			m.entries = append(m.entries, Entry{From: r.From, Proposal: r.Proposal + i, Payload: payload})
			m.counters.Octets += uint64(len(payload))
		}
		m.counters.Entries += r.Count
		m.seq = r.originLast()
		return
	}
	payload, _, _ := cut(r.Data)
	m.seq = r.originLast()
	if r.Kind == KindEnd {
		m.deliverEnd()
		return
	}
	m.applyLock(r.Kind, r.From, payload)
}

// deliverEnd closes the exchange: from here on all members know the same.
func (m *Machine) deliverEnd() {
	if m.ended {
		return
	}
	m.ended, m.endSeq = true, m.seq
	m.synced, m.with = m.view.ID, Member{}
	m.emit(Ended{View: m.view.ID})
}

// stableUpTo reports what all members have delivered: all up to seq in this view,
// and all of earlier ones. During an exchange nothing is reported: who comes from
// elsewhere has not got it before END.
func (m *Machine) stableUpTo(seq uint64) {
	m.stable = max(m.stable, seq)
	m.own.reached(seq)
	if m.exchange && (m.endSeq == 0 || m.endSeq > m.stable) {
		if !m.faults.Has(fault.StableBeforeEnd) {
			return
		}
	} else {
		m.endStable()
	}
	m.reportStable()
}

func (m *Machine) endStable() {
	if !m.lateEnd.IsZero() {
		m.emit(EndStable{View: m.lateEnd})
		m.lateEnd = ViewID{}
	}
	if m.exchange && !m.endReported {
		m.endReported = true
		m.emit(EndStable{View: m.view.ID})
	}
}

func (m *Machine) reportStable() {
	if m.own.stable > m.own.reported {
		m.own.reported = m.own.stable
		m.emit(Stable{Proposal: m.own.stable})
	}
}

// visit adds what waits and passes the token on, in one step, or keeps an idle one
// for a while.
func (m *Machine) visit() {
	next := *m.copy
	m.fill(&next)
	n := uint64(len(m.view.Members))
	if len(next.Runs) == 0 && m.queue.len() == 0 && max(m.rush, next.Rush, next.Yield) <= m.accepted {
		if !m.holding {
			m.holding = true
			m.keepUntil = m.now.Add(m.cfg.Timers.IdleRotation / time.Duration(n))
		}
		return
	}
	if m.served {
		// Who waited for what is stable now may have more, once it is told.
		next.Rush = max(next.Rush, m.accepted+n)
	}
	m.pass(next)
}

// visitAlone orders what waits in a view of one.
func (m *Machine) visitAlone() {
	for m.workWaits() {
		c := Copy{View: m.view.ID, Seq: m.seq}
		m.fill(&c)
	}
	m.stableUpTo(m.seq)
}

// workWaits reports whether the next visit would add anything.
func (m *Machine) workWaits() bool {
	return m.queue.len() > 0 || m.endQueued || len(m.claims.waiting) > 0
}

// fill adds to a token, up to the bounds of visit and token, and delivers what it
// adds.
func (m *Machine) fill(next *Copy) {
	runs := next.Runs[:len(next.Runs):len(next.Runs)]
	add := func(r Run) {
		r.Seq, r.OriginSeq, r.Origin, r.From = next.Seq+1, next.Seq+1, m.view.ID, m.self.Member
		next.Seq += r.Count
		runs = append(runs, r)
		if r.Kind != KindPayload {
			m.deliver(r)
		}
	}
	used, added := next.octets(), 0
	share := min(m.limits.Visit, m.limits.Token/len(m.view.Members))
	// Lock operations are small and go first, as many as Limits.sides leaves room for.
	for room := besides / 2 / len(m.view.Members); added < share && room > 0; {
		kind, payload, ok := m.claims.pop()
		if !ok {
			break
		}
		added += cost(payload)
		room -= len(payload) + runOctets
		add(Run{Count: 1, Kind: kind, Data: appendPayload(nil, payload)})
	}
	m.fillPayloads(next, used, added, share, add)
	if m.endQueued && (m.queue.len() == 0 || m.queue.first() > m.endAfter) {
		m.endQueued = false
		add(Run{Count: 1, Kind: KindEnd, Data: appendPayload(nil, nil)})
		// All want to know that it is everywhere.
		next.Rush = max(next.Rush, m.accepted+2*uint64(len(m.view.Members)))
	}
	next.Runs = runs
}

func (m *Machine) fillPayloads(next *Copy, used, added, share int, add func(Run)) {
	n := uint64(len(m.view.Members))
	if m.queue.len() == 0 || next.Yield > m.accepted && next.Yield <= m.accepted+n {
		return
	}
	all := m.faults.Has(fault.UnboundedVisit)
	first, size, count := m.queue.first(), 0, uint64(0)
	for i := m.queue.head; i < len(m.queue.items); i++ {
		p := m.queue.items[i]
		c := cost(p)
		fits := used+added+c <= m.limits.Token || count == 0 && (used == 0 || next.Yield == m.accepted)
		if !all && (!fits || count > 0 && added+c > share) {
			break
		}
		added += c
		size += len(p) + 3
		count++
	}
	if count == 0 {
		// No room for the next one: on the next visit the token is empty.
		next.Yield = m.accepted + n
		return
	}
	data := make([]byte, 0, size)
	for i := range count {
		p := m.queue.pop()
		data = appendPayload(data, p)
		m.entries = append(m.entries, Entry{From: m.self.Member, Proposal: first + i, Payload: p})
		m.counters.Octets += uint64(len(p))
	}
	m.counters.Entries += count
	add(Run{Count: count, Proposal: first, Data: data})
	m.seq = next.Seq
	m.own.put(m.seq, first+count-1)
	if m.faults.Has(fault.StableAtSight) {
		m.own.stable = first + count - 1
		m.reportStable()
	}
}

func appendPayload(dst, payload []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// pass makes the next hop and sends it.
func (m *Machine) pass(next Copy) {
	n := uint64(len(m.view.Members))
	next.Hop = m.accepted + 1
	next.Rush = min(max(next.Rush, m.rush), next.Hop+3*n)
	if next.Yield > next.Hop+n {
		next.Yield = 0 // no member asks for more than a round
	}
	if next.Hop >= n {
		next.Install = nil
	}
	if m.faults.Has(fault.HeadDroppedBeforeRound) && next.Hop == 2 {
		for len(next.Runs) > 0 && next.Runs[0].Origin != next.View {
			next.Runs = next.Runs[1:]
		}
	}
	m.made = &next
	if !m.faults.Has(fault.PromiseWithoutOwnAdditions) {
		m.copy = &next
	}
	m.hop, m.holding = next.Hop, false
	m.madeAt, m.tokenAt = m.now, m.now
	to := m.view.Members[next.Hop%n]
	m.passing = &passing{to: to, token: &Token{Copy: next}, sentAt: m.now, resendAt: m.now.Add(m.cfg.Timers.HopRetry)}
	m.passing.token.Runs = omit(next.Runs, next.View, to.Member)
	m.passing.until = m.now.Add(m.hopTimeout(to.Member))
	m.send(to, m.passing.token)
}

// omit leaves the data of what the receiver put in itself behind.
func omit(runs []Run, view ViewID, to Member) []Run {
	copied := false
	for i := range runs {
		if runs[i].From == to && runs[i].Origin == view {
			if !copied {
				runs, copied = slices.Clone(runs), true
			}
			runs[i].Omitted, runs[i].Data = true, nil
		}
	}
	return runs
}

func (m *Machine) onAck(a *TokenAck) {
	switch {
	case a.View != m.view.ID || m.passing == nil || a.Hop != m.passing.token.Hop || !m.same(a.From.Member, m.passing.to.Member):
		m.counters.Duplicate++
	default:
		m.passed()
	}
}

// passed notes that the next member has the token.
func (m *Machine) passed() {
	m.timed(m.passing)
	m.passing = nil
	m.patience = m.now.Add(m.cfg.Timers.Starving())
	if m.made != nil && m.made.Rush >= m.nextVisit() {
		m.expectSoon()
	}
	if m.ask != nil && m.ask.cause == CauseNoAck {
		m.ask = nil
	}
}
