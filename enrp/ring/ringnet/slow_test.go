package ringnet

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/enrp/ring"
)

// slowMember takes its time to apply what is delivered.
type slowMember struct {
	*testMember
	wg   sync.WaitGroup
	took time.Duration
}

// Start implements Starter.
func (s *slowMember) Start(events []ring.Event) (<-chan struct{}, func()) {
	applied := make(chan struct{}, 1)
	s.wg.Go(func() {
		for _, e := range events {
			if _, ok := e.(ring.Delivered); ok {
				time.Sleep(s.took)
				break
			}
		}
		s.Handle(events)
		applied <- struct{}{}
	})
	return applied, nil
}

// slowSecond makes the application of member 2 take so long.
func (c *cluster) slowSecond(took time.Duration) *slowMember {
	slow := &slowMember{took: took}
	c.change = func(id int, cfg *Config) {
		if id == 2 {
			slow.testMember = cfg.Handler.(*testMember)
			cfg.Handler = slow
		}
	}
	return slow
}

// A member that takes longer to apply what was ordered than a hop may take stays, and
// the token waits for it; one that takes much longer is left out.
func TestSlowApplication(t *testing.T) {
	for _, tt := range []struct {
		took  time.Duration
		views int
	}{
		{ring.LAN().Starving() - 2*ring.LAN().HopTimeout, 3}, {4 * ring.LAN().Starving(), 2},
	} {
		t.Run(tt.took.String(), func(t *testing.T) {
			inCluster(t, 3, func(t *testing.T, c *cluster) {
				slow := c.slowSecond(tt.took)
				defer slow.wg.Wait()
				defer c.stopAll()
				c.start(1, 2, 3)
				c.waitWhole(5*time.Second, 1, 2, 3)
				time.Sleep(time.Second)
				view := c.status(1).View.ID
				if _, err := c.members[1].group.Propose([]byte("much to do")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(ring.LAN().Starving() / 4)
				if _, err := c.members[3].group.Propose([]byte("more")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * ring.LAN().Starving())
				synctest.Wait()
				now := c.status(1).View
				if stays := now.ID == view; stays != (tt.views == 3) || len(now.Members) != tt.views {
					t.Errorf("member 1 was in %v, and is in %v", view, now)
				}
				c.waitWhole(20*time.Second, 1, 2, 3)
			})
		})
	}
}

// The more members there are, the more they ask a slow one how it is, and each other: that
// must not keep it from answering.
func TestSlowApplicationAmongMany(t *testing.T) {
	for _, n := range []int{6, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inCluster(t, n, func(t *testing.T, c *cluster) {
				slow := c.slowSecond(ring.LAN().Starving() - 2*ring.LAN().HopTimeout)
				defer slow.wg.Wait()
				defer c.stopAll()
				var all []int
				for id := range n {
					all = append(all, id+1)
				}
				c.start(all...)
				c.waitWhole(30*time.Second, all...)
				time.Sleep(time.Second)
				view := c.status(1).View.ID
				c.propose(1, "much to do")
				for _, id := range all {
					if id != 2 {
						time.Sleep(5 * time.Millisecond)
						c.propose(id, "more")
					}
				}
				time.Sleep(2 * slow.took)
				synctest.Wait()
				if now := c.status(1).View; now.ID != view {
					t.Errorf("member 1 was in %v, and is in %v", view, now)
				}
			})
		})
	}
}

// An acknowledgement that was to go a little later goes before the application is slow, so
// that nobody sends the token again meanwhile.
func TestSlowApplicationDoesNotHoldBackAcknowledgements(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		slow := c.slowSecond(ring.LAN().Starving() / 2)
		defer slow.wg.Wait()
		defer c.stopAll()
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		time.Sleep(2 * time.Second)
		hops := c.status(2).Counters.Hops
		c.wait(time.Second, "the idle token is at member 2", func() bool { return c.status(2).Counters.Hops > hops })
		before := c.status(1).Counters
		c.propose(2, "much to do")
		time.Sleep(slow.took)
		synctest.Wait()
		if now := c.status(1).Counters; now.Resent != before.Resent || now.TokenLost != before.TokenLost {
			t.Errorf("sent again %d times, lost: %v, before %v", now.Resent-before.Resent, now.TokenLost, before.TokenLost)
		}
	})
}
