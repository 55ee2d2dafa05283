package ringtest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"rserpool/enrp/ring"
)

// checker knows all that happened at all members and compares it with what
// docs/ring.md promises. It keeps for each member what it would know if each
// exchange brought everything: without one, members that do not know the same
// can never come to do so.
type checker struct {
	proposals []proposal
	index     map[proposalKey]int32
	records   map[ring.Member]*record
	views     map[ring.ViewID]*viewRecord
	hops      map[hopKey]hopRecord
	fences    map[string]ring.Fence // highest of primary mode, and who has the lock
	holders   map[string]*record
	primary   bool
	starving  time.Duration
	calls     map[ring.ViewID]*ring.Call
	limits    ring.Limits
	cov       *Coverage
	fail      func(check, format string, args ...any)
}

type proposalKey struct {
	from   ring.Member
	number uint64
}

type proposal struct {
	proposalKey
	payload []byte
	given   bool // back, as not delivered
	key     uint64
	isKey   bool
}

// record is what one life of a member did.
type record struct {
	self     ring.Node
	live     bool
	view     *viewRecord
	prev     *viewRecord // installed before
	pos      int         // delivered in view
	has      bits
	order    []int32 // proposals delivered, in order
	last     map[ring.Member]uint64
	proposed uint64
	own      uint64 // last own proposal delivered or given back
	stable   uint64
	stableAt int // order before is known to be stable
	ended    map[ring.ViewID]bool
	endedOK  bool // EndStable of the view came
	locks    map[string]ring.Granted
	fences   map[string]ring.Fence
	inToken  uint64 // last own proposal put into a token
	away     bool   // paused: what it believes is of no use
	clash    bool
	fresh    bool // the view was installed in this output
	promised ring.ViewID
	accepted uint64        // newest hop acknowledged in view, and when by the own clock
	token    time.Duration // since
	first    firstAck      // of a view that is about to be installed
}

// viewRecord is what happened in one view.
type viewRecord struct {
	id        ring.ViewID
	event     ring.Installed
	log       []int32 // proposals in order; theEnd: END
	installed map[ring.Member]*install
	next      map[ring.ViewID]leaving
	endHas    bits
	endBy     bool
	grants    map[grantKey]ring.Member
	merged    bool
}

const theEnd = -1

// grantKey names a grant.
type grantKey struct {
	lock  string
	fence ring.Fence
}

type install struct {
	record *record
	has    bits // at the install
	origin ring.Origin
}

// leaving is how far somebody had come in a view who went to the next.
type leaving struct {
	pos int
	who ring.Member
}

type hopKey struct {
	view ring.ViewID
	hop  uint64
}

type hopRecord struct {
	from ring.Member
	to   ring.Member
	seq  uint64
	runs int
}

func newChecker(fail func(check, format string, args ...any), cov *Coverage) *checker {
	return &checker{
		index: map[proposalKey]int32{}, records: map[ring.Member]*record{}, views: map[ring.ViewID]*viewRecord{},
		hops: map[hopKey]hopRecord{}, fences: map[string]ring.Fence{}, holders: map[string]*record{}, calls: map[ring.ViewID]*ring.Call{},
		fail: fail, cov: cov,
	}
}

func (c *checker) start(self ring.Node) *record {
	r := &record{
		self: self, live: true, last: map[ring.Member]uint64{}, ended: map[ring.ViewID]bool{},
		locks: map[string]ring.Granted{}, fences: map[string]ring.Fence{},
	}
	c.records[self.Member] = r
	return r
}

// propose notes a proposal that the machine took.
func (c *checker) propose(r *record, payload []byte, number uint64) {
	if number != r.proposed+1 {
		c.fail("numbers", "%s: proposal has number %d after %d", name(r.self.Member), number, r.proposed)
	}
	r.proposed = number
	p := proposal{proposalKey: proposalKey{r.self.Member, number}, payload: payload}
	p.key, p.isKey = payloadKeyOf(payload)
	c.index[p.proposalKey] = int32(len(c.proposals))
	c.proposals = append(c.proposals, p)
}

func (c *checker) event(r *record, e ring.Event) {
	who := name(r.self.Member)
	if r.view == nil {
		if _, ok := e.(ring.Installed); !ok {
			c.fail("start", "%s: %T before the first view", who, e)
			return
		}
	}
	switch e := e.(type) {
	case ring.Installed:
		c.install(r, e)
	case ring.Delivered:
		if e.View != r.view.id {
			c.fail("view", "%s delivers of %s in %s", who, viewName(e.View), viewName(r.view.id))
			return
		}
		if len(e.Entries) == 0 {
			c.fail("view", "%s delivers nothing", who)
		}
		for _, entry := range e.Entries {
			c.deliver(r, entry)
		}
	case ring.Ended:
		c.ended(r, e)
	case ring.EndStable:
		c.endStable(r, e)
	case ring.Stable:
		c.stable(r, e.Proposal)
	case ring.NotDelivered:
		if e.First != r.own+1 || e.Last < e.First || e.Last > r.proposed {
			c.fail("own", "%s gets %d to %d back, delivered %d, proposed %d", who, e.First, e.Last, r.own, r.proposed)
			return
		}
		r.own = e.Last
		for n := e.First; n <= e.Last; n++ {
			c.proposals[c.index[proposalKey{r.self.Member, n}]].given = true
		}
	case ring.Granted:
		c.granted(r, e)
	case ring.Released:
		held, ok := r.locks[e.Lock]
		if !ok || held.Holder != e.Holder {
			c.fail("lock", "%s: %s of %s released, held by %s", who, e.Lock, name(e.Holder), name(held.Holder))
		}
		delete(r.locks, e.Lock)
		if e.Holder == r.self.Member && c.holders[e.Lock] == r {
			delete(c.holders, e.Lock)
		}
	case ring.Clash:
		r.clash = true
	}
}

func (c *checker) install(r *record, e ring.Installed) {
	who := name(r.self.Member)
	v := c.views[e.View.ID]
	if v == nil {
		v = &viewRecord{id: e.View.ID, event: e, installed: map[ring.Member]*install{}, next: map[ring.ViewID]leaving{}, grants: map[grantKey]ring.Member{}}
		v.event.Origins = slices.Clone(e.Origins)
		v.event.View.Members = slices.Clone(e.View.Members)
		v.event.Left = nil
		c.views[e.View.ID] = v
	} else if !slices.Equal(v.event.View.Members, e.View.Members) || v.event.Exchange != e.Exchange || v.event.Cause != e.Cause || !slices.Equal(v.event.Origins, e.Origins) {
		c.fail("agree", "%s installs %s unlike others: %+v and %+v", who, viewName(e.View.ID), e, v.event)
		return
	}
	me := e.View.Index(r.self.Member)
	var from ring.ViewID
	if r.view != nil {
		from = r.view.id
	}
	switch {
	case me < 0:
		c.fail("agree", "%s installs %s without itself", who, viewName(e.View.ID))
		return
	case e.View.ID.Compare(from) <= 0:
		c.fail("agree", "%s installs %s after %s", who, viewName(e.View.ID), viewName(from))
	case e.View.Members[0].Member != e.View.ID.Coordinator:
		c.fail("agree", "%s is begun by %s", viewName(e.View.ID), name(e.View.Members[0].Member))
	case len(e.Origins) != len(e.View.Members) || e.Origins[me].Member != r.self.Member:
		c.fail("agree", "%s: origins of %s are not those of its members", who, viewName(e.View.ID))
		return
	case e.Origins[me].Installed != from:
		c.fail("agree", "%s comes into %s from %s, not %s", who, viewName(e.View.ID), viewName(from), viewName(e.Origins[me].Installed))
	}
	for i, a := range e.View.Members {
		for _, b := range e.View.Members[:i] {
			if a.ID == b.ID {
				c.fail("agree", "%s has %s and %s", viewName(e.View.ID), name(a.Member), name(b.Member))
			}
		}
	}
	if r.view != nil {
		var left []ring.Node
		for _, n := range r.view.event.View.Members {
			if !e.View.Has(n.Member) {
				left = append(left, n)
			}
		}
		if !slices.Equal(left, e.Left) {
			c.fail("agree", "%s: %v have left, not %v", who, left, e.Left)
		}
		if e.Cause == ring.CauseMerge && len(left) > 0 {
			c.fail("merge", "%s: the merge into %s drops %v", who, viewName(e.View.ID), left)
		}
		// Virtual synchrony.
		if l, ok := r.view.next[e.View.ID]; !ok {
			r.view.next[e.View.ID] = leaving{r.pos, r.self.Member}
		} else if l.pos != r.pos {
			c.fail("synchrony", "%s went from %s to %s after %d entries, %s after %d", name(l.who), viewName(r.view.id), viewName(e.View.ID), l.pos, who, r.pos)
		}
	}
	// Who is said to know the same must know the same.
	mine := &install{record: r, has: r.has.clone(), origin: e.Origins[me]}
	for m, other := range v.installed {
		same := !e.Exchange || other.origin.Installed == mine.origin.Installed && other.origin.With == mine.origin.With
		if same && !other.has.equal(mine.has) {
			c.fail("synced", "%s and %s go into %s (exchange %v) as if they knew the same: %s", name(m), who, viewName(e.View.ID), e.Exchange, c.difference(other.has, mine.has))
		}
	}
	if e.Exchange && !v.merged {
		for _, other := range v.installed {
			if !mine.has.within(other.has) && !other.has.within(mine.has) {
				v.merged = true
				c.cov.Merges++
				break
			}
		}
	}
	v.installed[r.self.Member] = mine
	r.prev, r.view, r.pos, r.endedOK, r.fresh = r.view, v, 0, !e.Exchange, true
	if r.accepted = 0; r.first.view == v.id {
		r.accepted, r.token = r.first.hop, r.first.at
	}
	c.cov.installed(r, e)
}

type firstAck struct {
	view ring.ViewID
	hop  uint64
	at   time.Duration
}

func (c *checker) deliver(r *record, entry ring.Entry) {
	who := name(r.self.Member)
	i, ok := c.index[proposalKey{entry.From, entry.Proposal}]
	if !ok {
		c.fail("invented", "%s delivers %s, which nobody proposed", who, proposalName(entry.From, entry.Proposal))
		return
	}
	p := &c.proposals[i]
	switch {
	case string(p.payload) != string(entry.Payload):
		c.fail("invented", "%s delivers %s with another payload", who, proposalName(entry.From, entry.Proposal))
	case p.given:
		c.fail("own", "%s delivers %s, which was given back", who, proposalName(entry.From, entry.Proposal))
	case r.last[entry.From] >= entry.Proposal:
		c.fail("twice", "%s delivers %s after %d", who, proposalName(entry.From, entry.Proposal), r.last[entry.From])
	case entry.From == r.self.Member && entry.Proposal != r.own+1:
		c.fail("own", "%s delivers its own %d after %d", who, entry.Proposal, r.own)
	}
	if entry.From == r.self.Member {
		r.own = entry.Proposal
	}
	r.last[entry.From] = entry.Proposal
	r.has.add(int(i))
	r.order = append(r.order, i)
	c.ordered(r, i)
	c.cov.Entries++
}

// ordered takes the next in the order of the member's view.
func (c *checker) ordered(r *record, i int32) {
	v := r.view
	if r.pos == len(v.log) {
		v.log = append(v.log, i)
	} else if v.log[r.pos] != i {
		c.fail("order", "%s delivers %s as number %d of %s, others %s", name(r.self.Member), c.logName(i), r.pos, viewName(v.id), c.logName(v.log[r.pos]))
	}
	r.pos++
}

func (c *checker) ended(r *record, e ring.Ended) {
	who, v := name(r.self.Member), r.view
	if e.View != v.id || !v.event.Exchange || r.ended[v.id] {
		c.fail("end", "%s: END of %s in %s, exchange %v, before %v", who, viewName(e.View), viewName(v.id), v.event.Exchange, r.ended[v.id])
		return
	}
	c.ordered(r, theEnd)
	r.ended[v.id] = true
	for _, n := range v.event.View.Members {
		in := v.installed[n.Member]
		if in == nil {
			c.fail("end", "%s ends the exchange of %s, which %s has not installed", who, viewName(v.id), name(n.Member))
			return
		}
		r.has.or(in.has)
	}
	if !v.endBy {
		v.endBy, v.endHas = true, r.has.clone()
	} else if !v.endHas.equal(r.has) {
		c.fail("end", "%s knows something else than others at the END of %s: %s", who, viewName(v.id), c.difference(v.endHas, r.has))
	}
}

func (c *checker) endStable(r *record, e ring.EndStable) {
	who, v := name(r.self.Member), c.views[e.View]
	if v == nil || !r.ended[e.View] {
		c.fail("stable", "%s: END of %s is stable, but not delivered", who, viewName(e.View))
		return
	}
	for _, n := range r.view.event.View.Members {
		other := c.records[n.Member]
		if other == nil || e.View == r.view.id && !other.ended[e.View] || !v.endHas.within(other.has) {
			c.fail("stable", "%s: END of %s is stable in %s, but not at %s", who, viewName(e.View), viewName(r.view.id), name(n.Member))
		}
	}
	if e.View == r.view.id {
		r.endedOK = true
	}
}

func (c *checker) stable(r *record, number uint64) {
	who := name(r.self.Member)
	switch {
	case number <= r.stable:
		c.fail("stable", "%s: %d is stable after %d", who, number, r.stable)
	case number > r.own:
		c.fail("stable", "%s: %d is stable, delivered are %d", who, number, r.own)
	case !r.endedOK:
		c.fail("stable", "%s: %d is stable before END of %s is", who, number, viewName(r.view.id))
	}
	r.stable = number
	members := r.view.event.View.Members
	for ; r.stableAt < len(r.order); r.stableAt++ {
		p := &c.proposals[r.order[r.stableAt]]
		if p.from == r.self.Member && p.number > number {
			return
		}
		for _, n := range members {
			if other := c.records[n.Member]; other == nil || !other.has.has(int(r.order[r.stableAt])) {
				c.fail("stable", "%s: %s is stable in %s, but %s does not know it", who, proposalName(p.from, p.number), viewName(r.view.id), name(n.Member))
				return
			}
		}
		if p.from == r.self.Member && p.number == number {
			r.stableAt++
			return
		}
	}
}

func (c *checker) granted(r *record, g ring.Granted) {
	who, v := name(r.self.Member), r.view
	if held, ok := r.locks[g.Lock]; ok {
		c.fail("lock", "%s: %s goes to %s while %s has it", who, g.Lock, name(g.Holder), name(held.Holder))
	}
	if v.event.View.Index(g.Holder) < 0 {
		c.fail("lock", "%s: %s goes to %s, who is not in %s", who, g.Lock, name(g.Holder), viewName(v.id))
	}
	if f := r.fences[g.Lock]; g.Fence.Compare(f) <= 0 {
		c.fail("fence", "%s: %s goes to %s with %v after %v", who, g.Lock, name(g.Holder), g.Fence, f)
	}
	r.fences[g.Lock] = g.Fence
	r.locks[g.Lock] = g
	// One that was stopped beyond its lease does not report a grant to itself, so
	// members may know of different grants, but never of different holders.
	at := grantKey{g.Lock, g.Fence}
	if holder, known := v.grants[at]; !known {
		v.grants[at] = g.Holder
		c.cov.Grants++
	} else if holder != g.Holder {
		c.fail("lock", "%s: %s goes to %s with %v, elsewhere to %s", who, g.Lock, name(g.Holder), g.Fence, name(holder))
	}
	// Somebody who was away may hear late of a grant in a view that is over: what
	// counts is what holders believe.
	if c.primary && g.Holder == r.self.Member {
		if f := c.fences[g.Lock]; g.Fence.Compare(f) <= 0 {
			c.fail("fence", "%s goes to %s with %v after %v", g.Lock, name(g.Holder), g.Fence, f)
		}
		c.fences[g.Lock] = g.Fence
		if h := c.holders[g.Lock]; h != nil && h != r && h.live && !h.away {
			c.fail("lock", "%s has %s while %s believes to have it", who, g.Lock, name(h.self.Member))
		}
		c.holders[g.Lock] = r
	}
}

// handled checks a member after all events of an output.
func (c *checker) handled(r *record) {
	for lock, g := range r.locks {
		if r.view.event.View.Index(g.Holder) < 0 {
			c.fail("lock", "%s: %s is held by %s, who is not in %s", name(r.self.Member), lock, name(g.Holder), viewName(r.view.id))
		} else if r.view.event.Exchange && g.Fence.Counter < r.view.id.Counter {
			c.fail("lock", "%s: %s is still held by %s after the merge into %s", name(r.self.Member), lock, name(g.Holder), viewName(r.view.id))
		}
	}
}

// says checks a message that a member sends. clock is the member's own.
func (c *checker) says(r *record, msg ring.Message, clock time.Duration) {
	who := name(r.self.Member)
	switch msg := msg.(type) {
	case *ring.Token:
		c.passes(r, msg)
	case *ring.TokenAck:
		switch {
		case msg.View != r.view.id: // acknowledged before what came with it was applied
			r.first = firstAck{msg.View, msg.Hop, clock}
		case msg.Hop > r.accepted:
			r.accepted, r.token = msg.Hop, clock
		}
	case *ring.Call:
		if msg.View.ID.Compare(r.promised) < 0 {
			c.fail("promise", "%s calls %s, but has promised %s", who, viewName(msg.View.ID), viewName(r.promised))
		}
		r.promised = msg.View.ID
		c.calls[msg.View.ID] = msg
	case *ring.Promise:
		if msg.View.Compare(r.promised) < 0 {
			c.fail("promise", "%s promises %s, but has promised %s", who, viewName(msg.View), viewName(r.promised))
		}
		call := c.calls[msg.View]
		if call == nil {
			c.fail("promise", "%s promises %s, which nobody called", who, viewName(msg.View))
			return
		}
		if call.Cause == ring.CauseStarved && call.Installed == r.view.id && call.Hop < r.accepted &&
			r.promised.Compare(r.view.id) <= 0 && clock-r.token < c.starving {
			c.fail("young", "%s promises %s, though it accepted hop %d %v ago, and the caller knows %d", who, viewName(msg.View), r.accepted, clock-r.token, call.Hop)
		}
		r.promised = msg.View
	}
}

// passes checks a token that leaves a member.
func (c *checker) passes(r *record, t *ring.Token) {
	who := name(r.self.Member)
	key := hopKey{t.View, t.Hop}
	now := hopRecord{r.self.Member, t.To, t.Seq, len(t.Runs)}
	was, again := c.hops[key]
	if again && was != now {
		c.fail("token", "hop %d of %s goes from %s to %s and from %s to %s", t.Hop, viewName(t.View), name(was.from), name(was.to), who, name(t.To))
	}
	if again {
		return
	}
	c.hops[key] = now
	if t.View.Compare(r.promised) < 0 {
		c.fail("promise", "%s passes hop %d of %s, but has promised %s", who, t.Hop, viewName(t.View), viewName(r.promised))
	}
	if r.prev != nil && t.View == r.prev.id && r.fresh {
		return // made before the install in the same call
	}
	if t.View != r.view.id {
		c.fail("token", "%s, in %s, passes the token of %s", who, viewName(r.view.id), viewName(t.View))
		return
	}
	octets, largest, added, count := 0, 0, 0, uint64(0)
	for i := range t.Runs {
		run := &t.Runs[i]
		if run.Kind != ring.KindPayload {
			continue
		}
		last := run.Proposal + run.Count - 1
		if (run.Origin == t.View || r.prev != nil && run.Origin == r.prev.id) && r.last[run.From] < last {
			c.fail("agreed", "%s passes %s on, but has not delivered it", who, proposalName(run.From, last))
		}
		if run.Origin != t.View {
			continue
		}
		octets += len(run.Data) + int(run.Count)*entryOctets
		for n := run.Proposal; n <= last; n++ {
			largest = max(largest, len(c.proposals[c.index[proposalKey{run.From, n}]].payload))
		}
		if run.From == r.self.Member && last > r.inToken {
			for n := max(run.Proposal, r.inToken+1); n <= last; n++ {
				count++
				added += len(c.proposals[c.index[proposalKey{run.From, n}]].payload) + entryOctets
			}
			r.inToken = last
		}
	}
	if count > 1 && c.limits.Visit > 0 && added > c.limits.Visit {
		c.fail("bounds", "%s adds %d octets at one visit", who, added)
	}
	// One that is too long for what is left gets in when it is its turn.
	if c.limits.Token > 0 && octets-largest > c.limits.Token+int(count)*entryOctets {
		c.fail("bounds", "%s passes a token of %d octets", who, octets)
	}
}

// entryOctets is what an entry counts for beyond its payload.
const entryOctets = 16

// status checks what a member says of itself.
func (c *checker) status(r *record, s *ring.Status) {
	if c.limits.QueueProposals > 0 && (s.Queue > c.limits.QueueProposals || s.QueueOctets > c.limits.QueueOctets) {
		c.fail("bounds", "%s: %d proposals of %d octets wait", name(r.self.Member), s.Queue, s.QueueOctets)
	}
}

// same reports whether all of these members know the same, and all their
// proposals are done with.
func (c *checker) same(members []*record) bool {
	for _, r := range members {
		if r.own != r.proposed || r.stable < r.own && !c.givenBack(r, r.stable+1) || !r.has.equal(members[0].has) || !maps.Equal(r.locks, members[0].locks) {
			return false
		}
	}
	return true
}

// pending says what keeps members from being the same.
func (c *checker) pending(members []*record) string {
	var s string
	for _, r := range members {
		if r.own != r.proposed || r.stable < r.own && !c.givenBack(r, r.stable+1) {
			s += fmt.Sprintf("%s proposed %d, delivered %d, stable %d; ", name(r.self.Member), r.proposed, r.own, r.stable)
		}
		if !r.has.equal(members[0].has) {
			s += fmt.Sprintf("%s and %s: %s; ", name(members[0].self.Member), name(r.self.Member), c.difference(members[0].has, r.has))
		}
		if !maps.Equal(r.locks, members[0].locks) {
			s += fmt.Sprintf("locks of %s: %v, of %s: %v; ", name(members[0].self.Member), members[0].locks, name(r.self.Member), r.locks)
		}
	}
	return s
}

// givenBack reports whether all own proposals from a number on were.
func (c *checker) givenBack(r *record, from uint64) bool {
	for n := from; n <= r.proposed; n++ {
		if !c.proposals[c.index[proposalKey{r.self.Member, n}]].given {
			return false
		}
	}
	return true
}

// compareSet checks that an application of our own knows what it should.
func (c *checker) compareSet(r *record, s *set) {
	want := 0
	for i := range c.proposals {
		if p := &c.proposals[i]; p.isKey && r.has.has(i) {
			want++
			if _, ok := s.state[p.key]; !ok {
				c.fail("state", "%s has lost %s", name(r.self.Member), proposalName(p.from, p.number))
				return
			}
		}
	}
	if want != len(s.state) {
		c.fail("state", "%s knows %d keys, not %d", name(r.self.Member), len(s.state), want)
	}
}

func (c *checker) logName(i int32) string {
	if i == theEnd {
		return "END"
	}
	return proposalName(c.proposals[i].from, c.proposals[i].number)
}

// difference names a few that only one of two sets has.
func (c *checker) difference(a, b bits) string {
	var only [2][]string
	for i := range c.proposals {
		switch {
		case a.has(i) && !b.has(i):
			only[0] = append(only[0], c.logName(int32(i)))
		case b.has(i) && !a.has(i):
			only[1] = append(only[1], c.logName(int32(i)))
		}
	}
	return fmt.Sprintf("only the first %v, only the second %v", only[0], only[1])
}
