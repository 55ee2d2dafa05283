package selection

import (
	"math/rand/v2"

	"rserpool/asap/param"
)

// twoChoices is Power of Two Choices: each place of a reply goes to the less loaded
// of two elements drawn at random. Full elements are avoided as by Least Used, but
// users that ask at the same time, between two reports of load, do not all get the
// same element.
type twoChoices struct{ shuffle }

func newTwoChoices(r *rand.Rand) Chooser { return &twoChoices{shuffle{rand: r}} }

func (c *twoChoices) Put(it *Item, policy param.Policy) {
	it.base = load(policy)
	c.shuffle.Put(it, policy)
}

// Choose draws without replacement: what is chosen stands at the first places of the
// array, and is not drawn from.
func (c *twoChoices) Choose(dst []*Item, n, room int) []*Item {
	for i := range min(n, c.items.n) {
		a, b := drawTwo(c.rand, c.items.n-i)
		if (*c.items.at(i + b)).base < (*c.items.at(i + a)).base {
			a = b
		}
		c.swap(i, i+a)
		it := *c.items.at(i)
		if it.Size > room {
			break
		}
		dst = append(dst, it)
		room -= it.Size
	}
	return dst
}

// drawTwo draws two different numbers below n, which is at least 1; twice 0 if there
// is no other.
func drawTwo(r *rand.Rand, n int) (a, b int) {
	if n == 1 {
		return 0, 0
	}
	a, b = r.IntN(n), r.IntN(n-1)
	if b >= a {
		b++
	}
	return a, b
}
