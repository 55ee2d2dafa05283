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

	// Where all pages began when there was a look at them: next to each other, so that
	// the processor's cache has them. The first one is head.
	begins []K
	begun  []*page[K, V]

	// What is read ends here, so that it is read.
	key   K
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
	if len(a.begins) == 0 || s.moved > len(a.begins)/16 {
		a.begins, a.begun = append(a.begins[:0], s.head.bound.key), append(a.begun[:0], &s.head)
		s.tree.Ascend(func(l leaf[K, V]) bool {
			a.begins, a.begun = append(a.begins, l.key), append(a.begun, l.page)
			return true
		})
		s.moved = 0
	}
	a.n = copy(a.keys[:], keys)
	for i, k := range keys {
		a.pages[i] = a.begun[before(a.begins, k)]
	}
	for i, p := range a.pages[:a.n] {
		if b := (bound[K]{keys[i], math.MaxUint64}); !p.covers(b) {
			a.pages[i] = s.descend(b)
		}
	}
	return a
}

// before returns the last place but the first one where a key in order is not above k, or
// the first one. The processor need not guess which way the search goes.
func before[K cmp.Ordered](keys []K, k K) int {
	at, n := 0, len(keys)
	for n > 1 {
		half := n / 2
		if keys[at+half] <= k {
			at += half
		}
		n -= half
	}
	return at
}

// GetAll does what Get does for several keys: it writes the values of those that have
// one to the same places of a slice, and leaves the other places as they are. Get, and Put
// of these keys, take less time then. It counts as a method that changes the set.
func (s *Set[K, V]) GetAll(keys []K, values []V) {
	for ; len(keys) > together; keys, values = keys[together:], values[together:] {
		s.GetAll(keys[:together], values)
	}
	if s.tree == nil {
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
	if s.tree == nil {
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
	if s.tree == nil {
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
			a.key = max(a.key, spot.page.keys[spot.at])
			a.count += size(spot.page.values[spot.at])
			touchEnd(a, spot.page)
		}
	}
}

// touchEnd reads the end of a page: what comes is added there, and who is there gets the
// place of what goes.
func touchEnd[K cmp.Ordered, V Value[K, V]](a *ahead[K, V], p *page[K, V]) {
	if n := len(p.keys); n > 0 {
		a.key = max(a.key, p.keys[n-1])
		a.count += size(p.values[n-1]) // which asks where it notes its place
	}
}
