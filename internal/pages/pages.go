// Package pages keeps large ordered sets that change more often than they are read in
// order.
//
// A [Set] has its values on pages, each of which holds what lies between two bounds; the
// bounds in order on shelves of some hundreds, small enough for the processor's cache; and
// the shelves in a balanced tree (google/btree). A page is put in order only when somebody
// reads it: to add a value is to find its page and to write behind what is on it, or where
// something was, without looking at any of that. A value may know its page, so that to take
// it out is to find nothing; otherwise the keys on its page are read from the first to the
// last. A tree of single values reads a dozen places in memory one after the other for
// either, and waits for each.
package pages

import (
	"cmp"
	"slices"
	"sort"

	"github.com/google/btree"
)

// largest is how many values a page holds at most, searched how many if they don't know
// their places. A page that comes to less than a quarter of that is joined with a neighbour
// if both have half of it at most. So many that are given up are kept.
const (
	largest  = 120
	searched = 64
	spares   = 4
)

// Value is what a Set holds under a key.
type Value[K cmp.Ordered, V any] interface {
	// Tie orders the values of one key, each of which has another one.
	Tie() uint64
	// Spot returns where the place of the value is noted, which belongs to the set
	// while the value is in it; or nil, always, if it is noted nowhere.
	Spot() *Spot[K, V]
}

// Spot says where in a Set a value is. The zero Spot says that it is in none.
type Spot[K cmp.Ordered, V any] struct {
	page *page[K, V]
	at   int32 // on the page while that is in no order
}

// Set is a set of values in the order of their keys. The zero Set is empty. It must not
// be copied. Methods that change it and Settle must not run at the same time as others;
// those that only read may.
type Set[K cmp.Ordered, V Value[K, V]] struct {
	head  page[K, V]                // what is below all bounds
	first shelf[K, V]               // begins with head; empty as long as there was no other page
	tree  *btree.BTreeG[leaf[K, V]] // the other shelves, nil if there were none
	n     int

	spare []*page[K, V] // for the next splits, so that steady changes allocate nothing
	found *page[K, V]   // by Find, perhaps nil
	ahead *ahead[K, V]  // nil until something is read ahead
}

// page has what lies between its bound and the next one: values, and at the same places
// their keys. If values note their places, those that go from a loose page leave gaps.
type page[K cmp.Ordered, V any] struct {
	keys    []K
	values  []V
	gaps    gaps
	loose   bool     // in no order
	bounded bool     // has an end
	bound   bound[K] // of head: none
	end     bound[K] // bound of the next page
}

// covers reports whether a value belongs on the page. Of head it need not know.
func (p *page[K, V]) covers(b bound[K]) bool {
	return b.compare(p.bound) >= 0 && (!p.bounded || b.compare(p.end) < 0)
}

// len returns how many values are on the page.
func (p *page[K, V]) len() int { return len(p.keys) - p.gaps.len() }

// bound is below a value or the same as it.
type bound[K cmp.Ordered] struct {
	key K
	tie uint64
}

func (b bound[K]) compare(c bound[K]) int {
	if b.key != c.key {
		return cmp.Compare(b.key, c.key)
	}
	return cmp.Compare(b.tie, c.tie)
}

// Len returns the number of values.
func (s *Set[K, V]) Len() int { return s.n }

// Insert adds a value that is in no set.
func (s *Set[K, V]) Insert(k K, v V) { s.insert(s.find(bound[K]{k, v.Tie()}), k, v) }

// Put gives a key a value instead of the one that it has, if it has one. Put, Get and
// Delete without a Spot are for keys that have one value each, of Tie 0.
func (s *Set[K, V]) Put(k K, v V) {
	p := s.find(bound[K]{key: k})
	if at := slices.Index(p.keys, k); at >= 0 {
		p.values[at] = v
		return
	}
	s.insert(p, k, v)
}

// Get returns the value of a key, and false if it has none.
func (s *Set[K, V]) Get(k K) (v V, found bool) { return s.page(bound[K]{key: k}).get(k) }

// Find does what Get does, for who is going to change the set: to change the value of the
// same key takes less time then. It may run at the same time as methods that only read,
// but not as Find.
func (s *Set[K, V]) Find(k K) (v V, found bool) {
	s.found = s.find(bound[K]{key: k})
	return s.found.get(k)
}

func (p *page[K, V]) get(k K) (v V, found bool) {
	if at := slices.Index(p.keys, k); at >= 0 {
		return p.values[at], true
	}
	return v, false
}

func (s *Set[K, V]) insert(p *page[K, V], k K, v V) {
	s.n++
	if p.len() == size(v) {
		p = s.split(p, bound[K]{k, v.Tie()})
	}
	add(p, k, v)
}

// add writes a value onto a page that has room for it.
func add[K cmp.Ordered, V Value[K, V]](p *page[K, V], k K, v V) {
	at := p.gaps.take()
	if at >= 0 {
		p.keys[at], p.values[at] = k, v
	} else {
		if at = len(p.keys); !p.loose {
			at = search(p, bound[K]{k, v.Tie()})
		}
		p.keys = slices.Insert(p.keys, at, k)
		p.values = slices.Insert(p.values, at, v)
	}
	note(p, v, at)
}

// Delete takes out a value. It does nothing if that is in no set; it must not be in
// another one.
func (s *Set[K, V]) Delete(k K, v V) {
	p, at := s.where(k, v)
	if at < 0 {
		return
	}
	s.n--
	remove(p, at, v)
	note(nil, v, 0)
	if p.len() < size(v)/4 {
		s.join(p, size(v)/2)
	}
}

// remove takes the value that is somewhere off the page.
func remove[K cmp.Ordered, V Value[K, V]](p *page[K, V], at int, v V) {
	var none V
	switch last := len(p.keys) - 1; {
	case !p.loose:
		p.keys, p.values = slices.Delete(p.keys, at, at+1), slices.Delete(p.values, at, at+1)
	case v.Spot() != nil:
		// The last one stays where it is, so that nobody has to look for it in memory.
		p.values[at] = none
		p.gaps.add(at)
	default:
		p.keys[at], p.values[at] = p.keys[last], p.values[last]
		p.values[last] = none
		p.keys, p.values = p.keys[:last], p.values[:last]
	}
}

// Ascend visits the values in order until visit returns false. visit must not change the
// set.
func (s *Set[K, V]) Ascend(visit func(K, V) bool) {
	s.pages(&s.head, func(p *page[K, V]) bool { return read(p, visit) })
}

// AscendFrom does what Ascend does, from a key on, which need not be in the set.
func (s *Set[K, V]) AscendFrom(from K, visit func(K, V) bool) {
	s.pages(s.page(bound[K]{key: from}), func(p *page[K, V]) bool {
		return read(p, func(k K, v V) bool { return k < from || visit(k, v) })
	})
}

// Settle does what Ascend does, and leaves the pages that it comes to in order until they
// are split: for who reads the first values again and again.
func (s *Set[K, V]) Settle(visit func(K, V) bool) {
	s.pages(&s.head, func(p *page[K, V]) bool {
		if p.loose {
			n := order(p, p.keys, p.values)
			clear(p.values[n:])
			p.keys, p.values = p.keys[:n], p.values[:n]
			p.gaps, p.loose = gaps{}, false
		}
		return read(p, visit)
	})
}

// find returns the page for a value, for who changes the set.
func (s *Set[K, V]) find(b bound[K]) *page[K, V] {
	if s.found != nil && s.found.covers(b) {
		return s.found
	}
	if p := s.ahead.find(b); p != nil {
		return p
	}
	return s.page(b)
}

// where returns the place of a value, -1 if it is not in the set.
func (s *Set[K, V]) where(k K, v V) (*page[K, V], int) {
	spot := v.Spot()
	switch {
	case spot == nil:
		p := s.find(bound[K]{key: k})
		return p, slices.Index(p.keys, k)
	case spot.page == nil:
		return nil, -1
	case spot.page.loose:
		return spot.page, int(spot.at)
	}
	return spot.page, search(spot.page, bound[K]{k, v.Tie()})
}

// pages visits the pages in order, from one of them on.
func (s *Set[K, V]) pages(p *page[K, V], visit func(*page[K, V]) bool) {
	for visit(p) && p.bounded {
		p = s.page(p.end)
	}
}

// read visits the values of a page in order, and leaves it as it is.
func read[K cmp.Ordered, V Value[K, V]](p *page[K, V], visit func(K, V) bool) bool {
	keys, values := p.keys, p.values
	if p.loose {
		var k [largest]K
		var v [largest]V
		n := order(p, k[:], v[:])
		keys, values = k[:n], v[:n]
	}
	for i, k := range keys {
		if !visit(k, values[i]) {
			return false
		}
	}
	return true
}

// search returns where a value is, or where it belongs, on a page that is in order.
func search[K cmp.Ordered, V Value[K, V]](p *page[K, V], b bound[K]) int {
	first, found := slices.BinarySearch(p.keys, b.key)
	if !found {
		return first
	}
	return first + sort.Search(len(p.keys)-first, func(i int) bool { return at(p, first+i).compare(b) >= 0 })
}

// order writes what is on a page in order into slices, which may be its own, and returns
// how much that is.
func order[K cmp.Ordered, V Value[K, V]](p *page[K, V], keys []K, values []V) int {
	type entry struct {
		bound[K]
		value V
	}
	var room [largest]entry
	entries := room[:0]
	for i, v := range p.values {
		if !p.gaps.has(i) {
			entries = append(entries, entry{bound[K]{p.keys[i], v.Tie()}, v})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.compare(b.bound) })
	for i, e := range entries {
		keys[i], values[i] = e.key, e.value
	}
	return len(entries)
}

// size returns how many values a page holds.
func size[K cmp.Ordered, V Value[K, V]](v V) int {
	if v.Spot() == nil {
		return searched
	}
	return largest
}

// note notes where a value is.
func note[K cmp.Ordered, V Value[K, V]](p *page[K, V], v V, at int) {
	if spot := v.Spot(); spot != nil {
		*spot = Spot[K, V]{p, int32(at)}
	}
}

// loosen notes where the values are on a page that is kept in no order from now on.
func loosen[K cmp.Ordered, V Value[K, V]](p *page[K, V]) {
	if p.loose {
		return
	}
	p.loose = true
	for i, v := range p.values {
		note(p, v, i)
	}
}

// split makes room for a value on or behind a page that is full, and returns where it is.
// Values that come in order fill whole pages.
func (s *Set[K, V]) split(p *page[K, V], b bound[K]) *page[K, V] {
	full := len(p.keys)
	q := s.fresh(full)
	q.bound = b
	for i := range p.keys {
		if !below(p, i, b) {
			q.bound = middle(p)
			break
		}
	}
	q.bounded, q.end = p.bounded, p.end
	p.bounded, p.end = true, q.bound
	q.loose = true
	loosen(p)
	for i, v := range slices.Backward(p.values) {
		if !below(p, i, q.bound) {
			add(q, p.keys[i], v)
			remove(p, i, v)
		}
	}
	s.shelve(q)
	if b.compare(q.bound) < 0 {
		return p
	}
	return q
}

// fresh returns an empty page. It is one piece of memory with what will be on it.
func (s *Set[K, V]) fresh(size int) *page[K, V] {
	if n := len(s.spare); n > 0 {
		q := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return q
	}
	if size == searched {
		var piece struct {
			page   page[K, V]
			keys   [searched]K
			values [searched]V
		}
		piece.page.keys, piece.page.values = piece.keys[:0], piece.values[:0]
		return &piece.page
	}
	var piece struct {
		page   page[K, V]
		keys   [largest]K
		values [largest]V
	}
	piece.page.keys, piece.page.values = piece.keys[:0], piece.values[:0]
	return &piece.page
}

// middle returns the middle one of some values on a full page.
func middle[K cmp.Ordered, V Value[K, V]](p *page[K, V]) bound[K] {
	var some [9]bound[K]
	for i := range some {
		some[i] = at(p, i*len(p.keys)/len(some))
	}
	slices.SortFunc(some[:], bound[K].compare)
	return some[len(some)/2]
}

// below reports whether a value on a page comes before a bound. It looks at the value only
// if it must.
func below[K cmp.Ordered, V Value[K, V]](p *page[K, V], i int, b bound[K]) bool {
	return p.keys[i] < b.key || p.keys[i] == b.key && p.values[i].Tie() < b.tie
}

// at returns the bound that is the same as a value on a page.
func at[K cmp.Ordered, V Value[K, V]](p *page[K, V], i int) bound[K] {
	return bound[K]{p.keys[i], p.values[i].Tie()}
}

// join makes one page of p and a neighbour if they have at most so much together. What is
// empty always finds one.
func (s *Set[K, V]) join(p *page[K, V], most int) {
	before, behind := s.neighbours(p)
	switch n := p.len(); {
	case before != nil && (n == 0 || before.len()+n <= most):
		s.merge(before, p)
	case behind != nil && (n == 0 || behind.len()+n <= most):
		s.merge(p, behind)
	}
}

// merge takes what is on q to p, the page before it, and gives q up.
func (s *Set[K, V]) merge(p, q *page[K, V]) {
	s.unshelve(q)
	p.bounded, p.end = q.bounded, q.end
	q.bounded, q.end = true, q.bound // covers nothing
	if q.len() > 0 {
		loosen(p)
	}
	for i, v := range q.values {
		if !q.gaps.has(i) {
			add(p, q.keys[i], v)
		}
	}
	clear(q.values)
	q.keys, q.values, q.gaps = q.keys[:0], q.values[:0], gaps{}
	if len(s.spare) < spares {
		s.spare = append(s.spare, q)
	}
}
