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
	for _, own := range []bool{true} {
		n.ends = own
	}
	c.nodes[1].leaving = true // no calls that would make it a view of its own
	n.leaving = false
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
