package selection

import (
	"iter"
	"math/rand/v2"

	"rserpool/asap/param"
)

// ring is Round Robin (RFC 5356, section 4.1): a circular list in join order. It is
// a Circle.
type ring struct {
	head *Item
	n    int

	touched int // see Foresee
}

func newRing(*rand.Rand) Chooser { return &ring{} }

func (c *ring) Len() int { return c.n }

// Put adds a new element just before the head, so that its turn comes last.
func (c *ring) Put(it *Item, _ param.Policy) {
	if it.held {
		return
	}
	it.held = true
	c.n++
	if c.head == nil {
		it.next, it.prev = it, it
		c.head = it
		return
	}
	it.next, it.prev = c.head, c.head.prev
	it.prev.next, it.next.prev = it, it
}

// Remove moves the head on when it is the head that goes.
func (c *ring) Remove(it *Item) {
	if !it.held {
		return
	}
	it.held = false
	c.n--
	if c.head == it {
		c.head = it.next
	}
	if c.n == 0 {
		c.head = nil
	}
	it.prev.next, it.next.prev = it.next, it.prev
	it.next, it.prev = nil, nil
}

// Foresee implements Foresighted.
func (c *ring) Foresee(changes []Change) {
	size := 0
	for _, change := range changes {
		if it := change.Item; it != nil && it.held && change.Remove {
			size += it.next.Size + it.prev.Size
		}
	}
	c.touched += size
}

// Choose lists the elements from the head on. The head moves by one, however
// many elements the reply has.
func (c *ring) Choose(dst []*Item, n, room int) []*Item {
	it, chosen := c.head, 0
	for ; chosen < min(n, c.n) && it.Size <= room; chosen++ {
		dst = append(dst, it)
		room -= it.Size
		it = it.next
	}
	if chosen > 0 {
		c.head = c.head.next
	}
	return dst
}

// All implements Circle.
func (c *ring) All() iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for it, n := c.head, c.n; n > 0 && yield(it); n-- {
			it = it.next
		}
	}
}

// Turn implements Circle.
func (c *ring) Turn() *Item {
	first := c.head
	if first != nil {
		c.head = first.next
	}
	return first
}
