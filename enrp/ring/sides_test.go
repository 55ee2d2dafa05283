package ring

import (
	"fmt"
	"testing"
	"time"
)

// However much a token may carry, the first one of a merge brings a full one of each group
// in a message.
func TestFirstTokenOfAMergeFitsIntoAMessage(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct{ token, payload, sides int }{
		{0, 0, 8}, {100, mib, 8}, {mib * 7 / 4, 0, 8}, {2 * mib, 0, 7}, {4 * mib, 0, 3}, {4 * mib, 100, 3},
	} {
		t.Run(fmt.Sprint(test.token, " ", test.payload), func(t *testing.T) {
			l := Limits{Token: test.token, Payload: test.payload}.WithDefaults()
			if got := l.sides(); got != test.sides {
				t.Fatalf("%d sides, want %d", got, test.sides)
			}
			var promises []*Promise
			for side := range l.sides() {
				from := Member{NodeID(side + 1), 1}
				view := ViewID{Counter: 1 << 60, Coordinator: from}
				c := &Copy{View: view}
				for used := 0; used == 0 || used < l.Token; {
					size := min(l.Payload, max(l.Token-used, 1))
					c.Seq++
					c.Runs = append(c.Runs, Run{
						Seq: c.Seq, Count: 1, Origin: view, OriginSeq: c.Seq, From: from, Proposal: 1 << 60,
						Data: appendPayload(nil, make([]byte, size)),
					})
					used += size + overhead
				}
				promises = append(promises, &Promise{Installed: view, Delivered: c.Seq, Copy: c}, &Promise{Installed: view})
			}
			first := &Token{Copy: Copy{View: ViewID{Counter: 1 << 61}, Runs: head(promises, false)}}
			if b, err := Append(nil, first); err != nil || len(b) < l.sides()*l.Token {
				t.Errorf("%d octets, %v", len(b), err)
			}
		})
	}
}

// More groups than that merge in steps.
func TestGroupsWithLargeTokensMergeInSteps(t *testing.T) {
	c := newCluster(t)
	c.limits = Limits{Token: 4 << 20}
	ids := []NodeID{1, 2, 3, 4, 5, 6, 7}
	for _, id := range ids {
		c.start(id, 1)
	}
	c.until(20*time.Second, "together", c.together(ids...))
	for _, id := range ids {
		for _, in := range eventsOf[Installed](c.nodes[id]) {
			sides := map[ViewID]bool{}
			for _, o := range in.Origins {
				sides[o.Installed] = true
			}
			if len(sides) > 3 {
				t.Errorf("%d: %d groups merge into %v", id, len(sides), in.View.ID)
			}
		}
	}
}

// However many operations of locks wait, a token takes so many only that those of all
// groups of a merge fit into its first one.
func TestTokenTakesFewOperationsOfLocks(t *testing.T) {
	const locks = 1500
	for _, length := range []int{1, MaxLockName} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			c := newCluster(t)
			c.limits = Limits{Locks: 3 * locks}
			for id := range NodeID(3) {
				c.start(id+1, 1)
			}
			c.join(1, 2, 3)
			most := 0
			c.cut = func(_, _ NodeID, m Message) bool {
				if token, ok := m.(*Token); ok {
					b, err := Append(nil, &Token{Copy: token.Copy})
					if err != nil {
						t.Error(err)
					}
					most = max(most, len(b))
				}
				return false
			}
			for _, n := range c.nodes {
				for i := range locks {
					if err := n.Lock(fmt.Sprintf("%0*d", length, int(n.self.ID)*locks+i), c.now); err != nil {
						t.Fatal(err)
					}
				}
				c.collect(n)
			}
			granted := func() (all int) {
				for _, n := range c.nodes {
					for _, g := range eventsOf[Granted](n) {
						if g.Holder == n.self.Member {
							all++
						}
					}
				}
				return all
			}
			c.until(time.Minute, "all locks are held", func() bool { return granted() == 3*locks })
			if most > besides/2 || most < besides/16 {
				t.Errorf("up to %d octets of a token are operations of locks, not %d", most, besides/2)
			}
		})
	}
}
