package handlespace

import (
	"fmt"
	"math"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

// NewItem returns an item with a record that was not made by Apply. An error says that
// the element has no wire form.
func NewItem(e *Entry, reporters []string) (Item, error) {
	content, err := encode(nil, &e.Element)
	if err != nil {
		return Item{}, fmt.Errorf("element %v of pool %q: %w", e.Element.ID, e.Handle, err)
	}
	r := newRecord(e.Handle, &e.Element, content)
	r.Generation, r.HomeIncarnation = e.Generation, e.HomeIncarnation
	r.registered, r.Refreshed, r.held = nanoseconds(e.Registered), e.Refreshed, nanoseconds(e.Held)
	r.Confirmed, r.Suspect, r.Cause, r.Reports = e.Confirmed, e.Suspect, e.Cause, int32(e.Reports)
	r.seal(reporters)
	return Item{Record: r, Reporters: reporters}, nil
}

// Find returns what is stored under the key of an element: an entry or a tombstone;
// false if neither is. For the goroutine that calls Apply.
func (s *Space) Find(k Key) (Item, bool) {
	switch _, e := s.place(k.Handle, k.ID); {
	case e == nil:
		return Item{}, false
	case e.there():
		return Item{Record: e.record.Load(), Reporters: s.reporters[e]}, true
	default:
		return Item{Tombstone: e.tombstone}, true
	}
}

// Marks returns the pieces of state that are one for all elements. For the
// goroutine that calls Apply.
func (s *Space) Marks() Marks { return s.marks }

func (s *Space) merge(c *Merge) {
	s.merging = max(s.merging, c.Sides, 2)
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
			s.adopt(item)
		} else if p, e := s.find(item.Tombstone.Key.Handle, item.Tombstone.Key.ID); e != nil {
			last := p.elements == 1 && !p.guessed
			s.drop(p, e, Superseded, item.Tombstone)
			if last { // the pool may come back
				s.keep(p)
			}
		} else {
			s.bury(item.Tombstone)
		}
	}
	for handle, state := range s.stated {
		if c.Settle--; c.Settle < 0 && !c.End {
			break
		}
		delete(s.stated, handle)
		if p := s.lookup(handle); p != nil {
			s.settle(p, state)
		}
	}
	for ; c.Settle > 0 && s.excess() > 0; c.Settle-- {
		s.forgetOldest()
	}
	if c.End {
		s.merging = 0
		s.trim()
		for _, p := range s.guesses {
			p.guessed = false
		}
		s.stated, s.guesses = nil, nil
		s.merges++
	}
}

// note remembers what a pool is if that is better than what was said, and than what a
// pool is that was there before. One that a Merge made gets it at once.
func (s *Space) note(state *PoolState) {
	best := s.stated[state.Handle]
	if best == nil {
		if p := s.lookup(state.Handle); p != nil {
			if p.guessed {
				p.guessed = false
				s.settle(p, state)
				return
			}
			mine := p.state()
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
func (s *Space) adopt(item *Item) {
	r, content := item.Record.changed(), item.Record.Element()
	p, e := s.place(r.Handle, r.ID)
	if p != nil && !p.guessed && p.founder == r.ID && !equal(&p.user, &content.User) {
		s.keep(p) // a tombstone may be better still, and then the pool's transport is what it was
	}
	if e.there() {
		previous := e.record.Load()
		s.replace(p, e, r, &content, item.Reporters)
		s.emit(Adopted{r.Handle, r, previous, false})
		return
	}
	_, created := s.put(p, e, r, &content, item.Reporters, "")
	if created {
		p := s.lookup(r.Handle)
		if state := s.stated[r.Handle]; state != nil {
			delete(s.stated, r.Handle)
			s.settle(p, state)
		} else {
			p.guessed = true
			s.guesses = append(s.guesses, p)
		}
	}
	s.emit(Adopted{r.Handle, r, nil, created})
}

// Unsettled returns about how many pools and tombstones a Merge with Settle has work for; 0
// if there are none. For the goroutine that calls Apply.
func (s *Space) Unsettled() int { return len(s.stated) + s.excess() }

// settle makes a pool what a merge decided.
func (s *Space) settle(p *pool, state *PoolState) {
	if p.digest == state.digest() {
		return // nothing is to change
	}
	s.own(p.owner, -1)
	s.own(state.Owner, 1)
	s.restate(p, func() {
		p.owner, p.created, p.founder, p.user = state.Owner, state.Created, state.Founder, state.User
		if e := p.members.find(p.founder); e.there() {
			p.user = e.record.Load().Element().User
		}
		if p.policy.Type != state.Policy {
			s.choose(p, state.Policy)
		}
	})
}

// choose gives a pool another policy and moves its elements. The mutex is held.
func (s *Space) choose(p *pool, t param.PolicyType) {
	p.members.from(0, func(m member) bool {
		if m.element.there() {
			p.chooser(m.element.record.Load()).Remove(&m.element.item)
		}
		return true
	})
	s.setPolicy(p, t)
	p.suspects, p.circle = nil, nil
	p.members.from(0, func(m member) bool {
		if !m.element.there() {
			return true
		}
		e, r := m.element, m.element.record.Load()
		e.item = selection.Item{Value: e, Size: e.item.Size, ID: r.ID}
		p.chooser(r).Put(&e.item, r.Element().Policy)
		return true
	})
}

// Cursor is a place in a Scan. The zero value is its beginning.
type Cursor struct {
	after      Key
	tombstones *Tombstone // the latest one
	Done       bool       // nothing is left
}

// passedAtOnce is how many removed elements a Scan passes over at the most before it ends
// for the time being.
const passedAtOnce = 1 << 14

// Scan goes on through all that is to be exchanged, pools each with its elements and
// then tombstones, the oldest first, until yield returns false or Done, or it has come by
// many removed elements; what yield got is passed. The Space must not be changed between the calls of one Scan, but for what
// a Merge adds, which may be passed over. For the goroutine that calls Apply.
func (s *Space) Scan(c *Cursor, yield func(Item) bool) {
	more, removed := true, 0
	if c.tombstones == nil {
		s.index.pools.AscendGreaterOrEqual(&pool{handle: c.after.Handle}, func(p *pool) bool {
			if p.handle != c.after.Handle {
				c.after = Key{Handle: p.handle}
				state := p.state()
				if more = yield(Item{Pool: &state}); !more {
					return false
				}
			}
			p.members.from(c.after.ID, func(m member) bool {
				if m.id == c.after.ID {
					return true
				}
				c.after.ID = m.id
				if !m.element.there() {
					removed++
					more = removed < passedAtOnce
					return more
				}
				more = yield(Item{Record: m.element.record.Load(), Reporters: s.reporters[m.element]})
				return more
			})
			return more
		})
		if !more {
			return
		}
		c.tombstones = &Tombstone{Until: time.Unix(0, math.MinInt64)}
	}
	s.tombstones.behind(c.tombstones, func(t *Tombstone) bool {
		c.tombstones = t
		more = yield(Item{Tombstone: t})
		return more
	})
	c.Done = more
}
