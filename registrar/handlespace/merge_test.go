package handlespace

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
)

// known returns all that is stored, as it travels.
func known(s *Space) (items []Item) {
	for c := (Cursor{}); !c.Done; {
		s.Scan(&c, func(item Item) bool {
			if item.Record != nil { // as if it had been decoded
				r := *item.Record
				item.Record = &r
			}
			items = append(items, item)
			return len(items)%7 != 0
		})
	}
	return items
}

// all writes down everything that registrars have in common.
func all(s *Space) string { return fmt.Sprintf("%s%+v", state(s), s.Marks()) }

// Sides that lived for themselves end with the same state, whatever comes first, and
// however often.
func TestMergeIsTheSameEverywhere(t *testing.T) {
	happened := map[string]int{}
	for run := range uint64(150) {
		r := rand.New(rand.NewPCG(4, run))
		cfg := Config{RemovalFloor: 2, MaxElements: 100, Tombstone: time.Second, HoldBack: 3 * time.Second}
		var sides []*Space
		for i := range 3 {
			s, m := space(cfg), newModel(cfg)
			draw := &story{Rand: rand.New(rand.NewPCG(run, 5+uint64(i))), m: m, now: at(r.Float64() * 4), run: int(run)}
			if i > 0 && run%2 == 0 { // they have met before
				for _, c := range []Command{Merge{Items: known(sides[0]), Marks: sides[0].Marks(), End: true}} {
					s.Apply(c)
				}
				if all(s) != all(sides[0]) {
					t.Fatalf("run %d: a fresh one ends with\n%s, not\n%s", run, all(s), all(sides[0]))
				}
			}
			for range 60 {
				c := draw.next()
				m.apply(c)
				s.Apply(c)
			}
			sides = append(sides, s)
		}
		var items [][]Item
		var marks []Marks
		for _, s := range sides {
			items, marks = append(items, known(s)), append(marks, s.Marks())
		}
		for i, s := range sides {
			var told []Item
			for j := range sides {
				if i != j {
					told = append(told, items[j]...)
					s.Apply(Merge{Marks: marks[j]})
				}
			}
			told = append(told, told[:len(told)/2]...)
			r.Shuffle(len(told), func(a, b int) { told[a], told[b] = told[b], told[a] })
			for _, e := range s.Apply(Merge{Items: told, End: true}) {
				happened[fmt.Sprintf("%T", e)]++
			}
			if got, want := s.Digest(), recomputed(s); got != want {
				t.Fatalf("run %d: digest is not that of what is stored", run)
			}
		}
		for i, s := range sides[1:] {
			if all(s) != all(sides[0]) || s.Digest() != sides[0].Digest() {
				t.Fatalf("run %d: side %d ends with\n%s, side 0 with\n%s", run, i+1, all(s), all(sides[0]))
			}
		}
		for range 50 { // and stay the same
			c := (&story{Rand: r, m: newModel(cfg), now: at(5), run: int(run)}).next()
			want := words(sides[0].Apply(c))
			for _, s := range sides[1:] {
				if got := words(s.Apply(c)); got != want {
					t.Fatalf("run %d: %+v gives %q, or %q", run, c, got, want)
				}
			}
		}
	}
	if happened["handlespace.Adopted"] < 500 || happened["handlespace.Removed"] < 100 {
		t.Errorf("%v", happened)
	}
}

// item returns an element as another side may know it.
func item(t *testing.T, change func(*Entry)) Item {
	t.Helper()
	c := register("echo", 1, at(0))
	r := &Entry{Handle: c.Handle, Element: c.Element, Generation: Generation{Stamp: 10, Raiser: here},
		Registered: at(0), Refreshed: at(0), HomeIncarnation: 5, Confirmed: true}
	change(r)
	i, err := NewItem(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestWhoWinsWhenSidesMeet(t *testing.T) {
	grave := func(stamp uint64) Item {
		return Item{Tombstone: &Tombstone{Key: Key{"echo", 1}, Generation: Generation{Stamp: stamp, Raiser: here}, Until: at(9)}}
	}
	base := func(r *Entry) {}
	tests := []struct {
		name        string
		wins, loses Item
	}{
		{"the larger generation", item(t, func(r *Entry) { r.Generation.Stamp = 11; r.Confirmed = false; r.Element.Home = 1 }), item(t, base)},
		{"the later registration against an older copy that a new home confirmed since", item(t, func(r *Entry) { r.Generation.Content = 9 }),
			item(t, func(r *Entry) { r.Generation.Content, r.Generation.Stamp = 8, 20 })},
		{"the larger raiser at equal stamps", item(t, func(r *Entry) { r.Generation.Raiser = there }), item(t, base)},
		{"its later incarnation at equal raisers", item(t, func(r *Entry) { r.Generation.Incarnation = 1 }), item(t, base)},
		{"an entry against a tombstone at equal generations", item(t, base), grave(10)},
		{"a tombstone of a larger generation", grave(11), item(t, base)},
		{"a confirmed home", item(t, base), item(t, func(r *Entry) { r.Confirmed = false; r.Element.Home = there })},
		{"the larger home", item(t, func(r *Entry) { r.Element.Home = there; r.HomeIncarnation = 0 }), item(t, base)},
		{"the later life of a home", item(t, func(r *Entry) { r.HomeIncarnation = 6 }), item(t, base)},
		{"who is not suspect", item(t, base), item(t, func(r *Entry) { r.Suspect = true; r.Refreshed = at(9) })},
		{"who was refreshed later", item(t, func(r *Entry) { r.Refreshed = at(1) }), item(t, base)},
		{"who has more reports", item(t, func(r *Entry) { r.Reports = 1 }), item(t, base)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.wins.Beats(&tt.loses) || tt.loses.Beats(&tt.wins) {
				t.Error("does not win")
			}
			if tt.wins.Beats(&tt.wins) {
				t.Error("beats itself")
			}
			a, b := fresh(), fresh()
			a.Apply(Merge{Items: []Item{tt.wins, tt.loses}, End: true})
			b.Apply(Merge{Items: []Item{tt.loses}})
			b.Apply(Merge{Items: []Item{tt.wins}, End: true})
			if all(a) != all(b) {
				t.Errorf("the order matters:\n%s\n%s", all(a), all(b))
			}
		})
	}
}

// Marks of less weight decide, not chance.
func TestMarksDecideBeforeDigests(t *testing.T) {
	for port := uint16(1); port < 16; port++ {
		base := item(t, func(r *Entry) { r.Element.User.Port = port })
		for name, wins := range map[string]Item{
			"refreshed later": item(t, func(r *Entry) { r.Element.User.Port, r.Refreshed = port, at(1) }),
			"more reports":    item(t, func(r *Entry) { r.Element.User.Port, r.Reports = port, 1 }),
		} {
			if !wins.Beats(&base) || base.Beats(&wins) {
				t.Errorf("%s, port %d: does not win", name, port)
			}
		}
	}
}

func TestMergeKeepsWhatWasAcknowledgedAgainstLimits(t *testing.T) {
	a, b := space(Config{MaxElements: 2}), space(Config{MaxElements: 2})
	for id := range param.PEID(2) {
		a.Apply(register("a", id+1, at(0)))
		b.Apply(register("b", id+1, at(0)))
	}
	a.Apply(Merge{Items: known(b), End: true})
	if c := a.Counts(); c.Elements != 4 || c.Pools != 2 {
		t.Errorf("%+v", c)
	}
	rejects(t, a, register("a", 9, at(1)), param.NewCause(param.CauseLackOfResources))
}

// Two sides created the same pool with different policies.
func TestMergedPoolHasOnePolicy(t *testing.T) {
	a, b := fresh(), fresh()
	a.Apply(register("echo", 1, at(0), policy(weight(7)), owner("x")))
	b.Apply(register("echo", 2, at(1), policy(with(param.RoundRobin)), owner("y")))
	ia, ib := known(a), known(b)
	a.Apply(Merge{Items: ib, End: true})
	events := b.Apply(Merge{Items: ia, End: true})
	if e, ok := events[0].(Adopted); !ok || e.Previous != nil || e.PoolCreated || len(events) != 1 {
		t.Errorf("%#v", events)
	}
	for _, s := range []*Space{a, b} {
		p, _ := s.Pool("echo")
		if p.Policy != param.WeightedRandom || p.Owner != "x" || p.Elements != 2 || len(s.owners) != 1 {
			t.Errorf("%+v, owners %v", p, s.owners)
		}
		if got := resolve(s, Query{Items: 9}); len(got) != 2 {
			t.Errorf("%v resolve", got)
		}
		rejects(t, s, register("echo", 2, at(2)), param.PolicyCause(param.CauseInconsistentPolicy, weight(1)))
	}
}

// A pool whose only element goes away on one side stays what it was if another
// comes by the same merge.
func TestPoolSurvivesItsElementsInAMerge(t *testing.T) {
	a := fresh()
	a.Apply(register("echo", 1, at(0), owner("x")))
	b := fresh()
	b.Apply(Merge{Items: known(a), End: true})
	b.Apply(register("echo", 2, at(1)))
	b.Apply(Deregister{Handle: "echo", ID: 1, Now: at(2)})
	var told []Item
	for _, i := range known(b) {
		if i.Pool == nil { // in this range they agree
			told = append(told, i)
		}
	}
	slices.Reverse(told)
	a.Apply(Merge{Items: told, End: true})
	if all(a) != all(b) {
		t.Errorf("%s\n%s", all(a), all(b))
	}
}

func TestPoolsCanBeSettledBeforeTheEnd(t *testing.T) {
	a := fresh()
	for i := range 20 {
		a.Apply(register(param.PoolHandle(fmt.Sprint(i)), 2, at(0), owner("x")))
		a.Apply(register(param.PoolHandle(fmt.Sprint(i)), 1, at(1), owner("y")))
	}
	b, c := fresh(), fresh()
	for i := range 20 {
		later := register(param.PoolHandle(fmt.Sprint(i)), 3, at(2))
		for _, s := range []*Space{a, b, c} {
			s.Apply(later)
		}
	}
	d := fresh()
	d.Apply(Merge{Items: known(a)})
	if all(d) != all(a) || d.Unsettled() > 0 {
		t.Errorf("%d pools of one who knew none are not settled at once", d.Unsettled())
	}
	b.Apply(Merge{Items: known(a), End: true})
	c.Apply(Merge{Items: known(a)})
	for left := 20; left > 0; left = max(0, left-7) {
		if got := c.Unsettled(); got != left {
			t.Fatalf("%d are left, want %d", got, left)
		}
		c.Apply(Merge{Settle: 7})
	}
	for _, s := range []*Space{b, c} {
		if all(s) != all(a) || s.Unsettled() > 0 {
			t.Errorf("ends with\n%s, not\n%s", all(s), all(a))
		}
	}
	c.Apply(Merge{End: true})
	if all(c) != all(a) {
		t.Error("the end changes something")
	}
}
