package ringnet

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFewAcknowledgements: under load the token speaks for itself; without, each hop is
// acknowledged in time, so that it is not sent again.
func TestFewAcknowledgements(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		time.Sleep(time.Second)
		count := func() (hops, sent uint64) {
			synctest.Wait()
			for id := range c.members {
				s := c.status(id)
				if s.Counters.Resent != 0 {
					t.Errorf("member %d sent hops again: %d", id, s.Counters.Resent)
				}
				hops += s.Counters.Hops
				for _, p := range s.Peers {
					sent += p.SentMessages
				}
			}
			return hops, sent
		}
		perHop := func(during func()) float64 {
			hops, sent := count()
			during()
			hopsNow, sentNow := count()
			return float64(sentNow-sent) / float64(hopsNow-hops)
		}
		loaded := perHop(func() {
			for range 10000 {
				for _, m := range c.members {
					if _, err := m.group.Propose([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(100 * time.Microsecond)
			}
		})
		if loaded > 1.2 {
			t.Errorf("%.2f messages per hop under load", loaded)
		}
		time.Sleep(time.Second)
		if idle := perHop(func() { time.Sleep(10 * time.Second) }); idle < 1.9 {
			t.Errorf("%.2f messages per hop without load", idle)
		}
	})
}
