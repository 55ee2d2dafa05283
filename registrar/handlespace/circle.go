package handlespace

import (
	"rserpool/asap/param"
	"rserpool/selection"
)

// circle is the encoded elements of a pool whose replies are one circular list
// (selection.Circle), one behind the other in this order: a reply of the whole
// pool is the circle from an element on. It is made by the first such reply after
// a change, and never changed itself.
type circle struct {
	octets []byte // empty if there is to be no such reply
}

// turn makes a reply of the whole pool from the circle, and returns the two parts
// of it, the second one perhaps empty. It returns false if this isn't possible:
// the policy is another, or the query wants less. The mutex is held.
func (p *pool) turn(q Query) (first, second []byte, ok bool) {
	order, ok := p.candidates().(selection.Circle)
	if !ok || order.Len() > q.Items {
		return nil, nil, false // what is not asked for need not be made
	}
	if p.circle == nil {
		p.circle = newCircle(order)
	}
	c := p.circle
	if len(c.octets) == 0 || len(c.octets) > q.Room {
		return nil, nil, false
	}
	at := order.Turn().Value.(*element).at
	return c.octets[at:], c.octets[:at], true
}

// newCircle returns an empty circle if the pool does not fit into a message, or
// if one of its elements may not stand at the end of octets.
func newCircle(order selection.Circle) *circle {
	size := 0
	for it := range order.All() {
		size += it.Size
		if size > param.MaxLength || param.Padded(it.Value.(*element).record.Load().Encoded()) {
			return &circle{}
		}
	}
	c := &circle{octets: make([]byte, 0, size)}
	for it := range order.All() {
		e := it.Value.(*element)
		e.at = int32(len(c.octets))
		c.octets = append(c.octets, e.record.Load().Encoded()...)
	}
	return c
}
