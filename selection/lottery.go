package selection

import (
	"math/bits"
	"math/rand/v2"

	"rserpool/asap/param"
)

// lottery is Weighted Random (RFC 5356, section 4.4) and Randomized Least Used
// (section 5.4): draws without replacement, each with a chance in proportion to
// weight.
type lottery struct {
	weight func(param.Policy) uint64 // 0 .. 2^32-1
	rand   *rand.Rand
	items  []*Item  // of weight above 0
	sums   []uint64 // Fenwick tree: sums[i] covers the lowbit(i+1) items up to item i
	total  uint64   // at most 2^32 items of less than 2^32 each
	idle   shuffle  // of weight 0: drawn when there are no others left
}

func newWeightedRandom(r *rand.Rand) Chooser {
	return &lottery{weight: weightOf, rand: r, idle: shuffle{rand: r}}
}

func newRandomizedLeastUsed(r *rand.Rand) Chooser {
	return &lottery{weight: spareCapacity, rand: r, idle: shuffle{rand: r}}
}

// spareCapacity is the weight of Randomized Least Used.
func spareCapacity(p param.Policy) uint64 { return uint64(param.MaxLoad - p.Load) }

func (c *lottery) Len() int { return len(c.items) + c.idle.Len() }

func (c *lottery) Put(it *Item, policy param.Policy) {
	weight := c.weight(policy)
	if it.held && it.weight > 0 && weight > 0 {
		c.change(it.slot, weight-it.weight)
		it.weight = weight
		return
	}
	c.Remove(it)
	it.held, it.weight = true, weight
	if weight == 0 {
		c.idle.add(it)
		return
	}
	it.slot = len(c.items)
	c.items = append(c.items, it)
	c.total += weight
	// The new sum covers its own item and those of the sums it encloses.
	sum := weight
	for i, covered := it.slot, (it.slot+1)&-(it.slot+1); i > it.slot+1-covered; i &= i - 1 {
		sum += c.sums[i-1]
	}
	c.sums = append(c.sums, sum)
}

func (c *lottery) Remove(it *Item) {
	if !it.held {
		return
	}
	it.held = false
	if it.weight == 0 {
		c.idle.drop(it)
		return
	}
	last := c.items[len(c.items)-1]
	if last != it {
		c.change(it.slot, last.weight-it.weight)
		c.items[it.slot] = last
		last.slot, it.slot = it.slot, last.slot
	}
	c.total -= last.weight // counted at its new place by now, or going
	c.items[len(c.items)-1] = nil
	c.items = c.items[:len(c.items)-1]
	c.sums = c.sums[:len(c.items)]
}

// change adds delta, which may be a negative number in two's complement, to the
// weight at a slot.
func (c *lottery) change(slot int, delta uint64) {
	c.total += delta
	for i := slot + 1; i <= len(c.sums); i += i & -i {
		c.sums[i-1] += delta
	}
}

// find returns the slot in which the running sum of the weights passes draw.
func (c *lottery) find(draw uint64) int {
	slot := 0
	for step := 1 << (bits.Len(uint(len(c.sums))) - 1); step > 0; step >>= 1 {
		if next := slot + step; next <= len(c.sums) && c.sums[next-1] <= draw {
			draw -= c.sums[next-1]
			slot = next
		}
	}
	return slot
}

func (c *lottery) Choose(dst []*Item, n, room int) []*Item {
	start := len(dst)
	full := false
	for c.total > 0 && len(dst)-start < n {
		it := c.items[c.find(c.rand.Uint64N(c.total))]
		if full = it.Size > room; full {
			break
		}
		dst = append(dst, it)
		room -= it.Size
		c.change(it.slot, -it.weight)
	}
	for _, it := range dst[start:] {
		c.change(it.slot, it.weight)
	}
	if full {
		return dst
	}
	return c.idle.Choose(dst, n-(len(dst)-start), room)
}
