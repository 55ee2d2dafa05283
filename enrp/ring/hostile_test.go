package ring

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// tell hands a message to a member, wherever it comes from, and delivers what
// follows.
func (c *cluster) tell(n *node, msg Message) []Envelope {
	n.Step(msg, c.now)
	out, _ := n.Ready()
	sent := slices.Clone(out.Messages)
	n.events = append(n.events, out.Events...)
	c.wire = append(c.wire, sent...)
	return sent
}

func reply[M Message](sent []Envelope) (m M, ok bool) {
	for _, e := range sent {
		if m, ok = e.Message.(M); ok {
			return m, true
		}
	}
	return m, false
}

var mallory = Node{Member{99, 7}, "mallory"}

// Numbers that are told again and again, as large as they are believed, neither use
// the numbers up nor drive members apart who then don't believe each other.
func TestLiesAboutNumbersDoNotPartMembers(t *testing.T) {
	c := newCluster(t)
	c.now = time.Unix(1_700_000_000, 0)
	for _, id := range []NodeID{1, 2, 3} {
		c.start(id, 1)
	}
	c.join(1, 2, 3)
	coordinator := c.nodes[c.nodes[1].view.Members[0].ID]
	h := Header{From: mallory, To: coordinator.self.Member}
	number := coordinator.counter
	for range 100_000 {
		promised := ViewID{number + 1<<31, mallory.Member}
		c.tell(coordinator, &Pong{Header: h, View: View{ViewID{1, mallory.Member}, []Node{mallory}}, Promised: promised})
		c.tell(coordinator, &Refuse{Header: h, View: coordinator.view.ID, Promised: promised})
		if number = coordinator.counter; number > 1<<60 {
			break
		}
	}
	if number > uint64(c.now.UnixMicro()) {
		t.Errorf("the counter is %d", number)
	}
	// A probed liar is believed, within the bound.
	coordinator.Found(mallory, c.now)
	c.collect(coordinator)
	for range 20 {
		c.run(LAN().ProbeInterval)
		if coordinator.probe == nil {
			continue
		}
		for _, jump := range []uint64{1 << 60, uint64(c.now.UnixMicro()) - coordinator.counter} {
			c.tell(coordinator, &Pong{
				Header: h, Nonce: coordinator.probe.nonce, View: View{ViewID{1, mallory.Member}, []Node{mallory}},
				Promised: ViewID{coordinator.counter + jump, mallory.Member},
			})
			if coordinator.probe == nil {
				break
			}
		}
	}
	var others []NodeID
	for _, id := range c.ids() {
		if id != coordinator.self.ID {
			others = append(others, id)
		}
	}
	c.nodes[others[0]].dead = true
	c.until(10*time.Second, "the coordinator's call is promised", c.together(coordinator.self.ID, others[1]))
	coordinator.dead, c.nodes[others[0]].dead = true, false
	c.until(10*time.Second, "the others meet without it", c.together(others...))
}

// seduce calls a merge of all members of a ring, as m, and returns how many promise.
func (c *cluster) seduce(m Node, members ...*node) (promised int) {
	list := []Node{m}
	id := ViewID{1, m.Member}
	for _, n := range members {
		list = append(list, n.self)
		id.Counter = max(id.Counter, n.promised.Counter+1)
	}
	for _, n := range members {
		h := Header{From: m, To: n.self.Member}
		pong, ok := reply[*Pong](c.tell(n, &Ping{Header: h, Nonce: 5, Candidates: list}))
		if !ok {
			continue
		}
		_, ok = reply[*Promise](c.tell(n, &Call{Header: h, View: View{id, list}, Cause: CauseMerge, Proof: pong.Answer}))
		if ok {
			promised++
		}
	}
	return promised
}

// One that calls merges without end and installs none is held off, also if it comes
// with a new name each time, so that the ring goes on.
func TestCallsWithoutInstallAreHeldOff(t *testing.T) {
	for name, next := range map[string]NodeID{"one name": 0, "many names": 1} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			members := []*node{c.nodes[1], c.nodes[2], c.nodes[3]}
			working, caller := 0, mallory
			const rounds = 3000
			for i := range rounds {
				if promised := c.seduce(caller, members...); i == 0 && promised != 3 {
					t.Fatalf("%d promised the first call", promised)
				}
				caller.ID += next
				c.run(20 * time.Millisecond)
				if i >= rounds/3 && c.together(1, 2, 3)() {
					working++
				}
			}
			if working < rounds*2/5 {
				t.Errorf("a whole ring in %d of %d looks", working, rounds*2/3)
			}
			if n := members[0].counters.Refused[RefusedHoldOff.String()]; n < rounds/2 {
				t.Errorf("refused: %v", members[0].counters.Refused)
			}
		})
	}
}

// One that answers all questions, and promises or refuses every call, does not keep
// the others from a view.
func TestMemberThatAnswersAndNeverPromises(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprintf("refuses %v", refuses), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			members := []*node{c.nodes[1], c.nodes[2], c.nodes[3]}
			// Mallory's answers to whatever the members send.
			c.cut = func(from, to NodeID, msg Message) bool {
				if to != mallory.ID {
					return false
				}
				n := c.nodes[from]
				h := Header{From: mallory, To: n.self.Member}
				switch msg := msg.(type) {
				case *Ping:
					heard := []Member{}
					for _, m := range members {
						heard = append(heard, m.self.Member)
					}
					c.tell(n, &Pong{
						Header: h, Nonce: msg.Nonce, View: View{ViewID{1, mallory.Member}, []Node{mallory}}, Heard: heard,
						Promised: ViewID{2, mallory.Member},
					})
				case *Call:
					if refuses {
						c.tell(n, &Refuse{Header: h, View: msg.View.ID, Reason: RefusedPromised, Promised: msg.View.ID})
					}
				}
				for _, m := range members { // all hear it
					c.tell(m, &Hear{Header{From: mallory, To: m.self.Member}})
				}
				return true
			}
			if promised := c.seduce(mallory, members...); promised != 3 {
				t.Fatalf("%d promised", promised)
			}
			c.until(60*time.Second, "the ring goes on", c.together(1, 2, 3))
		})
	}
}

// A member that keeps the token, and says that all is well, is not believed for ever.
func TestMemberThatKeepsTheToken(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	thief := c.nodes[2]
	view := thief.view.ID
	others := []*node{c.nodes[1], c.nodes[3]}
	mute := false
	var hop uint64
	c.cut = func(from, to NodeID, msg Message) bool {
		if to != 2 || !mute {
			if to == 2 {
				if tok, ok := msg.(*Token); ok {
					// It is acknowledged, and stays.
					mute, hop = true, tok.Hop
					n := c.nodes[from]
					c.tell(n, &TokenAck{Header: Header{From: thief.self, To: n.self.Member}, View: view, Hop: hop})
				}
			}
			return mute && (to == 2 || from == 2)
		}
		n := c.nodes[from]
		if ping, ok := msg.(*Ping); ok {
			c.tell(n, &Pong{
				Header: Header{From: thief.self, To: n.self.Member}, Nonce: ping.Nonce, View: thief.view, Hop: hop, Promised: view,
				Heard: []Member{others[0].self.Member, others[1].self.Member},
			})
		}
		return true
	}
	c.run(time.Second)
	if !mute {
		t.Fatal("no token came")
	}
	thief.dead = true
	c.until(60*time.Second, "the others go on", c.together(1, 3))
}

// A lying answer to a probe does not make the coordinator call what nobody can
// promise.
func TestForgedMemberListInAnswer(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	coordinator := c.nodes[c.nodes[1].view.Members[0].ID]
	list := func(n int) (l []Node) {
		for i := range n {
			l = append(l, Node{Member{NodeID(99 + i), 7}, ""})
		}
		return l
	}
	for name, members := range map[string][]Node{
		"nobody": nil, "twice": {mallory, mallory}, "two lives": {mallory, {Member{99, 8}, ""}},
		"another first": {{Member{98, 1}, ""}, mallory}, "no identifier": {mallory, {}}, "too many": list(200),
	} {
		before := coordinator.counters.Dropped["forged view"]
		calls := coordinator.counters.Calls
		coordinator.Found(mallory, c.now)
		c.collect(coordinator)
		for range 100 {
			c.run(20 * time.Millisecond)
			if p := coordinator.probe; p != nil {
				c.tell(coordinator, &Pong{
					Header: Header{From: mallory, To: coordinator.self.Member}, Nonce: p.nonce,
					View: View{ViewID{1, mallory.Member}, members}, Promised: ViewID{1, mallory.Member}, Heard: []Member{mallory.Member},
				})
				break
			}
		}
		if coordinator.counters.Dropped["forged view"] != before+1 || coordinator.counters.Calls != calls || !c.together(1, 2, 3)() {
			t.Errorf("%s: %v", name, coordinator.counters.Dropped)
		}
	}
}

// A token can't fill a member's memory, and nobody can speak for another member
// where that one hears it.
func TestForgedTokens(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(3 * time.Second)
	view := c.nodes[1].view
	victim := c.nodes[view.Members[1].ID]
	from := view.Members[0]
	send := func(change func(*Copy)) string {
		copied := Copy{View: view.ID, Hop: victim.accepted + 3, Seq: victim.seq}
		change(&copied)
		before := victim.Status().Counters.Dropped
		sent := c.tell(victim, &Token{Header: Header{From: from, To: victim.self.Member}, Copy: copied})
		if _, acked := reply[*TokenAck](sent); acked {
			return "accepted"
		}
		for reason, n := range victim.Status().Counters.Dropped {
			if n > before[reason] {
				return reason
			}
		}
		return "not counted"
	}
	run := func(r Run) func(*Copy) {
		return func(c *Copy) {
			r.Seq, r.Origin, r.OriginSeq = c.Seq+1, c.View, c.Seq+1
			c.Seq += r.Count
			c.Runs = []Run{r}
		}
	}
	empty := make([]byte, MaxMessage/2) // payloads of no octets
	for name, tt := range map[string]struct {
		change func(*Copy)
		want   string
	}{
		"millions of entries":   {run(Run{Count: uint64(len(empty)), From: from.Member, Data: empty}), "oversized token"},
		"millions left out":     {run(Run{Count: MaxMessage, From: victim.self.Member, Omitted: true}), "oversized token"},
		"in my name":            {run(Run{Count: 1, From: victim.self.Member, Data: payloads("lie")}), "forged entry"},
		"another's END":         {run(Run{Count: 1, From: view.Members[2].Member, Kind: KindEnd, Data: payloads("")}), "forged entry"},
		"a long name of a lock": {run(Run{Count: 1, From: from.Member, Kind: KindLock, Data: payloads(strings.Repeat("x", MaxPayload))}), "accepted"},
	} {
		if got := send(tt.change); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	if len(victim.locks.locks) > 0 {
		t.Error("a name of a lock of any length")
	}
	c.wire = nil // it was no token of the ring's
	victim.passing.until = c.now
	c.until(10*time.Second, "the ring goes on", c.together(1, 2, 3))
}

// Nobody makes the token go round for ever.
func TestRushAndYieldEnd(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	forged := false
	c.cut = func(_, _ NodeID, msg Message) bool {
		if tok, ok := msg.(*Token); ok && !forged {
			forged = true
			tok.Rush, tok.Yield = math.MaxUint64, math.MaxUint64
		}
		return false
	}
	// cut sees what was sent, so the copy of the sender is another's.
	c.run(3 * time.Second)
	before := c.sent["*ring.Token"]
	c.run(3 * time.Second)
	if n := c.sent["*ring.Token"] - before; n > 20 || !forged {
		t.Errorf("%d hops in an idle ring", n)
	}
	c.propose(1, "x")
	c.until(5*time.Second, "proposals are ordered", func() bool { return c.nodes[1].stableUp() == 1 })
}

// However the answers lie, placing the members takes little time.
func TestOrderIsCheap(t *testing.T) {
	c := newCluster(t, 1)
	m := c.nodes[1].Machine
	list := []Node{m.self}
	m.ask = &ask{answers: map[Member]*Pong{}}
	var heard []Member
	for i := range 255 {
		heard = append(heard, Member{NodeID(1000 - i), 1})
	}
	for i := range 31 {
		n := Node{Member{NodeID(2 + i), 1}, ""}
		list = append(list, n)
		p := &Pong{Heard: slices.Clone(heard)}
		for j := range 31 {
			if (i < 16) == (j < 16) { // two halves that meet in the first only: no ring
				p.Heard[254-j] = Member{NodeID(2 + j), 1}
			}
		}
		m.ask.answers[n.Member] = p
	}
	took := time.Hour // the fastest: what else the machine does is not meant
	for range 10 {
		begin := time.Now()
		if n := len(m.order(list)); n < 16 {
			t.Errorf("%d of %d have a place", n, len(list))
		}
		took = min(took, time.Since(begin))
	}
	if took > 100*time.Millisecond {
		t.Errorf("takes %v", took)
	} else {
		t.Logf("takes %v", took)
	}
}
