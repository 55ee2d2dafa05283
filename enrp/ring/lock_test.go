package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

func (c *cluster) lock(id NodeID, name string) {
	c.t.Helper()
	if err := c.nodes[id].Lock(name, c.now); err != nil {
		c.t.Fatal(err)
	}
	c.collect(c.nodes[id])
	c.run(10 * time.Millisecond)
}

func (c *cluster) unlock(id NodeID, name string) {
	c.t.Helper()
	if err := c.nodes[id].Unlock(name, c.now); err != nil {
		c.t.Fatal(err)
	}
	c.collect(c.nodes[id])
	c.run(10 * time.Millisecond)
}

// holder is who holds a lock in the eyes of a member.
func (n *node) holder(name string) NodeID {
	for _, l := range n.Status().Locks {
		if l.Name == name {
			return l.Holder.ID
		}
	}
	return 0
}

// fences lists the fences of the grants that a member saw, and fails if they don't grow.
func (c *cluster) fences(id NodeID, name string) []Fence {
	var list []Fence
	for _, g := range eventsOf[Granted](c.nodes[id]) {
		if g.Lock != name {
			continue
		}
		if n := len(list); n > 0 && g.Fence.Compare(list[n-1]) <= 0 {
			c.t.Errorf("%d: fence %v after %v", id, g.Fence, list[n-1])
		}
		list = append(list, g.Fence)
	}
	return list
}

func TestLocksAreQueuedAndAlikeEverywhere(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.lock(2, "l")
	c.lock(1, "l")
	c.lock(3, "l")
	c.lock(3, "l") // once is enough
	for i, holder := range []NodeID{2, 1, 3, 0} {
		for _, id := range c.ids() {
			if got := c.nodes[id].holder("l"); got != holder {
				t.Errorf("%d: holder in the eyes of %d is %d, want %d", i, id, got, holder)
			}
		}
		if holder != 0 {
			c.unlock(holder, "l")
		}
	}
	for _, id := range c.ids() {
		if n := len(c.fences(id, "l")); n != 3 {
			t.Errorf("%d saw %d grants", id, n)
		}
		if n := len(eventsOf[Released](c.nodes[id])); n != 3 {
			t.Errorf("%d saw %d releases", id, n)
		}
		if len(c.nodes[id].locks.locks) != 0 {
			t.Errorf("%d still has %v", id, c.nodes[id].lockNames())
		}
	}
}

func TestWithdrawnRequestIsNotGranted(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	c.lock(1, "l")
	c.lock(2, "l")
	c.unlock(2, "l")
	c.unlock(1, "l")
	if n := len(c.fences(1, "l")); n != 1 {
		t.Errorf("%d grants", n)
	}
}

func TestLockDoesNotSurviveItsHolder(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.lock(3, "l")
	c.lock(2, "l")
	c.lock(1, "kept")
	c.nodes[3].dead = true
	c.propose(1, "x")
	c.join(1, 2)
	for _, id := range []NodeID{1, 2} {
		if got := c.nodes[id].holder("l"); got != 2 {
			t.Errorf("%d: holder is %d", id, got)
		}
		if got := c.nodes[id].holder("kept"); got != 1 {
			t.Errorf("%d: the other lock has %d", id, got)
		}
		c.fences(id, "l")
	}
}

func TestLocksAreAskedForAgainAfterAMerge(t *testing.T) {
	c := newCluster(t, 1, 2, 3, 4)
	c.join(1, 2, 3, 4)
	c.lock(1, "l")
	c.cut = func(from, to NodeID, m Message) bool { return (from <= 2) != (to <= 2) }
	c.join(1, 2)
	c.join(3, 4)
	c.lock(3, "l")
	c.lock(4, "l")
	c.lock(2, "l")
	if c.nodes[1].holder("l") != 1 || c.nodes[3].holder("l") != 3 {
		t.Fatalf("holders %d and %d", c.nodes[1].holder("l"), c.nodes[3].holder("l"))
	}
	later := NodeID(1)
	if c.nodes[3].claims.wanted["l"].Compare(c.nodes[1].claims.wanted["l"]) > 0 {
		later = 3
	}
	c.cut = nil
	c.join(1, 2, 3, 4)
	c.run(50 * time.Millisecond)
	order := []NodeID{later, 4 - later}
	for _, id := range c.ids() {
		if got := c.nodes[id].holder("l"); got != order[0] {
			t.Errorf("%d: holder is %d, want that with the largest fence, %d", id, got, order[0])
		}
		c.fences(id, "l")
	}
	c.unlock(order[0], "l")
	if got := c.nodes[2].holder("l"); got != order[1] {
		t.Errorf("second holder is %d, want %d", got, order[1])
	}
	c.unlock(order[1], "l")
	third := c.nodes[1].holder("l")
	c.unlock(third, "l")
	if fourth := c.nodes[1].holder("l"); third+fourth != 6 {
		t.Errorf("then %d and %d", third, fourth)
	}
}

func newPrimary(t *testing.T, size int, ids ...NodeID) *cluster {
	c := newCluster(t)
	c.size = size
	for _, id := range ids {
		c.start(id, 1)
	}
	return c
}

func TestPrimaryGrantsInAMajorityOnly(t *testing.T) {
	c := newPrimary(t, 3, 1, 2, 3)
	c.cut = func(from, to NodeID, m Message) bool { return (from == 3) != (to == 3) }
	c.join(1, 2)
	c.lock(1, "l")
	c.lock(3, "l")
	c.run(10 * time.Second)
	if c.nodes[1].holder("l") != 1 || c.nodes[3].holder("l") != 0 {
		t.Errorf("holders %d in the majority, %d in the minority", c.nodes[1].holder("l"), c.nodes[3].holder("l"))
	}
}

// At no time do two members think that they hold the lock.
func TestPrimaryWaitsForTheOldHoldersLease(t *testing.T) {
	c := newPrimary(t, 3, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(5 * time.Second)
	c.lock(3, "l")
	if c.nodes[3].holder("l") != 3 {
		t.Fatalf("holder is %d", c.nodes[3].holder("l"))
	}
	c.run(10 * time.Second)
	if c.nodes[3].holder("l") != 3 || len(eventsOf[Released](c.nodes[3])) != 0 {
		t.Fatal("the lease ended in a healthy ring")
	}
	c.lock(1, "l")
	c.cut = func(from, to NodeID, m Message) bool { return (from == 3) != (to == 3) }
	start := c.now
	var lost, granted time.Time
	for c.now.Sub(start) < 20*time.Second && granted.IsZero() {
		c.run(10 * time.Millisecond)
		if lost.IsZero() && len(eventsOf[Released](c.nodes[3])) > 0 {
			lost = c.now
		}
		if c.nodes[1].holder("l") == 1 {
			granted = c.now
		}
	}
	if lost.IsZero() || granted.IsZero() || !lost.Before(granted) || granted.Sub(start) < LAN().Lease {
		t.Errorf("lost after %v, granted after %v", lost.Sub(start), granted.Sub(start))
	}
}

// A holder that hears nobody, and does not notice, has no right beyond its lease.
func TestPrimaryLeaseEndsByItself(t *testing.T) {
	c := newPrimary(t, 2, 1, 2)
	c.join(1, 2)
	c.run(5 * time.Second)
	c.lock(1, "l")
	n := c.nodes[1]
	n.leaveOldView(n.nextView()) // it waits for a view that never comes
	n.patience = c.now.Add(time.Hour)
	c.nodes[2].dead = true
	c.run(LAN().Lease + time.Second)
	if got := eventsOf[Released](n); len(got) != 1 || got[0].Lock != "l" {
		t.Errorf("%+v", got)
	}
}

func TestFencesGrowOverRestarts(t *testing.T) {
	c := newPrimary(t, 3, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(5 * time.Second)
	c.lock(1, "l")
	var before Fence
	for _, f := range c.fences(1, "l") {
		before = f
	}
	for _, id := range c.ids() {
		c.nodes[id].dead = true
	}
	for _, id := range c.ids() {
		c.start(id, 2)
	}
	c.join(1, 2, 3)
	c.run(5 * time.Second)
	c.lock(1, "l")
	after := c.fences(1, "l")
	if len(after) != 1 || after[0].Compare(before) <= 0 {
		t.Errorf("fence %v before, %v after all restarted", before, after)
	}
}

func TestLockLimits(t *testing.T) {
	c := newCluster(t)
	c.limits = Limits{Locks: 3}
	n := c.start(1, 1)
	if err := n.Lock(strings.Repeat("x", MaxLockName+1), c.now); !errors.Is(err, ErrTooLong) {
		t.Errorf("long name: %v", err)
	}
	for i := range 3 {
		c.lock(1, fmt.Sprint(i))
	}
	if err := n.Lock("one more", c.now); !errors.Is(err, ErrFull) {
		t.Errorf("fourth: %v", err)
	}
	c.unlock(1, "1")
	c.lock(1, "one more")
	if got := n.lockNames(); !slices.Equal(got, []string{"0", "2", "one more"}) {
		t.Errorf("%q", got)
	}
}

func TestLockFaultsShow(t *testing.T) {
	c := newCluster(t)
	c.faults = fault.LockSurvivesHolder
	c.start(1, 1)
	c.start(2, 1)
	c.join(1, 2)
	c.lock(2, "l")
	c.nodes[2].dead = true
	c.propose(1, "x")
	c.join(1)
	if got := c.nodes[1].holder("l"); got != 2 {
		t.Errorf("holder is %d, the seam does nothing", got)
	}
}
