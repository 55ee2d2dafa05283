package ringnet

import (
	"testing"
	"testing/synctest"

	"rserpool/enrp/ring"
)

// Who has the turn takes to the machine what readers put into the inbox meanwhile, behind
// what waits for longer, and no more than a batch before other things are looked at.
func TestTheOneWhoHasTheTurnTakesWhatComes(t *testing.T) {
	inCluster(t, 1, func(t *testing.T, c *cluster) {
		c.start(1)
		g := c.members[1].group
		synctest.Wait()
		m := received{&conn{node: ring.Node{Member: ring.Member{ID: 2}}}, &ring.Ping{}}
		const waiting = 3*batch + 1
		g.turn <- struct{}{}
		for range waiting {
			g.loop.later = append(g.loop.later, m)
		}
		for range inboxLen {
			g.inbox <- m
		}
		reader := &holder{standIn: func() { t.Error("relieved while the application has nothing to do") }}
		g.serve(reader)
		if n := len(g.inbox); n != inboxLen {
			t.Errorf("%d messages in the inbox after a reader found the turn taken", n)
		}
		if left := g.drain(batch); left != 0 || len(g.loop.later) != waiting-batch || len(g.inbox) != inboxLen {
			t.Errorf("room for %d more in a batch; %d wait, %d in the inbox", left, len(g.loop.later), len(g.inbox))
		}
		if g.finish(reader) {
			t.Error("the group ends")
		}
		synctest.Wait() // for run, which does the rest
		g.turn <- struct{}{}
		if later, inbox := len(g.loop.later), len(g.inbox); later > 0 || inbox > 0 || g.loop.holder != nil {
			t.Errorf("%d wait, %d in the inbox", later, inbox)
		}
		<-g.turn
	})
}
