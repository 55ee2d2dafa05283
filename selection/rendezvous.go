package selection

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"rserpool/asap/param"
	"rserpool/internal/pages"
)

// listed is the registrar's half of Rendezvous Hashing: replies list the elements in
// the order of their identifiers, those of weight 0 last. Nothing moves, so that all
// users work on the same list, whichever registrar they ask, even of a pool that
// does not fit into a reply.
type listed struct {
	tree pages.Set[uint64, queued]
	seq  uint64
}

func newListed(*rand.Rand) Chooser { return &listed{} }

func (c *listed) Len() int { return c.tree.Len() }

func (c *listed) Put(it *Item, policy param.Policy) {
	c.Remove(it)
	it.held = true
	c.seq++
	it.key, it.seq = uint64(it.ID), c.seq
	if weightOf(policy) == 0 {
		it.key |= 1 << 32
	}
	c.tree.Insert(it.key, queued{it})
}

func (c *listed) Remove(it *Item) {
	if it.held {
		it.held = false
		c.tree.Delete(it.key, queued{it})
	}
}

func (c *listed) Choose(dst []*Item, n, room int) []*Item {
	start := len(dst)
	c.tree.Settle(func(_ uint64, t queued) bool {
		if len(dst)-start >= n || t.Size > room {
			return false
		}
		dst = append(dst, t.Item)
		room -= t.Size
		return true
	})
	return dst
}

// rendezvous is the pool user's half: each element draws a number from the key and
// its own identifier, and the largest number, by weight, has the key. An element that
// leaves gives its keys to all others in proportion to their weights, and no other
// key moves; one that comes takes its share from all others.
type rendezvous struct {
	list []param.PoolElement
	self uint64 // stands for the key of requests without one
}

// PickRendezvous makes a Picker that gives requests of the same Key to the same
// element as long as that is there, and spreads keys over the elements in
// proportion to weight. All users of the pool agree, if they have the same list.
// Requests without a key are all of one key, that of this Picker.
func PickRendezvous(r *rand.Rand) Picker {
	p := &rendezvous{}
	if r != nil {
		p.self = r.Uint64()
	}
	return p
}

func (p *rendezvous) Renew(list []param.PoolElement) { p.list = list }

func (p *rendezvous) Pick(usable []int, r Request) int {
	key := p.self
	if r.Key != "" {
		key = hashKey(r.Key)
	}
	place, most := usable[0], p.offer(key, usable[0])
	for _, i := range usable[1:] {
		if o := p.offer(key, i); most.less(o) {
			place, most = i, o
		}
	}
	return place
}

// offer is what an element has for a key.
type offer struct {
	weight uint64
	x      float64 // even between 0 and 1, by key and element
}

func (p *rendezvous) offer(key uint64, place int) offer {
	e := &p.list[place]
	return offer{weightOf(e.Policy), (float64(mix(key^mix(uint64(e.ID)))>>12) + 0.5) / (1 << 52)}
}

// less compares weight / -ln x: so the chance to offer the most is in proportion to
// weight. Logarithms are slow, and weights mostly equal.
func (a offer) less(b offer) bool {
	if a.weight == b.weight {
		return a.x < b.x
	}
	return float64(a.weight)/-math.Log(a.x) < float64(b.weight)/-math.Log(b.x)
}

// hashKey is FNV-1a.
func hashKey(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return h.Sum64()
}

// mix spreads each bit over all: the last step of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
