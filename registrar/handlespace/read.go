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
	if q.Room <= 0 {
		q.Room = selection.Unlimited
	}
	if q.Items <= 0 {
		q.Items = p.limit
	}
	scratch := s.scratch.Get().(*[]*selection.Item)

	p.mu.Lock()
	chooser := p.sound
	if chooser.Len() == 0 && p.suspects != nil {
		chooser = p.suspects
	}
	items := chooser.Choose((*scratch)[:0], q.Items, q.Room)
	for _, it := range items {
		dst = append(dst, it.Value.(*element).record)
	}
	p.mu.Unlock()

	chosen := len(items) > 0
	clear(items)
	*scratch = items
	s.scratch.Put(scratch)
	return dst, selection.Neutral(p.policy), chosen
}

// Get returns an element's record, nil if there is no such element.
func (s *Space) Get(handle param.PoolHandle, id param.PEID) *Record {
	p := s.lookup(handle)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.find(id); e != nil {
		return e.record
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
	s.view.Load().AscendGreaterOrEqual(poolEntry{handle: after}, func(e poolEntry) bool {
		if max <= 0 {
			return false
		}
		if e.handle == after {
			return true
		}
		if info := e.pool.info(); info.Elements > 0 { // else it is just going
			dst = append(dst, info)
			max--
		}
		return true
	})
	return dst
}

// Elements appends to dst up to max elements of a pool in the order of their
// identifiers, from the first behind after on; zero begins. It appends nothing if
// there is no such pool.
func (s *Space) Elements(dst []*Record, handle param.PoolHandle, after param.PEID, max int) []*Record {
	p := s.lookup(handle)
	if p == nil {
		return dst
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.elements.AscendGreaterOrEqual(entry{id: after}, func(e entry) bool {
		if max <= 0 {
			return false
		}
		if e.id != after {
			dst = append(dst, e.element.record)
			max--
		}
		return true
	})
	return dst
}

func (s *Space) lookup(handle param.PoolHandle) *pool {
	found, _ := s.view.Load().Get(poolEntry{handle: handle})
	return found.pool
}
