package handlespace

import (
	"math"
	"slices"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// residents is what the index knows of the elements of one home registrar.
type residents struct {
	Home
	lives     []lifetime           // with elements, mostly one
	pools     *btree.BTreeG[*pool] // those with such elements
	deadlines deadlines
}

// lifetime is how many elements one life of the registrar has.
type lifetime struct {
	incarnation uint64
	elements    int
}

// share is how many elements of a pool have a home.
type share struct {
	home     *residents
	elements int
}

func byHandle(p, q *pool) bool { return p.handle < q.handle }

// join counts a new element of p among those of its home.
func (x *index) join(p *pool, r *Record) *residents {
	at := p.share(r.home())
	if at < 0 {
		h := x.homes[r.home()]
		if h == nil {
			h = &residents{Home: Home{ID: r.home()}, pools: btree.NewG(32, byHandle), deadlines: newDeadlines()}
			x.homes[r.home()] = h
		}
		at = len(p.shares)
		p.shares = append(p.shares, share{home: h})
		h.pools.ReplaceOrInsert(p)
	}
	p.shares[at].elements++
	h := p.shares[at].home
	h.Elements++
	h.checksum.Add(r.Handle, r.ID)
	h.count(r.HomeIncarnation, 1)
	if r.Home() == x.taken.from {
		x.taken = progress{}
	}
	return h
}

// count counts elements of one life.
func (h *residents) count(incarnation uint64, change int) {
	at := slices.IndexFunc(h.lives, func(l lifetime) bool { return l.incarnation == incarnation })
	if at < 0 {
		at = len(h.lives)
		h.lives = append(h.lives, lifetime{incarnation: incarnation})
	}
	if h.lives[at].elements += change; h.lives[at].elements == 0 {
		h.lives = slices.Delete(h.lives, at, at+1)
	}
}

// elements returns how many elements one life of a home has.
func (x *index) elements(home HomeID) int {
	if h := x.homes[home.ID]; h != nil {
		for _, l := range h.lives {
			if l.incarnation == home.Incarnation {
				return l.elements
			}
		}
	}
	return 0
}

// leave takes it out again.
func (x *index) leave(p *pool, r *Record) {
	at := p.share(r.home())
	h := p.shares[at].home
	h.Elements--
	h.checksum.Remove(r.Handle, r.ID)
	h.count(r.HomeIncarnation, -1)
	if p.shares[at].elements--; p.shares[at].elements == 0 {
		p.shares = slices.Delete(p.shares, at, at+1)
		h.pools.Delete(p)
	}
	if h.Elements == 0 {
		delete(x.homes, h.ID)
	}
}

// share returns where a home is among the shares of the pool, -1 if it is not.
func (p *pool) share(id param.RegistrarID) int {
	return slices.IndexFunc(p.shares, func(s share) bool { return s.home.ID == id })
}

// from returns the pool with elements of a home that has this handle, or is the next
// one behind; nil if there is none.
func (x *index) from(id param.RegistrarID, handle param.PoolHandle) (found *pool) {
	if h := x.homes[id]; h != nil {
		h.pools.AscendGreaterOrEqual(&pool{handle: handle}, func(p *pool) bool {
			found = p
			return false
		})
	}
	return found
}

// Owned appends to dst up to max elements of a home registrar in the order of
// their keys, from the first behind after on; the zero Key begins.
func (s *Space) Owned(dst []*Record, home param.RegistrarID, after Key, max int) []*Record {
	for max > 0 {
		s.index.mu.Lock()
		p := s.index.from(home, after.Handle)
		s.index.mu.Unlock()
		if p == nil {
			return dst
		}
		if p.handle != after.Handle {
			after = Key{Handle: p.handle}
		}
		for more := true; more && max > 0; {
			p.mu.Lock()
			after.ID, more = p.owned(home, after.ID, passed, func(r *Record) bool {
				dst = append(dst, r)
				max--
				return max > 0
			})
			p.mu.Unlock()
		}
		after = after.behind()
	}
	return dst
}

// passed is how many members, removed ones too, a reader passes over before it lets the
// writer, and readers that choose, have the pool.
const passed = 1024

// owned does what pass does with the elements of a home.
func (p *pool) owned(home param.RegistrarID, after param.PEID, limit int, visit func(*Record) bool) (last param.PEID, more bool) {
	return p.pass(after, limit, func(m member) bool {
		if m.home != home {
			return true
		}
		r := m.element.record.Load()
		return r == nil || visit(r)
	})
}

// pass visits the members behind after, removed ones too, until visit returns false or
// limit members have been passed over. It returns the last one it came to, and whether
// there may be more. The caller is the writer or has the mutex.
func (p *pool) pass(after param.PEID, limit int, visit func(member) bool) (last param.PEID, more bool) {
	last = after
	p.members.from(after, func(m member) bool {
		if m.id == after {
			return true
		}
		last = m.id
		limit--
		more = limit <= 0
		return visit(m) && !more
	})
	return last, more
}

// behind returns the first key of the next pool: the shortest handle that comes behind
// this one.
func (k Key) behind() Key { return Key{Handle: k.Handle + "\x00"} }

// progress is how far a takeover has come that moves elements piece by piece: all
// that are left are behind.
type progress struct {
	from  HomeID
	after Key
}

// lived returns the elements of one life of a home in the order of their keys, up
// to limit if that is not 0. Writer only.
func (s *Space) lived(home HomeID, limit int) (out []*Record) {
	n := s.index.elements(home)
	if limit > 0 {
		n = min(n, limit)
	}
	taken := &s.index.taken
	if taken.from != home {
		*taken = progress{from: home}
	}
	at := taken.after
	for len(out) < n {
		p := s.index.from(home.ID, at.Handle)
		if p.handle != at.Handle {
			at = Key{Handle: p.handle}
		}
		p.owned(home.ID, at.ID, math.MaxInt, func(r *Record) bool {
			if r.HomeIncarnation == home.Incarnation {
				out = append(out, r)
			}
			return len(out) < n
		})
		at = at.behind()
	}
	if len(out) > 0 {
		taken.after = out[len(out)-1].Key()
	}
	return out
}
