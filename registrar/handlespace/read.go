package handlespace

import (
	"rserpool/asap/param"
	"rserpool/selection"
)

// Query says how much a resolution wants.
type Query struct {
	// Items is the number of elements wanted, 0 for the limit of the pool's
	// policy (Config.ResultLimits).
	Items int
	// Room is the number of octets that the encoded elements may take
	// together, 0 for no bound. As many elements as fit are chosen, in the
	// order of the policy (AMB-75).
	Room int
}

// complete replaces what stands for a default. The mutex of p is held.
func (q Query) complete(p *pool) Query {
	if q.Room <= 0 {
		q.Room = selection.Unlimited
	}
	if q.Items <= 0 {
		q.Items = p.limit
	}
	return q
}

// Resolve chooses elements of a pool by its policy and appends their records to
// dst. It returns the policy parameter of the reply, with neutral values
// (AMB-56), and false if there is no such pool or no room for a single element.
// What is appended counts as handed out. Suspects are left out as long as the
// pool has others. Resolve allocates nothing if dst has room.
func (s *Space) Resolve(dst []*Record, handle param.PoolHandle, q Query) ([]*Record, param.Policy, bool) {
	p := s.lookup(handle)
	if p == nil {
		return dst, param.Policy{}, false
	}
	start := len(dst)
	p.mu.Lock()
	defer p.mu.Unlock()
	dst = choose(s, dst, p, q.complete(p), func(e *element) *Record { return e.record.Load() })
	return dst, *p.policy, len(dst) > start
}

// ResolveEncoded does what Resolve does, but appends what goes into the reply:
// pieces of one or several Pool Element parameters (Record.Encoded), one behind
// the other. Neither they nor the policy must be changed. It allocates nothing if dst has room,
// except for the first reply after a change. Who gives the same Bookmark with the
// same handle again spares the search for the pool.
func (s *Space) ResolveEncoded(dst [][]byte, at *Bookmark, handle param.PoolHandle, q Query) ([][]byte, *param.Policy, bool) {
	p := at.lookup(s, handle)
	if p == nil {
		return dst, nil, false
	}
	start := len(dst)
	p.mu.Lock()
	defer p.mu.Unlock()
	q = q.complete(p)
	if first, second, ok := p.turn(q); ok {
		if dst = append(dst, first); len(second) > 0 {
			dst = append(dst, second)
		}
		return dst, p.policy, true
	}
	dst = choose(s, dst, p, q, func(e *element) []byte { return e.record.Load().Encoded() })
	return dst, p.policy, len(dst) > start
}

// choose appends something of each element of the next reply. The mutex of p is
// held.
func choose[T any](s *Space, dst []T, p *pool, q Query, of func(*element) T) []T {
	scratch := s.scratch.Get().(*[]*selection.Item)
	items := p.candidates().Choose((*scratch)[:0], q.Items, q.Room)
	for _, it := range items {
		dst = append(dst, of(it.Value.(*element)))
	}
	clear(items)
	*scratch = items
	s.scratch.Put(scratch)
	return dst
}

// Bookmark remembers where a Space has a pool. The zero value remembers none. For
// one goroutine and one Space.
type Bookmark struct{ pool *pool }

// lookup returns a pool, nil if there is none.
func (b *Bookmark) lookup(s *Space, handle param.PoolHandle) *pool {
	if b.pool == nil || b.pool.handle != handle || b.pool.gone.Load() {
		b.pool = s.lookup(handle)
	}
	return b.pool
}

// Get returns an element's record, nil if there is no such element.
func (s *Space) Get(handle param.PoolHandle, id param.PEID) *Record {
	p := s.lookup(handle)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.members.find(id); e != nil {
		return e.record.Load()
	}
	return nil
}

// Pool describes a pool, and returns false if there is no such pool.
func (s *Space) Pool(handle param.PoolHandle) (PoolInfo, bool) {
	p := s.lookup(handle)
	if p == nil {
		return PoolInfo{}, false
	}
	info := p.info()
	return info, info.Elements > 0
}

// Pools appends to dst up to max pools in the order of their handles, from the
// first behind after on; the empty handle begins.
func (s *Space) Pools(dst []PoolInfo, after param.PoolHandle, max int) []PoolInfo {
	for max > 0 {
		pools := s.poolsBehind(after, min(max, passed))
		if len(pools) == 0 {
			break
		}
		for _, p := range pools {
			after = p.handle
			if info := p.info(); info.Elements > 0 { // else it is just going
				dst = append(dst, info)
				max--
			}
		}
	}
	return dst
}

// poolsBehind returns up to max pools.
func (s *Space) poolsBehind(after param.PoolHandle, max int) []*pool {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	pools := make([]*pool, 0, min(max, s.index.pools.Len()))
	s.index.pools.AscendGreaterOrEqual(&pool{handle: after}, func(p *pool) bool {
		if p.handle != after {
			pools = append(pools, p)
		}
		return len(pools) < max
	})
	return pools
}

// Elements appends to dst up to max elements of a pool in the order of their
// identifiers, from the first behind after on; zero begins. It appends nothing if
// there is no such pool.
func (s *Space) Elements(dst []*Record, handle param.PoolHandle, after param.PEID, max int) []*Record {
	p := s.lookup(handle)
	if p == nil {
		return dst
	}
	for more := true; more && max > 0; {
		p.mu.Lock()
		after, more = p.pass(after, passed, func(m member) bool {
			if r := m.element.record.Load(); r != nil {
				dst = append(dst, r)
				max--
			}
			return max > 0
		})
		p.mu.Unlock()
	}
	return dst
}

func (s *Space) lookup(handle param.PoolHandle) *pool { return s.pools.get(handle) }
