package selection

import (
	"math/rand/v2"

	"rserpool/asap/param"
)

// shuffle is Random (RFC 5356, section 4.3).
type shuffle struct {
	rand  *rand.Rand
	items array[*Item]
}

func newShuffle(r *rand.Rand) Chooser { return &shuffle{rand: r} }

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
		c.swap(i, i+c.rand.IntN(c.items.n-i))
		it := *c.items.at(i)
		if it.Size > room {
			break
		}
		dst = append(dst, it)
		room -= it.Size
	}
	return dst
}
