package handlespace

import (
	"slices"
	"sync"
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// index holds the orders over all pools and their elements, and the sums over them.
type index struct {
	mu     sync.Mutex
	pools  *btree.BTreeG[*pool]
	homes  map[param.RegistrarID]*residents
	counts Counts
	digest Digest
	held   time.Time // until when elements are held back
	epoch  time.Time // of the first record, where deadlines are counted from
	taken  progress  // writer only
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

func newIndex() index {
	return index{
		pools: btree.NewG(32, byHandle),
		homes: make(map[param.RegistrarID]*residents),
	}
}

// come adds a pool, go takes it out.
func (x *index) come(p *pool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pools.ReplaceOrInsert(p)
	x.counts.Pools++
}

func (x *index) leaves(p *pool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pools.Delete(p)
	x.counts.Pools--
	x.digest.Entries[Key{Handle: p.handle}.Range()] -= p.digest
}

// pool replaces the digest of a pool; 0 is none.
func (x *index) pool(handle param.PoolHandle, old, new uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.digest.Entries[Key{Handle: handle}.Range()] += new - old
}

// tombstone counts a tombstone, once or -1 times.
func (x *index) tombstone(t *Tombstone, times int) {
	digest := t.digest() * uint64(times)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.digest.Tombstones[t.Key.Range()] += digest
	x.counts.Tombstones += times
}

// bury takes an element of p out for a tombstone.
func (x *index) bury(p *pool, e *element, r *Record, t *Tombstone) {
	digest := t.digest()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(p, e, r)
	x.digest.Tombstones[p.hash.of(r.ID)] += digest
	x.counts.Tombstones++
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

// replace makes r the record of an element of p.
func (x *index) replace(p *pool, e *element, before, r *Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if before != nil && before.Home() == r.Home() {
		x.digest.Entries[p.hash.of(r.ID)] += r.digest - before.digest
		x.counts.Suspects += suspects(r) - suspects(before)
		x.file(&p.shares[p.share(r.home())].home.deadlines, e, r)
		return
	}
	if before != nil {
		x.remove(p, e, before)
	}
	x.add(p, e, r)
}

func (x *index) add(p *pool, e *element, r *Record) {
	if x.epoch.IsZero() {
		x.epoch = r.Refreshed
	}
	x.file(&x.join(p, r).deadlines, e, r)
	x.digest.Entries[p.hash.of(r.ID)] += r.digest
	x.counts.Elements++
	x.counts.Suspects += suspects(r)
}

func (x *index) remove(p *pool, e *element, r *Record) {
	p.shares[p.share(r.home())].home.deadlines.unfile(e)
	x.leave(p, r)
	x.digest.Entries[p.hash.of(r.ID)] -= r.digest
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
	if h := s.index.homes[id]; h != nil {
		return h.Home
	}
	return Home{ID: id}
}

// Homes returns the sums of all registrars that are home to an element, in no
// particular order.
func (s *Space) Homes() []Home {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	homes := make([]Home, 0, len(s.index.homes))
	for _, h := range s.index.homes {
		homes = append(homes, h.Home)
	}
	return homes
}

// HomeIDs returns the lives of registrars that are home to an element, in order.
func (s *Space) HomeIDs() []HomeID {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	var lives []HomeID
	for id, h := range s.index.homes {
		for _, l := range h.lives {
			lives = append(lives, HomeID{id, l.incarnation})
		}
	}
	slices.SortFunc(lives, HomeID.Compare)
	return lives
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
