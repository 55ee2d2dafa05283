package pages

import "math/bits"

// gaps are places on a page that have no value.
type gaps [(largest + 63) / 64]uint64

func (g *gaps) add(at int) { g[uint(at)/64] |= 1 << (uint(at) % 64) }

func (g *gaps) has(at int) bool { return g[uint(at)/64]>>(uint(at)%64)&1 != 0 }

// first returns the first one, -1 if there is none.
func (g *gaps) first() int {
	for i, some := range g {
		if some != 0 {
			return 64*i + bits.TrailingZeros64(some)
		}
	}
	return -1
}

// take takes the first one out and returns it, -1 if there is none.
func (g *gaps) take() int {
	at := g.first()
	if at >= 0 {
		g[uint(at)/64] &^= 1 << (uint(at) % 64)
	}
	return at
}

func (g *gaps) len() (n int) {
	for _, some := range g {
		n += bits.OnesCount64(some)
	}
	return n
}
