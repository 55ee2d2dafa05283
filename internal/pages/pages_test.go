package pages

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// pair is a value that others equal in part.
type pair struct {
	a, b uint32
	spot *Spot[pair]
}

func newPair(a, b uint32) pair { return pair{a, b, new(Spot[pair])} }

func (p pair) Less(q pair) bool { return p.compare(q) < 0 }

func (p pair) Spot() *Spot[pair] { return p.spot }

func (p pair) compare(q pair) int { return cmp.Or(cmp.Compare(p.a, q.a), cmp.Compare(p.b, q.b)) }

func all(s *Set[pair]) (out []pair) {
	s.Ascend(func(p pair) bool {
		out = append(out, p)
		return true
	})
	return out
}

// check compares a set with the slice of what should be in it.
func check(t *testing.T, s *Set[pair], model []pair, r *rand.Rand) {
	t.Helper()
	if got := all(s); !slices.Equal(got, model) || s.Len() != len(model) {
		t.Fatalf("%d values %v, want %d %v", s.Len(), got, len(model), model)
	}
	from := pair{a: r.Uint32N(100)}
	at, _ := slices.BinarySearchFunc(model, from, pair.compare)
	want := model[at:min(at+3, len(model))]
	var got []pair
	s.AscendFrom(from, func(p pair) bool {
		if len(got) < 3 {
			got = append(got, p)
		}
		return len(got) < 3
	})
	if !slices.Equal(got, want) {
		t.Fatalf("from %v %v, want %v", from, got, want)
	}
	first, found := s.Min()
	if found != (len(model) > 0) || found && first != model[0] {
		t.Fatalf("the first is %v, %v", first, found)
	}
}

// A set is what a sorted slice is, whatever is done in whatever order: values come at
// random, in order, or to one place; and go, until nothing is left.
func TestSetIsASortedSlice(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := new(Set[pair])
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
				s.Insert(p)
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
				s.Delete(model[at])
				model = slices.Delete(model, at, at+1)
			}
			if r.IntN(20) == 0 {
				n := r.IntN(100)
				s.Settle(func(pair) bool {
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

// Pages that get empty are given up: a set does not keep the memory of what it had, and
// the way through it stays short.
func TestPagesAreGivenUp(t *testing.T) {
	s := new(Set[pair])
	values := make([]pair, 100_000)
	for i := range values {
		values[i] = newPair(uint32(i), 0)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(values), func(i, k int) { values[i], values[k] = values[k], values[i] })
	for _, p := range values {
		s.Insert(p)
	}
	if n := s.tree.Len(); n > 2*len(values)/size {
		t.Errorf("%d pages for %d values", n, len(values))
	}
	for _, p := range values[100:] {
		s.Delete(p)
	}
	if n := s.tree.Len(); n > 4 {
		t.Errorf("%d pages for 100 values", n)
	}
}

// Values that come in order fill their pages.
func TestInOrderPagesAreFull(t *testing.T) {
	s := new(Set[pair])
	for i := range uint32(100_000) {
		s.Insert(newPair(i, 0))
	}
	if n := s.tree.Len(); n > 100_000/size+1 {
		t.Errorf("%d pages for 100000 values", n)
	}
}

// Who reads the first values again and again, and puts them elsewhere, sorts no page
// each time.
func BenchmarkTurns(b *testing.B) {
	s := new(Set[pair])
	for i := range uint32(100_000) {
		s.Insert(newPair(i, i))
	}
	next := uint32(100_000)
	for b.Loop() {
		var p pair
		s.Settle(func(first pair) bool {
			p = first
			return false
		})
		s.Delete(p)
		next++
		s.Insert(pair{p.a + next%50_000, next, p.spot})
	}
}
