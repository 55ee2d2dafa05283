package ring

import (
	"cmp"
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// installCalled makes the first token of a view that all have promised.
func (m *Machine) installCalled(c *call) {
	promises := make([]*Promise, len(c.view.Members))
	for i, n := range c.view.Members {
		promises[i] = c.promises[n.Member]
	}
	first := &Copy{View: c.view.ID, Rush: 2 * uint64(len(promises)), Runs: head(promises, m.faults.Has(fault.HeadWithGaps))}
	if n := len(first.Runs); n > 0 {
		first.Seq = first.Runs[n-1].last()
	}
	first.Install = m.origins(c, promises, first.Runs)
	m.install(first)
	if m.alone() {
		m.visitAlone()
		return
	}
	m.copy = first
	if m.faults.Has(fault.RemainderDropped) {
		m.copy = &Copy{View: first.View, Install: first.Install, Rush: first.Rush}
		m.seq = 0
	}
	m.visit()
}

// head puts together, for each view that is installed at one of the promising
// members, the entries of that view that one of them lacks, without gaps: from the
// copies of that view, and from heads in copies of later ones. Origins tell which are
// the same. With gaps is a deliberate fault.
func head(promises []*Promise, gaps bool) []Run {
	lacking := map[ViewID]uint64{} // delivered by all who come from the view
	for _, p := range promises {
		if seq, ok := lacking[p.Installed]; !ok || p.Delivered < seq {
			lacking[p.Installed] = p.Delivered
		}
	}
	var runs []Run
	for _, p := range promises {
		if p.Copy == nil {
			continue
		}
		for _, r := range p.Copy.Runs {
			if _, ok := lacking[r.Origin]; ok {
				runs = append(runs, r)
			}
		}
	}
	slices.SortStableFunc(runs, func(a, b Run) int {
		return cmp.Or(a.Origin.Compare(b.Origin), cmp.Compare(a.OriginSeq, b.OriginSeq))
	})
	// Later views may have let go of what their members did not lack. Beyond such a
	// gap nothing can be delivered in order: the exchange brings it.
	var out []Run
	next := uint64(1)
	for _, r := range runs {
		r = r.after(lacking[r.Origin])
		if r.Count == 0 || r.OriginSeq != lacking[r.Origin]+1 && !gaps {
			continue
		}
		lacking[r.Origin] = r.originLast()
		r.Seq = next
		next += r.Count
		out = append(out, r)
	}
	return out
}

// origins says where the members come from, and whether they know the same: only
// if all come from one view in which they knew the same, or do with its rest.
func (m *Machine) origins(c *call, promises []*Promise, head []Run) *Install {
	ends := map[ViewID]bool{}
	for _, r := range head {
		ends[r.Origin] = ends[r.Origin] || r.Kind == KindEnd
	}
	in := &Install{View: c.view, Cause: c.cause}
	for i, p := range promises {
		o := Origin{Member: c.view.Members[i].Member, Installed: p.Installed, Synced: p.Synced, With: p.With}
		if m.faults.Has(fault.RestartedMemberIsItself) && p.From.Member != o.Member {
			o.Installed, o.Synced = m.view.ID, m.synced
		}
		if ends[o.Installed] {
			o.Synced = o.Installed
		}
		if o.Synced == o.Installed {
			o.With = Member{}
		}
		in.Origins = append(in.Origins, o)
		together := o.Installed == in.Origins[0].Installed || m.faults.Has(fault.ExchangeSkippedAtMerge)
		synced := o.Synced == o.Installed || m.faults.Has(fault.ExchangeSkippedAfterInterrupted)
		in.Exchange = in.Exchange || !together || !synced
	}
	return in
}

// install delivers the rest of the installed view from the head of the new one's
// first token, and installs the new one. The member comes from where the first
// token says: it was the same when it promised.
func (m *Machine) install(first *Copy) {
	in := first.Install
	for _, r := range first.Runs {
		if r.Origin == first.View {
			break
		}
		if r.Origin == m.view.ID {
			if r.originLast() > m.seq {
				m.deliver(r.after(m.seq))
			}
		} else if m.faults.Has(fault.ForeignRemainderDelivered) && r.Kind == KindPayload {
			seq := m.seq
			m.deliver(r)
			m.seq = seq
		}
	}
	m.flush()
	old, leftOut := m.installed, m.leftOut()
	m.installed = installed{
		view: in.View, me: max(m.index(&in.View, m.self.Member), 0), cause: in.Cause,
		exchange: in.Exchange, ended: !in.Exchange, synced: old.synced,
		seq: first.headEnd(), tokenAt: m.now, acceptedAt: m.now, proofAt: old.proofAt,
		leavers: map[Member]bool{}, rotation: old.rotation,
	}
	if in.Exchange {
		m.with = knowingTheSame(in.Origins, m.me)
	} else {
		m.synced = first.View
		if m.lateEnd = old.lateEnd; old.exchange && old.ended && !old.endReported {
			m.lateEnd = old.view.ID
		}
	}
	m.proposalsToView(old.copy)
	m.promised, m.answerTo, m.ask, m.call, m.probe = first.View, nil, nil, nil, nil
	m.failed, m.deferred, m.behind, m.bound = 0, 0, time.Time{}, nil
	clear(m.vain)
	m.patience = m.now.Add(m.cfg.Timers.Starving())
	left := m.gone(&old)
	m.counters.Views[in.Cause]++
	if m.cfg.Size > 0 {
		m.out.Persist = &Durable{Counter: first.View.Counter}
	}
	clear(m.clashes)
	m.emit(Installed{View: m.view, Cause: in.Cause, Exchange: in.Exchange, Origins: in.Origins, Left: left, LeftOut: leftOut})
	m.locksToView(&old)
	m.probeAt = m.now.Add(m.jitter(m.cfg.Timers.ProbeInterval)/2 + m.relayDelay())
}

// knowingTheSame returns the lowest of the members that come with the same knowledge
// as one of them.
func knowingTheSame(origins []Origin, me int) Member {
	lowest := origins[me]
	for _, o := range origins {
		if o.Installed == lowest.Installed && o.With == lowest.With && o.Compare(lowest.Member) < 0 {
			lowest = o
		}
	}
	return lowest.Member
}

// proposalsToView keeps own proposals over a change of view. Those that were in a
// token are delivered here already, and by the head or the exchange elsewhere; only
// the others are proposed again.
func (m *Machine) proposalsToView(old *Copy) {
	m.own.nextView()
	if m.faults.Has(fault.ProposeAgainFromToken) && old != nil {
		m.proposeAgain(old.Runs)
	}
	if m.faults.Has(fault.StableOnOldCopy) && len(m.own.marks) > 0 {
		m.own.stable = m.own.marks[0].proposal
		m.reportStable()
	}
}

// proposeAgain is a deliberate fault: it puts what was in the last token back into
// the queue.
func (m *Machine) proposeAgain(runs []Run) {
	var again [][]byte
	for _, r := range runs {
		data := r.Data
		for range r.Count {
			var payload []byte
			if payload, data, _ = cut(data); r.From == m.self.Member && r.Kind == KindPayload {
				again = append(again, payload)
			}
		}
	}
	m.queue.putBack(again)
}

// gone lists the members of the view before that are not in this one. Those that
// did not leave count as unsteady, and may come back.
func (m *Machine) gone(old *installed) []Node {
	var left []Node
	for _, n := range old.view.Members {
		if m.index(&m.view, n.Member) >= 0 {
			continue
		}
		left = append(left, n)
		if !old.leavers[n.Member] {
			m.steady.dropped(n.ID, m.now, m.cfg.Timers)
			m.foundOutside(n)
		}
	}
	for _, n := range m.view.Members {
		delete(m.outside, n.ID)
	}
	clear(m.lost)
	return left
}

// installTorn installs what has not been promised by all: deliberate faults.
func (m *Machine) installTorn(c *call) {
	part := *c
	if m.faults.Has(fault.SecondFirstToken) {
		part.view.Members = nil
		for _, n := range c.view.Members {
			if c.promises[n.Member] != nil {
				part.view.Members = append(part.view.Members, n)
			}
		}
	} else {
		part.promises = map[Member]*Promise{}
		for _, n := range c.view.Members {
			part.promises[n.Member] = c.promises[n.Member]
			if part.promises[n.Member] == nil {
				part.promises[n.Member] = &Promise{Installed: m.view.ID, Synced: m.synced, Delivered: m.seq}
			}
		}
	}
	m.installCalled(&part)
	if m.faults.Has(fault.SecondFirstToken) {
		c.torn = true
		c.until = m.now.Add(m.cfg.Timers.Promise(len(c.view.Members), 0))
		m.call = c
	}
}
