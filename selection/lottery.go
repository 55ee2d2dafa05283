package selection

import (
	"math"
	"math/bits"
	"math/rand/v2"

	"rserpool/asap/param"
)

// lottery is Weighted Random (RFC 5356, section 4.4), Randomized Least Used (section
// 5.4) and their kin: draws without replacement, each with a chance in proportion to
// weight.
type lottery struct {
	measure measure
	weight  func(sum uint64) uint64
	rand    *rand.Rand
	items   []*Item  // of weight above 0
	sums    []uint64 // Fenwick tree: sums[i] covers the lowbit(i+1) items up to item i
	total   uint64   // at most 2^32 items of less than 2^32 each
	idle    shuffle  // of weight 0: drawn when there are no others left
}

// Drawn makes choosers that draw elements one after the other, each with a chance in
// proportion to its weight; larger weights than 2^32-1 count as that. Elements of
// weight 0 are drawn when there are no others left, all alike.
func Drawn(weight func(param.Policy) uint64) func(*rand.Rand) Chooser {
	return newLottery(measure{base: weight}, func(sum uint64) uint64 { return min(sum, math.MaxUint32) })
}

// drawnBySpare is Drawn with what base + served x step leaves of the load scale for
// weight.
func drawnBySpare(base, step func(param.Policy) uint64) func(*rand.Rand) Chooser {
	return newLottery(measure{base, step}, spare)
}

func newLottery(m measure, weight func(uint64) uint64) func(*rand.Rand) Chooser {
	return func(r *rand.Rand) Chooser {
		return &lottery{measure: m, weight: weight, rand: r, idle: shuffle{rand: r}}
	}
}

func (c *lottery) Len() int { return len(c.items) + c.idle.Len() }

func (c *lottery) Put(it *Item, policy param.Policy) {
	c.measure.put(it, policy)
	c.place(it)
}

// place gives an element the weight of its sum.
func (c *lottery) place(it *Item) {
	weight := c.weight(it.sum())
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
	if !full {
		dst = c.idle.Choose(dst, n-(len(dst)-start), room)
	}
	if c.measure.step != nil {
		for _, it := range dst[start:] {
			it.served++
			c.place(it)
		}
	}
	return dst
}
