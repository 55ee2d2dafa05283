package ring

import (
	"fmt"
	"testing"
	"time"
)

// idle waits until a ring is idle and returns the member that keeps the token, the one
// that gets it next, and the one after that.
func (c *cluster) idle() (holder, next, last *node) {
	c.t.Helper()
	c.run(2 * time.Second)
	members := c.nodes[1].view.Members
	for i, n := range members {
		if holder = c.nodes[n.ID]; holder.holding {
			return holder, c.nodes[members[(i+1)%len(members)].ID], c.nodes[members[(i+2)%len(members)].ID]
		}
	}
	c.t.Fatal("nobody keeps the token")
	return nil, nil, nil
}

// A hint that a connection fell does not bring the token to the one who got the hint:
// with something to send it asks like everybody.
func TestWantAfterALostConnection(t *testing.T) {
	for _, who := range []string{"next", "last"} {
		t.Run(who, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			holder, n, lost := c.idle()
			if who == "last" {
				n, lost = lost, n
			}
			for _, other := range []*node{holder, lost} {
				n.Lost(other.self.Member, c.now)
				c.collect(n)
				if n.Coming() {
					t.Error("it believes that the token comes at full speed")
				}
			}
			number := c.propose(n.self.ID, "x")
			c.settle() // no time passes
			if n.stableUp() != number {
				t.Error("not stable at once")
			}
		})
	}
}

// What a connection lost when it fell is said again: that somebody waits for the token.
func TestWantIsSaidAgain(t *testing.T) {
	for _, hint := range []bool{true, false} {
		t.Run(fmt.Sprintf("hint %v", hint), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4, 5)
			c.join(1, 2, 3, 4, 5)
			holder, _, n := c.idle()
			c.cut = func(from, to NodeID, m Message) bool {
				_, want := m.(*Want)
				return want && from == n.self.ID
			}
			number := c.propose(n.self.ID, "x")
			c.settle()
			c.cut = nil
			if n.stableUp() == number {
				t.Fatal("nobody was to hear of it")
			}
			since := c.now
			most := LAN().HopTimeout // until it misses the token, and asks
			if hint {
				most = 0
				n.Lost(holder.self.Member, c.now)
				c.collect(n)
				c.settle()
			}
			for n.stableUp() != number && c.now.Sub(since) <= time.Second {
				c.run(time.Millisecond)
			}
			if took := c.now.Sub(since); took > most {
				t.Errorf("stable after %v, more than %v", took, most)
			}
			if n := n.counters.Views[CauseStarved]; n > 0 {
				t.Error("the view changed")
			}
		})
	}
}

// A WANT that is said again tells those who know nothing: they are not to miss the token
// again and again, where a member takes its time with it.
func TestRepeatedWantMakesNobodyImpatient(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	_, next, last := c.idle()
	want := &Want{Header: Header{From: last.self, To: next.self.Member}, View: next.view.ID, Hop: last.nextVisit()}
	c.tell(next, want)
	if soon := c.now.Add(LAN().HopTimeout); next.patience.After(soon) {
		t.Errorf("it waits until %v, not %v", next.patience, soon)
	}
	patient := c.now.Add(LAN().Starving())
	next.patience = patient // it has asked
	c.tell(next, want)
	if next.patience != patient {
		t.Errorf("it waits until %v, not %v", next.patience, patient)
	}
}

// A connection that is there again is a sign of life, like any message: from then on the
// member may take its time with the token as ever.
func TestMemberThatIsConnectedAgainMayBeSlow(t *testing.T) {
	for _, again := range []bool{true, false} {
		t.Run(fmt.Sprintf("again %v", again), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			c.lone = true // nobody is found but here
			holder, n, slow := c.idle()
			c.run(holder.keepUntil.Sub(c.now) - LAN().LostWait/2) // the token comes before n asks for it
			n.Lost(slow.self.Member, c.now)
			c.collect(n)
			if again {
				n.Found(slow.self, c.now)
				c.collect(n)
			}
			var since time.Time
			var late []Envelope
			c.cut = func(from, to NodeID, m Message) bool {
				if isToken(m) && to == slow.self.ID && since.IsZero() {
					since = c.now
				}
				if stopped := !since.IsZero() && c.now.Sub(since) < LAN().HopTimeout-10*time.Millisecond; stopped && to == slow.self.ID {
					late = append(late, Envelope{To: slow.self, Message: m})
					return true
				}
				return false
			}
			c.run(500 * time.Millisecond)
			c.wire = append(c.wire, late...)
			c.run(time.Second)
			if since.IsZero() {
				t.Fatal("no token came")
			}
			if stays := n.counters.Views[CauseNoAck] == 0; stays != again {
				t.Errorf("it stays: %v", stays)
			}
		})
	}
}

// A WANT that comes when the token has long been where it was wanted makes nobody
// impatient.
func TestLateWantMakesNobodyImpatient(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	_, next, last := c.idle()
	want := &Want{Header: Header{From: last.self, To: next.self.Member}, View: next.view.ID, Hop: last.accepted}
	patient := next.patience
	c.tell(next, want)
	if next.patience != patient {
		t.Errorf("it waits until %v, not %v", next.patience, patient)
	}
	lost := next.counters.TokenLost[Hungry]
	c.run(time.Second)
	if next.counters.TokenLost[Hungry] != lost {
		t.Error("misses the token")
	}
}
