package handlespace

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"rserpool/asap/param"
)

// inTheWay returns how many removed elements one has to pass over in a pool.
func inTheWay(s *Space, handle param.PoolHandle) int {
	p := s.lookup(handle)
	return p.members.len() - p.elements
}

// A pool whose elements come and go, each with an identifier of its own, stays as fast as
// it is small.
func TestRemovedElementsAreNotInTheWay(t *testing.T) {
	s := fresh()
	const living = 10
	var removed []*Record
	for id := param.PEID(1); id <= 5000; id++ {
		s.Apply(register("echo", id, at(float64(id))))
		if id > living {
			removed = append(removed, s.Get("echo", id-living))
			s.Apply(Deregister{Handle: "echo", ID: id - living, Now: at(float64(id))})
		}
		if n := inTheWay(s, "echo"); n > 2*few {
			t.Fatalf("%d removed elements are in the way of %d", n, living)
		}
	}
	if c := s.Counts(); c.Elements != living || c.Tombstones != len(removed) || len(elements(s)) != living {
		t.Fatalf("%+v, %d listed", c, len(elements(s)))
	}
	for _, r := range removed {
		if x, found := s.Find(r.Key()); !found || x.Tombstone == nil {
			t.Fatalf("%v is not remembered: %+v", r.ID, x)
		}
	}

	// Those that come back are above their former lives, and remembered no more.
	for _, r := range removed[:1000] {
		if x := registered(s.Apply(register("echo", r.ID, at(0)))); x.Generation.Stamp <= r.Generation.Stamp {
			t.Fatalf("%v comes back as %+v after %+v", r.ID, x.Generation, r.Generation)
		}
	}
	if c, m := s.Counts(), &s.lookup("echo").members; c.Elements != living+1000 || c.Tombstones != len(removed)-1000 ||
		len(elements(s)) != c.Elements || m.len()+m.apart.len() != c.Elements+c.Tombstones {
		t.Fatalf("%+v, %d listed, %d and %d members", c, len(elements(s)), m.len(), m.apart.len())
	}

	// The pool goes, and comes again.
	for _, r := range elements(s) {
		s.Apply(remove(r, Administrative, at(9000)))
	}
	s.Apply(register("echo", 7777, at(9000)))
	for id := range param.PEID(5000) {
		if x, found := s.Find(Key{"echo", id + 1}); !found || x.Tombstone == nil {
			t.Fatalf("%v is not remembered: %+v", id+1, x)
		}
	}
	for s.Counts().Tombstones > 0 {
		s.Apply(Sweep{at(1e9)})
	}
	if n := inTheWay(s, "echo"); n > 0 || s.lookup("echo").members.apart != nil || s.places.used != 1 || len(s.tombstones.pools) > 0 {
		t.Errorf("what was forgotten leaves %d in the way, %d places", n, s.places.used)
	}
}

// Anybody may deregister what never was: that must cost the pool nothing.
func TestMarksOfUnknownElementsAreNotInTheWay(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 9999, at(0)))
	for id := range param.PEID(1000) {
		one[Absent](t, s, Deregister{Handle: "echo", ID: id + 1, Now: at(1)})
	}
	if c, n := s.Counts(), inTheWay(s, "echo"); c.Tombstones != 1000 || n > 0 {
		t.Errorf("%+v, %d in the way", c, n)
	}
}

// An element is not brought back by what is older than its removal, wherever in a Merge
// that stands, and however full the table is.
func TestMergeAtTheBoundOfTombstones(t *testing.T) {
	grave := func(id param.PEID, stamp uint64, until float64) Item {
		return Item{Tombstone: &Tombstone{Key: Key{"echo", id}, Generation: Generation{stamp, stamp, here, 1}, Until: at(until)}}
	}
	items := []Item{
		item(t, func(e *Entry) { e.Generation = Generation{Content: 4, Stamp: 4, Raiser: here} }),
		grave(1, 5, 1), // its removal, the first to be forgotten
		grave(2, 6, 10), grave(3, 7, 11), grave(4, 8, 12),
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		s := space(Config{MaxTombstones: 3})
		if n := r.IntN(len(items)); n > 0 { // in one or two
			s.Apply(Merge{Items: items[:n]})
			s.Apply(Merge{Items: items[n:], End: true})
		} else {
			s.Apply(Merge{Items: items, End: true})
		}
		if c := s.Counts(); c.Elements != 0 || c.Tombstones != 3 || c.Forgotten != 1 {
			t.Fatalf("%+v after %+v", c, items)
		}
	}

	// Who never says End does not fill the memory.
	s := space(Config{MaxTombstones: 3})
	for id := range param.PEID(100) {
		s.Apply(Merge{Items: []Item{grave(id+1, 5, float64(id))}})
	}
	if c := s.Counts(); c.Tombstones != 6 {
		t.Errorf("%+v", c)
	}
}

// Sides with full tables of tombstones end with the same, in whatever order they hear of
// each other's, and so go on to give the same generations.
func TestFullTablesOfTombstonesMergeAlike(t *testing.T) {
	const bound, sides, keys = 4, 5, 12
	draw := func(r *rand.Rand) []Item {
		var items []Item
		for _, id := range r.Perm(keys)[:bound] {
			g := Generation{Stamp: 1e6 * uint64(1+r.IntN(1000)), Raiser: here}
			g.Content = g.Stamp
			if r.IntN(3) == 0 {
				items = append(items, item(t, func(e *Entry) { e.Element.ID, e.Generation = param.PEID(id+1), g }))
			} else {
				items = append(items, Item{Tombstone: &Tombstone{Key{"echo", param.PEID(id + 1)}, g, at(float64(r.IntN(1000)))}})
			}
		}
		return items
	}
	for run := range uint64(500) {
		r := rand.New(rand.NewPCG(6, run))
		var spaces []*Space
		var items [][]Item
		var marks Marks
		for range sides {
			s := space(Config{MaxTombstones: bound})
			s.Apply(Merge{Items: draw(r), End: true})
			spaces, items = append(spaces, s), append(items, known(s))
			marks.Stamp = max(marks.Stamp, s.Marks().Stamp)
		}
		for i, s := range spaces {
			var told []Item
			for j := range spaces {
				if i != j {
					told = append(told, items[j]...)
				}
			}
			r.Shuffle(len(told), func(a, b int) { told[a], told[b] = told[b], told[a] })
			n := r.IntN(len(told))
			s.Apply(Merge{Items: told[:n], Sides: sides})
			s.Apply(Merge{Items: told[n:], Marks: marks, Sides: sides, End: true})
		}
		for i, s := range spaces[1:] {
			if all(s) != all(spaces[0]) {
				t.Fatalf("run %d: side %d ends with\n%s, side 0 with\n%s", run, i+1, all(s), all(spaces[0]))
			}
		}
		for id := range param.PEID(keys + 1) {
			c := register("echo", id+1, time.Unix(0, 0)) // a clock that is behind
			want := words(spaces[0].Apply(c))
			for i, s := range spaces[1:] {
				if got := words(s.Apply(c)); got != want {
					t.Fatalf("run %d: side %d stores %q, side 0 %q", run, i+1, got, want)
				}
			}
		}
	}
}

// Many removals of one moment at a full table cost no more than others: each takes what is
// forgotten first, which is the same at all registrars.
func TestTombstonesOfOneMomentAreForgottenInOrder(t *testing.T) {
	const bound = 1000
	a, b := space(Config{MaxTombstones: bound}), space(Config{MaxTombstones: bound})
	for i, id := range rand.New(rand.NewPCG(1, 1)).Perm(4 * bound) {
		for _, s := range []*Space{a, b} {
			c := Deregister{Handle: "echo", ID: param.PEID(id + 1), Now: start, Raiser: here, Incarnation: 1}
			s.Apply(register("echo", c.ID, c.Now))
			s.Apply(c)
			if s == b && i%100 == 0 {
				s.NextSweep()
			}
		}
	}
	if a.Digest() != b.Digest() || a.Counts().Forgotten != b.Counts().Forgotten || a.Counts().Tombstones > bound {
		t.Errorf("%+v and %+v", a.Counts(), b.Counts())
	}
}

// Long handles take room, so that of these there are fewer.
func TestTombstonesOfLongHandlesAreFewer(t *testing.T) {
	const bound, length = 100, 1000
	handle := func(i int) param.PoolHandle { return param.PoolHandle(fmt.Sprintf("%0*d", length, i)) }
	s := space(Config{MaxTombstones: bound})
	for i := range bound {
		s.Apply(Deregister{Handle: handle(i), ID: 1, Now: at(0), Raiser: here})
	}
	if n := s.Counts().Tombstones; n != bound/2*handleShare/length {
		t.Errorf("%d marks of what never was", n)
	}
	for i := range bound {
		s.Apply(register(handle(i), 1, at(0)))
		s.Apply(Deregister{Handle: handle(i), ID: 1, Now: at(float64(i)), Raiser: here})
	}
	if n := s.Counts().Tombstones; n != bound*handleShare/length {
		t.Errorf("%d tombstones", n)
	}
	if x, ok := s.Find(Key{handle(bound - 1), 1}); !ok || x.Tombstone == nil {
		t.Error("the latest is forgotten")
	}
	for s.Counts().Tombstones > 0 {
		s.Apply(Sweep{at(1e9)})
	}
	if s.tombstones.octets != 0 {
		t.Errorf("%d octets are left", s.tombstones.octets)
	}
}

// Who reported an element is nothing to the one that comes to its place.
func TestReportersGoWithTheirElement(t *testing.T) {
	s := fresh()
	s.Apply(register("keep", 1, at(0)))
	e := item(t, func(e *Entry) { e.Generation = Generation{Content: 4, Stamp: 4, Raiser: here} }).Record.Entry()
	odd, err := NewItem(&e, []string{"x", "y"}) // who, but not how many
	if err != nil {
		t.Fatal(err)
	}
	s.Apply(Merge{Items: []Item{odd}, End: true})
	s.Apply(Deregister{Handle: "echo", ID: 1, Raiser: here, Now: at(1)})
	s.Apply(Sweep{at(1e9)})
	other := registered(s.Apply(register("other", 77, at(1e9))))
	one[Counted](t, s, report(other, "x"))
}

// What is too much can be forgotten step by step before the end, with the same result.
func TestTombstonesCanBeForgottenBeforeTheEnd(t *testing.T) {
	for _, length := range []int{1, 5 * handleShare} {
		const bound, many = 30, 100
		var told []Item
		for i := range many {
			handle := param.PoolHandle(fmt.Sprintf("%0*d", length, i%7))
			told = append(told, Item{Tombstone: &Tombstone{Key{handle, param.PEID(i + 1)}, Generation{Stamp: 1, Raiser: here}, at(float64(i * 37 % many))}})
		}
		a, b := space(Config{MaxTombstones: bound}), space(Config{MaxTombstones: bound})
		a.Apply(Merge{Items: told, Sides: many, End: true})
		b.Apply(Merge{Items: told, Sides: many})
		for steps := 0; b.Unsettled() > 0; steps++ {
			before := b.Counts().Tombstones
			if b.Apply(Merge{Settle: 7}); before-b.Counts().Tombstones > 7 || steps > many {
				t.Fatalf("%d tombstones, then %d after %d steps", before, b.Counts().Tombstones, steps)
			}
		}
		if all(a) != all(b) || a.tombstones.octets != b.tombstones.octets {
			t.Errorf("ends with\n%s, not\n%s", all(b), all(a))
		}
		if b.Apply(Merge{End: true}); all(a) != all(b) {
			t.Error("the end changes something")
		}
	}
}

// What is forgotten leaves nothing behind, and places are used again.
func TestForgottenElementsTakeNoRoom(t *testing.T) {
	s := fresh()
	s.Apply(register("stays", 1, at(0)))
	for round := range 1000 {
		now := at(float64(round) * 1e6)
		handle := param.PoolHandle(fmt.Sprint("pool ", round))
		s.Apply(register(handle, 1, now))
		s.Apply(Deregister{Handle: handle, ID: 1, Now: now})
		s.Apply(Deregister{Handle: handle, ID: 2, Now: now})
		s.Apply(Sweep{now.Add(1e6 * time.Second)})
	}
	if c := s.Counts(); c.Elements != 1 || c.Tombstones != 0 || len(s.tombstones.pools) != 0 {
		t.Errorf("%+v, members of %d pools that are gone", c, len(s.tombstones.pools))
	}
	if s.places.used != 1 || s.places.size > 16 {
		t.Errorf("%d places, pieces of %d", s.places.used, s.places.size)
	}
}
