package ring

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestStartsAloneAndUnsynced(t *testing.T) {
	c := newCluster(t)
	n := c.start(1, 1)
	in, ok := n.events[0].(Installed)
	if !ok || !in.Exchange || in.Cause != CauseStart || len(in.View.Members) != 1 || !in.Origins[0].Synced.IsZero() {
		t.Fatalf("first event %+v", n.events[0])
	}
	c.propose(1, "a")
	if got := n.delivered(); !slices.Equal(got, []string{"a"}) || n.stableUp() != 0 {
		t.Errorf("delivered %v, stable up to %d", got, n.stableUp())
	}
	if err := n.End(c.now); err != nil {
		t.Fatal(err)
	}
	c.propose(1, "b")
	if got := n.delivered(); !slices.Equal(got, []string{"a", "b"}) || n.stableUp() != 2 {
		t.Errorf("delivered %v, stable up to %d", got, n.stableUp())
	}
}

func TestGroupsMergeByThemselves(t *testing.T) {
	for _, size := range []int{2, 3, 5, 9} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newCluster(t)
			var ids []NodeID
			for i := range size {
				ids = append(ids, NodeID(i+1))
				c.start(NodeID(i+1), 1)
			}
			c.join(ids...)
			for _, id := range ids {
				c.propose(id, fmt.Sprint("from ", id))
			}
			c.run(100 * time.Millisecond)
			first := c.nodes[1].delivered()
			for _, id := range ids {
				n := c.nodes[id]
				if got := n.delivered(); len(got) != size || !slices.Equal(got, first) {
					t.Errorf("%d delivered %q, 1 %q", id, got, first)
				}
				if n.stableUp() != 1 {
					t.Errorf("%d: stable up to %d", id, n.stableUp())
				}
			}
		})
	}
}

func TestDeadMemberIsRemovedInTime(t *testing.T) {
	timers := LAN()
	for _, tt := range []struct {
		name    string
		traffic bool
		lost    bool
		within  time.Duration
	}{
		{"traffic", true, false, timers.HopTimeout + timers.CollectWait},
		{"transport", false, true, timers.LostWait + timers.CollectWait},
		{"silent", false, false, timers.IdleRotation + timers.HopTimeout + timers.CollectWait},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for wait := range 8 {
				c := newCluster(t, 1, 2, 3)
				c.join(1, 2, 3)
				c.run(time.Second + time.Duration(wait)*100*time.Millisecond)
				c.nodes[2].dead = true
				if tt.traffic {
					c.propose(1, "x")
				}
				if tt.lost {
					for _, id := range []NodeID{1, 3} {
						c.nodes[id].Lost(c.nodes[2].self.Member, c.now)
						c.collect(c.nodes[id])
					}
				}
				start := c.now
				c.until(2*time.Second, "without the dead", func() bool { return len(c.nodes[1].view.Members) == 2 && len(c.nodes[3].view.Members) == 2 })
				if took := c.now.Sub(start); took > tt.within+5*time.Millisecond {
					t.Errorf("took %v, more than %v", took, tt.within)
				}
				if in := eventsOf[Installed](c.nodes[1]); in[len(in)-1].Exchange {
					t.Error("the rest needs no exchange")
				}
			}
		})
	}
}

func TestIdleRingIsQuiet(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(2 * time.Second)
	clear(c.sent)
	c.run(100 * time.Second)
	sum := 0
	for _, n := range c.sent {
		sum += n
	}
	if sum > 3*4*100 {
		t.Errorf("%d packets in 100 s: %v", sum, c.sent)
	}
	if len(c.nodes[1].view.Members) != 3 || c.nodes[1].counters.Calls > 1 {
		t.Error("view changed")
	}
}

// Who was told that something is stable, and proposes more right then, need not ask for
// the token while others use it too: it comes back at full speed.
func TestTokenComesBackToWhoWasServed(t *testing.T) {
	const each = 20
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	first, wants := map[NodeID]uint64{}, c.sent["*ring.Want"]
	for _, id := range c.ids() {
		first[id] = c.propose(id, "x")
	}
	c.cut = func(NodeID, NodeID, Message) bool {
		for _, id := range c.ids() {
			if n := c.nodes[id]; n.stableUp() == n.queue.next && n.queue.next < first[id]+each-1 {
				c.propose(id, "x")
			}
		}
		return false
	}
	c.run(time.Second)
	if n := len(c.nodes[1].delivered()); n < 3*each {
		t.Fatalf("%d delivered", n)
	}
	// The first of each, and the last, when the others have no more.
	if n := c.sent["*ring.Want"] - wants; n > 3*2*2 {
		t.Errorf("asked for the token with %d messages", n)
	}
}

// A holder that dies without a word while others use the ring is missed as soon as who
// waits for the token has waited long enough, though nobody had to ask for it.
func TestSilentDeathIsNoticedByWhoWaitsForTheToken(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	members := c.nodes[1].view.Members
	first, next, third := c.nodes[members[0].ID], c.nodes[members[1].ID], c.nodes[members[2].ID]
	served := c.propose(first.self.ID, "x")
	var asked bool
	var died time.Time
	c.cut = func(from, to NodeID, m Message) bool {
		if from == next.self.ID && next.dead {
			return true
		}
		switch m := m.(type) {
		case *Token:
			if from == first.self.ID && !asked && len(m.Runs) > 0 && m.Runs[0].From == first.self.Member {
				asked = true
				c.propose(third.self.ID, "z")
			}
		case *TokenAck:
			if died.IsZero() && from == next.self.ID && first.stableUp() >= served && m.Hop == first.hop {
				next.dead, died = true, c.now
			}
		}
		return false
	}
	c.run(time.Millisecond)
	c.propose(first.self.ID, "y")
	c.settle()
	c.until(3*time.Second, "a view without it", func() bool { return len(first.view.Members) == 2 && len(third.view.Members) == 2 })
	if died.IsZero() {
		t.Fatal("it did not die")
	}
	timers := c.nodes[1].cfg.Timers
	if took, most := c.now.Sub(died), timers.HopTimeout+2*timers.CollectWait; took > most {
		t.Errorf("took %v, more than %v", took, most)
	}
}
