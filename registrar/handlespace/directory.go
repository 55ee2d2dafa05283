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
	parts [1 << partBits]atomic.Pointer[[]listing]
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

func (d *directory) part(hash uint64) *atomic.Pointer[[]listing] {
	return &d.parts[hash>>(64-partBits)]
}

// get returns a pool, nil if there is none.
func (d *directory) get(handle param.PoolHandle) *pool {
	hash := d.hash(handle)
	if listings := d.part(hash).Load(); listings != nil {
		for _, l := range *listings {
			if l.hash == hash && l.pool.handle == handle {
				return l.pool
			}
		}
	}
	return nil
}

func (d *directory) add(p *pool) {
	hash := d.hash(p.handle)
	var listings []listing
	if before := d.part(hash).Load(); before != nil {
		listings = *before
	}
	listings = append(slices.Clip(listings), listing{hash, p})
	d.part(hash).Store(&listings)
}

func (d *directory) remove(p *pool) {
	part := d.part(d.hash(p.handle))
	before := *part.Load()
	if len(before) == 1 {
		part.Store(nil)
		return
	}
	rest := make([]listing, 0, len(before)-1)
	for _, l := range before {
		if l.pool != p {
			rest = append(rest, l)
		}
	}
	part.Store(&rest)
}
