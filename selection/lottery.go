package selection

import (
	"math"
	"math/rand/v2"
	"slices"

	"rserpool/asap/param"
)

// lottery is Weighted Random (RFC 5356, section 4.4), Randomized Least Used (section
// 5.4) and their kin: draws without replacement, each with a chance in proportion to
// weight.
type lottery struct {
	measure measure
	weight  func(sum uint64) uint64
	rand    *rand.Rand
	items   array[*Item]       // of weight above 0
	sums    sums               // of their weights
	idle    shuffle            // of weight 0: drawn when there are no others left
	ahead   *lots              // nil while there are few elements
	read    func(*Item) uint64 // see Foretelling
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

// Foretell implements Foretelling.
func (c *lottery) Foretell(read func(*Item) uint64) { c.read, c.idle.read = read, read }

func (c *lottery) Len() int { return c.items.n + c.idle.Len() }

func (c *lottery) Put(it *Item, policy param.Policy) {
	c.measure.put(it, policy)
	c.place(it)
}

// place gives an element the weight of its sum.
func (c *lottery) place(it *Item) {
	weight := uint32(c.weight(it.sum()))
	if it.held && it.weight > 0 && weight > 0 {
		c.sums.set(int(it.slot), weight)
		it.weight = weight
		return
	}
	c.Remove(it)
	it.held, it.weight = true, weight
	if weight == 0 {
		c.idle.add(it)
		return
	}
	it.slot = int32(c.items.n)
	c.items.push(it)
	c.sums.push(weight)
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
	last := *c.items.at(c.items.n - 1)
	if last != it {
		c.sums.set(int(it.slot), last.weight)
		*c.items.at(int(it.slot)) = last
		last.slot = it.slot
	}
	c.items.pop()
	c.sums.pop()
}

// Choose repeats draws that hit an element of the reply again, as long as these are
// few and have little of the weight: else they are taken out until the end.
func (c *lottery) Choose(dst []*Item, n, room int) []*Item {
	const few = 8
	start, out := len(dst), len(dst) // what is between is taken out
	var share uint64                 // of the weight, from out on
	full := false
	for c.sums.total > 0 && len(dst)-start < n {
		if len(dst)-out > few || share > c.sums.total/4 {
			for ; out < len(dst); out++ {
				c.sums.set(int(dst[out].slot), 0)
			}
			share = 0
			continue
		}
		it := *c.items.at(c.draw())
		if slices.Contains(dst[out:], it) {
			continue
		}
		if full = it.Size > room; full {
			break
		}
		dst = append(dst, it)
		room -= it.Size
		share += uint64(it.weight)
	}
	for _, it := range dst[start:out] {
		c.sums.set(int(it.slot), it.weight)
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

// draw draws a place with a chance in proportion to its weight.
func (c *lottery) draw() int {
	if c.items.n <= cached {
		return c.sums.find(c.rand.Uint64N(c.sums.total))
	}
	if foresee(&c.ahead, c.rand) {
		c.look()
	}
	return c.sums.find(c.ahead.next(c.sums.total))
}

// look reads what the numbers drawn ahead are going to choose.
func (c *lottery) look() {
	d, draws := c.ahead, [lotsAhead]uint64{}
	for i, number := range d.numbers {
		draws[i] = below(number, c.sums.total)
	}
	places, touched := c.sums.findAll(draws)
	d.touched += touched
	for _, at := range places {
		it := *c.items.at(at)
		d.touched += uint64(it.weight)
		if c.read != nil {
			d.touched += c.read(it)
		}
	}
}
