package selection

import (
	"math/rand/v2"

	"rserpool/asap/param"
)

// shuffle is Random (RFC 5356, section 4.3).
type shuffle struct {
	rand  *rand.Rand
	items array[*Item]
	ahead *lots              // nil while there are few elements
	read  func(*Item) uint64 // see Foretelling
}

func newShuffle(r *rand.Rand) Chooser { return &shuffle{rand: r} }

// Foretell implements Foretelling.
func (c *shuffle) Foretell(read func(*Item) uint64) { c.read = read }

func (c *shuffle) Len() int { return c.items.n }

func (c *shuffle) Put(it *Item, _ param.Policy) {
	if !it.held {
		it.held = true
		c.add(it)
	}
}

func (c *shuffle) Remove(it *Item) {
	if it.held {
		it.held = false
		c.drop(it)
	}
}

func (c *shuffle) add(it *Item) {
	it.slot = int32(c.items.n)
	c.items.push(it)
}

func (c *shuffle) drop(it *Item) {
	c.swap(int(it.slot), c.items.n-1)
	c.items.pop()
}

func (c *shuffle) swap(i, j int) {
	a, b := c.items.at(i), c.items.at(j)
	*a, *b = *b, *a
	(*a).slot, (*b).slot = int32(i), int32(j)
}

// Choose draws without replacement: it shuffles the first places of the array.
func (c *shuffle) Choose(dst []*Item, n, room int) []*Item {
	for i := 0; i < min(n, c.items.n); i++ {
		c.swap(i, c.draw(i))
		it := *c.items.at(i)
		if it.Size > room {
			break
		}
		dst = append(dst, it)
		room -= it.Size
	}
	return dst
}

// draw draws a place from i on. The numbers drawn ahead stand for places of the whole array,
// so that they mean the same whichever place of a reply they are for.
func (c *shuffle) draw(i int) int {
	n := c.items.n
	if n <= cached || i >= lotsAhead {
		return i + c.rand.IntN(n-i)
	}
	for {
		if foresee(&c.ahead, c.rand) {
			c.look()
		}
		if at := int(c.ahead.next(uint64(n))); at >= i {
			return at
		}
	}
}

// look reads what the numbers drawn ahead are going to choose.
func (c *shuffle) look() {
	d := c.ahead
	for _, number := range d.numbers {
		it := *c.items.at(int(below(number, uint64(c.items.n))))
		d.touched += uint64(it.slot)
		if c.read != nil {
			d.touched += c.read(it)
		}
	}
}
