package handlespace

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

// Space is a handlespace. See the package comment for who may call what.
type Space struct {
	cfg     Config
	pools   directory
	owners  map[string]int                     // pools by owner
	neutral map[param.PolicyType]*param.Policy // policies of pools by type
	index   index
	scratch sync.Pool // *[]*selection.Item

	// Writer only.
	events     []Event               // of the latest commands, and room for more
	near       *element              // where it may be about, so that no search is needed
	upcoming   upcoming              // see ApplyAll
	octets     []byte                // to encode elements in
	reporters  map[*element][]string // who reported this generation, of elements with reports
	places     places
	tombstones tombstones
	marks      Marks
	stated     map[param.PoolHandle]*PoolState // what a Merge said of pools, until its end
	guesses    []*pool                         // of which it has said nothing
	merging    int                             // amid several Merges: of so many sides, else 0
	merges     int                             // ended
}

// New returns an empty handlespace. The configuration must be valid.
func New(cfg Config) *Space {
	s := &Space{
		cfg:        cfg.withDefaults(),
		pools:      directory{seed: maphash.MakeSeed()},
		owners:     make(map[string]int),
		neutral:    make(map[param.PolicyType]*param.Policy),
		index:      newIndex(),
		reporters:  make(map[*element][]string),
		tombstones: newTombstones(),
	}
	s.scratch.New = func() any { return new([]*selection.Item) }
	return s
}

// Apply changes the handlespace and tells what changed, in order; nothing if the
// command does not apply. One goroutine only.
func (s *Space) Apply(cmd Command) []Event {
	if s.near = nil; len(s.events) == cap(s.events) || cap(s.events) > eventRoom {
		s.events = make([]Event, 0, eventRoom)
	}
	before := len(s.events)
	s.apply(cmd)
	return s.events[before:len(s.events):len(s.events)]
}

// eventRoom is for how many events there is room at a time: most commands have one. Where
// there were more of them at once that room is not used up: they would be kept so long.
const eventRoom = 32

func (s *Space) emit(e Event) { s.events = append(s.events, e) }

func (s *Space) apply(cmd Command) {
	switch c := cmd.(type) {
	case Register:
		s.register(&c)
	case Deregister:
		s.deregister(&c)
	case Remove:
		s.remove(&c)
	case Report:
		s.report(&c)
	case Alive:
		s.alive(&c)
	case Import:
		s.imported(&c)
	case Forget:
		s.forget(&c)
	case Takeover:
		s.takeover(&c)
	case Confirm:
		s.confirm(&c)
	case HoldBack:
		s.holdBack(c.Now.Add(s.cfg.HoldBack))
	case Sweep:
		s.sweep(c.Now)
	case Merge:
		s.merge(&c)
	default:
		panic(fmt.Sprintf("handlespace: unknown command %T", cmd))
	}
}

func (s *Space) register(c *Register) {
	p, e := s.place(c.Handle, c.Element.ID)
	content, causes := s.admit(c, p, e)
	if len(causes) > 0 {
		s.emit(Rejected{c.Handle, c.Element.ID, causes})
		return
	}
	r := newRecord(c.Handle, &c.Element, content)
	r.Generation = s.raised(e, HomeID{c.Raiser, c.Incarnation}, c.Now)
	r.registered, r.Refreshed = nanoseconds(c.Now), c.Now
	r.HomeIncarnation, r.Confirmed = c.Incarnation, true
	previous, created := s.put(p, e, r, &c.Element, nil, c.Owner)
	s.emit(Registered{Handle: r.Handle, Record: r, Previous: previous, PoolCreated: created})
}

// raised returns the generation that follows on what is known of an element.
func (s *Space) raised(e *element, raiser HomeID, now time.Time) Generation {
	before := s.marks.Stamp
	if e.there() {
		before = e.record.Load().Generation.Stamp
	} else if e != nil {
		before = max(before, e.tombstone.Generation.Stamp)
	}
	stamp := nextStamp(before, now)
	return Generation{Content: stamp, Stamp: stamp, Raiser: raiser.ID, Incarnation: raiser.Incarnation}
}

// put makes r the record of its key: of e in p, or of a new element if e is nil, in a new
// pool if p is nil. content is the element of r. It completes r, and returns the record
// before.
func (s *Space) put(p *pool, e *element, r *Record, content *param.PoolElement, reporters []string, owner string) (previous *Record, created bool) {
	if created = p == nil; created {
		p = s.newPool(PoolState{
			Handle: r.Handle, Created: r.Registered(), Founder: r.ID,
			Policy: content.Policy.Type, Owner: owner,
		})
	}
	switch {
	case e == nil:
		e = s.places.get()
	case e.there():
		previous = e.record.Load()
		r.registered = previous.registered
	default:
		s.unbury(e)
	}
	s.replace(p, e, r, content, reporters)
	if created {
		s.index.come(p)
		s.pools.add(p)
	}
	return previous, created
}

// replace makes r, which it completes, the record of e in p. content is the element of
// r, or nil if that is the same as before.
func (s *Space) replace(p *pool, e *element, r *Record, content *param.PoolElement, reporters []string) {
	r.Handle = p.handle
	r.seal(reporters)
	before := e.record.Load()
	if len(reporters) > 0 {
		s.reporters[e] = reporters
	} else if before != nil && before.Reports > 0 {
		delete(s.reporters, e)
	}
	p.mu.Lock()
	p.store(e, before, r, content)
	p.mu.Unlock()
	s.index.replace(p, e, before, r)
	if content != nil && p.founder == r.ID && !equal(&p.user, &content.User) {
		s.restate(p, func() { p.user = content.User })
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
func (s *Space) admit(c *Register, p *pool, e *element) (coded, param.OperationError) {
	el := &c.Element
	switch {
	case c.Handle == "", el.ID == 0, el.Life != param.InfiniteLife && el.Life <= 0:
		return coded{}, param.OperationError{param.ElementCause(param.CauseInvalidValues, el)}
	case e.there() && !c.Conflict.IsZero() && e.record.Load().Generation == c.Conflict:
		return coded{}, param.OperationError{param.NewCause(param.CauseNonUniquePEID)}
	}
	if p != nil {
		if causes := p.check(el); len(causes) > 0 {
			return coded{}, causes
		}
	} else if !el.Policy.Type.Valid() {
		return coded{}, param.OperationError{param.PolicyCause(param.CauseInvalidValues, el.Policy)}
	}
	content, err := encode(s.octets, el)
	if err != nil {
		return coded{}, param.OperationError{param.ElementCause(param.CauseInvalidValues, el)}
	}
	if content.asap > s.cfg.MaxElementSize || !e.there() && s.full(c.Owner, p) {
		return coded{}, param.OperationError{param.NewCause(param.CauseLackOfResources)}
	}
	s.octets = content.octets
	return content, nil
}

// full reports whether there is no room for a new element in p, or for a new
// pool if p is nil.
func (s *Space) full(owner string, p *pool) bool {
	if s.index.counts.Elements >= s.cfg.MaxElements {
		return true
	}
	if p != nil {
		return p.elements >= s.cfg.MaxElementsPerPool
	}
	return s.index.pools.Len() >= s.cfg.MaxPools ||
		owner != "" && s.owners[owner] >= s.cfg.MaxPoolsPerOwner
}

// newPool returns a pool without elements: the policy type, transport type and
// transport use of the first are the pool's (ASAP-3.1-25).
func (s *Space) newPool(state PoolState) *pool {
	p := &pool{
		handle:  state.Handle,
		hash:    hashOf(state.Handle),
		owner:   state.Owner,
		created: state.Created,
		rand:    rand.New(rand.NewPCG(s.cfg.Rand.Uint64(), s.cfg.Rand.Uint64())),
		founder: state.Founder,
		user:    state.User,
	}
	p.shares = p.oneShare[:0]
	if m := s.tombstones.pools[p.handle]; m != nil {
		p.members = *m
		delete(s.tombstones.pools, p.handle)
	}
	s.setPolicy(p, state.Policy)
	s.own(p.owner, 1)
	return p
}

// setPolicy makes t the policy of a pool, with a chooser to hold its elements.
func (s *Space) setPolicy(p *pool, t param.PolicyType) {
	d, known := selection.Lookup(t)
	if p.policy = s.neutral[t]; p.policy == nil {
		neutral := selection.Neutral(t)
		if p.policy = &neutral; known { // of others there may be any number
			s.neutral[t] = &neutral
		}
	}
	p.limit = selection.Unlimited
	if limit, ok := s.cfg.ResultLimits[t]; ok {
		p.limit = limit
	} else if known {
		p.limit = d.Limit
	}
	p.sound = p.newChooser()
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

func (s *Space) deregister(c *Deregister) {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		s.emit(s.absent(c))
		return
	}
	r := e.record.Load()
	if len(c.From) > 0 && !overlap(c.From, r.ASAP().Addrs) {
		s.emit(Rejected{c.Handle, c.ID, param.OperationError{param.NewCause(param.CauseSecurity)}})
		return
	}
	raised := s.raised(e, HomeID{c.Raiser, c.Incarnation}, c.Now)
	s.drop(p, e, Deregistered, s.buried(r, raised, c.Now))
}

// overlap reports whether the lists have an address in common. An IPv4 address
// is the same in its IPv6 form.
func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool {
		return slices.ContainsFunc(b, func(y netip.Addr) bool { return x.Unmap() == y.Unmap() })
	})
}

func (s *Space) remove(c *Remove) {
	if c.spot.space == s {
		s.near = c.spot.element
	}
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return
	}
	r := e.record.Load()
	switch unattended := c.Cause != Administrative && c.Cause != Deregistered; {
	case r.Generation != c.Generation && (unattended || !c.Generation.IsZero()):
	case unattended:
		s.takeOut(p, e, c.Cause, c.Now)
	default:
		// By hand is a word of its own: a side that was apart must not bring it back.
		raised := s.raised(e, r.Home(), c.Now)
		s.drop(p, e, c.Cause, s.buried(r, raised, c.Now))
	}
}

func (s *Space) report(c *Report) {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return
	}
	r, reporters := e.record.Load(), s.reporters[e]
	if r.Generation != c.Generation || r.Suspect || slices.Contains(reporters, c.Reporter) {
		return
	}
	r = r.changed()
	r.Reports++
	// Past the threshold every reporter that is not among the counted asks for
	// the removal anew, so there is no need to remember more.
	if len(reporters) <= s.cfg.MaxBadPEReports {
		reporters = append(reporters, c.Reporter)
	}
	s.replace(p, e, r, nil, reporters)
	if int(r.Reports) > s.cfg.MaxBadPEReports {
		s.takeOut(p, e, Reported, c.Now)
		return
	}
	s.emit(Counted{p.handle, r, int(r.Reports)})
}

func (s *Space) alive(c *Alive) {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return
	}
	if r := e.record.Load(); r.Generation == c.Generation && r.Suspect {
		r = r.changed()
		r.sound()
		s.replace(p, e, r, nil, s.reporters[e])
		s.emit(Recovered{p.handle, r})
	}
}

// takeOut removes an element that nobody attends or, while registrars have just
// been lost or beyond the removal limit, marks it suspect.
func (s *Space) takeOut(p *pool, e *element, cause RemovalCause, now time.Time) {
	r := e.record.Load()
	if r.Suspect && (r.held == 0 || now.Before(r.Held())) {
		return
	}
	held := now.Before(s.marks.HeldBack) && (r.Suspect || p.mayHold(s.cfg.HoldBackShare))
	if !held && p.removable(s, now) {
		s.drop(p, e, cause, s.buried(r, r.Generation, now))
		return
	}
	r = r.changed()
	r.Suspect, r.Cause, r.held = true, cause, 0
	if held {
		r.held = nanoseconds(s.marks.HeldBack)
	}
	s.replace(p, e, r, nil, s.reporters[e])
	s.emit(Suspected{p.handle, r, cause})
}

// drop takes an element out and leaves the tombstone.
func (s *Space) drop(p *pool, e *element, cause RemovalCause, t *Tombstone) {
	r := e.record.Load()
	s.index.bury(p, e, r, t) // first: what is filed there has a record
	p.mu.Lock()
	p.drop(e, r)
	last := p.elements == 0
	if last {
		s.tombstones.pools[p.handle] = p.members.gone()
	}
	p.mu.Unlock()
	if last {
		p.gone.Store(true)
		s.pools.remove(p)
		s.own(p.owner, -1)
		s.index.leaves(p)
	}
	delete(s.reporters, e)
	s.remember(e, t)
	s.emit(Removed{p.handle, r, cause, last, t.Generation})
}

// find returns a pool and one of its elements, nil for what is not there or was removed.
func (s *Space) find(handle param.PoolHandle, id param.PEID) (*pool, *element) {
	p, e := s.place(handle, id)
	if !e.there() {
		return p, nil
	}
	return p, e
}

// spot is where in a Space an element was found.
type spot struct {
	space   *Space
	element *element
}

// place returns a pool and one of its elements, nil for what is not there, but also a
// removed element as long as it has its tombstone.
func (s *Space) place(handle param.PoolHandle, id param.PEID) (*pool, *element) {
	p := s.lookup(handle)
	if s.near.is(handle, id) {
		return p, s.near
	}
	if p != nil {
		return p, p.members.seek(id)
	}
	if m := s.tombstones.pools[handle]; m != nil {
		return nil, m.seek(id)
	}
	return nil, nil
}

// nextStamp returns a generation stamp above the previous one. A new element
// starts above what is remembered of its former lives, so that a command that names
// one of them can't meet the new one.
func nextStamp(previous uint64, now time.Time) uint64 {
	return max(previous+1, uint64(max(now.UnixMicro(), 0)))
}
