package ringtest

import "slices"

// bits is a set of small numbers.
type bits []uint64

func (b *bits) add(i int) {
	for len(*b) <= i/64 {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
}

func (b bits) has(i int) bool { return i/64 < len(b) && b[i/64]>>(i%64)&1 == 1 }

func (b *bits) or(c bits) {
	for len(*b) < len(c) {
		*b = append(*b, 0)
	}
	for i, w := range c {
		(*b)[i] |= w
	}
}

func (b bits) within(c bits) bool {
	for i, w := range b {
		if i >= len(c) && w != 0 || i < len(c) && w&^c[i] != 0 {
			return false
		}
	}
	return true
}

func (b bits) equal(c bits) bool { return b.within(c) && c.within(b) }
func (b bits) clone() bits       { return slices.Clone(b) }
