package ringtest

import (
	"fmt"
	"strconv"
	"strings"

	"rserpool/enrp/ring"
)

// describe writes a message as traces and stories show it.
func (w *world) describe(msg ring.Message) string {
	switch m := msg.(type) {
	case *ring.Ping:
		if len(m.Candidates) == 0 {
			return "PING"
		}
		return "PING for " + nodeNames(m.Candidates)
	case *ring.Pong:
		s := fmt.Sprintf("PONG %s in %s hop %d", m.State, describeView(m.View), m.Hop)
		if m.Promised != m.View.ID {
			s += ", promised " + viewName(m.Promised)
		}
		if len(m.Heard) > 0 {
			s += ", heard"
			for _, h := range m.Heard {
				s += " " + name(h)
			}
		}
		if m.HoldOff > 0 {
			s += fmt.Sprintf(", holds off for %v", m.HoldOff)
		}
		return s
	case *ring.Hear:
		return "HEAR"
	case *ring.Call:
		return fmt.Sprintf("CALL %s %s", m.Cause, describeView(m.View))
	case *ring.Promise:
		s := fmt.Sprintf("PROMISE %s from %s, synced %s", viewName(m.View), viewName(m.Installed), viewName(m.Synced))
		if m.Copy != nil {
			s += ", copy " + w.describeCopy(m.Copy)
		}
		return s
	case *ring.Refuse:
		return fmt.Sprintf("REFUSE %s: %s, promised %s", viewName(m.View), m.Reason, viewName(m.Promised))
	case *ring.Token:
		return "TOKEN " + w.describeCopy(&m.Copy)
	case *ring.TokenAck:
		return fmt.Sprintf("ACK %s hop %d", viewName(m.View), m.Hop)
	case *ring.Want:
		return fmt.Sprintf("WANT %s hop %d", viewName(m.View), m.Hop)
	case *ring.Leave:
		return "LEAVE"
	}
	return fmt.Sprintf("%T", msg)
}

func nodeNames(nodes []ring.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, name(n.Member))
	}
	return strings.Join(names, " ")
}

func describeView(v ring.View) string {
	return fmt.Sprintf("%s (%s)", viewName(v.ID), nodeNames(v.Members))
}

func (w *world) describeCopy(c *ring.Copy) string {
	s := fmt.Sprintf("%s hop %d", viewName(c.View), c.Hop)
	if c.Install != nil {
		s += " installs " + nodeNames(c.Install.View.Members)
		if c.Install.Exchange {
			s += " with exchange"
		}
	}
	if len(c.Runs) == 0 {
		return s
	}
	s += " with"
	for i := range c.Runs {
		r := &c.Runs[i]
		s += " " + w.describeRun(r)
		if r.Origin != c.View {
			s += "/" + viewName(r.Origin)
		}
	}
	return s
}

var kindNames = map[ring.Kind]string{
	ring.KindEnd: "END", ring.KindLock: "lock", ring.KindUnlock: "unlock",
	ring.KindClaim: "claim", ring.KindClaimed: "claimed", ring.KindOpen: "open",
}

func (w *world) describeRun(r *ring.Run) string {
	if r.Kind != ring.KindPayload {
		return kindNames[r.Kind] + ":" + name(r.From)
	}
	if r.Count == 1 || w.spell {
		s := w.entryName(r.From, r.Proposal)
		for n := r.Proposal + 1; n < r.Proposal+r.Count; n++ {
			s += " " + w.entryName(r.From, n)
		}
		return s
	}
	return fmt.Sprintf("%s-%d", proposalName(r.From, r.Proposal), r.Proposal+r.Count-1)
}

// entryName names a proposal, by what it says if that is wanted.
func (w *world) entryName(from ring.Member, number uint64) string {
	i, ok := w.check.index[proposalKey{from, number}]
	if !w.spell || !ok {
		return proposalName(from, number)
	}
	if p := &w.check.proposals[i]; p.isKey {
		return strconv.Quote(string(p.payload[9:]))
	}
	return "state:" + name(from)
}

// describeEvent writes an event of a member as traces and stories show it.
func (w *world) describeEvent(self ring.Member, e ring.Event) string {
	switch e := e.(type) {
	case ring.Installed:
		s := fmt.Sprintf("installs %s, %s", describeView(e.View), e.Cause)
		if e.Exchange {
			s += ", exchange"
		}
		if len(e.Left) > 0 {
			s += ", left " + nodeNames(e.Left)
		}
		return s
	case ring.Delivered:
		s := "delivers"
		for _, entry := range e.Entries {
			s += " " + w.entryName(entry.From, entry.Proposal)
		}
		return s
	case ring.Stable:
		if w.spell {
			return "stable " + w.entryName(self, e.Proposal)
		}
		return fmt.Sprintf("own %d stable", e.Proposal)
	case ring.Ended:
		return "END"
	case ring.EndStable:
		return "END stable"
	case ring.NotDelivered:
		return fmt.Sprintf("gets back own %d to %d", e.First, e.Last)
	case ring.Granted:
		return fmt.Sprintf("%s granted to %s, fence %d.%d", e.Lock, name(e.Holder), e.Fence.Counter, e.Fence.Seq)
	case ring.Released:
		return fmt.Sprintf("%s released by %s", e.Lock, name(e.Holder))
	case ring.Clash:
		return fmt.Sprintf("clash of %s with %s", name(e.Mine.Member), name(e.Other.Member))
	}
	return fmt.Sprintf("%T", e)
}

// name, viewName and proposalName write members as letters: a is the first life of
// member 1, a2 its second.
func name(m ring.Member) string {
	switch {
	case m.IsZero():
		return "none"
	case m.Incarnation == 1:
		return letter(int(m.ID) - 1)
	}
	return fmt.Sprintf("%s%d", letter(int(m.ID)-1), m.Incarnation)
}

func viewName(v ring.ViewID) string {
	if v.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%d@%s", v.Counter, name(v.Coordinator))
}

func proposalName(m ring.Member, n uint64) string { return fmt.Sprintf("%s.%d", name(m), n) }
