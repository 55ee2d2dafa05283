package ringtest

import (
	"fmt"
	"testing"
	"time"

	"rserpool/enrp/ring"
)

// TestRemovalTimes kills a member of a ring with the timers of a LAN at many moments
// of its rotation, and measures how long the others need for a view without it.
func TestRemovalTimes(t *testing.T) {
	for _, how := range []struct {
		name   string
		report bool // by the transport
		use    bool // there is traffic
		atMost time.Duration
	}{
		{"reported", true, false, 300 * time.Millisecond},
		{"traffic", false, true, 300 * time.Millisecond},
		{"silent", false, false, time.Second},
	} {
		t.Run(how.name, func(t *testing.T) {
			var longest time.Duration
			for members := 2; members <= storyNodes; members++ {
				for moment := range 24 {
					took := removal(t, members, time.Duration(moment)*ring.LAN().IdleRotation/24, how.report, how.use)
					longest = max(longest, took)
					if took > how.atMost {
						t.Fatalf("%d members, moment %d: %v", members, moment, took)
					}
				}
			}
			t.Logf("%v at most", longest)
		})
	}
}

// removal returns how long a ring needs to go on without the second of its members.
func removal(t *testing.T, members int, after time.Duration, report, use bool) time.Duration {
	t.Helper()
	s := ringOf(t, members)
	s.run(s.now + after)
	dead := s.nodes[1].life
	s.crash(dead, true)
	killed := s.now
	for _, n := range s.nodes {
		if n.life == nil {
			continue
		}
		if report {
			s.call(n.life, func(m *ring.Machine, now time.Time) { m.Lost(dead.self.Member, now) })
		}
		if use {
			s.actPropose(n.life, Action{Kind: Propose, N: 1, Size: 20})
		}
	}
	without := func() bool {
		for _, n := range s.nodes {
			if n.life != nil && len(n.life.record.view.event.View.Members) != members-1 {
				return false
			}
		}
		return true
	}
	for !without() {
		if s.now > killed+5*time.Second || s.err != nil {
			t.Fatalf("not within 5 s: %v", s.err)
		}
		s.run(s.now + time.Millisecond)
	}
	return s.now - killed
}

// ringOf returns a ring at work.
func ringOf(t *testing.T, members int) *story {
	t.Helper()
	s := newStory()
	var names []string
	for i := range members {
		names = append(names, letter(i))
	}
	if err := s.commandRing(names); err != nil {
		t.Fatal(err)
	}
	return s
}

// stay reports members that are not in the view any more.
func stay(t *testing.T, s *story, members []*node, view *viewRecord) {
	t.Helper()
	for _, n := range members {
		if n.life.record.view != view {
			t.Errorf("%s is in %s", letter(n.index), describeView(n.life.record.view.event.View))
		}
	}
	if s.err != nil {
		t.Error(s.err)
	}
}

// A member that is stopped for less than HopTimeout stays, also when the token is on
// its way to it.
func TestMemberThatIsSlowForAWhileStays(t *testing.T) {
	for members := 2; members <= storyNodes; members++ {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			s := ringOf(t, members)
			view := s.nodes[0].life.record.view
			stop := s.timers.HopTimeout - 10*time.Millisecond
			for range 40 {
				s.pause(s.nodes[1])
				s.actPropose(s.nodes[0].life, Action{Kind: Propose, N: 1, Size: 20})
				s.run(s.now + stop)
				s.resume(s.nodes[1])
				s.run(s.now + 77*time.Millisecond)
			}
			stay(t, s, s.nodes[:members], view)
		})
	}
}

// A coordinator that dies with the first token of its view in its hands holds up those
// that promised for less than 300 ms, and so does one that dies before it promises, if
// the transport reports it.
func TestTornInstallTimes(t *testing.T) {
	for name, trap := range map[string]Action{
		"first token": {Kind: Trap, N: onFirstToken, Size: 1, A: theSender, B: doCrashTo, Silent: true},
		"promise":     {Kind: Trap, N: onPromise, A: theSender, B: doCrashTo},
		"call":        {Kind: Trap, N: onCall, A: theReceiver, B: doCrashTo},
	} {
		t.Run(name, func(t *testing.T) {
			var longest time.Duration
			for members := 3; members <= storyNodes; members++ {
				for moment := range 24 {
					took := torn(t, members, time.Duration(moment)*ring.LAN().IdleRotation/24, trap)
					if longest = max(longest, took); longest > 300*time.Millisecond {
						t.Fatalf("%d members, moment %d: %v", members, moment, longest)
					}
				}
			}
			t.Logf("%v at most", longest)
		})
	}
}

// torn returns how long a ring, in which one member has died, needs to go on after
// another one that a trap kills meanwhile.
func torn(t *testing.T, members int, after time.Duration, trap Action) time.Duration {
	t.Helper()
	s := ringOf(t, members)
	s.run(s.now + after)
	s.heal = time.Hour
	s.traps = append(s.traps, trap)
	s.crash(s.nodes[1].life, true)
	s.actPropose(s.nodes[0].life, Action{Kind: Propose, N: 1, Size: 20})
	for s.cov.Traps == 0 && s.err == nil && s.now < time.Hour {
		s.run(s.now + time.Millisecond)
	}
	killed := s.now
	together := func() bool {
		for _, n := range s.nodes {
			if n.life != nil && len(n.life.record.view.event.View.Members) != members-2 {
				return false
			}
		}
		return true
	}
	for !together() {
		if s.now > killed+5*time.Second || s.err != nil {
			t.Fatalf("%d members, after %v: not within 5 s: %v", members, after, s.err)
		}
		s.run(s.now + time.Millisecond)
	}
	return s.now - killed
}

// A member whose machine gets all late, or whose application needs long for each output,
// stays, however long that goes on, as long as it is not later than it may be.
func TestMemberThatIsOverloadedStays(t *testing.T) {
	timers := ring.LAN()
	late, long := timers.HopTimeout*9/10, timers.Starving()-timers.HopTimeout
	for name, strain := range map[string]func(a, b *node){
		"late":            func(a, b *node) { a.lag = late },
		"neighbours late": func(a, b *node) { a.lag, b.lag = late, late },
		"slow to apply":   func(a, b *node) { a.busy = long },
		"neighbours slow": func(a, b *node) { a.busy, b.busy = long, long },
	} {
		for members := 2; members <= storyNodes; members++ {
			t.Run(fmt.Sprint(name, " of ", members), func(t *testing.T) {
				s := ringOf(t, members)
				view := s.nodes[0].life.record.view
				strain(s.nodes[0], s.nodes[1])
				for i := range 1000 {
					s.actPropose(s.nodes[i%members].life, Action{Kind: Propose, N: 3, Size: 20})
					s.run(s.now + 7*time.Millisecond)
				}
				stay(t, s, s.nodes[:members], view)
			})
		}
	}
}
