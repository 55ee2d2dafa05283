package handlespace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"rserpool/asap/param"
	"rserpool/selection"
)

// Space is a handlespace. See the package comment for who may call what.
type Space struct {
	cfg     Config
	pools   *btree.BTreeG[poolEntry]
	view    atomic.Pointer[btree.BTreeG[poolEntry]] // pools as published to readers
	version atomic.Uint64                           // of view, counted from 1
	spare   *btree.FreeListG[entry]                 // of the pools' trees by identifier
	owners  map[string]int                          // pools by owner
	stamp   uint64                                  // the highest of elements that have gone
	index   index
	scratch sync.Pool // *[]*selection.Item
}

type poolEntry struct {
	handle param.PoolHandle
	pool   *pool
}

func (a poolEntry) less(b poolEntry) bool { return a.handle < b.handle }

// New returns an empty handlespace. The configuration must be valid.
func New(cfg Config) *Space {
	s := &Space{
		cfg:    cfg.withDefaults(),
		pools:  btree.NewG(16, poolEntry.less),
		spare:  btree.NewFreeListG[entry](64),
		owners: make(map[string]int),
		index:  newIndex(),
	}
	s.scratch.New = func() any { return new([]*selection.Item) }
	s.publish()
	return s
}

// Apply changes the handlespace and tells what changed, in order; nothing if the
// command does not apply. One goroutine only.
func (s *Space) Apply(cmd Command) []Event {
	switch c := cmd.(type) {
	case Register:
		return s.register(&c)
	case Deregister:
		return s.deregister(&c)
	case Remove:
		return s.remove(&c)
	case Report:
		return s.report(&c)
	case Alive:
		return s.alive(&c)
	}
	panic(fmt.Sprintf("handlespace: unknown command %T", cmd))
}

func (s *Space) register(c *Register) []Event {
	p, e := s.find(c.Handle, c.Element.ID)
	encoded, causes := s.admit(c, p, e)
	if len(causes) > 0 {
		return []Event{Rejected{c.Handle, c.Element.ID, causes}}
	}
	created := p == nil
	if created {
		p = s.newPool(c)
	}
	r := &Record{
		Handle:     p.handle,
		Element:    c.Element,
		Registered: c.Now,
		Refreshed:  c.Now,
		encoded:    encoded,
	}
	if life, finite := c.Element.Life.Duration(); finite {
		r.Expires = c.Now.Add(life)
	}
	var previous *Record
	before := s.stamp
	if e == nil {
		e = &element{}
	} else {
		previous = e.record
		r.Registered = previous.Registered
		before = previous.Generation.Stamp
	}
	r.Generation = Generation{nextStamp(before, c.Now), c.Raiser, c.Incarnation}
	e.reporters = nil

	p.mu.Lock()
	p.store(e, r)
	if p.founder == r.Element.ID {
		p.user = r.Element.User
	}
	p.mu.Unlock()
	if created {
		s.index.replace(previous, r, 1)
		s.pools.ReplaceOrInsert(poolEntry{p.handle, p})
		s.publish()
	} else {
		s.index.replace(previous, r, 0)
	}
	return []Event{Registered{Handle: p.handle, Record: r, Previous: previous, PoolCreated: created}}
}

// admit decides on a registration. It returns the encoded element, or why not.
func (s *Space) admit(c *Register, p *pool, e *element) ([]byte, param.OperationError) {
	el := &c.Element
	switch {
	case c.Handle == "", el.ID == 0, el.Life != param.InfiniteLife && el.Life <= 0:
		return nil, param.OperationError{param.ElementCause(param.CauseInvalidValues, el)}
	case e != nil && !c.Conflict.IsZero() && e.record.Generation == c.Conflict:
		return nil, param.OperationError{param.NewCause(param.CauseNonUniquePEID)}
	}
	if p != nil {
		if causes := p.check(el); len(causes) > 0 {
			return nil, causes
		}
	} else if _, known := selection.Lookup(el.Policy.Type); !known {
		return nil, param.OperationError{param.PolicyCause(param.CauseInvalidValues, el.Policy)}
	}
	encoded, err := param.AppendPoolElement(nil, el, false)
	if err != nil {
		return nil, param.OperationError{param.ElementCause(param.CauseInvalidValues, el)}
	}
	if len(encoded) > s.cfg.MaxElementSize || e == nil && s.full(c, p) {
		return nil, param.OperationError{param.NewCause(param.CauseLackOfResources)}
	}
	return encoded, nil
}

// full reports whether there is no room for a new element in p, or for a new
// pool if p is nil.
func (s *Space) full(c *Register, p *pool) bool {
	if s.index.counts.Elements >= s.cfg.MaxElements {
		return true
	}
	if p != nil {
		return p.elements.Len() >= s.cfg.MaxElementsPerPool
	}
	return s.pools.Len() >= s.cfg.MaxPools ||
		c.Owner != "" && s.owners[c.Owner] >= s.cfg.MaxPoolsPerOwner
}

// newPool returns the pool that a registration creates: its policy type,
// transport type and transport use are the pool's (ASAP-3.1-25).
func (s *Space) newPool(c *Register) *pool {
	t := c.Element.Policy.Type
	p := &pool{
		handle:   c.Handle,
		policy:   selection.Neutral(t),
		owner:    c.Owner,
		created:  c.Now,
		limit:    selection.Unlimited,
		rand:     rand.New(rand.NewPCG(s.cfg.Rand.Uint64(), s.cfg.Rand.Uint64())),
		founder:  c.Element.ID,
		elements: btree.NewWithFreeListG(16, entry.less, s.spare),
	}
	if limit, ok := s.cfg.ResultLimits[t]; ok {
		p.limit = limit
	} else if d, ok := selection.Lookup(t); ok {
		p.limit = d.Limit
	}
	p.sound = selection.NewChooser(t, p.rand)
	if p.owner != "" {
		s.owners[p.owner]++
	}
	return p
}

func (s *Space) deregister(c *Deregister) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return []Event{Absent{c.Handle, c.ID}}
	}
	if len(c.From) > 0 && !overlap(c.From, e.record.Element.ASAP.Addrs) {
		return []Event{Rejected{c.Handle, c.ID, param.OperationError{param.NewCause(param.CauseSecurity)}}}
	}
	s.stamp = max(s.stamp, nextStamp(e.record.Generation.Stamp, c.Now))
	return s.drop(p, e, Deregistered)
}

// overlap reports whether the lists have an address in common. An IPv4 address
// is the same in its IPv6 form.
func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool {
		return slices.ContainsFunc(b, func(y netip.Addr) bool { return x.Unmap() == y.Unmap() })
	})
}

func (s *Space) remove(c *Remove) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return nil
	}
	if c.Cause == Administrative && c.Generation.IsZero() || e.record.Generation == c.Generation {
		return s.takeOut(p, e, c.Cause, c.Now)
	}
	return nil
}

func (s *Space) report(c *Report) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil || e.record.Generation != c.Generation || e.record.Suspect ||
		slices.Contains(e.reporters, c.Reporter) {
		return nil
	}
	r := *e.record
	r.Reports++
	// Past the threshold every reporter that is not among the counted asks for
	// the removal anew, so there is no need to remember more.
	if len(e.reporters) <= s.cfg.MaxBadPEReports {
		e.reporters = append(e.reporters, c.Reporter)
	}
	s.change(p, e, &r)
	if r.Reports > s.cfg.MaxBadPEReports {
		return s.takeOut(p, e, Reported, c.Now)
	}
	return []Event{Counted{p.handle, &r, r.Reports}}
}

func (s *Space) alive(c *Alive) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil || e.record.Generation != c.Generation || !e.record.Suspect {
		return nil
	}
	r := *e.record
	r.Suspect, r.Cause = false, 0
	s.change(p, e, &r)
	return []Event{Recovered{p.handle, &r}}
}

// takeOut removes an element or, beyond the removal limit, marks it suspect.
func (s *Space) takeOut(p *pool, e *element, cause RemovalCause, now time.Time) []Event {
	if cause == Deregistered || cause == Administrative {
		return s.drop(p, e, cause)
	}
	if e.record.Suspect {
		return nil
	}
	if p.removable(&s.cfg, now) {
		return s.drop(p, e, cause)
	}
	r := *e.record
	r.Suspect, r.Cause = true, cause
	s.change(p, e, &r)
	return []Event{Suspected{p.handle, &r, cause}}
}

// change replaces a record by another one of the same generation.
func (s *Space) change(p *pool, e *element, r *Record) {
	old := e.record
	p.mu.Lock()
	p.store(e, r)
	p.mu.Unlock()
	s.index.replace(old, r, 0)
}

func (s *Space) drop(p *pool, e *element, cause RemovalCause) []Event {
	r := e.record
	s.stamp = max(s.stamp, r.Generation.Stamp)
	p.mu.Lock()
	p.drop(e)
	last := p.elements.Len() == 0
	p.mu.Unlock()
	if last {
		s.pools.Delete(poolEntry{handle: p.handle})
		if p.owner != "" {
			if s.owners[p.owner]--; s.owners[p.owner] == 0 {
				delete(s.owners, p.owner)
			}
		}
		s.publish()
		s.index.replace(r, nil, -1)
	} else {
		s.index.replace(r, nil, 0)
	}
	return []Event{Removed{p.handle, r, cause, last}}
}

func (s *Space) find(handle param.PoolHandle, id param.PEID) (*pool, *element) {
	found, ok := s.pools.Get(poolEntry{handle: handle})
	if !ok {
		return nil, nil
	}
	return found.pool, found.pool.find(id)
}

// publish shows the readers which pools there are.
func (s *Space) publish() {
	s.view.Store(s.pools.Clone())
	s.version.Add(1)
}

// nextStamp returns a generation stamp above the previous one. A new element
// starts above all that have gone, so that a command that names a former life of
// it can't meet the new one.
func nextStamp(previous uint64, now time.Time) uint64 {
	return max(previous+1, uint64(max(now.UnixMilli(), 0)))
}
