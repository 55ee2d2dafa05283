package ringnet

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/enrp/ring"
)

// Each member measures how much the others' clocks differ from its own, and says in
// the log whose do by more than is good, now and then, and when that is over.
func TestClocksThatDifferAreNoticed(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		const behind = 3 * time.Second
		var late atomic.Int64
		late.Store(int64(behind))
		c.adjust = func(id int, g *Group) {
			if id == 2 {
				g.wall = func() time.Time { return time.Now().Add(-time.Duration(late.Load())) }
			}
		}
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		skew := func(of, by int) Skew {
			for _, p := range c.status(by).Peers {
				if int(p.Member.ID) == of {
					return p.Skew
				}
			}
			return Skew{}
		}
		for _, tt := range []struct {
			of, by int
			want   time.Duration
		}{{2, 1, -behind}, {2, 3, -behind}, {1, 2, behind}, {3, 2, behind}, {1, 3, 0}, {3, 1, 0}} {
			s := skew(tt.of, tt.by)
			if s.At.IsZero() || (s.Ahead-tt.want).Abs() > s.Error || s.Error > 150*time.Microsecond {
				t.Errorf("clock of %d, measured by %d: %+v, want %v", tt.of, tt.by, s, tt.want)
			}
		}
		differ := func() (counts [4]int) {
			for id, m := range c.members {
				counts[id] = m.log.count("clocks differ")
			}
			return counts
		}
		if got := differ(); got != [4]int{0, 1, 2, 1} {
			t.Errorf("log lines by member: %v", got)
		}
		time.Sleep(clockPause - time.Minute)
		if got := differ(); got != [4]int{0, 1, 2, 1} {
			t.Errorf("log lines some minutes later: %v", got)
		}
		time.Sleep(2 * time.Minute)
		if got := differ(); got != [4]int{0, 2, 4, 2} {
			t.Errorf("log lines after the pause: %v", got)
		}
		late.Store(0)
		time.Sleep(3 * time.Minute) // each asks one of two a minute
		for id, want := range map[int]int{1: 1, 2: 2, 3: 1} {
			if got := c.members[id].log.count("right again"); got != want {
				t.Errorf("member %d says %d times that a clock is right again, want %d", id, got, want)
			}
		}
	})
}

// A clock that may be right, as the answer took long, is not complained about.
func TestClockMeasuredBadlyIsNoComplaint(t *testing.T) {
	at := time.Unix(1, 0)
	for _, tt := range []struct {
		skew Skew
		want bool
	}{
		{Skew{}, false},
		{Skew{Ahead: 600 * time.Millisecond}, false}, // never measured
		{Skew{Ahead: 600 * time.Millisecond, At: at}, true},
		{Skew{Ahead: -600 * time.Millisecond, At: at}, true},
		{Skew{Ahead: 600 * time.Millisecond, Error: 99 * time.Millisecond, At: at}, true},
		{Skew{Ahead: 600 * time.Millisecond, Error: 101 * time.Millisecond, At: at}, false},
		{Skew{Ahead: 400 * time.Millisecond, At: at}, false},
		{Skew{Ahead: -1 << 63, Error: time.Millisecond, At: at}, true},
	} {
		if got := tt.skew.beyond(defaultMaxSkew); got != tt.want {
			t.Errorf("%+v: %v", tt.skew, got)
		}
	}
}

// Questions of one who reads no answers take no room, and answers that nobody asked
// for are nothing.
func TestClockQuestionsAreBounded(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		e := c.enemy()
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		view := c.status(1).View.ID
		as := identity(99)
		conn := e.connect(1, as, false)
		for i := range uint64(200_000) {
			e.send(conn, appendFrame(nil, frameClock, appendClock(nil, i, 0)))
		}
		e.send(conn, appendFrame(nil, frameClock, appendClock(nil, 1, 1)))
		synctest.Wait()
		m := c.members[1].group.loop.net.members[as.Member]
		if n := m.conns[0].waiting(); n > maxAnswers+64 {
			t.Errorf("%d octets wait", n)
		}
		if s := m.conns[0].skew(); !s.At.IsZero() && s.Ahead.Abs() > time.Hour {
			t.Errorf("the clock was taken from an answer to nothing: %+v", s)
		}
		c.works(view, 1, 2)
		// A malformed one ends the connection.
		e.send(conn, appendFrame(nil, frameClock, []byte("what time is it")))
		synctest.Wait()
		if n := c.status(1).Refused[refusedGarbage]; n != 1 {
			t.Errorf("%d connections refused as garbage", n)
		}
	})
}

// One that connects again and again takes nobody's turn.
func TestMemberThatComesAndGoesTakesNoTurnForClocks(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		defer c.stopAll()
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		time.Sleep(2 * ring.LAN().ProbeInterval)
		measured := func() (at time.Time) {
			for _, p := range c.status(1).Peers {
				if p.Member.ID == 2 {
					at = p.Skew.At
				}
			}
			return at
		}
		before := measured()
		for range 12 {
			time.Sleep(clockEvery * ring.LAN().ProbeInterval / 2)
			c.stop(3)
			c.start(3)
			c.waitWhole(30*time.Second, 1, 2, 3)
		}
		if now := measured(); !now.After(before) {
			t.Errorf("the clock of member 2 was measured at %v, and not since", before)
		}
	})
}
