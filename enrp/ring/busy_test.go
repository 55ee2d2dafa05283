package ring

import (
	"fmt"
	"testing"
	"time"
)

// busyRing returns a ring whose member 2 has just got a token from member 1, with
// entries, and takes long to apply them: the output that it handles.
func busyRing(t *testing.T) (c *cluster, busy *node, out Output) {
	c = newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	busy = c.nodes[2]
	c.until(time.Second, "member 1 has the token", func() bool { return c.nodes[1].holding })
	c.propose(1, "much to do")
	for len(c.wire) > 0 {
		e := c.wire[0]
		c.wire = c.wire[1:]
		if _, ok := e.Message.(*Token); ok {
			busy.Step(e.Message, c.now)
			break
		}
	}
	out, ok := busy.Ready()
	if !ok || len(out.Events) == 0 {
		t.Fatalf("nothing to apply: %+v", out)
	}
	return c, busy, out
}

// handle sends what is early, lets time pass, in which the busy member only answers
// questions, and sends the rest.
func (c *cluster) handle(n *node, out Output, d time.Duration) {
	events, messages := len(out.Events), len(out.Messages)
	var rest, deferred []Envelope
	for _, e := range out.Messages {
		if e.Early() {
			c.wire = append(c.wire, e)
		} else {
			rest = append(rest, e)
		}
	}
	n.dead = true // but for what follows
	c.cut = func(_, to NodeID, m Message) bool {
		if to != n.self.ID {
			return false
		}
		answers, ok := n.Answer(m, c.now)
		if ok {
			c.wire = append(c.wire, answers...)
		} else {
			deferred = append(deferred, Envelope{To: n.self, Message: m})
		}
		return true
	}
	c.run(d)
	if len(out.Events) != events || len(out.Messages) != messages {
		c.t.Error("the output has changed")
	}
	c.cut, n.dead = nil, false
	n.Handled(c.now)
	c.wire = append(c.wire, rest...)
	c.wire = append(c.wire, deferred...)
}

// A member that takes long to apply what was ordered has said that the token came, and
// answers questions: it stays.
func TestMemberThatIsSlowToApplyStays(t *testing.T) {
	c, busy, out := busyRing(t)
	view := busy.view.ID
	c.propose(1, "and more")
	c.propose(3, "from all sides")
	c.handle(busy, out, LAN().Starving()-LAN().HopTimeout)
	c.run(time.Second)
	for _, n := range c.nodes {
		if n.view.ID != view || n.away() {
			t.Errorf("%v is in %v, was in %v", n.self, n.view.ID, view)
		}
		if len(n.delivered()) != 3 && n != busy {
			t.Errorf("%v delivered %v", n.self, n.delivered())
		}
	}
	if n := c.nodes[1].stableUp(); n != 2 {
		t.Errorf("stable up to %d", n)
	}
}

// One that hangs while it applies is left out, as one that is dead.
func TestMemberThatHangsIsLeftOut(t *testing.T) {
	c, busy, out := busyRing(t)
	c.propose(1, "and more")
	c.handle(busy, out, LAN().Starving()+LAN().CollectWait+50*time.Millisecond)
	for _, id := range []NodeID{1, 3} {
		if v := c.nodes[id].view; v.Has(busy.self.Member) {
			t.Errorf("%d is in %v", id, memberIDs(v))
		}
	}
}

// Who was slow to apply passed the token on only then: it does not blame the next one.
func TestSlowMemberDoesNotBlameTheNext(t *testing.T) {
	c, busy, out := busyRing(t)
	c.now = c.now.Add(2 * LAN().HopTimeout)
	busy.Handled(c.now)
	c.wire = append(c.wire, out.Messages...)
	if p := busy.passing; p == nil || !p.until.Equal(c.now.Add(LAN().HopTimeout)) || !p.sentAt.Equal(c.now) {
		t.Errorf("it waits %+v", p)
	}
	if busy.Tick(c.now); busy.ask != nil || busy.counters.Resent > 0 {
		t.Error("it asks, or sends again")
	}
}

// A process that was held up, and so is called late, first hears what the others said
// meanwhile; a second time in a row it does not.
func TestLateMemberHearsFirst(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	n := c.nodes[1]
	c.until(time.Second, "member 1 has the token", func() bool { return n.holding })
	c.propose(1, "x")
	c.wire = nil // the acknowledgement will be late
	if n.passing == nil {
		t.Fatal("it does not pass the token")
	}
	c.now = c.now.Add(5 * LAN().HopTimeout)
	n.Tick(c.now)
	if n.ask != nil || n.counters.Stalls != 1 || n.counters.LongestStall == 0 {
		t.Fatalf("asks %v, stalls %d", n.ask, n.counters.Stalls)
	}
	h := Header{From: c.nodes[2].self, To: n.self.Member}
	n.Step(&TokenAck{Header: h, View: n.view.ID, Hop: n.hop}, c.now)
	if n.passing != nil || n.currentState() != Hungry {
		t.Errorf("it is %v", n.currentState())
	}

	t.Run("not for ever", func(t *testing.T) {
		c := newCluster(t, 1, 2)
		c.join(1, 2)
		n := c.nodes[1]
		c.until(time.Second, "member 1 has the token", func() bool { return n.holding })
		c.propose(1, "x")
		dies := c.now
		for n.ask == nil {
			if c.now = n.Next().Add(LAN().CollectWait); c.now.After(dies.Add(time.Second)) {
				t.Fatal("a dead member is not noticed")
			}
			n.Tick(c.now)
		}
	})
}

// Hops that come close to the limit are counted.
func TestLateHopsAreCounted(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	n := c.nodes[1]
	before := n.counters.LateHops
	for _, took := range []time.Duration{LAN().HopTimeout / 2, LAN().HopTimeout/2 + time.Millisecond} {
		c.until(time.Second, "member 1 has the token", func() bool { return n.holding })
		n.pass(*n.copy)
		c.now = c.now.Add(took)
		h := Header{From: c.nodes[2].self, To: n.self.Member}
		n.Step(&TokenAck{Header: h, View: n.view.ID, Hop: n.hop}, c.now)
		c.collect(n)
		c.run(time.Second)
	}
	if got := n.counters.LateHops - before; got != 1 {
		t.Errorf("%d of two", got)
	}
	if got := n.counters.LongestHop; got != LAN().HopTimeout/2+time.Millisecond {
		t.Errorf("longest %v", got)
	}
}

// An answer given while the application was slow is as old as it is: a call right after it
// is not refused.
func TestAnswerOfASlowMemberIsFresh(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	_, next, last := c.idle()
	at := c.now.Add(500 * time.Millisecond)
	out, ok := next.Answer(&Ping{Header: Header{From: last.self, To: next.self.Member}, Nonce: 5, Candidates: next.view.Members}, at)
	if !ok {
		t.Fatal("no answer")
	}
	pong, _ := reply[*Pong](out)
	next.Handled(at.Add(time.Millisecond))
	c.now = at.Add(2 * time.Millisecond)
	call := &Call{
		Header: Header{From: last.self, To: next.self.Member}, Cause: CauseNoAck, Installed: last.view.ID, Hop: last.hop, Proof: pong.Answer,
		View: View{ID: ViewID{Counter: last.counter + 1, Coordinator: last.self.Member}, Members: []Node{last.self, next.self}},
	}
	if refuse, ok := reply[*Refuse](c.tell(next, call)); ok {
		t.Errorf("the call is refused: %v", refuse.Reason)
	}
	if age := next.now.Sub(next.heard[last.self.Member]); age > next.heardFor() {
		t.Errorf("who asked was heard %v ago", age)
	}
}

// A member that was stopped says that it may have been left out when it installs a view
// without those that went on without it, and they don't; later it says so no more. It
// knows from its clock, or, if it waited for nobody meanwhile, from their answers.
func TestWhoWasLeftOutSaysSo(t *testing.T) {
	for _, answers := range []bool{false, true} {
		t.Run(fmt.Sprintf("answers %v", answers), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			lost := func(id NodeID) (in Installed) {
				for _, e := range eventsOf[Installed](c.nodes[id]) {
					if len(e.Left) > 0 {
						in = e
					}
				}
				return in
			}
			stopped := c.nodes[3]
			c.until(time.Second, "the token just left it", func() bool { return c.nodes[stopped.view.Members[(stopped.me+1)%3].ID].holding })
			stopped.dead = true
			c.until(2*time.Second, "one view without it", c.together(1, 2))
			for _, id := range []NodeID{1, 2} {
				if in := lost(id); in.LeftOut {
					t.Errorf("%d was left out: %+v", id, in)
				}
			}
			if !answers {
				c.run(LAN().Starving())
				c.cut = func(_, to NodeID, _ Message) bool { return to == 3 }
			} else if late := c.now.Sub(stopped.next()); late >= 0 {
				t.Fatalf("it is %v late", late)
			}
			stopped.dead = false
			c.until(time.Second, "its view without the others", func() bool { return len(lost(3).Left) == 2 })
			if in := lost(3); !in.LeftOut {
				t.Errorf("it does not say that it was left out: %+v", in)
			}

			c.cut = nil
			c.join(1, 2, 3)
			c.run(LAN().Starving() + LAN().Promise(3, 0))
			c.nodes[1].dead, c.nodes[2].dead = true, true
			c.until(4*time.Second, "another view without the others", func() bool { return len(stopped.view.Members) == 1 })
			if in := lost(3); len(in.Left) == 0 || in.LeftOut {
				t.Errorf("it says that it was left out long ago: %+v", in)
			}
		})
	}
}

// Who applied for as long as others wait may have been left out as well.
func TestWhoAppliedForLongMayBeLeftOut(t *testing.T) {
	for d, want := range map[time.Duration]bool{LAN().HopTimeout / 2: false, LAN().HopTimeout: true} {
		c, busy, _ := busyRing(t)
		c.now = c.now.Add(d)
		busy.Handled(c.now)
		if busy.leftOut() != want {
			t.Errorf("after %v: left out %v", d, !want)
		}
	}
}

// Who comes late by as much as others wait for what was due may have been left out. Not so
// who had nothing to do for long, nor who finds something old that is due, though it was
// called all the time: that is no stall either.
func TestWhoIsLateMayBeLeftOut(t *testing.T) {
	limit := LAN().HopTimeout
	for name, test := range map[string]struct {
		late  func(c *cluster, n *node)
		alone bool
		want  bool
	}{
		"by less":    {late: func(_ *cluster, n *node) { n.Tick(n.next().Add(limit - 1)) }},
		"by as much": {late: func(_ *cluster, n *node) { n.Tick(n.next().Add(limit)) }, want: true},
		"as a message shows": {late: func(c *cluster, n *node) {
			n.Step(&Hear{Header{From: c.nodes[2].self, To: n.self.Member}}, n.next().Add(limit))
		}, want: true},
		"with nothing to do": {late: func(c *cluster, n *node) { n.Tick(c.now.Add(time.Minute)) }, alone: true},
		"called all the while": {late: func(c *cluster, n *node) {
			due, before := n.next(), n.counters.Stalls
			for at := time.Duration(0); at <= 4*limit; at += LAN().CollectWait / 4 {
				n.Step(&Hear{Header{From: c.nodes[2].self, To: n.self.Member}}, due.Add(at))
			}
			n.Tick(due.Add(4 * limit))
			if n.counters.Stalls != before {
				t.Error("it counts a stall")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1)
			n := c.nodes[1]
			if c.lone = test.alone; test.alone {
				if at := n.next(); !at.IsZero() {
					t.Fatalf("it waits for %v", at)
				}
			} else {
				c.start(2, 1)
				c.join(1, 2)
				c.until(time.Second, "it keeps the token", func() bool { return n.holding && n.next().Sub(c.now) > limit })
			}
			test.late(c, n)
			if n.leftOut() != test.want {
				t.Errorf("left out %v", n.leftOut())
			}
		})
	}
}

// Only a member of its view that goes on without it leaves it out, whatever it asks for.
func TestWhoseAnswerLeavesOut(t *testing.T) {
	for _, cause := range []Cause{CauseNoAck, CauseStarved, CauseMerge} {
		for _, test := range []struct {
			from     NodeID
			promised uint64 // beyond its view
			want     bool
		}{{from: 2, want: true}, {from: 2, promised: 1}, {from: 9}} {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			n := c.nodes[1]
			other := Node{Member: Member{test.from, 1}, Contact: "x"}
			n.startAsk(cause, []Node{n.self, other}, []View{n.view})
			view := ViewID{Counter: n.view.ID.Counter + 1, Coordinator: other.Member}
			n.Step(&Pong{
				Header: Header{From: other, To: n.self.Member}, Nonce: n.nonce, View: View{ID: view, Members: []Node{other}},
				Promised: ViewID{Counter: view.Counter + test.promised, Coordinator: other.Member},
			}, c.now)
			if n.leftOut() != test.want {
				t.Errorf("asked because of %v, %+v: left out %v", cause, test, n.leftOut())
			}
		}
	}
}

// It says so in the view that it installs within the time in which it leaves the members
// of its former one out.
func TestForHowLongLeftOutIsSaid(t *testing.T) {
	most := LAN().Starving() + LAN().Promise(3, 0)
	for age, want := range map[time.Duration]bool{most: true, most + 1: false} {
		c := newCluster(t, 1, 2, 3)
		c.join(1, 2, 3)
		n := c.nodes[1]
		n.leftOutAt = c.now.Add(-age)
		id := n.nextView()
		n.begin(c.now)
		n.install(&Copy{View: id, Install: &Install{View: View{ID: id, Members: []Node{n.self}}, Cause: CauseStarved, Origins: []Origin{{Member: n.self.Member}}}})
		c.collect(n)
		views := eventsOf[Installed](n)
		if in := views[len(views)-1]; in.LeftOut != want || len(in.Left) != 2 {
			t.Errorf("after %v: %+v", age, in)
		}
	}
}
