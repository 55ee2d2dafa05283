package handlespace

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
)

func live(id param.RegistrarID, incarnation uint64) HomeID { return HomeID{id, incarnation} }

func imported(handle param.PoolHandle, id param.PEID, now time.Time, changes ...change) Import {
	c := register(handle, id, now, append([]change{home(elsewhere)}, changes...)...)
	return Import{c.Handle, c.Element, c.Now}
}

func TestENRP_3_3_1_04_ImportCreatesThePool(t *testing.T) {
	s := fresh()
	e := one[Registered](t, s, imported("echo", 1, at(0), policy(weight(3))))
	if p, ok := s.Pool("echo"); !ok || p.Policy != param.WeightedRandom || !e.PoolCreated || !e.Imported {
		t.Errorf("%+v, %+v", p, e)
	}
	want := Generation{uint64(at(0).UnixMicro()), uint64(at(0).UnixMicro()), elsewhere, 0}
	if r := e.Record; r.Generation != want || r.Home() != live(elsewhere, 0) || !r.Confirmed {
		t.Errorf("%+v", r)
	}
}

func TestENRP_3_3_1_05_ImportIsNotChecked(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), policy(weight(1))))
	c := imported("echo", 2, at(1), user(transport(param.TypeUDPTransport, "192.0.2.2", 9)))
	t.Run("AMB_38_other policy", func(t *testing.T) {
		one[Registered](t, s, c)
		if p, _ := s.Pool("echo"); p.Policy != param.WeightedRandom || p.Elements != 2 {
			t.Errorf("%+v", p)
		}
		if got := resolve(s, Query{Items: 9}); len(got) != 2 {
			t.Errorf("%d resolve", len(got))
		}
	})
	t.Run("but limited", func(t *testing.T) {
		s := space(Config{MaxElements: 1})
		s.Apply(register("echo", 1, at(0)))
		one[Rejected](t, s, imported("echo", 2, at(1)))
		one[Registered](t, s, imported("echo", 1, at(1)))
	})
}

// Loads 0 and 25 with a degradation of 10: the first is ahead for three replies after
// each word of its home.
func TestPOL_5_2_2_02_ImportResetsTheCounter(t *testing.T) {
	s := fresh()
	degrading := func(load uint32) change {
		return policy(param.Policy{Type: param.LeastUsedDegradation, Load: load, Degradation: 10})
	}
	one[Registered](t, s, imported("echo", 1, at(0), degrading(0)))
	one[Registered](t, s, imported("echo", 2, at(0), degrading(25)))
	replies := func(want ...param.PEID) {
		t.Helper()
		for i, id := range want {
			if got := resolve(s, Query{Items: 1}); got[0].ID != id {
				t.Errorf("reply %d is %v, want %v", i+1, got[0].ID, id)
			}
		}
	}
	replies(1, 1, 1, 2)
	one[Registered](t, s, imported("echo", 1, at(1), degrading(0)))
	replies(1, 1, 1)
	one[Registered](t, s, imported("echo", 1, at(2), degrading(1)))
	replies(1, 1, 1, 1)
}

func TestENRP_3_3_1_06_ImportReplacesTheHomeToo(t *testing.T) {
	s := fresh()
	first := registered(s.Apply(register("echo", 1, at(0))))
	e := one[Registered](t, s, imported("echo", 1, at(0)))
	if e.Previous != first || e.Record.Home().ID != elsewhere || e.Record.Generation.Compare(first.Generation) <= 0 {
		t.Errorf("%+v", e.Record)
	}
	t.Run("unchanged, it is only refreshed", func(t *testing.T) {
		again := one[Registered](t, s, imported("echo", 1, at(7)))
		if r := again.Record; r.Generation != e.Record.Generation || !r.Refreshed.Equal(at(7)) || !r.Expires().Equal(at(307)) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("changed, it is another generation", func(t *testing.T) {
		before := e.Record
		for name, change := range map[string]change{
			"life":           life(9),
			"user transport": user(transport(param.TypeTCPTransport, "192.0.2.1", 8)),
			"ASAP transport": func(c *Register) { c.Element.ASAP.Port++ },
		} {
			r := registered(s.Apply(imported("echo", 1, at(8), change)))
			if r.Generation.Compare(before.Generation) <= 0 || reflect.DeepEqual(r.Element(), before.Element()) {
				t.Errorf("%s: %+v", name, r)
			}
			before = r
		}
	})
}

func TestENRP_3_3_2_04_ForgetRemoves(t *testing.T) {
	s := fresh()
	r := registered(s.Apply(imported("echo", 1, at(0))))
	none(t, s, Forget{Handle: "echo", ID: 1, Home: there, Raiser: there, Now: at(1)})
	none(t, s, Forget{Handle: "echo", ID: 1, Generation: Generation{Stamp: 1}, Raiser: elsewhere, Now: at(1)})
	e := one[Removed](t, s, Forget{Handle: "echo", ID: 1, Home: elsewhere, Raiser: elsewhere, Now: at(1)})
	if e.Cause != Withdrawn || !e.PoolRemoved || e.Generation.Compare(r.Generation) <= 0 || e.Generation.Raiser != elsewhere {
		t.Errorf("%+v", e)
	}
	t.Run("ENRP_3_3_2_05_the last one with its pool", func(t *testing.T) {
		if _, ok := s.Pool("echo"); ok {
			t.Error("the pool is still there")
		}
	})
	t.Run("ENRP_3_3_2_06_unknown", func(t *testing.T) {
		none(t, s, Forget{Handle: "echo", ID: 1, Raiser: elsewhere, Now: at(2)})
	})
}

func TestTakeoverSpreadsElementsEvenly(t *testing.T) {
	s := fresh()
	for id := range param.PEID(10) {
		c := register("echo", id+1, at(0))
		c.Incarnation = 1
		s.Apply(c)
		c.Handle, c.Incarnation = "other", 2
		s.Apply(c)
	}
	to := []HomeID{live(there, 7), live(here, 2), live(elsewhere, 0)}
	before := s.Get("echo", 1)
	events := s.Apply(Takeover{From: live(here, 1), To: to, Now: at(1)})
	count := map[HomeID]int{}
	for _, e := range events {
		r := e.(Rehomed)
		if r.Record.Confirmed || r.Record.Generation != r.Previous.Generation || r.Handle != "echo" {
			t.Errorf("%+v", r.Record)
		}
		count[r.Record.Home()]++
	}
	if len(events) != 10 || count[to[0]] != 4 || count[to[1]] != 3 || count[to[2]] != 3 {
		t.Errorf("%v", count)
	}
	if now := s.Get("echo", 1); now.Element().Home != there || string(now.Encoded()) == string(before.Encoded()) || s.Home(here).Elements != 13 {
		t.Errorf("%+v, home %+v", now, s.Home(here))
	}
	t.Run("in parts", func(t *testing.T) {
		for left := 13; left > 0; left -= 4 {
			if e := s.Apply(Takeover{From: live(here, 2), To: to[:1], Limit: 4, Now: at(2)}); len(e) != min(left, 4) {
				t.Fatalf("%d moved", len(e))
			}
		}
		if got := s.HomeIDs(); len(got) != 2 {
			t.Errorf("homes %v", got)
		}
	})
	t.Run("to nobody", func(t *testing.T) {
		none(t, s, Takeover{From: to[0], Now: at(3)})
		none(t, s, Takeover{From: to[0], To: to, Now: at(3)})
	})
}

// A record that readers have stays as it is, of whatever size it is.
func TestTakeoverLeavesPublishedRecordsAlone(t *testing.T) {
	for _, addresses := range []int{1, 20} {
		s := fresh()
		many := transport(param.TypeSCTPTransport, "192.0.2.1", 7)
		many.Addrs = slices.Repeat(many.Addrs, addresses)
		before := registered(s.Apply(register("echo", 1, at(0), user(many))))
		octets := slices.Clone(before.Encoded())
		e := one[Rehomed](t, s, Takeover{From: before.Home(), To: []HomeID{{there, 1}}, Now: at(1)})
		if e.Record.Home() != (HomeID{there, 1}) {
			t.Errorf("%d addresses: the home is %v", addresses, e.Record.Home())
		}
		if !slices.Equal(before.Encoded(), octets) || before.Home().ID != here {
			t.Errorf("%d addresses: the record before has changed", addresses)
		}
	}
}

func TestConfirmRaisesTheGenerationOnce(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0)))
	s.Apply(Takeover{From: live(here, 1), To: []HomeID{live(there, 7)}, Now: at(1)})
	r := s.Get("echo", 1)
	c := Confirm{"echo", 1, r.Generation, live(there, 7), at(2)}
	other := c
	other.Home.Incarnation++
	none(t, s, other)
	other = c
	other.Generation.Stamp++
	none(t, s, other)
	e := one[Confirmed](t, s, c)
	if g := e.Record.Generation; !e.Record.Confirmed || g != (Generation{r.Generation.Content, uint64(at(2).UnixMicro()), there, 7}) || e.Previous != r {
		t.Errorf("%+v", e.Record)
	}
	c.Generation = e.Record.Generation
	none(t, s, c)
}

// The clock of the new home may be minutes ahead of the former one's.
func TestTakenOverElementsDoNotExpireByAnotherClock(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), life(60)))
	silent := register("echo", 2, at(0), life(60))
	silent.Element.ASAP = param.Transport{} // nobody can ask it
	s.Apply(silent)
	s.Apply(Takeover{From: live(here, 1), To: []HomeID{live(there, 7)}, Now: at(1)})
	if due := s.Due(nil, there, at(600), 10); len(due) != 1 || due[0].(Remove).ID != 2 {
		t.Errorf("due %+v", due)
	}
	e := one[Confirmed](t, s, Confirm{"echo", 1, s.Get("echo", 1).Generation, live(there, 7), at(600)})
	if r := e.Record; !r.Refreshed.Equal(at(600)) || !r.Expires().Equal(at(660)) {
		t.Errorf("confirmed it is refreshed at %v and expires at %v", r.Refreshed, r.Expires())
	}
	if due := s.Due(nil, there, at(661), 10); len(due) != 2 {
		t.Errorf("due %+v", due)
	}
}

// Removals by others than the element itself don't raise the generation: an entry
// that the other side has still seen alive wins.
func TestTombstonesRememberRemovals(t *testing.T) {
	s := space(Config{Tombstone: time.Minute})
	r := registered(s.Apply(register("echo", 1, at(0), life(10))))
	if e := one[Removed](t, s, remove(r, Expired, at(10))); e.Generation != r.Generation {
		t.Errorf("%+v", e.Generation)
	}
	if i, ok := s.Find(r.Key()); !ok || i.Tombstone == nil || !i.Tombstone.Until.Equal(at(80)) || s.Counts().Tombstones != 1 {
		t.Errorf("%+v", i.Tombstone)
	}
	t.Run("until the next registration, which is above", func(t *testing.T) {
		again := registered(s.Apply(register("echo", 1, at(-100))))
		if again.Generation.Stamp != r.Generation.Stamp+1 || s.Counts().Tombstones != 0 {
			t.Errorf("%+v", again.Generation)
		}
	})
	t.Run("or until they are swept", func(t *testing.T) {
		e := one[Removed](t, s, Deregister{Handle: "echo", ID: 1, Now: at(20)})
		until, ok := s.NextSweep()
		if !ok || !until.Equal(at(20).Add(300*time.Second+time.Minute)) {
			t.Errorf("%v, %v", until, ok)
		}
		none(t, s, Sweep{until.Add(-1)})
		if s.Counts().Tombstones != 1 {
			t.Error("swept too early")
		}
		none(t, s, Sweep{until})
		if s.Counts().Tombstones != 0 || s.Marks().Stamp != e.Generation.Stamp {
			t.Errorf("%+v", s.Marks())
		}
		if r := registered(s.Apply(register("other", 1, at(0)))); r.Generation.Stamp != e.Generation.Stamp+1 {
			t.Errorf("%+v", r.Generation)
		}
	})
	t.Run("or until there are too many", func(t *testing.T) {
		s := space(Config{MaxTombstones: 3, RemovalFloor: 100})
		for id := range param.PEID(5) {
			r := registered(s.Apply(register("echo", id+1, at(float64(id)))))
			s.Apply(remove(r, Administrative, at(float64(id))))
		}
		if c := s.Counts(); c.Tombstones != 3 || c.Forgotten != 2 {
			t.Errorf("%+v", c)
		}
		if _, ok := s.Find(Key{"echo", 2}); ok {
			t.Error("not the oldest was forgotten")
		}
	})
	t.Run("longest for registrations of a day and more: that", func(t *testing.T) {
		for _, long := range []param.Life{param.InfiniteLife, 24*3600 + 1, 24 * 3600} {
			s := space(Config{Tombstone: time.Minute})
			s.Apply(register("echo", 1, at(0), life(long)))
			s.Apply(Deregister{Handle: "echo", ID: 1, Now: at(0)})
			if until, _ := s.NextSweep(); !until.Equal(at(0).Add(24*time.Hour + time.Minute)) {
				t.Errorf("life %v: %v", long, until)
			}
		}
	})
}

// A deregistration that finds nothing counts all the same against what was registered
// before it on another side.
func TestDeregistrationOfWhatIsAbsentIsRemembered(t *testing.T) {
	deregister := Deregister{Handle: "echo", ID: 1, Raiser: there, Incarnation: 7, Now: at(20)}
	apart := fresh()
	apart.Apply(register("echo", 1, at(10)))
	meets := func(t *testing.T, s *Space, gone bool) {
		t.Helper()
		s.Apply(Merge{Items: known(apart), Marks: apart.Marks(), End: true})
		if _, ok := s.Find(Key{"echo", 1}); !ok || (s.Get("echo", 1) == nil) != gone {
			t.Errorf("gone %v, want %v", !gone, gone)
		}
	}
	for name, before := range map[string][]Command{
		"of what was never known":    nil,
		"of what has left before":    {register("echo", 1, at(0)), Deregister{Handle: "echo", ID: 1, Now: at(1)}},
		"of what was removed before": {register("echo", 1, at(0)), Remove{Handle: "echo", ID: 1, Cause: Administrative, Now: at(1)}},
		"twice":                      {deregister},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, c := range before {
				s.Apply(c)
			}
			e := one[Absent](t, s, deregister)
			i, _ := s.Find(Key{"echo", 1})
			if i.Tombstone == nil || i.Generation() != e.Generation || e.Generation.Raiser != there || e.Generation.Incarnation != 7 ||
				!i.Tombstone.Until.Equal(at(20).Add(24*time.Hour+10*time.Minute)) {
				t.Errorf("%+v leaves %+v", e, i.Tombstone)
			}
			meets(t, s, true)
		})
	}
	t.Run("against nothing later", func(t *testing.T) {
		s := fresh()
		s.Apply(deregister)
		apart.Apply(register("echo", 1, at(30)))
		meets(t, s, false)
	})
	t.Run("if it means something", func(t *testing.T) {
		s := fresh()
		for _, c := range []Deregister{{ID: 1, Now: at(0)}, {Handle: "echo", Now: at(0)}} {
			if e := one[Absent](t, s, c); !e.Generation.IsZero() || s.Counts().Tombstones != 0 {
				t.Errorf("%+v", e)
			}
		}
	})
	t.Run("up to half of the table", func(t *testing.T) {
		s := space(Config{MaxTombstones: 6})
		s.Apply(register("echo", 1, at(0)))
		one[Removed](t, s, Deregister{Handle: "echo", ID: 1, Now: at(1)})
		for id := range param.PEID(9) {
			s.Apply(Deregister{Handle: "other", ID: 1 + id, Now: at(2)})
		}
		if c := s.Counts(); c.Tombstones != 3 || c.Forgotten != 0 {
			t.Errorf("%+v", c)
		}
		one[Absent](t, s, deregister)
		if i, _ := s.Find(Key{"echo", 1}); i.Generation().Raiser != there {
			t.Error("what is remembered is not raised")
		}
	})
}

// Two sides, clients that need less than a millisecond to go from one to the other.
func TestLaterWordWinsHoweverSoonItCame(t *testing.T) {
	early, late := fresh(), fresh()
	early.Apply(register("echo", 1, at(0.0001), home(there), life(60)))
	late.Apply(register("echo", 1, at(0.0002), home(here), life(70)))
	items := known(early)
	early.Apply(Merge{Items: known(late), End: true})
	late.Apply(Merge{Items: items, End: true})
	for _, s := range []*Space{early, late} {
		if r := s.Get("echo", 1); r.Life() != 70 {
			t.Errorf("%+v has won", r.Generation)
		}
	}
}

func TestHoldBackAfterTheLossOfRegistrars(t *testing.T) {
	s := space(Config{HoldBack: 10 * time.Second, HoldBackShare: 0.5, RemovalFloor: 100})
	var r [5]*Record
	for id := range r {
		r[id] = registered(s.Apply(register("echo", param.PEID(id+1), at(0), life(5))))
	}
	none(t, s, HoldBack{at(0)})
	if !s.HeldBack().Equal(at(10)) {
		t.Errorf("%v", s.HeldBack())
	}
	for _, held := range []struct {
		r     *Record
		cause RemovalCause
	}{{r[0], Unreachable}, {r[1], Expired}} {
		e := one[Suspected](t, s, remove(held.r, held.cause, at(6)))
		if !e.Record.Held().Equal(at(10)) || e.Cause != held.cause {
			t.Errorf("%+v", e.Record)
		}
		none(t, s, remove(held.r, held.cause, at(7)))
	}
	t.Run("up to a share of the pool", func(t *testing.T) { one[Removed](t, s, remove(r[2], Unreachable, at(7))) })
	t.Run("but not what elements or administrators say", func(t *testing.T) {
		one[Removed](t, s, Deregister{Handle: "echo", ID: 4, Now: at(7)})
		one[Removed](t, s, remove(r[4], Administrative, at(7)))
	})
	t.Run("until the time is over", func(t *testing.T) {
		if next, ok := s.NextDeadline(here); !ok || !next.Equal(at(10)) {
			t.Errorf("%v", next)
		}
		due := s.Due(nil, here, at(10), 9)
		if len(due) != 2 || due[0].(Remove).Cause != Unreachable || due[1].(Remove).Cause != Expired {
			t.Fatalf("%+v", due)
		}
		none(t, s, HoldBack{at(5)}) // more are lost
		if e := one[Suspected](t, s, due[0]); !e.Record.Held().Equal(at(15)) {
			t.Errorf("%+v", e.Record)
		}
		if e := one[Removed](t, s, remove(r[0], Unreachable, at(15))); e.Cause != Unreachable {
			t.Errorf("%+v", e)
		}
	})
	t.Run("or they answer", func(t *testing.T) {
		if e := one[Recovered](t, s, Alive{"echo", 2, r[1].Generation, at(8)}); !e.Record.Held().IsZero() || e.Record.Suspect {
			t.Errorf("%+v", e.Record)
		}
	})
}
