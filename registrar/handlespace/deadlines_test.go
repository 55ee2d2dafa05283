package handlespace

import (
	"math/rand/v2"
	"testing"
	"time"

	"rserpool/asap/param"
)

// Many elements that registered again come up when they would have been due without,
// some at a time, and are filed anew.
func TestDeadlinesThatCameUpTooEarly(t *testing.T) {
	const n = 10 * refiled
	s := fresh()
	for _, now := range []float64{0, 50} {
		for id := range param.PEID(n) {
			s.Apply(register("echo", id+1, at(now), life(60)))
		}
	}
	calls := 0
	for {
		next, ok := s.NextDeadline(here)
		if !ok || next.Before(at(60)) {
			t.Fatalf("next deadline %v, %v", next, ok)
		}
		if due := s.Due(nil, here, at(61), 1<<30); len(due) > 0 {
			t.Fatalf("%v is due", due[0])
		}
		if calls++; next.Equal(at(110)) {
			break
		}
	}
	if calls < n/(4*refiled) || calls > n/refiled+1 {
		t.Errorf("%d calls", calls)
	}
	if due := s.Due(nil, here, at(110), 1<<30); len(due) != n {
		t.Errorf("%d are due", len(due))
	}
}

// Many elements are due at the same time.
func TestDeadlinesAtTheSameTime(t *testing.T) {
	if testing.Short() {
		t.Skip("many elements")
	}
	const n = 100_000
	s := space(Config{RemovalShare: 1, MaxElements: n})
	for id := range param.PEID(n) {
		s.Apply(register("echo", id+1, at(0), life(60)))
	}
	late := at(60).Add(time.Millisecond)
	seen := map[param.PEID]bool{}
	for _, c := range s.Due(nil, here, late, 1<<30) {
		seen[c.(Remove).ID] = true
		s.Apply(c)
	}
	if _, ok := s.NextDeadline(here); len(seen) != n || ok || s.Counts().Elements > 0 {
		t.Errorf("%d of %d were due, %d are left", len(seen), n, s.Counts().Elements)
	}
}

// Elements that are due close to each other come, go and register again in any order,
// also while others of them are due already.
func TestDeadlinesCloseToEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		s := space(Config{RemovalShare: 1})
		want := map[param.PEID]time.Time{}
		now := at(0)
		for range 2000 {
			now = now.Add(time.Duration(r.IntN(3*span)) / 20)
			id := param.PEID(1 + r.IntN(100))
			switch r.IntN(5) {
			case 0:
				s.Apply(Deregister{Handle: "echo", ID: id, Now: now})
				delete(want, id)
			case 1, 2:
				l := param.Life(1 + r.IntN(2))
				s.Apply(register("echo", id, now, life(l)))
				want[id] = now.Add(time.Duration(l) * time.Second)
			}
			var next time.Time
			due := 0
			for _, at := range want {
				if next.IsZero() || at.Before(next) {
					next = at
				}
				if !at.After(now) {
					due++
				}
			}
			if got, ok := s.NextDeadline(here); ok != (len(want) > 0) || !got.Equal(next) {
				t.Fatalf("next deadline %v, %v, want %v", got, ok, next)
			}
			var before time.Time
			most := r.IntN(4)
			commands := s.Due(nil, here, now, most)
			if len(commands) != min(due, most) {
				t.Fatalf("%d of %d are due", len(commands), due)
			}
			for _, c := range commands {
				id := c.(Remove).ID
				if want[id].After(now) || want[id].Before(before) {
					t.Fatalf("%v is due at %v, %v behind %v", id, now, want[id], before)
				}
				before = want[id]
				if r.IntN(2) == 0 {
					s.Apply(c)
					delete(want, id)
				}
			}
		}
	}
}

// What Due found is removed wherever the command is applied, and nothing else that has
// taken its place meanwhile.
func TestDueElementsAreRemovedElsewhereToo(t *testing.T) {
	cfg := Config{RemovalShare: 1, Tombstone: time.Second}
	a, b := space(cfg), space(cfg)
	apply := func(cmds ...Command) {
		for _, c := range cmds {
			b.Apply(c)
			a.Apply(c)
		}
	}
	for id := range param.PEID(100) {
		apply(register("echo", id+1, at(0)))
	}
	apply(register("stays", 1, at(0), life(param.InfiniteLife))) // so that there are places to be used again
	found := a.Due(nil, here, at(1e6), 100)
	if len(found) != 100 {
		t.Fatalf("%d are due", len(found))
	}
	apply(found[:50]...)
	if n, m := a.Counts().Elements, b.Counts().Elements; n != 51 || m != 51 {
		t.Fatalf("%d and %d elements are left", n, m)
	}
	// The places of the others go to elements that are just as new.
	for _, c := range found[50:] {
		apply(Deregister{Handle: "echo", ID: c.(Remove).ID, Raiser: here, Now: at(1)})
	}
	apply(Sweep{Now: at(1e9)})
	var others []Item
	for _, c := range found[50:] {
		other := register("echo", 1000+c.(Remove).ID, at(1e6))
		item, err := NewItem(&Entry{Handle: "echo", Element: other.Element, Generation: c.(Remove).Generation}, nil)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, item)
	}
	apply(Merge{Items: others, End: true})
	apply(found...)
	if n, m := a.Counts().Elements, b.Counts().Elements; n != 51 || m != 51 {
		t.Errorf("%d and %d elements are left", n, m)
	}
	if a, b := state(a), state(b); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}
