package selection

import (
	"math/bits"
	"math/rand/v2"

	"rserpool/asap/param"
)

// shuffle is Random (RFC 5356, section 4.3).
type shuffle struct {
	rand  *rand.Rand
	items array[*Item]
	ahead *lots // nil while there are few elements
	read  func(*Item) uint64
}

// lots are random numbers for the next elements. What is going to be chosen is read
// beforehand, for all of them at a time: the processor waits for the memory of one element
// after the other else, of many in no order.
type lots struct {
	numbers [16]uint64
	left    int
	touched uint64 // what is read ends here, so that it is read
}

// cached is of how many elements the processor's cache has everything.
const cached = 10_000

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
	if n <= cached || i >= len(c.ahead.numbers) {
		return i + c.rand.IntN(n-i)
	}
	for {
		if at := c.next(n); at >= i {
			return at
		}
	}
}

// next returns the next number drawn ahead as one below n.
func (c *shuffle) next(n int) int {
	if c.ahead == nil {
		c.ahead = new(lots)
	}
	d := c.ahead
	if d.left == 0 {
		for i := range d.numbers {
			d.numbers[i] = c.rand.Uint64()
		}
		for _, number := range d.numbers {
			it := *c.items.at(below(number, n))
			if d.touched += uint64(it.slot); c.read != nil {
				d.touched += c.read(it)
			}
		}
		d.left = len(d.numbers)
	}
	d.left--
	return below(d.numbers[d.left], n)
}

// below makes a number below n of any one.
func below(number uint64, n int) int {
	high, _ := bits.Mul64(number, uint64(n))
	return int(high)
}
