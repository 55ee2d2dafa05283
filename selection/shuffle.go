package selection

import (
	"math/rand/v2"

	"rserpool/asap/param"
)

// shuffle is Random (RFC 5356, section 4.3).
type shuffle struct {
	rand  *rand.Rand
	items []*Item
}

func newShuffle(r *rand.Rand) Chooser { return &shuffle{rand: r} }

func (c *shuffle) Len() int { return len(c.items) }

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
	it.slot = len(c.items)
	c.items = append(c.items, it)
}

func (c *shuffle) drop(it *Item) {
	last := len(c.items) - 1
	c.swap(it.slot, last)
	c.items[last] = nil
	c.items = c.items[:last]
}

func (c *shuffle) swap(i, j int) {
	c.items[i], c.items[j] = c.items[j], c.items[i]
	c.items[i].slot, c.items[j].slot = i, j
}

// Choose draws without replacement: it shuffles the first places of the array.
func (c *shuffle) Choose(dst []*Item, n, room int) []*Item {
	for i := 0; i < min(n, len(c.items)); i++ {
		c.swap(i, i+c.rand.IntN(len(c.items)-i))
		it := c.items[i]
		if it.Size > room {
			break
		}
		dst = append(dst, it)
		room -= it.Size
	}
	return dst
}
