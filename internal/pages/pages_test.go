package pages

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// pair is a value under its first number.
type pair struct {
	a, b uint32
	spot *Spot[uint32, pair]
}

func newPair(a, b uint32) pair { return pair{a, b, new(Spot[uint32, pair])} }

func (p pair) Tie() uint64 { return uint64(p.b) }

func (p pair) Spot() *Spot[uint32, pair] { return p.spot }

func (p pair) compare(q pair) int { return cmp.Or(cmp.Compare(p.a, q.a), cmp.Compare(p.b, q.b)) }

func all(s *Set[uint32, pair]) (out []pair) {
	s.Ascend(func(k uint32, p pair) bool {
		if k != p.a {
			panic("a value under another's key")
		}
		out = append(out, p)
		return true
	})
	return out
}

// check compares a set with the slice of what should be in it.
func check(t *testing.T, s *Set[uint32, pair], model []pair, r *rand.Rand) {
	t.Helper()
	if got := all(s); !slices.Equal(got, model) || s.Len() != len(model) {
		t.Fatalf("%d values %v, want %d %v", s.Len(), got, len(model), model)
	}
	from := pair{a: r.Uint32N(100)}
	at, _ := slices.BinarySearchFunc(model, from, pair.compare)
	want := model[at:min(at+3, len(model))]
	var got []pair
	s.AscendFrom(from.a, func(_ uint32, p pair) bool {
		got = append(got, p)
		return len(got) < 3
	})
	if !slices.Equal(got, want) {
		t.Fatalf("from %v %v, want %v", from, got, want)
	}
}

// A set is what a sorted slice is, whatever is done in whatever order: values come at
// random, in order, or to one place; and go, until nothing is left.
func TestSetIsASortedSlice(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := new(Set[uint32, pair])
		var model []pair
		next, most := uint32(0), 1+r.IntN(2000)
		for growing, round := true, 0; round < 3; {
			change := growing != (r.IntN(4) == 0)
			switch {
			case change && len(model) == most:
				growing = false
				continue
			case change:
				next++
				p := newPair(r.Uint32N(100), next)
				switch seed % 4 {
				case 1:
					p = newPair(50, next)
				case 2:
					p = newPair(50, -next)
				}
				s.Insert(p.a, p)
				at, _ := slices.BinarySearchFunc(model, p, pair.compare)
				model = slices.Insert(model, at, p)
			case len(model) == 0:
				growing = true
				round++
			default:
				at := r.IntN(len(model))
				if seed%3 == 0 {
					at = min(at, 2)
				}
				s.Delete(model[at].a, model[at])
				model = slices.Delete(model, at, at+1)
			}
			if r.IntN(20) == 0 {
				readAhead(s, model, r)
			}
			if r.IntN(20) == 0 {
				n := r.IntN(100)
				s.Settle(func(uint32, pair) bool {
					n--
					return n > 0
				})
			}
			if r.IntN(100) == 0 {
				check(t, s, model, r)
			}
		}
		check(t, s, model, r)
	}
}

// So is one of several shelves of pages, while it grows and until nothing is left, whether
// its values have keys of their own, or all one key, or some a key.
func TestLargeSetIsASortedSlice(t *testing.T) {
	const most = 50_000
	for _, keys := range []uint32{1, 300, 1 << 31} {
		for _, goes := range []string{"anywhere", "first", "last"} {
			r := rand.New(rand.NewPCG(uint64(keys), 3))
			s := new(Set[uint32, pair])
			var model []pair
			for i := range most {
				model = append(model, newPair(r.Uint32N(keys), uint32(i)*2654435761)) // odd: no tie comes twice
			}
			for i, p := range model {
				s.Insert(p.a, p)
				if i%7 == 0 {
					s.Delete(p.a, p)
					s.Insert(p.a, p)
				}
			}
			slices.SortFunc(model, pair.compare)
			check(t, s, model, r)
			if s.tree == nil || s.tree.Len() == 0 {
				t.Fatalf("%d values need one shelf only", most)
			}
			if goes == "anywhere" {
				r.Shuffle(most, func(i, k int) { model[i], model[k] = model[k], model[i] })
			}
			for len(model) > 0 {
				next := len(model) * 3 / 4
				gone := model[next:]
				if goes == "first" {
					gone, model = model[:len(model)-next], model[len(model)-next:]
				} else {
					model = model[:next]
				}
				for i, p := range gone {
					if s.Delete(p.a, p); i%10 == 0 { // there is room, but perhaps not on the same shelf
						s.Insert(p.a, p)
						s.Delete(p.a, p)
					}
				}
				sorted := slices.Clone(model)
				slices.SortFunc(sorted, pair.compare)
				check(t, s, sorted, r)
			}
			if s.tree.Len() > 0 || count(s) > 0 {
				t.Errorf("%d keys, %s: %d shelves and %d pages for nothing", keys, goes, s.tree.Len(), count(s))
			}
		}
	}
}

// readAhead reads what changes will need, of which perhaps none comes.
func readAhead(s *Set[uint32, pair], in []pair, r *rand.Rand) {
	keys, values := make([]uint32, r.IntN(200)), []pair{newPair(1, 1)}
	for i := range keys {
		keys[i] = r.Uint32N(100)
		if len(in) > 0 {
			values = append(values, in[r.IntN(len(in))])
		}
	}
	s.BeforeInsert(keys)
	s.BeforeDelete(values)
}

// count returns the number of pages but for the first one.
func count(s *Set[uint32, pair]) (n int) {
	for p := &s.head; p.bounded; p = s.page(p.end) {
		n++
	}
	return n
}

// getAll compares what GetAll finds with what should be in a set.
func getAll(t *testing.T, s *Set[uint64, single], model map[uint64]single, keys []uint64) {
	t.Helper()
	none := single{1 << 32, 1}
	got := slices.Repeat([]single{none}, len(keys))
	s.GetAll(keys, got)
	for i, k := range keys {
		want, there := model[k]
		if !there {
			want = none
		}
		if got[i] != want {
			t.Fatalf("%d of %d, %d: %v, want %v", i, len(keys), k, got[i], want)
		}
	}
}

// single is the one value of its key.
type single struct{ key, value uint64 }

func (single) Tie() uint64 { return 0 }

func (single) Spot() *Spot[uint64, single] { return nil }

// Values that don't know their places are found by their keys, replaced and taken out.
func TestSetIsAMap(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, model := new(Set[uint64, single]), make(map[uint64]single)
		keys := 1 + r.Uint64N(1000)
		for range 5000 {
			v := single{r.Uint64N(keys), r.Uint64()}
			got, found := s.Get(v.key)
			if v, there := s.Find(v.key); r.IntN(2) == 0 {
				got, found = v, there
			}
			if r.IntN(50) == 0 {
				some := make([]uint64, r.IntN(3*together))
				for i := range some {
					some[i] = r.Uint64N(keys)
				}
				getAll(t, s, model, some)
			}
			if want, there := model[v.key]; found != there || got != want {
				t.Fatalf("seed %d: %v, %v, want %v, %v", seed, got, found, want, there)
			}
			switch r.IntN(4) {
			case 0:
				s.Delete(v.key, single{})
				delete(model, v.key)
			case 1:
				if r.IntN(20) == 0 {
					s.Settle(func(uint64, single) bool { return r.IntN(10) > 0 })
				}
			default:
				s.Put(v.key, v)
				model[v.key] = v
			}
			if s.Len() != len(model) {
				t.Fatalf("seed %d: %d values, want %d", seed, s.Len(), len(model))
			}
		}
		want := slices.Sorted(maps.Keys(model))
		var got []uint64
		s.Ascend(func(k uint64, v single) bool {
			if v != model[k] {
				t.Fatalf("seed %d: %v, want %v", seed, v, model[k])
			}
			got = append(got, k)
			return true
		})
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: keys %v, want %v", seed, got, want)
		}
	}
}

// Pages that get empty are given up: a set does not keep the memory of what it had, and
// the way through it stays short.
func TestPagesAreGivenUp(t *testing.T) {
	s := new(Set[uint32, pair])
	values := make([]pair, 100_000)
	for i := range values {
		values[i] = newPair(uint32(i), 0)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(values), func(i, k int) { values[i], values[k] = values[k], values[i] })
	for _, p := range values {
		s.Insert(p.a, p)
	}
	if n := count(s); n > 2*len(values)/largest {
		t.Errorf("%d pages for %d values", n, len(values))
	}
	for _, p := range values[100:] {
		s.Delete(p.a, p)
	}
	if n := count(s); n > 4 {
		t.Errorf("%d pages for 100 values", n)
	}
}

// A set that grows at its end and shrinks from there, again and again, has no more pages
// than it needs.
func TestPagesAreGivenUpFromTheEnd(t *testing.T) {
	for _, left := range []int{0, 1, 300} {
		s, next := new(Set[uint32, pair]), uint32(0)
		for range 5 {
			var pairs []pair
			for s.Len() < 20_000 {
				p := newPair(7, next)
				next++
				s.Insert(7, p)
				pairs = append(pairs, p)
			}
			for i := len(pairs) - 1; s.Len() > left && i >= 0; i-- {
				s.Delete(7, pairs[i])
			}
			if n := count(s); n > 4*left/largest+1 {
				t.Fatalf("%d pages for %d values", n, s.Len())
			}
		}
	}
}

// Who thins a set out, from whichever side, leaves no pages with a value each.
func TestThinnedPagesAreJoined(t *testing.T) {
	for _, backwards := range []bool{false, true} {
		s, pairs := new(Set[uint32, pair]), make([]pair, 20_000)
		for i := range pairs {
			pairs[i] = newPair(uint32(i), 0)
			s.Insert(pairs[i].a, pairs[i])
		}
		if backwards {
			slices.Reverse(pairs)
		}
		for i, p := range pairs {
			if i%100 > 0 {
				s.Delete(p.a, p)
			}
		}
		if n := count(s); n > 200*4/largest*2 {
			t.Errorf("backwards %v: %d pages for %d values", backwards, n, s.Len())
		}
	}
}

// To take out a value twice takes out nothing else.
func TestDeleteTwice(t *testing.T) {
	s := new(Set[uint32, pair])
	for i := range uint32(2 * largest) {
		s.Insert(i, newPair(i, 0))
	}
	for _, where := range []uint32{7, largest + 7, 5000} {
		p, q := newPair(where, 1), newPair(where, 2)
		s.Insert(p.a, p)
		s.Delete(p.a, p)
		s.Insert(q.a, q)
		before := s.Len()
		if s.Delete(p.a, p); s.Len() != before || p.spot.page != nil {
			t.Errorf("%d of %d values are left", s.Len(), before)
		}
	}
}

// Values that come in order fill their pages.
func TestInOrderPagesAreFull(t *testing.T) {
	s := new(Set[uint32, pair])
	for i := range uint32(100_000) {
		s.Insert(i, newPair(i, 0))
	}
	if n := count(s); n > 100_000/largest+1 {
		t.Errorf("%d pages for 100000 values", n)
	}
}

// Who reads the first values again and again, and puts them elsewhere, sorts no page
// each time.
func BenchmarkTurns(b *testing.B) {
	s := new(Set[uint32, pair])
	for i := range uint32(100_000) {
		s.Insert(i, newPair(i, i))
	}
	next := uint32(100_000)
	for b.Loop() {
		var p pair
		s.Settle(func(_ uint32, first pair) bool {
			p = first
			return false
		})
		s.Delete(p.a, p)
		next++
		p.a, p.b = p.a+next%50_000, next
		s.Insert(p.a, p)
	}
}
