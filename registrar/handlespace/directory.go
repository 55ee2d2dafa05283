package handlespace

import (
	"hash/maphash"
	"slices"
	"sync/atomic"

	"rserpool/asap/param"
)

// directory finds pools by handle. Readers take no lock and wait for nobody: the one
// writer replaces the small part in which a pool is by another one.
type directory struct {
	seed  maphash.Seed // so that nobody can choose handles that meet in one part
	parts [1 << partBits]atomic.Pointer[part]
}

// part is the pools whose hashes begin alike: mostly one. It is never changed.
type part struct {
	first listing
	more  []listing
}

// With a million pools a part has 61.
const partBits = 14

type listing struct {
	hash uint64
	pool *pool
}

func (d *directory) hash(handle param.PoolHandle) uint64 {
	return maphash.String(d.seed, string(handle))
}

func (d *directory) part(hash uint64) *atomic.Pointer[part] {
	return &d.parts[hash>>(64-partBits)]
}

// get returns a pool, nil if there is none.
func (d *directory) get(handle param.PoolHandle) *pool {
	hash := d.hash(handle)
	part := d.part(hash).Load()
	if part == nil {
		return nil
	}
	if l := &part.first; l.hash == hash && l.pool.handle == handle {
		return l.pool
	}
	for _, l := range part.more {
		if l.hash == hash && l.pool.handle == handle {
			return l.pool
		}
	}
	return nil
}

func (d *directory) add(p *pool) {
	hash := d.hash(p.handle)
	l, at := listing{hash, p}, d.part(hash)
	if before := at.Load(); before == nil {
		at.Store(&part{first: l})
	} else {
		at.Store(&part{before.first, append(slices.Clip(before.more), l)})
	}
}

func (d *directory) remove(p *pool) {
	at := d.part(d.hash(p.handle))
	before := at.Load()
	rest := make([]listing, 0, len(before.more))
	for _, l := range before.more {
		if l.pool != p {
			rest = append(rest, l)
		}
	}
	switch {
	case before.first.pool != p:
		at.Store(&part{before.first, rest})
	case len(rest) > 0:
		at.Store(&part{rest[0], rest[1:]})
	default:
		at.Store(nil)
	}
}
