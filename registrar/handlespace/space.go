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
	index   index
	scratch sync.Pool // *[]*selection.Item

	// Writer only.
	tombstones tombstones
	marks      Marks
	stated     map[param.PoolHandle]*PoolState // what a Merge said of pools, until its end
	guesses    []*pool                         // of which it has said nothing
	merges     int                             // ended
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

		tombstones: newTombstones(),
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
	case Import:
		return s.imported(&c)
	case Forget:
		return s.forget(&c)
	case Takeover:
		return s.takeover(&c)
	case Confirm:
		return s.confirm(&c)
	case HoldBack:
		s.holdBack(c.Now.Add(s.cfg.HoldBack))
		return nil
	case Sweep:
		s.sweep(c.Now)
		return nil
	case Merge:
		return s.merge(&c)
	}
	panic(fmt.Sprintf("handlespace: unknown command %T", cmd))
}

func (s *Space) register(c *Register) []Event {
	p, e := s.find(c.Handle, c.Element.ID)
	encoded, causes := s.admit(c, p, e)
	if len(causes) > 0 {
		return []Event{Rejected{c.Handle, c.Element.ID, causes}}
	}
	r := &Record{
		Handle:          c.Handle,
		Element:         c.Element,
		Generation:      s.raised(Key{c.Handle, c.Element.ID}, e, HomeID{c.Raiser, c.Incarnation}, c.Now),
		Registered:      c.Now,
		HomeIncarnation: c.Incarnation,
		Confirmed:       true,
		encoded:         encoded,
	}
	r.refresh(c.Now)
	previous, created := s.put(p, e, r, nil, c.Owner)
	return []Event{Registered{Handle: r.Handle, Record: r, Previous: previous, PoolCreated: created}}
}

// raised returns the generation that follows on what is known of a key.
func (s *Space) raised(k Key, e *element, raiser HomeID, now time.Time) Generation {
	before := s.marks.Stamp
	if e != nil {
		before = e.record.Generation.Stamp
	} else if t := s.tombstones.get(k); t != nil {
		before = max(before, t.Generation.Stamp)
	}
	stamp := nextStamp(before, now)
	return Generation{Content: stamp, Stamp: stamp, Raiser: raiser.ID, Incarnation: raiser.Incarnation}
}

// put makes r the record of its key: of e in p, or of a new element, in a new pool
// if p is nil. It completes r, and returns the record before.
func (s *Space) put(p *pool, e *element, r *Record, reporters []string, owner string) (previous *Record, created bool) {
	if created = p == nil; created {
		p = s.newPool(PoolState{
			Handle: r.Handle, Created: r.Registered, Founder: r.Element.ID,
			Policy: r.Element.Policy.Type, Owner: owner,
		})
	}
	if e == nil {
		e = &element{}
		s.tombstones.remove(s, r.Key()) // what is stored has none
	} else {
		previous = e.record
		r.Registered = previous.Registered
	}
	s.replace(p, e, r, reporters)
	if created {
		s.index.pools(1)
		s.pools.ReplaceOrInsert(poolEntry{p.handle, p})
		s.publish()
	}
	return previous, created
}

// replace makes r, which it completes, the record of e in p.
func (s *Space) replace(p *pool, e *element, r *Record, reporters []string) {
	r.Handle = p.handle
	r.seal(reporters)
	e.reporters = reporters
	p.mu.Lock()
	p.store(e, r)
	p.mu.Unlock()
	s.index.replace(&e.filed, r)
	if p.founder == r.Element.ID && !equal(&p.user, &r.Element.User) {
		s.restate(p, func() { p.user = r.Element.User })
	}
}

// restate changes what a pool is besides its elements.
func (s *Space) restate(p *pool, change func()) {
	before := p.digest
	p.mu.Lock()
	change()
	p.mu.Unlock()
	state := p.state()
	p.digest = state.digest()
	s.index.pool(p.handle, before, p.digest)
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
	} else if !el.Policy.Type.Valid() {
		return nil, param.OperationError{param.PolicyCause(param.CauseInvalidValues, el.Policy)}
	}
	encoded, err := param.AppendPoolElement(nil, el, false)
	if err != nil {
		return nil, param.OperationError{param.ElementCause(param.CauseInvalidValues, el)}
	}
	if len(encoded) > s.cfg.MaxElementSize || e == nil && s.full(c.Owner, p) {
		return nil, param.OperationError{param.NewCause(param.CauseLackOfResources)}
	}
	return encoded, nil
}

// full reports whether there is no room for a new element in p, or for a new
// pool if p is nil.
func (s *Space) full(owner string, p *pool) bool {
	if s.index.counts.Elements >= s.cfg.MaxElements {
		return true
	}
	if p != nil {
		return p.elements.Len() >= s.cfg.MaxElementsPerPool
	}
	return s.pools.Len() >= s.cfg.MaxPools ||
		owner != "" && s.owners[owner] >= s.cfg.MaxPoolsPerOwner
}

// newPool returns a pool without elements: the policy type, transport type and
// transport use of the first are the pool's (ASAP-3.1-25).
func (s *Space) newPool(state PoolState) *pool {
	p := &pool{
		handle:   state.Handle,
		owner:    state.Owner,
		created:  state.Created,
		rand:     rand.New(rand.NewPCG(s.cfg.Rand.Uint64(), s.cfg.Rand.Uint64())),
		founder:  state.Founder,
		user:     state.User,
		elements: btree.NewWithFreeListG(16, entry.less, s.spare),
	}
	s.setPolicy(p, state.Policy)
	s.own(p.owner, 1)
	return p
}

// setPolicy makes t the policy of a pool, with a chooser to hold its elements.
func (s *Space) setPolicy(p *pool, t param.PolicyType) {
	neutral := selection.Neutral(t)
	p.policy = &neutral
	p.limit = selection.Unlimited
	if limit, ok := s.cfg.ResultLimits[t]; ok {
		p.limit = limit
	} else if d, ok := selection.Lookup(t); ok {
		p.limit = d.Limit
	}
	p.sound = selection.NewChooser(t, p.rand)
}

// own counts the pools of an owner.
func (s *Space) own(owner string, change int) {
	if owner == "" {
		return
	}
	if s.owners[owner] += change; s.owners[owner] == 0 {
		delete(s.owners, owner)
	}
}

func (s *Space) deregister(c *Deregister) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return []Event{s.absent(c)}
	}
	if len(c.From) > 0 && !overlap(c.From, e.record.Element.ASAP.Addrs) {
		return []Event{Rejected{c.Handle, c.ID, param.OperationError{param.NewCause(param.CauseSecurity)}}}
	}
	raised := s.raised(Key{c.Handle, c.ID}, e, HomeID{c.Raiser, c.Incarnation}, c.Now)
	return s.drop(p, e, Deregistered, s.buried(e.record, raised, c.Now))
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
	r := e.record
	switch unattended := c.Cause != Administrative && c.Cause != Deregistered; {
	case r.Generation != c.Generation && (unattended || !c.Generation.IsZero()):
		return nil
	case unattended:
		return s.takeOut(p, e, c.Cause, c.Now)
	}
	// By hand is a word of its own: a side that was apart must not bring it back.
	raised := s.raised(Key{c.Handle, c.ID}, e, r.Home(), c.Now)
	return s.drop(p, e, c.Cause, s.buried(r, raised, c.Now))
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
	reporters := e.reporters
	if len(reporters) <= s.cfg.MaxBadPEReports {
		reporters = append(reporters, c.Reporter)
	}
	s.replace(p, e, &r, reporters)
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
	r.sound()
	s.replace(p, e, &r, e.reporters)
	return []Event{Recovered{p.handle, &r}}
}

// takeOut removes an element that nobody attends or, while registrars have just
// been lost or beyond the removal limit, marks it suspect.
func (s *Space) takeOut(p *pool, e *element, cause RemovalCause, now time.Time) []Event {
	r := *e.record
	if r.Suspect && (r.Held.IsZero() || now.Before(r.Held)) {
		return nil
	}
	if !now.Before(s.marks.HeldBack) || !r.Suspect && !p.mayHold(s.cfg.HoldBackShare) {
		if p.removable(s, now) {
			return s.drop(p, e, cause, s.buried(&r, r.Generation, now))
		}
		r.Held = time.Time{}
	} else {
		r.Held = s.marks.HeldBack
	}
	r.Suspect, r.Cause = true, cause
	s.replace(p, e, &r, e.reporters)
	return []Event{Suspected{p.handle, &r, cause}}
}

// drop takes an element out and leaves the tombstone.
func (s *Space) drop(p *pool, e *element, cause RemovalCause, t *Tombstone) []Event {
	r := e.record
	p.mu.Lock()
	p.drop(e)
	last := p.elements.Len() == 0
	p.mu.Unlock()
	if last {
		s.pools.Delete(poolEntry{handle: p.handle})
		s.own(p.owner, -1)
		s.publish()
		s.index.pools(-1)
		s.index.pool(p.handle, p.digest, 0)
	}
	s.index.replace(&e.filed, nil)
	s.tombstones.put(s, t)
	return []Event{Removed{p.handle, r, cause, last, t.Generation}}
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
// starts above what is remembered of its former lives, so that a command that names
// one of them can't meet the new one.
func nextStamp(previous uint64, now time.Time) uint64 {
	return max(previous+1, uint64(max(now.UnixMicro(), 0)))
}
