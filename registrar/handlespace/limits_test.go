package handlespace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
)

// crowd returns a space with a pool of n elements, 1 to n.
func crowd(cfg Config, n int) *Space {
	s := space(cfg)
	for i := range n {
		s.Apply(register("echo", param.PEID(i+1), at(0)))
	}
	return s
}

// removeAll tries to remove the elements from first to last and returns how many
// went and how many are suspect for it.
func removeAll(t *testing.T, s *Space, first, last param.PEID, cause RemovalCause, now time.Time) (removed, suspected int) {
	t.Helper()
	for id := first; id <= last; id++ {
		r := s.Get("echo", id)
		for _, e := range s.Apply(remove(r, cause, now)) {
			switch e := e.(type) {
			case Removed:
				removed++
			case Suspected:
				suspected++
				if e.Cause != cause || !e.Record.Suspect || e.Record.Cause != cause || e.Record.Generation != r.Generation {
					t.Errorf("%+v", e)
				}
			default:
				t.Errorf("%#v", e)
			}
		}
	}
	return removed, suspected
}

func TestRemovalLimit(t *testing.T) {
	for _, c := range []struct {
		name      string
		cfg       Config
		size      int
		remove    int
		cause     RemovalCause
		removed   int
		suspected int
	}{
		{"a pool as small as the floor may go", Config{}, 10, 10, Unreachable, 10, 0},
		{"at most the floor of a small pool", Config{}, 15, 15, Unreachable, 10, 5},
		{"at most half of a large pool", Config{}, 100, 100, Expired, 50, 50},
		{"reports count as well", Config{}, 100, 60, Reported, 50, 10},
		{"share as configured", Config{RemovalShare: 0.1, RemovalFloor: 1}, 50, 50, Unreachable, 5, 45},
		{"share 1 sets no limit", Config{RemovalShare: 1}, 100, 100, Unreachable, 100, 0},
		{"administrators are not limited", Config{}, 100, 100, Administrative, 100, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := crowd(c.cfg, c.size)
			removed, suspected := removeAll(t, s, 1, param.PEID(c.remove), c.cause, at(1))
			if removed != c.removed || suspected != c.suspected {
				t.Errorf("%d removed, %d suspected, want %d and %d", removed, suspected, c.removed, c.suspected)
			}
			if n := s.Counts(); n.Elements != c.size-c.removed || n.Suspects != c.suspected {
				t.Errorf("%+v", n)
			}
			if p, ok := s.Pool("echo"); ok && (p.Elements != c.size-c.removed || p.Suspects != c.suspected) {
				t.Errorf("%+v", p)
			}
		})
	}
	t.Run("deregistrations are not limited and count for nothing", func(t *testing.T) {
		s := crowd(Config{}, 100)
		for id := range param.PEID(80) {
			one[Removed](t, s, Deregister{Handle: "echo", ID: id + 1, Now: at(1)})
		}
		if removed, suspected := removeAll(t, s, 81, 100, Unreachable, at(1)); removed != 10 || suspected != 10 {
			t.Errorf("%d removed, %d suspected", removed, suspected)
		}
	})
	t.Run("within the window", func(t *testing.T) {
		s := crowd(Config{}, 100)
		removed, _ := removeAll(t, s, 1, 50, Unreachable, at(0))
		_, suspected := removeAll(t, s, 51, 52, Unreachable, at(59.9))
		later, _ := removeAll(t, s, 53, 77, Unreachable, at(60))
		if removed != 50 || suspected != 2 || later != 25 {
			t.Errorf("%d removed, %d suspected, %d removed later", removed, suspected, later)
		}
	})
	t.Run("a merge begins a new count", func(t *testing.T) {
		s := crowd(Config{}, 100)
		removed, suspected := removeAll(t, s, 1, 51, Unreachable, at(1))
		s.Apply(Merge{End: true})
		again, _ := removeAll(t, s, 52, 76, Unreachable, at(1))
		if removed != 50 || suspected != 1 || again != 25 {
			t.Errorf("%d removed, %d suspected, %d removed after the merge", removed, suspected, again)
		}
	})
	t.Run("pools don't share it", func(t *testing.T) {
		s := crowd(Config{}, 20)
		removeAll(t, s, 1, 20, Unreachable, at(1))
		for id := range param.PEID(3) {
			r := registered(s.Apply(register("chat", id+1, at(0))))
			one[Removed](t, s, remove(r, Unreachable, at(1)))
		}
	})
}

// outage returns a space with elements 1 to 4, where 3 and 4 are suspect.
func outage(t *testing.T) *Space {
	t.Helper()
	s := crowd(Config{RemovalFloor: 1, RemovalShare: 0.1}, 5)
	one[Removed](t, s, remove(s.Get("echo", 5), Unreachable, at(1)))
	one[Suspected](t, s, remove(s.Get("echo", 3), Unreachable, at(1)))
	one[Suspected](t, s, remove(s.Get("echo", 4), Expired, at(1)))
	return s
}

func TestSuspects(t *testing.T) {
	t.Run("REQ_2_9_01_are_left_out_of_resolutions", func(t *testing.T) {
		s := outage(t)
		if got := ids(resolve(s, Query{})); got != "1 2" {
			t.Errorf("resolved %s", got)
		}
	})
	t.Run("unless the pool has no others", func(t *testing.T) {
		s := outage(t)
		one[Removed](t, s, Deregister{Handle: "echo", ID: 1})
		one[Removed](t, s, Deregister{Handle: "echo", ID: 2})
		if got := ids(resolve(s, Query{})); got != "3 4" {
			t.Errorf("resolved %s", got)
		}
	})
	t.Run("stay, whatever is found out about them", func(t *testing.T) {
		s := outage(t)
		r := s.Get("echo", 3)
		if due := s.Due(nil, here, at(1e6), 9); len(due) != 2 {
			t.Errorf("suspects are due: %v", due)
		}
		none(t, s, remove(r, Expired, at(1e6)))
		none(t, s, remove(r, Unreachable, at(1e6)))
		none(t, s, report(r, "192.0.2.66"))
		if s.Get("echo", 3) != r || s.Home(here).Elements != 4 {
			t.Error("changed")
		}
	})
	t.Run("recover by an answer", func(t *testing.T) {
		s := outage(t)
		r := s.Get("echo", 3)
		none(t, s, Alive{Handle: "echo", ID: 3})
		e := one[Recovered](t, s, Alive{Handle: "echo", ID: 3, Generation: r.Generation, Now: at(2)})
		if e.Record != s.Get("echo", 3) || e.Record.Suspect || e.Record.Cause != 0 || e.Record.Generation != r.Generation {
			t.Errorf("%+v", e.Record)
		}
		if got := ids(resolve(s, Query{})); got != "1 2 3" {
			t.Errorf("resolved %s", got)
		}
		if due := s.Due(nil, here, at(300), 9); len(due) != 3 {
			t.Errorf("due: %v", due)
		}
		none(t, s, Alive{Handle: "echo", ID: 3, Generation: r.Generation, Now: at(2)})
	})
	t.Run("recover by registering again", func(t *testing.T) {
		s := outage(t)
		e := one[Registered](t, s, register("echo", 4, at(2)))
		if !e.Previous.Suspect || e.Record.Suspect || s.Counts().Suspects != 1 {
			t.Errorf("%+v", e.Record)
		}
	})
	t.Run("go by their own word and by an administrator's", func(t *testing.T) {
		s := outage(t)
		one[Removed](t, s, Deregister{Handle: "echo", ID: 3})
		if e := one[Removed](t, s, Remove{Handle: "echo", ID: 4, Cause: Administrative}); e.Cause != Administrative {
			t.Errorf("%+v", e)
		}
		if c := s.Counts(); c.Pools != 1 || c.Elements != 2 || c.Suspects != 0 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("by reports", func(t *testing.T) {
		s := crowd(Config{RemovalFloor: 1, RemovalShare: 0.1}, 3)
		one[Removed](t, s, remove(s.Get("echo", 3), Unreachable, at(1)))
		r := s.Get("echo", 1)
		for _, reporter := range []string{"a", "b", "c"} {
			one[Counted](t, s, report(r, reporter))
		}
		if e := one[Suspected](t, s, report(r, "d")); e.Cause != Reported || e.Record.Reports != 4 {
			t.Errorf("%+v", e)
		}
		one[Recovered](t, s, Alive{Handle: "echo", ID: 1, Generation: r.Generation})
		none(t, s, report(r, "a"))
		one[Suspected](t, s, report(r, "e"))
	})
}

func TestGenerations(t *testing.T) {
	s := fresh()
	first := registered(s.Apply(register("echo", 1, at(0)))).Generation
	if want := (Generation{uint64(start.UnixMicro()), uint64(start.UnixMicro()), here, 1}); first != want {
		t.Errorf("%+v, want %+v", first, want)
	}
	t.Run("grow when the clock does not", func(t *testing.T) {
		c := register("echo", 1, at(-5))
		c.Raiser, c.Incarnation = there, 7
		if got, want := registered(s.Apply(c)).Generation, (Generation{first.Stamp + 1, first.Stamp + 1, there, 7}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
	t.Run("don't come back after a removal", func(t *testing.T) {
		last := s.Get("echo", 1).Generation
		for _, c := range []Command{
			Deregister{Handle: "echo", ID: 1, Now: at(-9)},
			Remove{Handle: "echo", ID: 1, Cause: Administrative, Now: at(-9)},
		} {
			one[Removed](t, s, c)
			next := registered(s.Apply(register("echo", 1, at(-9)))).Generation
			if next.Stamp <= last.Stamp {
				t.Errorf("%T: %+v after %+v", c, next, last)
			}
			last = next
		}
	})
	t.Run("protect from commands that mean another life", func(t *testing.T) {
		old := s.Get("echo", 1)
		now := registered(s.Apply(register("echo", 1, at(1))))
		for _, cause := range []RemovalCause{Expired, Unreachable, Reported, Administrative} {
			none(t, s, remove(old, cause, at(2)))
		}
		none(t, s, Remove{Handle: "echo", ID: 1, Cause: Unreachable})
		none(t, s, report(old, "a"))
		if s.Get("echo", 1) != now {
			t.Error("changed")
		}
		one[Removed](t, s, remove(now, Unreachable, at(2)))
		none(t, s, remove(now, Unreachable, at(2)))
	})
}

func TestASAP_3_3_16_AllElementsAreListed(t *testing.T) {
	s := crowd(Config{}, 200)
	if n := len(resolve(s, Query{})); n != 200 {
		t.Errorf("%d elements", n)
	}
	t.Run("AMB_35_within_the_limit_of_the_policy", func(t *testing.T) {
		for typ, want := range map[param.PolicyType]int{param.RoundRobin: 4, param.WeightedRandom: 3, param.LeastUsed: 5} {
			s := space(Config{ResultLimits: map[param.PolicyType]int{param.RoundRobin: 4}})
			for i := range param.PEID(5) {
				s.Apply(register("echo", i+1, at(0), policy(param.Policy{Type: typ, Weight: 1})))
			}
			if n := len(resolve(s, Query{})); n != want {
				t.Errorf("%v: %d elements, want %d", typ, n, want)
			}
			if n := len(resolve(s, Query{Items: 5})); n != 5 {
				t.Errorf("%v: %d elements, asked for 5", typ, n)
			}
		}
	})
	t.Run("AMB_75_as_many_as_fit", func(t *testing.T) {
		size := len(s.Get("echo", 1).Encoded())
		for room, want := range map[int]int{size: 1, 2*size - 1: 1, 10 * size: 10, 1000 * size: 200} {
			if n := len(resolve(s, Query{Room: room})); n != want {
				t.Errorf("%d elements in room %d, want %d", n, room, want)
			}
		}
		if r, _, ok := s.Resolve(nil, "echo", Query{Room: size - 1}); ok || len(r) > 0 {
			t.Errorf("%d elements where none fits", len(r))
		}
	})
}

func TestPaging(t *testing.T) {
	s := fresh()
	for _, handle := range []param.PoolHandle{"b", "a", "c\x00", "c"} {
		for id := range param.PEID(3) {
			s.Apply(register(handle, 3-id, at(0)))
		}
	}
	var got []string
	after := param.PoolHandle("")
	for {
		page := s.Pools(nil, after, 2)
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			after = p.Handle
			// What goes meanwhile disturbs nobody.
			s.Apply(Remove{Handle: p.Handle, ID: 1, Cause: Administrative})
			var elements []*Record
			for {
				last := param.PEID(0)
				if len(elements) > 0 {
					last = elements[len(elements)-1].ID
				}
				n := len(elements)
				if elements = s.Elements(elements, p.Handle, last, 1); len(elements) == n {
					break
				}
			}
			got = append(got, fmt.Sprintf("%q %s", p.Handle, ids(elements)))
		}
	}
	if want := `"a" 2 3, "b" 2 3, "c" 2 3, "c\x00" 2 3`; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", got, want)
	}
	var owned []Key
	for after := (Key{}); ; after = owned[len(owned)-1] {
		page := s.Owned(nil, here, after, 3)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			owned = append(owned, r.Key())
		}
	}
	if want := "[{a 0x00000002} {a 0x00000003} {b 0x00000002} {b 0x00000003} {c 0x00000002} {c 0x00000003} {c\x00 0x00000002} {c\x00 0x00000003}]"; fmt.Sprint(owned) != want {
		t.Errorf("%q", fmt.Sprint(owned))
	}
	if len(s.Elements(nil, "d", 0, 9)) != 0 || len(s.Owned(nil, there, Key{}, 9)) != 0 || s.Get("d", 1) != nil {
		t.Error("something where nothing is")
	}
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{
		MaxPools: -1, MaxElements: -1, MaxElementsPerPool: -1, MaxPoolsPerOwner: -1, MaxBadPEReports: -1,
		RemovalWindow: -1, RemovalFloor: -1, RemovalShare: 1.5,
		ResultLimits: map[param.PolicyType]int{param.RoundRobin: 0},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"MaxPools ", "MaxElements ", "MaxElementsPerPool", "MaxPoolsPerOwner", "MaxBadPEReports", "RemovalWindow", "RemovalFloor", "RemovalShare", "Round Robin"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%q is not named in %v", field, err)
		}
	}
}

func TestRemovalCauseNames(t *testing.T) {
	seen := map[string]bool{"none": true}
	for c := Deregistered; c <= Reported; c++ {
		if seen[c.String()] {
			t.Errorf("%d is %v, like another", c, c)
		}
		seen[c.String()] = true
	}
}
