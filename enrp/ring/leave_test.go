package ring

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestLeaveIsPolite(t *testing.T) {
	for leaver := NodeID(1); leaver <= 3; leaver++ {
		t.Run(fmt.Sprint(leaver), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			c.join(1, 2, 3)
			c.run(time.Second)
			n := c.nodes[leaver]
			for i := range 10 {
				c.propose(leaver, fmt.Sprint(i))
			}
			n.Leave(c.now)
			c.collect(n)
			if _, err := n.Propose(nil, c.now); !errors.Is(err, ErrLeft) {
				t.Errorf("Propose: %v", err)
			}
			c.settle()
			if n.Status().State != Left || n.stableUp() != 10 {
				t.Fatalf("%v, stable up to %d", n.Status().State, n.stableUp())
			}
			for id, other := range c.nodes {
				if id == leaver {
					continue
				}
				in := eventsOf[Installed](other)
				last := in[len(in)-1]
				if last.Cause != CauseLeave || len(last.View.Members) != 2 || last.Exchange || len(other.delivered()) != 10 {
					t.Errorf("%d: %+v, delivered %d", id, last, len(other.delivered()))
				}
				if len(other.steady) != 0 {
					t.Error("counts as unsteady")
				}
			}
			if !n.Next().IsZero() {
				t.Error("it still has something to do")
			}
		})
	}
}

func TestLeaveGivesUpWhatNobodyTakes(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	c.run(time.Second)
	c.nodes[2].dead = true
	n := c.nodes[1]
	if n.holding {
		n.pass(*n.copy)
		c.collect(n)
	}
	c.propose(1, "x")
	n.Leave(c.now)
	c.collect(n)
	n.leaveBy = c.now.Add(time.Millisecond)
	c.run(2 * time.Millisecond)
	if n.Status().State != Left {
		t.Fatal("still there")
	}
	if got := eventsOf[NotDelivered](n); len(got) != 1 || got[0] != (NotDelivered{1, 1}) {
		t.Errorf("%+v", got)
	}
}

// Who has just called a view, and learns that one of its members is gone, does not wait
// for a promise that never comes.
func TestLeaveOfAMemberThatIsCalled(t *testing.T) {
	c := newCluster(t, 1, 2, 3, 4)
	c.join(1, 2, 3, 4)
	holder, dead, leaver := c.idle()
	last := c.nodes[c.nodes[1].view.Members[(holder.me+3)%4].ID]
	dead.dead = true
	c.propose(holder.self.ID, "x")
	c.cut = func(from, to NodeID, m Message) bool {
		if _, call := m.(*Call); call && !leaver.left {
			// Gone when the call arrives, with a word that crosses it.
			leaver.Leave(c.now)
			leaver.leaveBy = c.now
			leaver.Tick(c.now)
			c.collect(leaver)
		}
		return false
	}
	c.until(2*time.Second, "called", func() bool { return leaver.left })
	since := c.now
	c.until(2*time.Second, "the others go on", c.together(holder.self.ID, last.self.ID))
	if took := c.now.Sub(since); took > 2*LAN().CollectWait {
		t.Errorf("took %v", took)
	}
	for _, n := range []*node{holder, last} {
		if n.steady[leaver.self.ID].count > 0 {
			t.Errorf("%v counts who left as unsteady", n.self)
		}
	}
}

func TestLateLeaveOfAFormerLife(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[1]
	next, former := Node{Member: Member{2, 7}, Contact: "x"}, Node{Member: Member{2, 6}, Contact: "x"}
	n.Found(next, c.now)
	c.collect(n)
	c.tell(n, &Leave{Header: Header{From: former, To: n.self.Member}})
	if got := n.Status().Outside; len(got) != 1 || got[0] != next {
		t.Errorf("%v outside", got)
	}
	c.tell(n, &Leave{Header: Header{From: next, To: n.self.Member}})
	if got := n.Status().Outside; len(got) != 0 {
		t.Errorf("%v outside after its LEAVE", got)
	}
}

// Who answered, and leaves while others are still asked, is not called: its promise would
// never come.
func TestLeaveOfAMemberThatIsAsked(t *testing.T) {
	for at := range 4 {
		t.Run(fmt.Sprint("holder ", at), func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4)
			c.join(1, 2, 3, 4)
			c.run(2 * time.Second)
			members := c.nodes[1].view.Members
			who := func(i int) *node { return c.nodes[members[(at+i)%4].ID] }
			holder, dead, leaver, last := who(0), who(1), who(2), who(3)
			c.until(time.Second, "idle at the holder", func() bool { return holder.holding })
			dead.dead = true
			c.propose(holder.self.ID, "x")
			c.until(time.Second, "answered", func() bool { return holder.ask != nil && holder.ask.answers[leaver.self.Member] != nil })
			leaver.Leave(c.now)
			leaver.leaveBy = c.now
			leaver.Tick(c.now)
			c.collect(leaver)
			since := c.now
			c.until(2*time.Second, "gone on", c.together(holder.self.ID, last.self.ID))
			if took := c.now.Sub(since); took > 2*LAN().CollectWait {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A member that leaves while another group calls it says so there, too.
func TestLeaveCrossesTheCallOfAMerge(t *testing.T) {
	for _, when := range []string{"asked", "called"} {
		t.Run(when, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3, 4)
			parted := true
			c.cut = func(from, to NodeID, m Message) bool { return parted && from > 2 != (to > 2) }
			c.until(5*time.Second, "two groups", func() bool { return c.together(1, 2)() && c.together(3, 4)() })
			c.run(time.Second)
			caller, leaver := c.nodes[1], c.nodes[3]
			if caller.view.ID.Compare(leaver.view.ID) < 0 {
				caller, leaver = c.nodes[3], c.nodes[1]
			}
			caller = c.nodes[caller.view.Members[0].ID]
			other := c.nodes[leaver.view.Members[0].ID]
			leaver = c.nodes[leaver.view.Members[1].ID]
			var stays []NodeID
			for _, id := range []NodeID{1, 2, 3, 4} {
				if id != leaver.self.ID {
					stays = append(stays, id)
				}
			}
			var since time.Time
			views := len(eventsOf[Installed](caller))
			leave := func() {
				since = c.now
				leaver.Leave(c.now)
				leaver.leaveBy = c.now
				leaver.Tick(c.now)
				c.collect(leaver)
			}
			c.cut = func(from, to NodeID, m Message) bool {
				switch m := m.(type) {
				case *Pong:
					if when == "asked" && since.IsZero() && caller.ask != nil && m.Nonce == caller.ask.nonce && from == other.self.ID {
						leave()
						return true
					}
				case *Call:
					if when == "called" && since.IsZero() && to == leaver.self.ID {
						leave()
					}
				}
				return false
			}
			c.until(5*time.Second, "left", func() bool { return !since.IsZero() })
			c.until(5*time.Second, "the others are together", c.together(stays...))
			if took := c.now.Sub(since); took > 2*LAN().CollectWait {
				t.Errorf("took %v", took)
			}
			if in := eventsOf[Installed](caller); in[len(in)-1].Cause == CauseLeave || len(in) > views+1 {
				t.Errorf("the caller is in %+v: nobody of its group has left", in[len(in)-1])
			}
			for _, id := range stays {
				if c.nodes[id].steady[leaver.self.ID].count > 0 {
					t.Errorf("%d counts who left as unsteady", id)
				}
			}
		})
	}
}
