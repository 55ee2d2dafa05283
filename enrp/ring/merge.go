package ring

import (
	"slices"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// probe asks the nodes outside the view whether they are there, and in which
// views: how groups meet.
type probe struct {
	nonce uint64
	// asked are those that have not answered, and because of whom they were
	// asked: themselves, or another node with their identifier.
	asked  map[Member]Node
	groups []View
	until  time.Time
}

func (m *Machine) found(n Node) {
	delete(m.lost, n.Member) // it can be sent to again
	switch {
	case m.left || n.ID == 0 || n.Member == m.self.Member || m.index(&m.view, n.Member) >= 0 || len(n.Contact) > MaxContact:
		return
	}
	if m.foundOutside(n) && m.me == 0 && m.mayProbe() {
		m.probeAt = m.now // a new one: don't wait
	}
}

// foundOutside remembers a node, the latest life of it, and reports whether it is a
// new one.
func (m *Machine) foundOutside(n Node) bool {
	have, ok := m.outside[n.ID]
	if ok && have.Incarnation > n.Incarnation || !ok && len(m.outside) >= m.limits.Outside {
		return false
	}
	m.outside[n.ID] = n
	return !ok || have.Member != n.Member
}

// notOutside forgets a node, but not another life of it.
func (m *Machine) notOutside(member Member) {
	if m.outside[member.ID].Member == member {
		delete(m.outside, member.ID)
	}
}

// mayProbe reports whether this member looks for other groups: those of a view that
// goes on do. The coordinator comes first, see relayAfter.
func (m *Machine) mayProbe() bool {
	return !m.away() && m.call == nil && !m.leaving && !m.left && (m.ask == nil || m.ask.cause == CauseMerge)
}

// relayAfter is how many intervals each member gives those before it in the list to
// meet other groups. They may not hear these.
const relayAfter = 6

// relayDelay is how much longer than the coordinator this member waits.
func (m *Machine) relayDelay() time.Duration {
	return time.Duration(m.me*relayAfter) * m.cfg.Timers.ProbeInterval
}

// startProbe asks all outside.
func (m *Machine) startProbe() {
	m.probeAt = m.now.Add(time.Duration(1+min(m.me, relayAfter)) * m.cfg.Timers.ProbeInterval)
	if !m.mayProbe() || m.ask != nil || len(m.outside) == 0 {
		return
	}
	m.nonce++
	m.probe = &probe{nonce: m.nonce, asked: map[Member]Node{}, until: m.now.Add(m.cfg.Timers.CollectWait)}
	for _, n := range m.sortedOutside() {
		m.probe.asked[n.Member] = n
		m.send(n, &Ping{Nonce: m.nonce})
	}
}

func (m *Machine) sortedOutside() []Node {
	list := make([]Node, 0, len(m.outside))
	for _, n := range m.outside {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b Node) int { return a.Compare(b.Member) })
	return list
}

// onProbed notes the group of a node that answered a probe.
func (m *Machine) onProbed(p *Pong) {
	because, asked := m.probe.asked[p.From.Member]
	if !asked {
		m.drop("late answer")
		return
	}
	delete(m.probe.asked, p.From.Member)
	m.counter = max(m.counter, p.Promised.Counter)
	known := func(v View) bool { return v.ID == p.View.ID }
	if because.Member != p.From.Member {
		m.reportClash(Clash{Mine: p.From, Other: because})
	} else if p.Promised == p.View.ID && !m.clash(p) && m.index(&p.View, m.self.Member) < 0 && !slices.ContainsFunc(m.probe.groups, known) {
		m.probe.groups = append(m.probe.groups, p.View)
	}
	if len(m.probe.asked) == 0 {
		m.probed()
	}
}

// clash reports whether a node that answered just now has the identifier of a
// member. It is not merged; and if it is the identifier of this member, or the
// member answers as well, that is reported.
func (m *Machine) clash(p *Pong) bool {
	if m.faults.Has(fault.RestartedMemberIsItself) {
		return false
	}
	for _, n := range m.view.Members {
		if n.ID != p.From.ID || n.Member == p.From.Member {
			continue
		}
		if n.Member == m.self.Member {
			m.reportClash(Clash{Mine: n, Other: p.From, View: p.View})
		} else if m.probe.asked[n.Member].ID == 0 {
			m.probe.asked[n.Member] = p.From
			m.send(n, &Ping{Nonce: m.probe.nonce})
		}
		return true
	}
	return false
}

func (m *Machine) reportClash(c Clash) {
	if !m.clashes[c.Other.Member] && len(m.clashes) < maxMembers {
		m.clashes[c.Other.Member] = true
		m.emit(c)
	}
}

// probed decides, when the answers to a probe are there, whether to call a merge: the
// coordinator of the highest view does, and others if it does not for a while.
func (m *Machine) probed() {
	groups := m.probe.groups
	m.probe = nil
	highest := m.me == 0
	for _, g := range groups {
		highest = highest && g.ID.Compare(m.view.ID) < 0
	}
	switch {
	case len(groups) == 0:
		m.behind = time.Time{}
		return
	case highest:
		m.behind = time.Time{}
	case m.behind.IsZero():
		m.behind = m.now
		return
	case m.now.Sub(m.behind) < m.jitter(3*m.cfg.Timers.ProbeInterval+m.relayDelay()):
		return
	case m.me > 0:
		m.behind = m.now // should it fail, it takes as long to the next one
	}
	if m.ask != nil || !m.mayProbe() {
		return
	}
	slices.SortFunc(groups, func(a, b View) int { return a.ID.Compare(b.ID) })
	sides, all := []View{m.view}, slices.Clone(m.view.Members)
	for _, g := range groups {
		if m.fits(all, g.Members) {
			sides = append(sides, g)
			all = append(all, g.Members...)
		}
	}
	if len(sides) > 1 {
		m.startAsk(CauseMerge, all, sides)
	}
}

// maxSides bounds the groups in one merge, since each may bring a full token; see
// Limits.sides.
const maxSides = 8

// fits reports whether a group can join a list: there is room, no identifier is
// there twice, and nobody in it is being held off.
func (m *Machine) fits(list, group []Node) bool {
	if len(list)+len(group) > m.limits.Members {
		return false
	}
	for _, n := range group {
		if slices.ContainsFunc(list, func(have Node) bool { return have.ID == n.ID }) {
			return false
		}
	}
	if m.holdOff(group) > 0 {
		m.counters.HeldOff++
		return false
	}
	return true
}

// whole reports whether each member of a side answered, from that very view, and
// holds nobody off.
func (m *Machine) whole(side View) bool {
	for _, n := range side.Members {
		if n.Member == m.self.Member {
			continue
		}
		p := m.ask.answers[n.Member]
		if p == nil && m.faults.Has(fault.MergeDropsMember) {
			continue
		}
		if p == nil || p.View.ID != side.ID || p.Promised != side.ID || p.HoldOff > 0 {
			return false
		}
	}
	return true
}

// mergeReady reports whether all sides can be merged.
func (m *Machine) mergeReady() bool {
	for _, side := range m.ask.sides {
		if !m.whole(side) {
			return false
		}
	}
	return len(m.ask.answers) == len(m.ask.candidates)-1 && len(m.order(m.ask.candidates)) == len(m.ask.candidates)
}

// decideMerge calls a view of all sides that are whole and can be placed. It never
// leaves out a member of a side: rather the side, or the merge.
func (m *Machine) decideMerge() {
	sides := m.ask.sides
	var list []Node
	count := 0
	for i, side := range sides {
		if count == m.limits.sides() {
			break
		}
		longer := append(slices.Clone(list), m.answering(side)...)
		if m.whole(side) && len(m.order(ownFirst(longer, m.self))) == len(longer) {
			list = longer
			count++
		} else if i == 0 {
			break
		}
	}
	if count < 2 || m.away() {
		m.ask = nil
		return
	}
	m.startCall(CauseMerge, m.order(ownFirst(list, m.self)))
}

// answering lists the members of a side; without those that did not answer only if
// a deliberate fault says so.
func (m *Machine) answering(side View) []Node {
	if !m.faults.Has(fault.MergeDropsMember) {
		return side.Members
	}
	return slices.DeleteFunc(slices.Clone(side.Members), func(n Node) bool {
		return n.Member != m.self.Member && m.ask.answers[n.Member] == nil
	})
}

// ownFirst moves a node to the front.
func ownFirst(list []Node, self Node) []Node {
	i := slices.IndexFunc(list, func(n Node) bool { return n.Member == self.Member })
	if i <= 0 {
		return list
	}
	list = slices.Clone(list)
	list[0], list[i] = list[i], list[0]
	return list
}

// lateJoin is a deliberate fault: it takes any packet of a node outside the view for
// a wish to join, and calls it.
func (m *Machine) lateJoin(msg Message) bool {
	from := msg.Head().From
	switch msg.(type) {
	case *Token, *TokenAck, *Want, *Hear:
	default:
		return false
	}
	if m.index(&m.view, from.Member) >= 0 || m.away() || m.ask != nil || len(m.view.Members) >= m.limits.Members {
		return false
	}
	list := append(ownFirst(m.view.Members, m.self), from)
	m.startCall(CauseNoAck, list[:len(list):len(list)])
	return true
}
