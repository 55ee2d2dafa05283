package handlespace

import (
	"time"

	"github.com/google/btree"
)

// maxRemembered is how much of a registration life counts for a tombstone, and
// sweepBatch how many of them one Sweep forgets.
const (
	maxRemembered = 24 * time.Hour
	sweepBatch    = 4096
)

// tombstones are the removals that are remembered. Writer only.
type tombstones struct {
	byKey map[Key]*Tombstone
	byAge *btree.BTreeG[grave]
}

func newTombstones() tombstones {
	return tombstones{
		byKey: make(map[Key]*Tombstone),
		byAge: btree.NewG(32, grave.less),
	}
}

// grave is a tombstone in the order in which they are forgotten, which is the same at
// all registrars. Mostly it is that in which they come: what expires at the same time has
// been registered one after the other.
type grave struct {
	until int64 // as nanoseconds says
	stamp uint64
	*Tombstone
}

func graveOf(t *Tombstone) grave {
	return grave{nanoseconds(t.Until), t.Generation.Stamp, t}
}

func (a grave) less(b grave) bool {
	switch {
	case a.until != b.until:
		return a.until < b.until
	case a.stamp != b.stamp:
		return a.stamp < b.stamp
	}
	return a.Key.Compare(b.Key) < 0
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
	k := Key{c.Handle, c.ID}
	if old := s.tombstones.get(k); old != nil {
		k = old.Key
	} else if c.Handle == "" || c.ID == 0 || len(s.tombstones.byKey) >= s.cfg.MaxTombstones/2 {
		return Absent{Handle: c.Handle, ID: c.ID}
	}
	raised := s.raised(k, nil, HomeID{c.Raiser, c.Incarnation}, c.Now)
	s.tombstones.put(s, &Tombstone{k, raised, c.Now.Add(maxRemembered + s.cfg.Tombstone)})
	return Absent{c.Handle, c.ID, raised}
}

// get returns the tombstone of a key, nil if there is none.
func (b *tombstones) get(k Key) *Tombstone { return b.byKey[k] }

// put stores a tombstone, in the place of another one if there is one.
func (b *tombstones) put(s *Space, t *Tombstone) {
	b.remove(s, t.Key)
	b.add(s, t)
}

// add stores a tombstone of a key that has none. Beyond the bound the oldest is forgotten.
func (b *tombstones) add(s *Space, t *Tombstone) {
	b.byKey[t.Key] = t
	b.byAge.ReplaceOrInsert(graveOf(t))
	s.index.tombstone(t, 1)
	if len(b.byKey) > s.cfg.MaxTombstones {
		oldest, _ := b.byAge.Min()
		s.forgetTombstone(oldest.Tombstone)
		s.index.forgotten()
	}
}

func (b *tombstones) remove(s *Space, k Key) {
	if t := b.byKey[k]; t != nil {
		delete(b.byKey, k)
		b.byAge.Delete(graveOf(t))
		s.index.tombstone(t, -1)
	}
}

func (s *Space) forgetTombstone(t *Tombstone) {
	s.marks.Stamp = max(s.marks.Stamp, t.Generation.Stamp)
	s.tombstones.remove(s, t.Key)
}

func (s *Space) sweep(now time.Time) {
	for range sweepBatch {
		t, ok := s.tombstones.byAge.Min()
		if !ok || t.Until.After(now) {
			return
		}
		s.forgetTombstone(t.Tombstone)
	}
}

// NextSweep returns when a Sweep has something to forget, and false if there are no
// tombstones. For the goroutine that calls Apply.
func (s *Space) NextSweep() (time.Time, bool) {
	t, ok := s.tombstones.byAge.Min()
	if !ok {
		return time.Time{}, false
	}
	return t.Until, true
}
