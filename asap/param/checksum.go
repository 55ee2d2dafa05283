package param

// Checksum is the PE checksum of RFC 5353, section 3.6.2, over a set of pool
// elements, kept up to date by adding and removing one at a time. The zero value
// is the empty set. It keeps the exact sum, not the folded one: subtracting in
// one's complement arithmetic would confuse the two zeros. 2^44 elements with the
// longest handles fit.
type Checksum struct{ total uint64 }

// Add adds an element that is not in the set.
func (c *Checksum) Add(h PoolHandle, id PEID) { c.total += block(h, id) }

// Remove removes an element that is in the set.
func (c *Checksum) Remove(h PoolHandle, id PEID) { c.total -= block(h, id) }

// Sum returns the checksum as it goes into a PE Checksum parameter.
func (c Checksum) Sum() uint16 {
	s := c.total
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// block is the plain sum of the 16-bit words of one element: its handle, padded
// with zeros to a multiple of four octets, and its identifier. The padding adds
// nothing but the low half of a last odd word.
func block(h PoolHandle, id PEID) uint64 {
	s := uint64(id>>16) + uint64(id&0xffff)
	for i := range len(h) {
		if i%2 == 0 {
			s += uint64(h[i]) << 8
		} else {
			s += uint64(h[i])
		}
	}
	return s
}
