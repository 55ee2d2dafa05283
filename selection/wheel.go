package selection

import (
	"math/bits"
	"math/rand/v2"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// Phases of successive elements step by the golden section, which spreads any
// number of them evenly over a turn. Where the steps and the head begin is free;
// these give A A B A C A A for weights 5, 1, 1.
const (
	phaseStep  = 0x61c88647 // 2^32 (3 - sqrt 5) / 2, odd: no phase comes twice
	phaseFirst = 0x08000000
	headFirst  = 0x10000000
)

// wheel is Weighted Round Robin (RFC 5356, section 4.2). An element of weight w
// owns w evenly spaced points of a circle, (j + phase) / w for j = 0 .. w-1, and
// the head walks around the circle from point to point: that is the virtual
// list in which each element occurs in proportion to its weight, without the
// list. The tree holds the next point of each element, and its order is the
// order in which a walk from the head meets the elements for the first time.
type wheel struct {
	weighted track
	idle     track // elements of weight 0, as weight 1, when there are no others
	joined   uint64
}

func newWheel(*rand.Rand) Chooser {
	return &wheel{weighted: newTrack(), idle: newTrack()}
}

func (c *wheel) Len() int { return c.weighted.tree.Len() + c.idle.tree.Len() }

func (c *wheel) Put(it *Item, policy param.Policy) {
	weight := uint32(weightOf(policy))
	if it.held {
		if it.weight == weight {
			return
		}
		c.track(it).tree.Delete(pointOf(it))
	} else {
		it.held = true
		it.slot = int32(uint32(phaseFirst + c.joined*phaseStep))
		it.base = c.joined
		c.joined++
	}
	it.weight = weight
	c.track(it).insert(it)
}

func (c *wheel) Remove(it *Item) {
	if it.held {
		it.held = false
		c.track(it).tree.Delete(pointOf(it))
	}
}

func (c *wheel) Choose(dst []*Item, n, room int) []*Item {
	if c.weighted.tree.Len() > 0 {
		return c.weighted.choose(dst, n, room)
	}
	return c.idle.choose(dst, n, room)
}

func (c *wheel) track(it *Item) *track {
	if it.weight > 0 {
		return &c.weighted
	}
	return &c.idle
}

// point is a place on the circle: after lap full turns, the fraction
// num / (2^32 weight) of a turn. Fractions are exact: nothing drifts.
type point struct {
	lap    uint64
	num    uint64 // j * 2^32 + phase, less than weight * 2^32
	weight uint64 // 1 .. 2^32-1
	it     *Item
}

func (it *Item) phase() uint64 { return uint64(uint32(it.slot)) }

func pointOf(it *Item) point {
	return point{lap: it.key, num: it.seq, weight: uint64(max(it.weight, 1)), it: it}
}

func (p point) less(q point) bool {
	if p.lap != q.lap {
		return p.lap < q.lap
	}
	ph, pl := bits.Mul64(p.num, q.weight)
	qh, ql := bits.Mul64(q.num, p.weight)
	if ph != qh {
		return ph < qh
	}
	if pl != ql {
		return pl < ql
	}
	return p.it.base < q.it.base
}

type track struct {
	tree *btree.BTreeG[point]
	head point // where the latest reply began
}

func newTrack() track {
	return track{tree: newTree(point.less), head: point{num: headFirst, weight: 1}}
}

// insert puts an element at the first of its points behind the head.
func (t *track) insert(it *Item) {
	weight := uint64(max(it.weight, 1))
	hi, lo := bits.Mul64(t.head.num, weight)
	head, _ := bits.Div64(hi, lo, t.head.weight) // the head on the scale of this weight
	it.key, it.seq = t.head.lap, it.phase()
	if it.seq <= head {
		it.seq += ((head-it.seq)>>32 + 1) << 32
		if it.seq>>32 >= weight {
			it.key, it.seq = it.key+1, it.phase()
		}
	}
	t.tree.ReplaceOrInsert(pointOf(it))
}

func (t *track) choose(dst []*Item, n, room int) []*Item {
	start := len(dst)
	t.tree.Ascend(func(p point) bool {
		if len(dst)-start >= n || p.it.Size > room {
			return false
		}
		dst = append(dst, p.it)
		room -= p.it.Size
		return true
	})
	if len(dst) > start {
		first := dst[start]
		t.head = pointOf(first)
		t.tree.Delete(t.head)
		if first.seq += 1 << 32; first.seq>>32 >= t.head.weight {
			first.key, first.seq = first.key+1, first.phase()
		}
		t.tree.ReplaceOrInsert(pointOf(first))
	}
	return dst
}

// newTree returns an empty tree. Pools are many and mostly small: the tree keeps
// hardly any spare nodes and shares none, as that would be a lock in common.
func newTree[T any](less btree.LessFunc[T]) *btree.BTreeG[T] {
	return btree.NewWithFreeListG(32, less, btree.NewFreeListG[T](2))
}
