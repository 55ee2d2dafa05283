package handlespace

import (
	"fmt"

	"rserpool/asap/param"
	"rserpool/selection"
)

// NewItem returns an item with a record that was not made by Apply, and completes
// it: what is encoded, when it expires, its digest. An error says that the element
// has no wire form.
func NewItem(r *Record, reporters []string) (Item, error) {
	encoded, err := param.AppendPoolElement(nil, &r.Element, false)
	if err != nil {
		return Item{}, fmt.Errorf("element %v of pool %q: %w", r.Element.ID, r.Handle, err)
	}
	r.encoded = encoded
	r.refresh(r.Refreshed)
	r.seal(reporters)
	return Item{Record: r, Reporters: reporters}, nil
}

// encode makes anew what is encoded. The element has been encoded before, with
// another home.
func (r *Record) encode() {
	encoded, err := param.AppendPoolElement(nil, &r.Element, false)
	if err != nil {
		panic("handlespace: stored element can't be encoded: " + err.Error())
	}
	r.encoded = encoded
}

// Find returns what is stored under the key of an element: an entry or a tombstone;
// false if neither is. For the goroutine that calls Apply.
func (s *Space) Find(k Key) (Item, bool) {
	if _, e := s.find(k.Handle, k.ID); e != nil {
		return Item{Record: e.record, Reporters: e.reporters}, true
	}
	if t := s.tombstones.get(k); t != nil {
		return Item{Tombstone: t}, true
	}
	return Item{}, false
}

// Marks returns the pieces of state that are one for all elements. For the
// goroutine that calls Apply.
func (s *Space) Marks() Marks { return s.marks }

func (s *Space) merge(c *Merge) (events []Event) {
	s.marks.Stamp = max(s.marks.Stamp, c.Marks.Stamp)
	s.holdBack(c.Marks.HeldBack)
	for i := range c.Items {
		if p := c.Items[i].Pool; p != nil {
			s.note(p)
		}
	}
	for i := range c.Items {
		item := &c.Items[i]
		if item.Pool != nil {
			continue
		}
		if mine, ok := s.Find(item.Key()); ok && !item.Beats(&mine) {
			continue
		}
		if item.Record != nil {
			events = append(events, s.adopt(item))
		} else if p, e := s.find(item.Tombstone.Key.Handle, item.Tombstone.Key.ID); e != nil {
			last := p.elements.Len() == 1 && !p.guessed
			events = append(events, s.drop(p, e, Superseded, item.Tombstone)...)
			if last { // the pool may come back
				s.keep(p)
			}
		} else {
			s.tombstones.put(s, item.Tombstone)
		}
	}
	for handle, state := range s.stated {
		if c.Settle--; c.Settle < 0 && !c.End {
			break
		}
		delete(s.stated, handle)
		if found, ok := s.pools.Get(poolEntry{handle: handle}); ok {
			s.settle(found.pool, state)
		}
	}
	if c.End {
		for _, p := range s.guesses {
			p.guessed = false
		}
		s.stated, s.guesses = nil, nil
		s.merges++
	}
	return events
}

// note remembers what a pool is if that is better than what was said, and than what a
// pool is that was there before. One that a Merge made gets it at once.
func (s *Space) note(state *PoolState) {
	best := s.stated[state.Handle]
	if best == nil {
		if found, ok := s.pools.Get(poolEntry{handle: state.Handle}); ok {
			if found.pool.guessed {
				found.pool.guessed = false
				s.settle(found.pool, state)
				return
			}
			mine := found.pool.state()
			best = &mine
		}
	}
	if best == nil || state.compare(best) > 0 {
		s.state(state)
	}
}

// keep remembers what a pool is unless something better was said: it is about to change,
// perhaps not for good.
func (s *Space) keep(p *pool) {
	if s.stated[p.handle] == nil {
		state := p.state()
		s.state(&state)
	}
}

func (s *Space) state(state *PoolState) {
	if s.stated == nil {
		s.stated = make(map[param.PoolHandle]*PoolState)
	}
	s.stated[state.Handle] = state
}

// adopt stores an element as another side knows it.
func (s *Space) adopt(item *Item) Event {
	r := *item.Record
	p, e := s.find(r.Handle, r.Element.ID)
	if p != nil && !p.guessed && p.founder == r.Element.ID && !equal(&p.user, &r.Element.User) {
		s.keep(p) // a tombstone may be better still, and then the pool's transport is what it was
	}
	if e != nil {
		previous := e.record
		s.replace(p, e, &r, item.Reporters)
		return Adopted{r.Handle, &r, previous, false}
	}
	_, created := s.put(p, nil, &r, item.Reporters, "")
	if created {
		p, _ := s.find(r.Handle, r.Element.ID)
		if state := s.stated[r.Handle]; state != nil {
			delete(s.stated, r.Handle)
			s.settle(p, state)
		} else {
			p.guessed = true
			s.guesses = append(s.guesses, p)
		}
	}
	return Adopted{r.Handle, &r, nil, created}
}

// Unsettled returns how many pools a Merge with Settle has work for. For the goroutine
// that calls Apply.
func (s *Space) Unsettled() int { return len(s.stated) }

// settle makes a pool what a merge decided.
func (s *Space) settle(p *pool, state *PoolState) {
	if p.digest == state.digest() {
		return // nothing is to change
	}
	s.own(p.owner, -1)
	s.own(state.Owner, 1)
	s.restate(p, func() {
		p.owner, p.created, p.founder, p.user = state.Owner, state.Created, state.Founder, state.User
		if e := p.find(p.founder); e != nil {
			p.user = e.record.Element.User
		}
		if p.policy.Type != state.Policy {
			s.choose(p, state.Policy)
		}
	})
}

// choose gives a pool another policy and moves its elements. The mutex is held.
func (s *Space) choose(p *pool, t param.PolicyType) {
	p.elements.Ascend(func(e entry) bool {
		p.chooser(e.element.record).Remove(&e.element.item)
		return true
	})
	s.setPolicy(p, t)
	p.suspects, p.circle = nil, nil
	p.elements.Ascend(func(e entry) bool {
		e.element.item = selection.Item{Value: e.element, Size: e.element.item.Size}
		p.chooser(e.element.record).Put(&e.element.item, e.element.record.Element.Policy)
		return true
	})
}

// Cursor is a place in a Scan. The zero value is its beginning.
type Cursor struct {
	after      Key
	tombstones bool
	Done       bool // nothing is left
}

// Scan goes on through all that is to be exchanged, pools each with its elements and
// then tombstones, until yield returns false or Done; what yield got is passed. The
// Space must not be changed between the calls of one Scan, but for what a Merge adds,
// which may be passed over. For the goroutine that calls Apply.
func (s *Space) Scan(c *Cursor, yield func(Item) bool) {
	more := true
	if !c.tombstones {
		s.pools.AscendGreaterOrEqual(poolEntry{handle: c.after.Handle}, func(at poolEntry) bool {
			if at.handle != c.after.Handle {
				c.after = Key{Handle: at.handle}
				state := at.pool.state()
				if more = yield(Item{Pool: &state}); !more {
					return false
				}
			}
			at.pool.elements.AscendGreaterOrEqual(entry{id: c.after.ID + 1}, func(e entry) bool {
				c.after.ID = e.id
				more = yield(Item{Record: e.element.record, Reporters: e.element.reporters})
				return more
			})
			return more
		})
		if !more {
			return
		}
		c.tombstones, c.after = true, Key{}
	}
	s.tombstones.byKey.AscendGreaterOrEqual(&Tombstone{Key: c.after}, func(t *Tombstone) bool {
		if t.Key == c.after {
			return true
		}
		c.after = t.Key
		more = yield(Item{Tombstone: t})
		return more
	})
	c.Done = more
}
