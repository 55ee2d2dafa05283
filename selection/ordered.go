package selection

import (
	"math/rand/v2"

	"rserpool/asap/param"
	"rserpool/internal/pages"
)

// ordered is the policies that list elements by a sum, smallest first: Priority (RFC
// 5356, section 4.5), Least Used (5.1), Least Used with Degradation (5.2), Priority
// Least Used (5.3) and their kin. Elements of equal sums take turns as Round Robin
// has them: whichever of them a reply names first is the last of them in the next
// reply.
type ordered struct {
	measure measure
	tree    pages.Set[uint64, queued]
	seq     uint64
}

// queued is an element among those of its key: who waits longest comes first.
type queued struct{ *Item }

// Tie implements pages.Value.
func (t queued) Tie() uint64 { return t.seq }

// Spot implements pages.Value.
func (t queued) Spot() *pages.Spot[uint64, queued] { return &t.spot }

// Sorted makes choosers that list elements by base + served x step, smallest first,
// where served counts the replies that the element stood in since it registered
// last; sums stop at 2^64-1. No step stands for 0. Elements of equal sums take turns.
func Sorted(base, step func(param.Policy) uint64) func(*rand.Rand) Chooser {
	return func(*rand.Rand) Chooser {
		return &ordered{measure: measure{base, step}}
	}
}

func (c *ordered) Len() int { return c.tree.Len() }

func (c *ordered) Put(it *Item, policy param.Policy) {
	before, held := it.key, it.held
	c.measure.put(it, policy)
	it.key = it.sum()
	switch {
	case !held:
		it.held = true
		c.seq++
		it.seq = c.seq
	case before == it.key:
		return
	default:
		c.tree.Delete(before, queued{it})
	}
	c.tree.Insert(it.key, queued{it})
}

func (c *ordered) Remove(it *Item) {
	if it.held {
		it.held = false
		c.tree.Delete(it.key, queued{it})
	}
}

// Foresee implements Foresighted. Elements that change their place go and come.
func (c *ordered) Foresee(changes []Change) {
	goes, comes := make([]queued, 0, 64), make([]uint64, 0, 64)
	for _, change := range changes {
		if it := change.Item; it != nil && it.held {
			goes = append(goes, queued{it})
		}
		if !change.Remove {
			comes = append(comes, c.measure.base(change.Policy))
		}
	}
	c.tree.BeforeDelete(goes)
	c.tree.BeforeInsert(comes)
}

func (c *ordered) Choose(dst []*Item, n, room int) []*Item {
	start := len(dst)
	var next *Item // the first that is not in the reply
	c.tree.Settle(func(_ uint64, t queued) bool {
		if len(dst)-start >= n || t.Size > room {
			next = t.Item
			return false
		}
		dst = append(dst, t.Item)
		room -= t.Size
		return true
	})
	for group := dst[start:]; len(group) > 0; {
		key, equals := group[0].key, 1
		for equals < len(group) && group[equals].key == key {
			equals++
		}
		shared := equals > 1 || next != nil && next.key == key
		for _, it := range group[1:equals] {
			c.use(it, false)
		}
		c.use(group[0], shared)
		group = group[equals:]
	}
	return dst
}

// use notes that an element was handed out. It gets behind those of its key when
// its turn is over, and in any case when its key changes.
func (c *ordered) use(it *Item, turn bool) {
	it.served++
	key := it.sum()
	if key == it.key && !turn {
		return
	}
	c.tree.Delete(it.key, queued{it})
	c.seq++
	it.key, it.seq = key, c.seq
	c.tree.Insert(it.key, queued{it})
}
