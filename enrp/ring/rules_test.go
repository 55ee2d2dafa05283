package ring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// hold cuts messages of a kind between two members.
func isToken(m Message) bool { _, ok := m.(*Token); return ok }

func TestRestartedMemberIsANewOne(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.propose(1, "before")
	c.run(50 * time.Millisecond)
	old := c.nodes[2].self.Member
	again := c.start(2, 2)
	c.join(1, 2, 3)
	if c.nodes[1].view.Has(old) || !c.nodes[1].view.Has(again.self.Member) {
		t.Errorf("view %v", c.nodes[1].view)
	}
	in := eventsOf[Installed](again)
	last := in[len(in)-1]
	if !last.Exchange {
		t.Error("no exchange with a member that holds nothing")
	}
	for _, o := range last.Origins {
		if o.Member == again.self.Member && !o.Synced.IsZero() {
			t.Errorf("origin of the restarted member: %+v", o)
		}
	}
	if len(again.delivered()) != 0 {
		t.Errorf("it delivered %v", again.delivered())
	}
}

func TestMessagesForAFormerLifeAreDropped(t *testing.T) {
	c := newCluster(t)
	n := c.start(1, 2)
	n.Step(&Ping{Header: Header{From: nodeB, To: Member{1, 1}}, Nonce: 1}, c.now)
	if out, _ := n.Ready(); len(out.Messages) != 0 || n.counters.Dropped["not for this member"] != 1 {
		t.Errorf("answered %v, counted %v", out.Messages, n.counters.Dropped)
	}
}

// The coordinator dies between the first token's first stop and the others: the
// head that it carried is in the next view's head as well.
func TestRemainderSurvivesATornInstall(t *testing.T) {
	c := newCluster(t, 1, 2, 3, 4)
	c.join(1, 2, 3, 4)
	order := memberIDs(c.nodes[1].view)
	first, last := c.nodes[order[0]], c.nodes[order[3]]
	// The first puts something in that only the second sees, and the second
	// nothing more; then the first is gone.
	c.cut = func(from, to NodeID, m Message) bool { return isToken(m) && from == order[1] }
	c.propose(order[0], "rest")
	c.settle()
	first.dead = true
	// In the next install the first token reaches one member only.
	c.cut = func(from, to NodeID, m Message) bool {
		tok, ok := m.(*Token)
		return ok && (from == order[1] && tok.View == c.nodes[order[1]].view.ID && len(c.nodes[order[1]].view.Members) == 4 || tok.Install != nil && tok.Hop >= 2)
	}
	var torn NodeID
	c.until(3*time.Second, "installed by some", func() bool {
		for _, id := range order[1:] {
			if len(c.nodes[id].view.Members) == 3 && c.nodes[id].me != 0 {
				torn = id
			}
		}
		return torn != 0
	})
	coordinator := c.nodes[torn].view.ID.Coordinator.ID
	c.nodes[coordinator].dead = true
	c.cut = nil
	alive := slices.DeleteFunc(slices.Clone(order[1:]), func(id NodeID) bool { return id == coordinator })
	c.join(alive...)
	for _, id := range alive {
		if !slices.Contains(c.nodes[id].delivered(), "rest") {
			t.Errorf("%d lacks it: %v", id, c.nodes[id].delivered())
		}
		var came []ViewID // views in which it was delivered
		for _, d := range eventsOf[Delivered](c.nodes[id]) {
			came = append(came, d.View)
		}
		if len(came) != 1 || came[0] != eventsOf[Delivered](last)[0].View {
			t.Errorf("%d delivered it in %v", id, came)
		}
	}
}

// Nobody else's remainder: a member of another group gets what happened here by
// the exchange.
func TestRemainderOfAnotherViewIsNotDelivered(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.join(1, 2)
	c.lone = true
	c.start(3, 1)
	c.cut = func(from, to NodeID, m Message) bool { return isToken(m) && from != 3 && to != 3 }
	holder := NodeID(1)
	if c.nodes[2].holding {
		holder = 2
	}
	c.propose(holder, "old")
	c.settle()
	// 3 meets them while one of the two lacks an entry.
	c.lone = false
	c.until(2*time.Second, "called", func() bool { return c.nodes[3].away() || len(c.nodes[3].view.Members) > 1 })
	c.cut = nil
	c.join(1, 2, 3)
	if got := c.nodes[3].delivered(); len(got) != 0 {
		t.Errorf("3 delivered %v", got)
	}
	if a, b := c.nodes[1].delivered(), c.nodes[2].delivered(); !slices.Equal(a, b) || len(a) != 1 {
		t.Errorf("1 delivered %v, 2 %v", a, b)
	}
}

func TestStableOnlyWhenItWasRound(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	order := memberIDs(c.nodes[1].view)
	c.cut = func(from, to NodeID, m Message) bool { return isToken(m) && from == order[1] }
	c.propose(order[0], "x")
	c.run(20 * time.Millisecond)
	if got := c.nodes[order[1]].delivered(); len(got) != 1 {
		t.Fatalf("the second delivered %v", got)
	}
	if c.nodes[order[0]].stableUp() != 0 {
		t.Error("stable before the third has it")
	}
	c.cut = nil
	c.run(60 * time.Millisecond)
	if c.nodes[order[0]].stableUp() != 1 {
		t.Error("not stable after a round")
	}
}

func TestNothingIsStableBeforeEnd(t *testing.T) {
	c := newCluster(t, 1, 2)
	for _, n := range c.nodes {
		n.ends = false
	}
	c.until(3*time.Second, "merged", func() bool { return len(c.nodes[1].view.Members) == 2 && len(c.nodes[2].view.Members) == 2 })
	c.propose(1, "x")
	c.run(500 * time.Millisecond)
	if len(c.nodes[2].delivered()) != 1 || c.nodes[1].stableUp() != 0 {
		t.Errorf("delivered %v, stable up to %d", c.nodes[2].delivered(), c.nodes[1].stableUp())
	}
	coordinator := c.nodes[c.nodes[1].view.ID.Coordinator.ID]
	other := c.nodes[3-coordinator.self.ID]
	if err := other.End(c.now); !errors.Is(err, ErrNotNeeded) {
		t.Errorf("End by another: %v", err)
	}
	if err := coordinator.End(c.now); err != nil {
		t.Fatal(err)
	}
	c.collect(coordinator)
	c.run(50 * time.Millisecond)
	for _, n := range c.nodes {
		if len(eventsOf[Ended](n)) != 1 || len(eventsOf[EndStable](n)) != 1 || n.synced != n.view.ID {
			t.Errorf("%v: %d Ended, %d EndStable", n.self, len(eventsOf[Ended](n)), len(eventsOf[EndStable](n)))
		}
	}
	if c.nodes[1].stableUp() != 1 {
		t.Error("not stable after END")
	}
	if err := coordinator.End(c.now); !errors.Is(err, ErrNotNeeded) {
		t.Errorf("second End: %v", err)
	}
}

func TestInterruptedExchangeIsNotForgotten(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	for _, n := range c.nodes {
		n.ends = false
	}
	c.until(5*time.Second, "merged", func() bool { return len(c.nodes[1].view.Members) == 3 && c.nodes[1].view.ID == c.nodes[3].view.ID })
	c.run(100 * time.Millisecond)
	c.nodes[2].dead = true
	c.propose(1, "x")
	c.until(2*time.Second, "without 2", func() bool { return len(c.nodes[1].view.Members) == 2 && len(c.nodes[3].view.Members) == 2 })
	for _, id := range []NodeID{1, 3} {
		in := eventsOf[Installed](c.nodes[id])
		if !in[len(in)-1].Exchange {
			t.Errorf("%d: no exchange although the last one did not end", id)
		}
	}
}

// END that only some have delivered is delivered by the rest with the remainder.
func TestEndInTheHeadEndsTheExchange(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	for _, n := range c.nodes {
		n.ends = false
	}
	c.until(5*time.Second, "merged", func() bool { return len(c.nodes[1].view.Members) == 3 && c.nodes[1].view.ID == c.nodes[3].view.ID })
	c.run(3 * time.Second)
	order := memberIDs(c.nodes[1].view)
	c.cut = func(from, to NodeID, m Message) bool { return isToken(m) && from == order[1] }
	if err := c.nodes[order[0]].End(c.now); err != nil {
		t.Fatal(err)
	}
	c.collect(c.nodes[order[0]])
	c.until(2*time.Second, "ended at the second", func() bool { return len(eventsOf[Ended](c.nodes[order[1]])) == 1 })
	c.nodes[order[0]].dead = true
	c.cut = nil
	c.until(3*time.Second, "without the first", func() bool {
		return len(c.nodes[order[1]].view.Members) == 2 && len(c.nodes[order[2]].view.Members) == 2
	})
	c.run(3 * time.Second)
	for _, id := range order[1:] {
		n := c.nodes[id]
		in := eventsOf[Installed](n)
		if len(eventsOf[Ended](n)) != 1 || in[len(in)-1].Exchange || len(eventsOf[EndStable](n)) != 1 {
			t.Errorf("%d: %d Ended, %d EndStable, exchange %v", id, len(eventsOf[Ended](n)), len(eventsOf[EndStable](n)), in[len(in)-1].Exchange)
		}
	}
}

func TestProposalsWaitForTheNextView(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	order := memberIDs(c.nodes[1].view)
	c.run(2 * time.Second)
	// The third can't be reached; the first proposes before and after that shows.
	c.nodes[order[2]].dead = true
	c.propose(order[0], "in a token")
	c.run(30 * time.Millisecond)
	c.propose(order[0], "never in a token")
	c.join(order[0], order[1])
	c.run(100 * time.Millisecond)
	for _, id := range order[:2] {
		if got := c.nodes[id].delivered(); !slices.Equal(got, []string{"in a token", "never in a token"}) {
			t.Errorf("%d delivered %q", id, got)
		}
	}
	if c.nodes[order[0]].stableUp() != 2 {
		t.Errorf("stable up to %d", c.nodes[order[0]].stableUp())
	}
}

// A member that can't hear stops nobody: its calls lack the proof.
func TestDeafMemberStopsNobody(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.cut = func(from, to NodeID, m Message) bool { return to == 3 }
	c.join(1, 2)
	views := len(eventsOf[Installed](c.nodes[1]))
	for i := range 50 {
		c.propose(1, fmt.Sprint(i))
		c.run(100 * time.Millisecond)
	}
	if n := len(eventsOf[Installed](c.nodes[1])); n != views {
		t.Errorf("%d views more", n-views)
	}
	if c.nodes[1].stableUp() != 50 {
		t.Errorf("stable up to %d", c.nodes[1].stableUp())
	}
}

// Two members that don't hear each other both ways can't be neighbours: where
// nobody can stand between them one is left out, for good and without a swing.
func TestOneWayLinkEndsInAStableView(t *testing.T) {
	for _, size := range []int{3, 4} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var ids []NodeID
			for i := range size {
				ids = append(ids, NodeID(i+1))
			}
			c := newCluster(t, ids...)
			c.join(ids...)
			c.cut = func(from, to NodeID, m Message) bool { return from == 1 && to == 2 }
			c.run(20 * time.Second)
			views := c.nodes[3].counters.Views
			before := views[CauseNoAck] + views[CauseMerge] + views[CauseStarved]
			c.run(30 * time.Second)
			if n := views[CauseNoAck] + views[CauseMerge] + views[CauseStarved] - before; n > 0 {
				t.Errorf("%d views in 30 s", n)
			}
			if n := len(c.nodes[3].view.Members); n < size-1 {
				t.Errorf("view of %v", memberIDs(c.nodes[3].view))
			}
		})
	}
}

func TestYoungTokenIsNoReasonToStarve(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(2 * time.Second)
	views := len(eventsOf[Installed](c.nodes[1]))
	// A false hint: 3 hears that 1's connection fell.
	for range 20 {
		for _, id := range []NodeID{2, 3} {
			c.nodes[id].Lost(c.nodes[1].self.Member, c.now)
			c.collect(c.nodes[id])
		}
		c.run(170 * time.Millisecond)
	}
	if n := len(eventsOf[Installed](c.nodes[1])); n != views {
		t.Errorf("%d views more", n-views)
	}
}

func TestSlowMemberStays(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	slow := false
	c.cut = func(from, to NodeID, m Message) bool { return slow && (from == 2 || to == 2) }
	for i := range 20 {
		c.propose(1, fmt.Sprint(i))
		slow = true
		c.run(LAN().HopTimeout - 10*time.Millisecond)
		slow = false
		c.run(200 * time.Millisecond)
	}
	if n := c.nodes[1].counters.Views[CauseNoAck] + c.nodes[1].counters.Views[CauseStarved]; n != 0 {
		t.Errorf("removed %d times", n)
	}
	if c.nodes[1].stableUp() != 20 {
		t.Errorf("stable up to %d", c.nodes[1].stableUp())
	}
}

func TestWantWakesAnIdleRing(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	for i := range 20 {
		c.run(time.Second + time.Duration(i)*37*time.Millisecond)
		id := NodeID(i%3 + 1)
		number := c.propose(id, fmt.Sprint(i))
		c.settle() // no time passes
		if c.nodes[id].stableUp() != number {
			t.Errorf("%d is not stable at once", i)
		}
	}
}

// Who has asked for the token has nothing to do for what is proposed before it comes.
func TestProposalsWaitForATokenThatIsComing(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	for i := range 30 {
		c.run(time.Second + time.Duration(i)*37*time.Millisecond)
		n := c.nodes[NodeID(i%3+1)]
		if n.Coming() {
			t.Fatal("the token comes at full speed to a member that has nothing for it")
		}
		c.propose(n.self.ID, "first") // goes with the token, or asks for it
		asked := len(c.wire)
		last := c.propose(n.self.ID, "second")
		if asked == 0 || len(c.wire) != asked || !n.Coming() {
			t.Errorf("%d messages for the first proposal, %d more for the second; coming: %v", asked, len(c.wire)-asked, n.Coming())
		}
		c.settle()
		if n.stableUp() != last {
			t.Error("not stable when the token was there")
		}
	}
}

func TestPartitionHeals(t *testing.T) {
	c := newCluster(t, 1, 2, 3, 4, 5)
	c.join(1, 2, 3, 4, 5)
	c.cut = func(from, to NodeID, m Message) bool { return (from <= 2) != (to <= 2) }
	c.join(1, 2)
	c.join(3, 4, 5)
	c.propose(1, "left")
	c.propose(5, "right")
	c.run(50 * time.Millisecond)
	synced := map[NodeID]ViewID{1: c.nodes[1].synced, 5: c.nodes[5].synced}
	c.cut = nil
	c.join(1, 2, 3, 4, 5)
	in := eventsOf[Installed](c.nodes[1])
	last := in[len(in)-1]
	if !last.Exchange || last.Cause != CauseMerge {
		t.Errorf("%+v", last)
	}
	for _, o := range last.Origins {
		side := NodeID(5)
		if o.ID <= 2 {
			side = 1
		}
		if o.Synced != synced[side] || !o.With.IsZero() {
			t.Errorf("origin %+v, synced %v", o, synced[side])
		}
	}
}

func TestUnsteadyMemberIsHeldOff(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	var out []time.Duration
	for range 5 {
		c.cut = func(from, to NodeID, m Message) bool { return from == 3 || to == 3 }
		c.join(1, 2)
		c.cut = nil
		start := c.now
		c.until(30*time.Second, "back", c.together(1, 2, 3))
		out = append(out, c.now.Sub(start))
	}
	if out[4] < 4*LAN().HoldOff || out[4] < out[1] {
		t.Errorf("away for %v", out)
	}
	if c.nodes[1].counters.HeldOff+c.nodes[2].counters.HeldOff+c.nodes[3].counters.HeldOff == 0 {
		t.Error("not counted")
	}
	// Forgiven after a while.
	c.run(30 * time.Second)
	c.cut = func(from, to NodeID, m Message) bool { return from == 3 || to == 3 }
	c.join(1, 2)
	c.cut = nil
	start := c.now
	c.join(1, 2, 3)
	if took := c.now.Sub(start); took > 4*time.Second {
		t.Errorf("forgiven, and yet away for %v", took)
	}
}

func TestClashIsReported(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	// Another live process with the identifier of 2.
	other := &node{ends: true}
	twin := Node{Member: Member{2, 5}, Contact: "twin"}
	cfg := c.nodes[1].cfg
	cfg.Self = twin
	m, err := New(cfg, c.now)
	if err != nil {
		t.Fatal(err)
	}
	other.Machine = m
	coordinator := c.nodes[c.nodes[1].view.ID.Coordinator.ID]
	for range 200 {
		coordinator.Found(twin, c.now)
		coordinator.Tick(c.now)
		out, _ := coordinator.Ready()
		var twins []Message
		for _, e := range out.Messages {
			if e.To.Member == twin.Member {
				twins = append(twins, e.Message)
			} else {
				c.wire = append(c.wire, e)
			}
		}
		coordinator.events = append(coordinator.events, out.Events...)
		for _, msg := range twins {
			m.Step(msg, c.now)
			answer, _ := m.Ready()
			for _, e := range answer.Messages {
				coordinator.Step(e.Message, c.now)
				c.collect(coordinator)
			}
		}
		c.run(5 * time.Millisecond)
	}
	if got := eventsOf[Clash](coordinator); len(got) != 1 || got[0].Other != twin || got[0].Mine.ID != 2 {
		t.Errorf("%+v", got)
	}
	if !c.together(1, 2, 3)() {
		t.Error("the ring did not go on")
	}
}

func TestVisitAndTokenAreBounded(t *testing.T) {
	c := newCluster(t)
	c.limits = Limits{Visit: 2000, Token: 5000, Payload: 6000}
	for id := NodeID(1); id <= 3; id++ {
		c.start(id, 1)
	}
	c.join(1, 2, 3)
	most := 0
	c.cut = func(from, to NodeID, m Message) bool {
		if tok, ok := m.(*Token); ok {
			own := 0
			for _, r := range tok.Runs {
				if r.From.ID == from && !r.Omitted {
					own += r.octets()
				}
			}
			if own > 2000+100 {
				t.Errorf("%d octets at one visit", own)
			}
			most = max(most, tok.octets())
		}
		return false
	}
	for i := range 3000 {
		c.propose(NodeID(i%3+1), strings.Repeat("x", 100))
	}
	c.run(time.Second)
	if most > 5000+100 || most < 2000 {
		t.Errorf("token of %d octets", most)
	}
	for id := NodeID(1); id <= 3; id++ {
		if c.nodes[id].stableUp() != 1000 {
			t.Errorf("%d: stable up to %d", id, c.nodes[id].stableUp())
		}
	}
}

// A payload that fills the token gets its turn among small ones.
func TestLargePayloadIsNotStarved(t *testing.T) {
	c := newCluster(t)
	c.limits = Limits{Visit: 2000, Token: 5000, Payload: 6000}
	for id := NodeID(1); id <= 3; id++ {
		c.start(id, 1)
	}
	c.join(1, 2, 3)
	for range 2000 {
		c.propose(1, strings.Repeat("x", 100))
		c.propose(2, strings.Repeat("y", 100))
	}
	c.propose(3, strings.Repeat("z", 5500))
	c.propose(2, strings.Repeat("u", 5500))
	c.run(time.Second)
	at := slices.Index(c.nodes[1].delivered(), strings.Repeat("z", 5500))
	if at < 0 || at > 500 {
		t.Errorf("delivered as number %d", at)
	}
	if c.nodes[2].stableUp() != 2001 {
		t.Errorf("2: stable up to %d", c.nodes[2].stableUp())
	}
}

func TestQueueIsBounded(t *testing.T) {
	c := newCluster(t)
	c.limits = Limits{QueueProposals: 3, QueueOctets: 1000, Payload: 500}
	c.start(1, 1)
	c.start(2, 1)
	c.join(1, 2)
	n := c.nodes[1]
	n.leaveOldView(n.nextView()) // nothing is ordered now
	for range 3 {
		if _, err := n.Propose([]byte("x"), c.now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Propose([]byte("x"), c.now); !errors.Is(err, ErrFull) {
		t.Errorf("fourth: %v", err)
	}
	if _, err := n.Propose(make([]byte, 501), c.now); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	if s := n.Status(); s.Queue != 3 || s.QueueOctets != 3*(1+overhead) {
		t.Errorf("queue %d, %d octets", s.Queue, s.QueueOctets)
	}
}

// A member that has seen many calls fail is patient with the next. It is not when
// its caller has gone on to another view, or is gone.
func TestPromiseToACallThatIsOver(t *testing.T) {
	for _, dies := range []bool{false, true} {
		c := newCluster(t, 1, 2, 3)
		c.join(1, 2, 3)
		n := c.nodes[3]
		n.failed = 5
		caller := c.nodes[1]
		h := Header{From: caller.self, To: n.self.Member}
		list := []Node{caller.self, n.self}
		pong, ok := reply[*Pong](c.tell(n, &Ping{Header: h, Nonce: 7, Candidates: list}))
		if !ok {
			t.Fatal("no answer")
		}
		call := &Call{Header: h, View: View{ViewID{n.promised.Counter + 1, caller.self.Member}, list}, Cause: CauseNoAck, Proof: pong.Answer}
		if _, ok := reply[*Promise](c.tell(n, call)); !ok {
			t.Fatal("not promised")
		}
		rest := []NodeID{1, 2}
		if caller.dead = dies; dies {
			rest = rest[1:]
		}
		// It asks its caller, and does not wait for it as long as it would wait for an
		// install.
		since := c.now
		c.until(time.Second, "it goes on", func() bool { return n.currentState() != Promised })
		if waited := c.now.Sub(since); dies && waited > 300*time.Millisecond {
			t.Errorf("it waits for a dead caller for %v", waited)
		}
		c.cut = func(from, to NodeID, _ Message) bool { return from == 3 || to == 3 }
		c.until(3*time.Second, "the others go on", c.together(rest...))
		c.cut = nil
		c.until(5*time.Second, "they meet again", c.together(append(rest, 3)...))
	}
}

// A member that has seen many calls fail is patient with those that live, and with no
// one who died since it was asked.
func TestDeadMemberDoesNotHoldUpACall(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(time.Second)
	caller := c.nodes[1]
	caller.failed = 5
	c.cut = func(_, to NodeID, m Message) bool { _, call := m.(*Call); return call && to == 3 }
	caller.startAsk(CauseNoAck, caller.everybody(nil), nil)
	c.collect(caller)
	c.until(time.Second, "it calls", func() bool { return caller.call != nil && len(caller.call.view.Members) == 3 })
	c.nodes[3].dead, c.cut = true, nil
	since := c.now
	c.until(time.Minute, "the others go on", c.together(1, 2))
	if took := c.now.Sub(since); took > 2*LAN().Promise(3, 0) {
		t.Errorf("they go on after %v", took)
	}
}

// The head of a view in between may lack what its own members had delivered. What
// comes after such a gap is not for those who have not: they would deliver it out of
// order.
func TestHeadEndsAtAGap(t *testing.T) {
	a, b, c := Member{1, 1}, Member{2, 1}, Member{3, 1}
	old, between := ViewID{5, a}, ViewID{6, c}
	run := func(seq, origin uint64, count uint64) Run {
		var data []byte
		for range count {
			data = appendPayload(data, []byte("x"))
		}
		return Run{Seq: seq, Count: count, Origin: old, OriginSeq: origin, From: a, Proposal: origin, Data: data}
	}
	promises := []*Promise{
		{Installed: old, Delivered: 4, Copy: &Copy{View: old, Seq: 4, Runs: []Run{run(3, 3, 2)}}},
		{Header: Header{From: Node{Member: b}}, Installed: old, Delivered: 6, Copy: &Copy{View: old, Seq: 6, Runs: []Run{run(3, 3, 4)}}},
		{Header: Header{From: Node{Member: c}}, Installed: between, Delivered: 2, Copy: &Copy{View: between, Seq: 2, Runs: []Run{run(1, 8, 2)}}},
	}
	got := head(promises, false)
	if len(got) != 1 || got[0].OriginSeq != 5 || got[0].originLast() != 6 || got[0].Seq != 1 {
		t.Errorf("head %+v, not 5 and 6", got)
	}
	promises[2].Copy.Runs = []Run{run(1, 7, 2)}
	got = head(promises, false)
	if len(got) != 2 || got[1].OriginSeq != 7 || got[1].originLast() != 8 || got[1].Seq != 3 {
		t.Errorf("head %+v, not 5 to 8", got)
	}
}
