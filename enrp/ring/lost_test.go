package ring

import (
	"testing"
	"time"
)

// lostTold tells all that live that the connection to a member fell.
func (c *cluster) lostTold(who *node) {
	for _, id := range c.ids() {
		if n := c.nodes[id]; n != who && !n.dead {
			n.Lost(who.self.Member, c.now)
			c.collect(n)
		}
	}
}

// Who dies between its answer and its promise holds a call up no longer than one whose
// connection fell does otherwise, whether its transport says so before the call or after.
func TestCandidateThatDiesBeforeItsPromise(t *testing.T) {
	for _, when := range []string{"asked", "called", "called to merge"} {
		t.Run(when, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4)
			var dying, caller *node
			if when == "called to merge" {
				parted := true
				c.cut = func(from, to NodeID, m Message) bool { return parted && from > 2 != (to > 2) }
				c.until(5*time.Second, "two groups", func() bool { return c.together(1, 2)() && c.together(3, 4)() })
				parted = false
			} else {
				c.join(1, 2, 3, 4)
				holder, dead, _ := c.idle()
				dead.dead = true
				c.propose(holder.self.ID, "x")
			}
			cut := c.cut
			c.cut = func(from, to NodeID, m Message) bool {
				answer, isAnswer := m.(*Pong)
				_, isCall := m.(*Call)
				switch to := c.nodes[to]; {
				case dying == nil && when == "asked" && isAnswer && to.ask != nil && answer.Nonce == to.ask.nonce && len(answer.Heard) > 2:
					caller, dying = to, c.nodes[from]
				case dying == nil && isCall:
					caller, dying = c.nodes[from], to
				}
				if dying != nil {
					dying.dead = true
				}
				return cut != nil && cut(from, to, m)
			}
			c.until(5*time.Second, "called", func() bool { return dying != nil })
			c.lone = true
			c.lostTold(dying)
			since := c.now
			var stay []NodeID
			for _, id := range c.ids() {
				if !c.nodes[id].dead {
					stay = append(stay, id)
				}
			}
			c.until(2*time.Second, "gone on", c.together(stay...))
			if took := c.now.Sub(since); took > LAN().LostWait+2*LAN().CollectWait {
				t.Errorf("took %v", took)
			}
			if len(caller.lost) != 0 {
				t.Errorf("remembers %v", caller.lost)
			}
		})
	}
}

// A connection that falls while its member is called is a hint: who connects anew, or is
// heard, or is only slow beside it, is not left out, and the call goes on.
func TestConnectionThatFallsAmidACall(t *testing.T) {
	for how, after := range map[string]func(c *cluster, caller, lost *node){
		"connects anew": func(c *cluster, caller, lost *node) { caller.Found(lost.self, c.now) },
		"is heard": func(c *cluster, caller, lost *node) {
			c.tell(caller, &Hear{Header: Header{From: lost.self, To: caller.self.Member}})
		},
		"falls again and again": func(c *cluster, caller, lost *node) {
			caller.Found(lost.self, c.now)
			caller.Lost(lost.self.Member, c.now)
		},
		"is slow":         func(*cluster, *node, *node) {},
		"another is slow": func(*cluster, *node, *node) {},
	} {
		t.Run(how, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4)
			c.join(1, 2, 3, 4)
			holder, dead, lost := c.idle()
			dead.dead = true
			c.lone = true
			c.propose(holder.self.ID, "x")
			last := c.nodes[c.nodes[1].view.Members[(holder.me+3)%4].ID]
			slow := lost
			if how == "another is slow" {
				slow = last
			}
			late := true
			c.cut = func(from, _ NodeID, m Message) bool {
				_, promise := m.(*Promise)
				return late && promise && from == slow.self.ID
			}
			c.until(2*time.Second, "called", func() bool { return holder.call != nil })
			begun := holder.call
			step := LAN().LostWait / 2
			wait := 2 * LAN().LostWait
			if how == "is slow" {
				wait = step
			}
			holder.Lost(lost.self.Member, c.now)
			c.collect(holder)
			for waited := time.Duration(0); waited < wait; waited += step {
				after(c, holder, lost)
				c.collect(holder)
				c.run(step)
			}
			if holder.call != begun {
				t.Error("the call was given up")
			}
			late = false
			c.until(LAN().Promise(4, 0), "gone on", c.together(holder.self.ID, lost.self.ID, last.self.ID))
			if n := holder.counters.Calls; n > 3 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// A caller waits for LostWait from the last loss on, or from the call if that is later, and
// gives nothing up for a loss if somebody else's promise lacks as well.
func TestCallWaitsForTheLost(t *testing.T) {
	step := LAN().LostWait / 4
	const called = 4 // steps after the first question
	for name, test := range map[string]struct {
		lost    map[int]string // who is, so many steps after the first question
		busy    int            // when the caller's application needs a step
		givenUp int            // 0: it is not
	}{
		"before the call":          {lost: map[int]string{1: "ab"}, givenUp: 8},
		"after the call":           {lost: map[int]string{5: "ab"}, givenUp: 9},
		"one after the other":      {lost: map[int]string{5: "a", 6: "b"}, givenUp: 10},
		"again and again":          {lost: map[int]string{5: "ab", 6: "ab", 7: "b"}, givenUp: 9},
		"while the caller is busy": {lost: map[int]string{5: "ab"}, busy: 6, givenUp: 10},
		"one of two":               {lost: map[int]string{5: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4)
			c.join(1, 2, 3, 4)
			holder, dead, a := c.idle()
			b := c.nodes[c.nodes[1].view.Members[(holder.me+3)%4].ID]
			dead.dead, c.lone = true, true
			c.propose(holder.self.ID, "x")
			c.until(time.Second, "asked", func() bool { return holder.ask != nil })
			c.run(holder.ask.until.Add(-LAN().CollectWait + step).Sub(c.now))
			if len(holder.ask.answers) != 2 {
				t.Fatalf("%d answers", len(holder.ask.answers))
			}
			c.cut = func(_, to NodeID, _ Message) bool { return to == holder.self.ID } // the caller hears nobody
			var begun *call
			for steps := 1; steps <= 12; steps++ {
				if steps == called {
					begun = holder.call
				}
				if over := begun != nil && holder.call != begun; over != (test.givenUp > 0 && steps >= test.givenUp) {
					t.Fatalf("after %d steps: given up %v", steps, over)
				}
				for _, who := range test.lost[steps] {
					lost := map[rune]*node{'a': a, 'b': b}[who]
					_, known := holder.lost[lost.self.Member]
					holder.Lost(lost.self.Member, c.now)
					c.collect(holder)
					if (len(c.wire) == 1) != (begun != nil && !known) {
						t.Errorf("after %d steps: says %v", steps, c.wire)
					}
					c.settle()
				}
				if steps == test.busy {
					c.now = c.now.Add(step)
					holder.Handled(c.now)
					continue
				}
				if at := holder.Next(); steps == test.givenUp-1 && at.After(c.now.Add(step)) {
					t.Errorf("it wants to be called at %v, not within %v", at, step)
				}
				c.run(step - time.Millisecond)
				if begun != nil && holder.call != begun && steps < test.givenUp {
					t.Fatalf("given up before %d steps", steps+1)
				}
				c.run(time.Millisecond)
			}
		})
	}
}

// What is remembered of connections is bounded: those of members that are asked or called
// no more are forgotten.
func TestLostStrangersAreForgotten(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[1]
	for i := range 1000 {
		n.Lost(Member{NodeID(i + 2), 1}, c.now)
	}
	if got := len(n.lost); got != 0 {
		t.Errorf("%d strangers are remembered", got)
	}
	for i := range 1000 {
		stranger := Node{Member: Member{NodeID(i + 2), 1}, Contact: "x"}
		n.Lost(stranger.Member, c.now)
		n.startAsk(CauseMerge, []Node{n.self, stranger}, nil)
		n.Lost(stranger.Member, c.now)
		n.ask = nil
	}
	if got := len(n.lost); got != 1 {
		t.Errorf("%d are remembered", got)
	}
}

// Who has promised another view waits for that, and not for those whose connection falls;
// and nobody has one to itself.
func TestLossThatChangesNothing(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	n := c.nodes[1]
	n.Lost(n.self.Member, c.now)
	if len(n.lost) != 0 || len(n.out.Messages) != 0 {
		t.Errorf("lost itself: %v, says %v", n.lost, n.out.Messages)
	}
	n.leaveOldView(ViewID{Counter: n.view.ID.Counter + 1, Coordinator: c.nodes[2].self.Member})
	before := n.patience
	for _, id := range []NodeID{2, 3} {
		n.Lost(c.nodes[id].self.Member, c.now)
	}
	if n.patience != before || len(n.out.Messages) != 0 {
		t.Errorf("waits until %v, not %v, and says %v", n.patience, before, n.out.Messages)
	}
}
