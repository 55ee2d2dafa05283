package replica

import (
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica/internal/fault"
)

// leftover is what an interrupted exchange leaves to a member: items that it was told
// and has not taken over, and the commands that were ordered meanwhile. It is done step
// by step, before the member begins the next exchange.
type leftover struct {
	torn  bool // there are items, or pools to be settled
	items []handlespace.Item
	marks handlespace.Marks
	sides int // of that exchange, the most of several
	queue []queued
}

// interrupted ends an exchange whose view is gone. What was delivered during it was
// delivered at all that went on from there: it is applied, to be part of what is
// exchanged next. A member that has never been synced has nothing that it could be
// applied to and leaves it to the others.
func (r *Replica) interrupted() {
	x := r.exchange
	r.exchange = nil
	queue := r.queue
	r.queue, r.octets = nil, 0
	if x.fresh() || r.cfg.Faults.Has(fault.QueueDropped) {
		for _, q := range queue {
			if p := r.own(q.own); p != nil {
				p.applied = true
			}
		}
		queue = nil
	}
	l := &r.left
	l.torn, l.marks, l.sides = true, x.marks, max(l.sides, len(x.view.Members))
	l.items = append(l.items, x.rest().Items...)
	l.queue = append(l.queue, queue...)
}

// resumed does a part of what is left, and reports whether nothing is left.
func (r *Replica) resumed() bool {
	l, room := &r.left, r.cfg.bounds.merge
	if n := min(len(l.items), room); n > 0 {
		r.apply(0, handlespace.Merge{Items: l.items[:n], Sides: l.sides})
		l.items = l.items[n:]
		room -= n
	}
	if n := min(r.cfg.Space.Unsettled(), room); n > 0 && l.torn && len(l.items) == 0 {
		r.apply(0, handlespace.Merge{Settle: n})
		room -= n
	}
	if l.torn && len(l.items) == 0 && r.cfg.Space.Unsettled() == 0 {
		r.apply(0, handlespace.Merge{Marks: l.marks, End: true})
		l.torn = false
	}
	for !l.torn && room > 0 && len(l.queue) > 0 {
		q := l.queue[0]
		l.queue = l.queue[1:]
		room--
		r.applyQueued(q, r.cfg.version)
	}
	if l.torn || len(l.queue) > 0 {
		return false
	}
	*l = leftover{}
	return true
}
