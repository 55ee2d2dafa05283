package pages

import (
	"cmp"
	"math"
	"slices"
)

// together is how many values are looked up at a time.
const together = 64

// ahead is for who is going to look up or change several values. The places in memory
// that are needed are read beforehand, in passes: each reads one place for each value and
// does not wait for what it reads, so that the processor waits for all of them at once.
// Nothing changes by that.
type ahead[K cmp.Ordered, V any] struct {
	// Where some keys belonged, and mostly still do.
	n     int
	keys  [together]K
	pages [together]*page[K, V]

	// What is read ends here, so that it is read.
	key   K
	value V
	count int
}

// find returns the page for a value if it was looked up and is the same as then.
func (a *ahead[K, V]) find(b bound[K]) *page[K, V] {
	if a == nil {
		return nil
	}
	if at := slices.Index(a.keys[:a.n], b.key); at >= 0 && a.pages[at].covers(b) {
		return a.pages[at]
	}
	return nil
}

func (s *Set[K, V]) hints() *ahead[K, V] {
	if s.ahead == nil {
		s.ahead = new(ahead[K, V])
	}
	return s.ahead
}

// look finds the pages for some keys, the last one for each, and reads what they are.
func (s *Set[K, V]) look(keys []K) *ahead[K, V] {
	a := s.hints()
	a.n = copy(a.keys[:], keys)
	var shelves [together]*shelf[K, V]
	var at [together]int // on the shelves
	for i, k := range keys {
		shelves[i] = s.shelf(bound[K]{k, math.MaxUint64})
	}
	for i, k := range keys {
		at[i] = shelves[i].find(bound[K]{k, math.MaxUint64})
	}
	for i := range keys {
		a.pages[i] = shelves[i].pages[at[i]]
	}
	return a
}

// GetAll does what Get does for several keys: it writes the values of those that have
// one to the same places of a slice, and leaves the other places as they are. Find, and Put
// of these keys, take less time then. It counts as a method that changes the set.
func (s *Set[K, V]) GetAll(keys []K, values []V) {
	for ; len(keys) > together; keys, values = keys[together:], values[together:] {
		s.GetAll(keys[:together], values)
	}
	if len(s.first.pages) == 0 {
		for i, k := range keys {
			if v, found := s.Get(k); found {
				values[i] = v
			}
		}
		return
	}
	a := s.look(keys)
	for _, p := range a.pages[:a.n] {
		for i := 0; i < len(p.keys); i += searched / 4 { // a cache line of short keys
			a.key = max(a.key, p.keys[i])
		}
	}
	for i, p := range a.pages[:a.n] {
		if at := slices.Index(p.keys, keys[i]); at >= 0 {
			values[i] = p.values[at]
		} else {
			touchEnd(a, p)
		}
	}
}

// BeforeInsert reads what Insert will need for values with these keys. It counts as a
// method that changes the set.
func (s *Set[K, V]) BeforeInsert(keys []K) {
	if len(s.first.pages) == 0 {
		return
	}
	for ; len(keys) > together; keys = keys[together:] {
		s.BeforeInsert(keys[:together])
	}
	a := s.look(keys)
	for _, p := range a.pages[:a.n] {
		touchEnd(a, p)
	}
}

// BeforeDelete reads what Delete will need for values that know their places. It counts
// as a method that changes the set.
func (s *Set[K, V]) BeforeDelete(values []V) {
	if len(s.first.pages) == 0 {
		return
	}
	a := s.hints()
	for _, v := range values {
		if p := v.Spot().page; p != nil {
			a.count += len(p.keys)
		}
	}
	for _, v := range values {
		if spot := v.Spot(); spot.page != nil && int(spot.at) < len(spot.page.keys) {
			a.value = spot.page.values[spot.at]
		}
	}
}

// touchEnd reads the place on a page where the next value will be.
func touchEnd[K cmp.Ordered, V Value[K, V]](a *ahead[K, V], p *page[K, V]) {
	at := p.gaps.first()
	if at < 0 {
		at = len(p.keys) - 1
	}
	if at >= 0 {
		a.key = max(a.key, p.keys[at])
		a.value = p.values[at]
	}
}
