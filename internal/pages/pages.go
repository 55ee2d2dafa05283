// Package pages keeps large ordered sets that change more often than they are read in
// order.
//
// A [Set] has its values on pages, each of which holds what lies between two bounds, and
// the bounds in a balanced tree (google/btree) that is small enough for the processor's
// cache. A page is put in order only when somebody reads it: to add a value is to find
// its page and to write behind what is on it, without looking at any of that. Each value
// knows its page, so that to take it out is to find nothing. A tree of single values
// reads a dozen places in memory for either, one after the other, and waits for each.
package pages

import (
	"slices"
	"sort"

	"github.com/google/btree"
)

// size is how many values a page holds at most. Two neighbours that have less than half
// of that together become one when values go.
const size = 256

// Value is what a Set holds. It is copied, so it should be small.
type Value[T any] interface {
	// Less is a strict order over all values that are in a set at the same time.
	Less(T) bool
	// Spot returns where the place of the value is noted. It belongs to the set
	// while the value is in it.
	Spot() *Spot[T]
}

// Spot says where in a Set a value is. The zero Spot says that it is in none.
type Spot[T any] struct {
	page *page[T]
	at   int32 // on the page while that is in no order
}

// Set is an ordered set of values. The zero Set is empty. It must not be copied.
// Methods that change it and Settle must not run at the same time as others; those that
// only read may.
type Set[T Value[T]] struct {
	head page[T]                // the values below all bounds
	tree *btree.BTreeG[leaf[T]] // the other pages, nil if there were none
	n    int
}

// page has the values from its bound on, up to the next one.
type page[T any] struct {
	bound  T // of head: none
	values []T
	loose  bool // in no order
}

// leaf is a page as it is searched for.
type leaf[T any] struct {
	bound T
	page  *page[T]
}

// Len returns the number of values.
func (s *Set[T]) Len() int { return s.n }

// Insert adds a value that is in no set.
func (s *Set[T]) Insert(x T) {
	s.n++
	p := s.find(x)
	if len(p.values) == size {
		p = s.split(p, x)
	}
	if p.loose {
		*x.Spot() = Spot[T]{p, int32(len(p.values))}
		p.values = append(p.values, x)
		return
	}
	x.Spot().page = p
	p.values = slices.Insert(p.values, search(p, x), x)
}

// Delete takes out a value that is in the set.
func (s *Set[T]) Delete(x T) {
	s.n--
	spot := x.Spot()
	p, last := spot.page, len(spot.page.values)-1
	if p.loose {
		moved := p.values[last]
		moved.Spot().at = spot.at
		p.values[spot.at] = moved
		clear(p.values[last:])
		p.values = p.values[:last]
	} else {
		at := search(p, x)
		p.values = slices.Delete(p.values, at, at+1)
	}
	*spot = Spot[T]{}
	if s.tree != nil && last < size/4 {
		s.join(p)
	}
}

// Ascend visits the values in order until visit returns false. visit must not change the
// set.
func (s *Set[T]) Ascend(visit func(T) bool) {
	s.pages(&s.head, func(p *page[T]) bool { return read(p, visit) })
}

// AscendFrom visits the values that are not less than x, which need not be in the set, as
// Ascend does.
func (s *Set[T]) AscendFrom(x T, visit func(T) bool) {
	s.pages(s.find(x), func(p *page[T]) bool {
		return read(p, func(y T) bool { return y.Less(x) || visit(y) })
	})
}

// Settle does what Ascend does, and leaves the pages that it comes to in order until they
// are split: for who reads the first values again and again.
func (s *Set[T]) Settle(visit func(T) bool) {
	s.pages(&s.head, func(p *page[T]) bool {
		if p.loose {
			order(p.values)
			p.loose = false
		}
		return read(p, visit)
	})
}

// Min returns the first value, and false if there is none.
func (s *Set[T]) Min() (first T, found bool) {
	s.Ascend(func(x T) bool {
		first, found = x, true
		return false
	})
	return first, found
}

// find returns the page for a value.
func (s *Set[T]) find(x T) *page[T] {
	p := &s.head
	if s.tree != nil {
		s.tree.DescendLessOrEqual(leaf[T]{bound: x}, func(l leaf[T]) bool {
			p = l.page
			return false
		})
	}
	return p
}

// pages visits the pages in order, from one of them on.
func (s *Set[T]) pages(first *page[T], visit func(*page[T]) bool) {
	next := func(l leaf[T]) bool { return visit(l.page) }
	switch {
	case first != &s.head:
		s.tree.AscendGreaterOrEqual(leaf[T]{bound: first.bound}, next)
	case visit(first) && s.tree != nil:
		s.tree.Ascend(next)
	}
}

// read visits the values of a page in order, and leaves it as it is.
func read[T Value[T]](p *page[T], visit func(T) bool) bool {
	values := p.values
	if p.loose {
		var room [size]T
		values = append(room[:0], values...)
		order(values)
	}
	for _, x := range values {
		if !visit(x) {
			return false
		}
	}
	return true
}

// search returns where x is, or where it belongs, on a page that is in order.
func search[T Value[T]](p *page[T], x T) int {
	return sort.Search(len(p.values), func(i int) bool { return !p.values[i].Less(x) })
}

// order brings values in order.
func order[T Value[T]](values []T) {
	slices.SortFunc(values, func(a, b T) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
}

// shuffled notes where the values are on a page that is kept in no order from now on.
func shuffled[T Value[T]](p *page[T]) *page[T] {
	p.loose = true
	for i, x := range p.values {
		*x.Spot() = Spot[T]{p, int32(i)}
	}
	return p
}

// split makes room for x on or behind a page that is full, and returns where it is.
// Values that come in order fill whole pages.
func (s *Set[T]) split(p *page[T], x T) *page[T] {
	if p.loose {
		order(p.values)
	}
	half := size / 2
	q := &page[T]{bound: x, values: make([]T, 0, size)}
	if p.values[size-1].Less(x) {
		half = size
	} else {
		q.bound = p.values[half]
	}
	q.values = append(q.values, p.values[half:]...)
	clear(p.values[half:])
	p.values = p.values[:half]
	shuffled(p)
	shuffled(q)
	if s.tree == nil {
		s.tree = btree.NewG(32, func(a, b leaf[T]) bool { return a.bound.Less(b.bound) })
	}
	s.tree.ReplaceOrInsert(leaf[T]{q.bound, q})
	if x.Less(q.bound) {
		return p
	}
	return q
}

// join makes one page of p and the one before or, of the first, behind if both have
// little.
func (s *Set[T]) join(p *page[T]) {
	if p == &s.head {
		l, found := s.tree.Min()
		if !found {
			return
		}
		p = l.page
	}
	before := &s.head
	s.tree.DescendLessOrEqual(leaf[T]{bound: p.bound}, func(l leaf[T]) bool {
		before = l.page
		return l.page == p
	})
	if before == p {
		before = &s.head
	}
	if len(before.values)+len(p.values) > size/2 {
		return
	}
	before.values = append(before.values, p.values...)
	shuffled(before)
	s.tree.Delete(leaf[T]{bound: p.bound})
}
