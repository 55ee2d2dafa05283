package pages

import (
	"cmp"
	"slices"
	"sort"

	"github.com/google/btree"
)

// shelved is how many pages a shelf has at most.
const shelved = 512

// shelf is pages next to each other in order, and at the same places their bounds.
type shelf[K cmp.Ordered, V any] struct {
	keys  []K
	ties  []uint64
	pages []*page[K, V]
}

// leaf is a shelf as it is searched for: by the bound of its first page.
type leaf[K cmp.Ordered, V any] struct {
	bound[K]
	shelf *shelf[K, V]
}

func (l leaf[K, V]) less(m leaf[K, V]) bool {
	return l.key < m.key || l.key == m.key && l.tie < m.tie
}

// shelf returns the shelf that has the page for a value.
func (s *Set[K, V]) shelf(b bound[K]) *shelf[K, V] {
	h := &s.first
	if s.tree != nil {
		s.tree.DescendLessOrEqual(leaf[K, V]{bound: b}, func(l leaf[K, V]) bool {
			h = l.shelf
			return false
		})
	}
	return h
}

// page returns the page for a value.
func (s *Set[K, V]) page(b bound[K]) *page[K, V] {
	h := s.shelf(b)
	if len(h.pages) == 0 {
		return &s.head
	}
	return h.pages[h.find(b)]
}

// find returns where the page for a value is.
func (h *shelf[K, V]) find(b bound[K]) int {
	at := before(h.keys, b.key)
	if at == 0 || h.keys[at] != b.key || h.ties[at] <= b.tie {
		return at
	}
	// Several pages may begin with this key.
	return sort.Search(at, func(i int) bool { return h.keys[i+1] == b.key && h.ties[i+1] > b.tie })
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

func (h *shelf[K, V]) insert(at int, p *page[K, V]) {
	h.keys = slices.Insert(h.keys, at, p.bound.key)
	h.ties = slices.Insert(h.ties, at, p.bound.tie)
	h.pages = slices.Insert(h.pages, at, p)
}

// cut leaves the first n pages on a shelf, and returns another shelf with the others.
func (h *shelf[K, V]) cut(n int) *shelf[K, V] {
	rest := &shelf[K, V]{slices.Clone(h.keys[n:]), slices.Clone(h.ties[n:]), slices.Clone(h.pages[n:])}
	clear(h.pages[n:])
	h.keys, h.ties, h.pages = h.keys[:n], h.ties[:n], h.pages[:n]
	return rest
}

// shelve adds a page behind the one that ends where it begins. Pages that come in order
// fill whole shelves.
func (s *Set[K, V]) shelve(p *page[K, V]) {
	h := s.shelf(p.bound)
	if len(h.pages) == 0 {
		h.insert(0, &s.head)
	}
	at := h.find(p.bound) + 1
	if len(h.pages) < shelved {
		h.insert(at, p)
		return
	}
	if s.tree == nil {
		s.tree = btree.NewG(32, leaf[K, V].less)
	}
	n := shelved / 2
	if at == shelved {
		n = at
	}
	next := h.cut(n)
	if at >= n {
		h, at = next, at-n
	}
	h.insert(at, p)
	s.tree.ReplaceOrInsert(leaf[K, V]{next.pages[0].bound, next})
}

// unshelve takes out a page that is not head.
func (s *Set[K, V]) unshelve(p *page[K, V]) {
	h := s.shelf(p.bound)
	at := h.find(p.bound)
	h.keys = slices.Delete(h.keys, at, at+1)
	h.ties = slices.Delete(h.ties, at, at+1)
	h.pages = slices.Delete(h.pages, at, at+1)
	if at > 0 {
		return
	}
	s.tree.Delete(leaf[K, V]{bound: p.bound})
	if len(h.pages) > 0 {
		s.tree.ReplaceOrInsert(leaf[K, V]{h.pages[0].bound, h})
	}
}

// neighbours returns the pages before and behind p, nil if there are none.
func (s *Set[K, V]) neighbours(p *page[K, V]) (before, behind *page[K, V]) {
	if p.bounded {
		behind = s.page(p.end)
	}
	if p == &s.head {
		return nil, behind
	}
	h := s.shelf(p.bound)
	if at := h.find(p.bound); at > 0 {
		return h.pages[at-1], behind
	}
	before = s.first.pages[len(s.first.pages)-1]
	s.tree.DescendLessOrEqual(leaf[K, V]{bound: p.bound}, func(l leaf[K, V]) bool {
		if l.shelf != h {
			before = l.shelf.pages[len(l.shelf.pages)-1]
		}
		return l.shelf == h
	})
	return before, behind
}
