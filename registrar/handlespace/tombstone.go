package handlespace

import (
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// maxRemembered is how much of a registration life counts for a tombstone, handleShare
// how many octets the handles of tombstones have on average at most when there are as many
// as there may be, and sweepBatch is how many of them one Sweep forgets.
const (
	maxRemembered = 24 * time.Hour
	handleShare   = 256
	sweepBatch    = 4096
)

// tombstones are the removals that are remembered. A removed element mostly keeps its
// place among the members of its pool, with its tombstone, so that to remove it touches
// hardly anything that to find it has not. Writer only.
type tombstones struct {
	ages   *btree.BTreeG[grave]
	octets int // of their pool handles
	// pools are the members of pools that are gone.
	pools map[param.PoolHandle]*members
}

func newTombstones() tombstones {
	return tombstones{ages: btree.NewG(32, grave.less), pools: make(map[param.PoolHandle]*members)}
}

// grave is a removed element in the order in which they are forgotten, which is the same
// at all registrars. Mostly it is that in which they come.
type grave struct {
	until int64 // as nanoseconds says
	stamp uint64
	*element
}

func graveOf(e *element) grave {
	return grave{nanoseconds(e.tombstone.Until), e.tombstone.Generation.Stamp, e}
}

func (a grave) less(b grave) bool {
	switch {
	case a.until != b.until:
		return a.until < b.until
	case a.stamp != b.stamp:
		return a.stamp < b.stamp
	}
	return a.tombstone.Key.Compare(b.tombstone.Key) < 0
}

// oldest returns the element whose tombstone is forgotten first, nil if there are none.
func (b *tombstones) oldest() *element {
	first, _ := b.ages.Min()
	return first.element
}

// room returns for how many tombstones the present ones take the room, and those of some
// more handles.
func (b *tombstones) room(more ...param.PoolHandle) int {
	octets := b.octets
	for _, handle := range more {
		octets += len(handle)
	}
	return max(b.ages.Len()+len(more), (octets+handleShare-1)/handleShare)
}

// excess returns about how many tombstones are to be forgotten at the end of all Merges; 0
// if none are.
func (s *Space) excess() int { return max(0, s.tombstones.room()-s.cfg.MaxTombstones) }

// behind visits the tombstones behind t, the oldest first, until visit returns false.
func (b *tombstones) behind(t *Tombstone, visit func(*Tombstone) bool) {
	start := graveOf(&element{tombstone: t})
	b.ages.AscendGreaterOrEqual(start, func(g grave) bool {
		return !start.less(g) || visit(g.tombstone)
	})
}

// buried returns the tombstone of a record that is removed with this generation.
func (s *Space) buried(r *Record, g Generation, now time.Time) *Tombstone {
	life, finite := r.Life().Duration()
	if !finite || life > maxRemembered {
		life = maxRemembered
	}
	return &Tombstone{r.Key(), g, now.Add(max(life, 0) + s.cfg.Tombstone)}
}

// absent leaves the mark of a deregistration that finds nothing here: another side may
// have the element, or have it again. Who sent it is not asked: a registration and its
// deregistration would leave the same, and anybody may register what is not there.
// Elements that were not remembered get a mark only up to half of the table.
func (s *Space) absent(c *Deregister) Absent {
	_, e := s.place(c.Handle, c.ID)
	k := Key{c.Handle, c.ID}
	if e != nil {
		k = e.tombstone.Key
	} else if c.Handle == "" || c.ID == 0 || s.tombstones.room(c.Handle) > s.cfg.MaxTombstones/2 {
		return Absent{Handle: c.Handle, ID: c.ID}
	}
	raised := s.raised(e, HomeID{c.Raiser, c.Incarnation}, c.Now)
	s.bury(&Tombstone{k, raised, c.Now.Add(maxRemembered + s.cfg.Tombstone)})
	return Absent{c.Handle, c.ID, raised}
}

// bury stores a tombstone of an element that is not there, in the place of another
// tombstone if there is one.
func (s *Space) bury(t *Tombstone) {
	p, e := s.place(t.Key.Handle, t.Key.ID)
	if e != nil {
		s.unbury(e)
	} else {
		e = s.places.get()
		s.changeMembers(p, t.Key.Handle, func(m *members) { m.part(member{id: t.Key.ID, element: e}) })
	}
	s.index.tombstone(t, 1)
	s.remember(e, t)
}

// remember gives an element, which has been taken out, its tombstone. Beyond the bound
// the oldest is forgotten, which may be this one.
func (s *Space) remember(e *element, t *Tombstone) {
	e.tombstone = t
	s.tombstones.ages.ReplaceOrInsert(graveOf(e))
	s.tombstones.octets += len(t.Key.Handle)
	s.trim()
}

// trim keeps the bound. Until all Merges have told what they have to tell there is room
// for all that the sides remember: what is forgotten in between depends on the order in
// which they tell it, and something older could come back at some registrars only.
func (s *Space) trim() {
	// Each side's share, so that no product is too large.
	for sides := max(s.merging, 1); (s.tombstones.room()+sides-1)/sides > s.cfg.MaxTombstones; {
		s.forgetOldest()
	}
}

// forgetOldest forgets a tombstone for which there is no room.
func (s *Space) forgetOldest() {
	s.forgetTombstone(s.tombstones.oldest())
	s.index.forgotten()
}

// unbury takes the tombstone of an element away.
func (s *Space) unbury(e *element) {
	s.tombstones.ages.Delete(graveOf(e))
	s.tombstones.octets -= len(e.tombstone.Key.Handle)
	s.index.tombstone(e.tombstone, -1)
	e.tombstone = nil
}

// forgetTombstone takes the tombstone of an element away, and the element's place.
func (s *Space) forgetTombstone(e *element) {
	t := e.tombstone
	s.marks.Stamp = max(s.marks.Stamp, t.Generation.Stamp)
	s.unbury(e)
	s.changeMembers(s.lookup(t.Key.Handle), t.Key.Handle, func(m *members) { m.remove(t.Key.ID) })
	s.places.put(e)
}

// changeMembers changes the members of p or, if p is nil, of a pool that is gone.
func (s *Space) changeMembers(p *pool, handle param.PoolHandle, change func(*members)) {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		change(&p.members)
		return
	}
	m := s.tombstones.pools[handle]
	if m == nil {
		m = new(members)
		s.tombstones.pools[handle] = m
	}
	if change(m); m.empty() {
		delete(s.tombstones.pools, handle)
	}
}

func (s *Space) sweep(now time.Time) {
	for range sweepBatch {
		e := s.tombstones.oldest()
		if e == nil || e.tombstone.Until.After(now) {
			return
		}
		s.forgetTombstone(e)
	}
}

// NextSweep returns when a Sweep has something to forget, and false if there are no
// tombstones. For the goroutine that calls Apply.
func (s *Space) NextSweep() (time.Time, bool) {
	e := s.tombstones.oldest()
	if e == nil {
		return time.Time{}, false
	}
	return e.tombstone.Until, true
}
