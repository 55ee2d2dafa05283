package handlespace

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// index holds the orders over the elements of all pools, and the sums over them.
type index struct {
	mu        sync.Mutex
	homes     *btree.BTreeG[homed]
	deadlines *btree.BTreeG[deadline]
	owned     map[param.RegistrarID]*Home
	lives     map[HomeID]int // elements
	counts    Counts
	digest    Digest
	held      time.Time // until when elements are held back
	epoch     time.Time // of the first record, where deadlines are counted from
}

// Home sums up the elements of one home registrar.
type Home struct {
	ID       param.RegistrarID
	Elements int
	checksum param.Checksum
}

// Checksum returns the PE checksum over the home's elements (RFC 5353, section
// 3.6.2).
func (h Home) Checksum() uint16 { return h.checksum.Sum() }

// Counts are sums over the whole handlespace.
type Counts struct {
	Pools    int
	Elements int
	Suspects int // among Elements
	// Tombstones are the removals that are remembered, Forgotten counts those
	// for which there was no room.
	Tombstones int
	Forgotten  uint64
}

// filed is an element as the index knows it: all orders lead to it, so that most
// changes of the element leave them alone.
type filed struct{ record *Record }

type homed struct {
	home param.RegistrarID
	key  Key
	*filed
}

func (a homed) less(b homed) bool {
	if a.home != b.home {
		return a.home < b.home
	}
	return a.key.Compare(b.key) < 0
}

// deadline is when an element is due.
type deadline struct {
	home param.RegistrarID
	at   time.Duration // since the index's epoch
	key  Key
	*filed
}

func (a deadline) less(b deadline) bool {
	switch {
	case a.home != b.home:
		return a.home < b.home
	case a.at != b.at:
		return a.at < b.at
	}
	return a.key.Compare(b.key) < 0
}

// deadlineOf returns the deadline of an element, if it has one. It is a difference,
// because that keeps the order by the monotonic clock when the machine's clock is
// set while elements are registered.
func (x *index) deadlineOf(f *filed) (deadline, bool) {
	at, ok := f.record.due()
	if !ok {
		return deadline{}, false
	}
	return deadline{f.record.Element.Home, at.Sub(x.epoch), f.record.Key(), f}, true
}

func newIndex() index {
	return index{
		homes:     btree.NewG(32, homed.less),
		deadlines: btree.NewG(32, deadline.less),
		owned:     make(map[param.RegistrarID]*Home),
		lives:     make(map[HomeID]int),
	}
}

// pools changes the number of pools.
func (x *index) pools(change int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts.Pools += change
}

// pool replaces the digest of a pool; 0 is none.
func (x *index) pool(handle param.PoolHandle, old, new uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.digest.Entries[Key{Handle: handle}.Range()] += new - old
}

// tombstone takes one tombstone out and puts another in; either may be nil.
func (x *index) tombstone(old, new *Tombstone) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil {
		x.digest.Tombstones[old.Key.Range()] -= old.digest()
		x.counts.Tombstones--
	}
	if new != nil {
		x.digest.Tombstones[new.Key.Range()] += new.digest()
		x.counts.Tombstones++
	}
}

// forgotten counts a tombstone for which there was no room.
func (x *index) forgotten() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts.Forgotten++
}

// heldBack shows readers until when elements are held back.
func (x *index) heldBack(until time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held = until
}

// replace makes r the record of an element; nil takes the element out.
func (x *index) replace(f *filed, r *Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.record != nil && r != nil && f.record.Home() == r.Home() {
		x.renew(f, r)
		return
	}
	if f.record != nil {
		x.remove(f)
	}
	if f.record = r; r != nil {
		x.add(f)
	}
}

// renew replaces the record of an element that keeps its home.
func (x *index) renew(f *filed, r *Record) {
	before, had := x.deadlineOf(f)
	x.digest.Entries[r.Key().Range()] += r.digest - f.record.digest
	x.counts.Suspects += suspects(r) - suspects(f.record)
	f.record = r
	after, has := x.deadlineOf(f)
	if had == has && before.at == after.at {
		return
	}
	if had {
		x.deadlines.Delete(before)
	}
	if has {
		x.deadlines.ReplaceOrInsert(after)
	}
}

func (x *index) add(f *filed) {
	r := f.record
	if x.epoch.IsZero() {
		x.epoch = r.Refreshed
	}
	x.homes.ReplaceOrInsert(homed{r.Element.Home, r.Key(), f})
	if d, ok := x.deadlineOf(f); ok {
		x.deadlines.ReplaceOrInsert(d)
	}
	h := x.owned[r.Element.Home]
	if h == nil {
		h = &Home{ID: r.Element.Home}
		x.owned[h.ID] = h
	}
	h.Elements++
	h.checksum.Add(r.Handle, r.Element.ID)
	x.lives[r.Home()]++
	x.digest.Entries[r.Key().Range()] += r.digest
	x.counts.Elements++
	x.counts.Suspects += suspects(r)
}

func (x *index) remove(f *filed) {
	r := f.record
	x.homes.Delete(homed{home: r.Element.Home, key: r.Key()})
	if d, ok := x.deadlineOf(f); ok {
		x.deadlines.Delete(d)
	}
	h := x.owned[r.Element.Home]
	h.Elements--
	h.checksum.Remove(r.Handle, r.Element.ID)
	if h.Elements == 0 {
		delete(x.owned, h.ID)
	}
	if x.lives[r.Home()]--; x.lives[r.Home()] == 0 {
		delete(x.lives, r.Home())
	}
	x.digest.Entries[r.Key().Range()] -= r.digest
	x.counts.Elements--
	x.counts.Suspects -= suspects(r)
}

// suspects counts a record among them.
func suspects(r *Record) int { return order(r.Suspect, false) }

// Counts returns the sums over all pools.
func (s *Space) Counts() Counts {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.counts
}

// Home returns the sums over the elements of one home registrar.
func (s *Space) Home(id param.RegistrarID) Home {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	if h := s.index.owned[id]; h != nil {
		return *h
	}
	return Home{ID: id}
}

// Homes returns the sums of all registrars that are home to an element, in no
// particular order.
func (s *Space) Homes() []Home {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	homes := make([]Home, 0, len(s.index.owned))
	for _, h := range s.index.owned {
		homes = append(homes, *h)
	}
	return homes
}

// HomeIDs returns the lives of registrars that are home to an element, in order.
func (s *Space) HomeIDs() []HomeID {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.index.lives), HomeID.Compare)
}

// HeldBack returns until when elements are held back because registrars were lost.
func (s *Space) HeldBack() time.Time {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.held
}

// Digest returns the digests over the whole state.
func (s *Space) Digest() Digest {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.digest
}

// Owned appends to dst up to max elements of a home registrar in the order of
// their keys, from the first behind after on; the zero Key begins.
func (s *Space) Owned(dst []*Record, home param.RegistrarID, after Key, max int) []*Record {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.homes.AscendGreaterOrEqual(homed{home: home, key: after}, func(h homed) bool {
		if h.home != home || max <= 0 {
			return false
		}
		if h.key != after {
			dst = append(dst, h.record)
			max--
		}
		return true
	})
	return dst
}

// NextDeadline returns when the first of a home's elements is due: its registration
// runs out, or the time is over for which it is held back; false if none ever is. It may be in the past: until its removal has been
// applied, an element is still there.
func (s *Space) NextDeadline(home param.RegistrarID) (time.Time, bool) {
	var at time.Time
	found := false
	s.dueFrom(home, func(r *Record) bool {
		at, found = r.due()
		return false
	})
	return at, found
}

// Due appends to dst up to max commands that remove the elements of a home that are
// due by now, the longest overdue first. The caller
// proposes them; only an element's home does so (AMB-76). The same elements are
// due again until the removals have been applied.
func (s *Space) Due(dst []Command, home param.RegistrarID, now time.Time, max int) []Command {
	s.dueFrom(home, func(r *Record) bool {
		if at, _ := r.due(); max <= 0 || at.After(now) {
			return false
		}
		max--
		cause := Expired
		if r.Suspect {
			cause = r.Cause
		}
		dst = append(dst, Remove{
			Handle:     r.Handle,
			ID:         r.Element.ID,
			Generation: r.Generation,
			Cause:      cause,
			Now:        now,
		})
		return true
	})
	return dst
}

func (s *Space) dueFrom(home param.RegistrarID, visit func(*Record) bool) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.deadlines.AscendGreaterOrEqual(deadline{home: home, at: math.MinInt64}, func(d deadline) bool {
		return d.home == home && visit(d.record)
	})
}
