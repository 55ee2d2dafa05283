package ring

import (
	"testing"
	"time"
)

// Groups whose coordinators don't hear each other meet by a member that hears all, and
// stay together.
func TestGroupsMeetByAMemberThatHearsAll(t *testing.T) {
	for _, oneWay := range []bool{false, true} {
		c := newCluster(t, 1, 3, 4)
		c.join(1, 3, 4)
		coordinator := c.nodes[1].view.ID.Coordinator.ID
		c.start(9, 1)
		c.cut = func(from, to NodeID, _ Message) bool {
			return from == coordinator && to == 9 || from == 9 && to == coordinator && !oneWay
		}
		c.until(20*time.Second, "they meet", c.together(1, 3, 4, 9))
		view := c.nodes[9].view.ID
		c.run(time.Minute)
		if now := c.nodes[9].view.ID; now != view {
			t.Errorf("one way %v: they were in %v, and are in %v", oneWay, view, now)
		}
	}
}

// Where they can't be placed in one ring, no view changes.
func TestGroupsThatCannotMeetStayApartQuietly(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	coordinator := c.nodes[1].view.ID.Coordinator.ID
	c.start(9, 1)
	c.cut = func(from, to NodeID, _ Message) bool {
		return from == coordinator && to == 9 || from == 9 && to == coordinator
	}
	c.run(20 * time.Second)
	views := map[NodeID]ViewID{1: c.nodes[1].view.ID, 2: c.nodes[2].view.ID, 9: c.nodes[9].view.ID}
	c.run(time.Minute)
	for id, view := range views {
		if now := c.nodes[id].view.ID; now != view {
			t.Errorf("%d was in %v, is in %v", id, view, now)
		}
	}
	c.cut = nil
	c.until(5*time.Second, "they meet", c.together(1, 2, 9))
}
