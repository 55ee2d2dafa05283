// Package replica keeps the handlespaces of a ring's members the same. It is a
// pure machine between a registrar and its ring: commands go in and come out as
// ordered payloads, ring events go in, and what is to be applied, answered and
// reported comes out.
//
// Every member applies a command when it is delivered in order, and its proposer
// answers when it is stable. Members that come from different views exchange what
// they know before: see exchange.
//
// The Space belongs to the Replica: nobody else calls its Apply.
package replica

import (
	"cmp"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica/internal/fault"
)

// Ack says when a registration or deregistration is acknowledged.
type Ack struct {
	// Local: at once, when it was applied here. Else when it is stable.
	Local bool
	// MinMembers: stable in a view of at least so many members. 0 or 1: any. An
	// answer that waits for more members is never turned into a refusal: it goes
	// out when there are enough and all of them have the command.
	MinMembers int
}

// Config is all that a Replica is told.
type Config struct {
	Space *handlespace.Space
	Self  ring.Member // the registrar's identifier and incarnation
	Ack   Ack
	// Alone says that no other members are configured: there is nobody to wait
	// for at the start.
	Alone bool
	// JoinWait is how long a starting member waits for others before it begins
	// alone. If an exchange with others was interrupted, so that it knows only a
	// part of what they do, it waits as long from then on.
	JoinWait time.Duration
	// MeetWait is how long a coordinator that was left out takes nothing over after it
	// lost members that did not leave: it should find those that go on without it
	// sooner. 0: it does not wait.
	MeetWait time.Duration
	// Company reports whether other members can be reached: then there is a view
	// to be part of, and a starting member waits for some time longer. Nil: nobody
	// can tell.
	Company func() bool
	// Foreign reports whether a registrar outside the ring is alive, or not yet
	// known to be dead (RFC 5353 peers). Nil: there are none.
	Foreign func(home handlespace.HomeID) bool
	// Faults break the replica on purpose. Only tests within this package's tree
	// can set it.
	Faults fault.Set

	bounds  bounds // standard, but for tests
	version uint8  // the highest that is known; likewise
}

// Bounds.
const (
	takeoverBatch = 1000             // elements that one command moves
	dutyInterval  = time.Second      // how often a coordinator looks for what to do
	sweepInterval = 10 * time.Second // between sweeps of tombstones
	companyWait   = time.Minute      // beyond JoinWait, while other members can be reached
	companyLook   = time.Second      // between two looks whether they can
	maxTexts      = 1024             // that are kept to be shared by commands
)

// Replica is the replicated side of one registrar. It belongs to the owner loop:
// not safe for concurrent use.
type Replica struct {
	cfg  Config
	born time.Time
	view ring.View
	out  Output
	// handed is what Ready returned last: room for what comes next.
	handed Output
	// speaks is the version of payloads that all members know, as of the latest END.
	speaks uint8

	outbox []proposal // own ones that the ring has not got, because an exchange runs
	sent   []proposal // own ones that the ring has got and that are not stable
	last   uint64     // number of the latest of sent
	tooFew []uint64   // tokens of stable ones that wait for more members
	asking bool       // for a sign that these have them

	exchange *exchange // nil when the view is synced
	torn     bool      // it follows on an interrupted one
	since    time.Time // of the start, or the latest interruption
	look     time.Time // whether to begin alone
	left     leftover  // to be done before the exchange begins
	queue    []queued  // delivered during the exchange
	octets   int       // of the queue
	ready    Readiness
	duties   duties
	stats    Stats
	decoding param.Decoding // with what commands name again and again
}

// proposal is one of this member's.
type proposal struct {
	number    uint64              // the ring's
	token     uint64              // 0: nobody waits
	payload   []byte              // in the outbox
	known     handlespace.Command // what it decodes to; nil: not known
	sign      bool                // when it is stable, all have what was stable in smaller views
	delivered bool
	applied   bool
	command   handlespace.Command // only with fault.ApplyAtStable
	duty      handlespace.Command // what a coordinator proposed by itself
}

// queued is a command that waits for END.
type queued struct {
	own     uint64 // number of the own proposal, 0: another member's
	version uint8  // of the payload
	command handlespace.Command
}

// New returns the replica of a registrar that just starts.
func New(cfg Config, now time.Time) *Replica {
	if cfg.bounds == (bounds{}) {
		cfg.bounds = standard
	}
	cfg.bounds.queue, cfg.bounds.octets = cmp.Or(cfg.bounds.queue, standard.queue), cmp.Or(cfg.bounds.octets, standard.octets)
	if cfg.version == 0 {
		cfg.version = version
	}
	return &Replica{cfg: cfg, born: now, since: now, duties: newDuties(), speaks: cfg.version, decoding: param.Decoding{Handles: param.NewInterner(maxTexts)}}
}

// Stats describe a Replica at one moment.
type Stats struct {
	Exchanging bool
	// Queued are commands that wait for END, Waiting own ones that the ring has
	// not got for that reason, Unstable own ones that not everybody is known to
	// have, TooFew answers that wait for Ack.MinMembers.
	Queued, Waiting, Unstable, TooFew int
	WaitingOctets                     int
	// From the start on: ended exchanges, octets of their messages, and payloads
	// that made no sense, or were of a version that not all members know.
	Exchanges, Octets, Dropped uint64
	// Overflown are commands for which the queue had no room.
	Overflown uint64
}

// Stats returns a snapshot.
func (r *Replica) Stats() Stats {
	s := r.stats
	s.Exchanging = r.exchange != nil
	s.Queued, s.Waiting, s.Unstable, s.TooFew = len(r.queue)+len(r.left.queue), len(r.outbox), len(r.sent), len(r.tooFew)
	return s
}

// Propose puts a command on its way. Token, not 0, comes back in Applied and
// Answer, or Refused.
func (r *Replica) Propose(token uint64, cmd handlespace.Command, now time.Time) {
	r.propose(proposal{token: token}, cmd, ring.ViewID{})
}

func (r *Replica) propose(p proposal, cmd handlespace.Command, only ring.ViewID) {
	payload, err := encodeCommand(r.speaks, cmd, only)
	if err != nil {
		r.refuse(p.token)
		return
	}
	p.payload = payload
	if lossless(cmd) {
		p.known = cmd
	}
	r.outbox = append(r.outbox, p)
	r.stats.WaitingOctets += len(payload)
	r.flush()
}

// flush hands the ring what may go: during an exchange nothing but its messages,
// so that only what is under way has to be queued by all.
func (r *Replica) flush() {
	if r.exchange != nil || r.view.ID.IsZero() {
		return
	}
	for _, p := range r.outbox {
		if p.payload[0] > r.speaks {
			p.payload = r.rewritten(p.payload)
		}
		r.send(p)
	}
	clear(r.outbox)
	r.outbox, r.stats.WaitingOctets = r.outbox[:0], 0
	if len(r.tooFew) > 0 && r.enough() && !r.asking {
		r.asking = true
		r.propose(proposal{sign: true}, handlespace.Sweep{}, ring.ViewID{})
	}
}

// rewritten returns a command in the version that all members know by now.
func (r *Replica) rewritten(payload []byte) []byte {
	m, err := decode(r.cfg.version, payload)
	if err == nil {
		if again, err := encodeCommand(r.speaks, m.command, m.view); err == nil {
			return again
		}
	}
	return payload // it will count for nobody
}

// enough reports whether the view has the members that answers need.
func (r *Replica) enough() bool { return len(r.view.Members) >= r.cfg.Ack.MinMembers }

func (r *Replica) send(p proposal) {
	r.last++
	p.number = r.last
	r.out.Proposals = append(r.out.Proposals, p.payload)
	p.payload = nil
	r.sent = append(r.sent, p)
}

// own returns the own proposal of a number, nil if it is settled.
func (r *Replica) own(number uint64) *proposal {
	if len(r.sent) == 0 || number < r.sent[0].number || number > r.last {
		return nil
	}
	return &r.sent[number-r.sent[0].number]
}

// Handle takes an event of the ring.
func (r *Replica) Handle(e ring.Event, now time.Time) {
	switch e := e.(type) {
	case ring.Installed:
		r.installed(&e, now)
	case ring.Delivered:
		for i := range e.Entries {
			r.delivered(e.View, &e.Entries[i], now)
		}
	case ring.Stable:
		r.stable(e.Proposal)
	case ring.Ended:
		if r.exchange != nil && e.View == r.view.ID {
			r.ended(now)
		}
	case ring.NotDelivered:
		r.notDelivered(e.First, e.Last)
	}
}

func (r *Replica) installed(e *ring.Installed, now time.Time) {
	torn := r.exchange != nil
	r.view = e.View
	r.out.End, r.look = false, time.Time{} // of the former view
	if torn {
		r.interrupted()
	}
	r.duties.installed(r, e, now)
	if !e.Exchange {
		r.flush()
		r.duties.check(r, now)
		return
	}
	if r.torn = torn; torn {
		r.since = now
	}
	r.exchange = newExchange(&r.cfg, e)
	r.tell(r.ready.Serve, r.ready.Serve && r.cfg.Faults.Has(fault.NegativeBeforeEnd))
	r.pump(now)
}

// skips is a fault.
func (r *Replica) skips() bool { return r.torn && r.cfg.Faults.Has(fault.ExchangeSkipped) }

// applyQueue applies what has waited.
func (r *Replica) applyQueue(known uint8) {
	queue := r.queue
	r.queue, r.octets = nil, 0
	for _, q := range queue {
		r.applyQueued(q, known)
	}
}

// applyQueued applies a command unless it was written in a version that is not known to
// all.
func (r *Replica) applyQueued(q queued, known uint8) {
	if q.version > known {
		r.void(q.own, q.command)
		return
	}
	r.applyOwn(q.own, q.command)
}

// void notes a payload that counts for nobody, perhaps an own one. That is written anew,
// not refused: a member that did not see END has applied it.
func (r *Replica) void(own uint64, cmd handlespace.Command) {
	r.stats.Dropped++
	if p := r.own(own); p != nil && p.token != 0 {
		again := proposal{token: p.token}
		p.token = 0
		r.propose(again, cmd, ring.ViewID{})
	}
}

// delivered takes one ordered payload.
func (r *Replica) delivered(view ring.ViewID, entry *ring.Entry, now time.Time) {
	var own uint64
	if entry.From == r.cfg.Self {
		own = entry.Proposal
		if p := r.own(own); p != nil {
			p.delivered = true
		}
	}
	m, err := r.decode(own, entry.Payload)
	if err == nil && m.command != nil && m.version > r.speaks && r.exchange == nil {
		err = errVersion
	}
	if _, ok := m.command.(handlespace.HoldBack); ok && err == nil {
		r.duties.lost = false
	}
	switch {
	case err != nil:
		r.void(own, m.command)
	case m.command == nil:
		if r.exchange != nil && m.view == r.exchange.view.ID {
			r.exchange.take(r, entry.From, &m, len(entry.Payload))
			r.pump(now)
		}
	case !m.view.IsZero() && m.view != view:
		// Meant for another view: nothing happens, alike at all members.
	case r.exchange != nil && !r.cfg.Faults.Has(fault.ApplyBeforeEnd):
		r.enqueue(queued{own, m.version, m.command}, len(entry.Payload))
		if p := r.own(own); p != nil && r.cfg.Faults.Has(fault.ResponseBeforeEnd) {
			r.answer(p.token)
			p.token = 0
		}
	default:
		r.applyOwn(own, m.command)
		if c, ok := m.command.(handlespace.Import); ok && r.coordinates() {
			r.duties.move(r, handlespace.HomeID{ID: c.Element.Home}, now) // it may have died meanwhile
		}
	}
	if p := r.own(own); p != nil && p.duty != nil && r.duties.done(p.duty) {
		p.duty = nil
		r.duties.check(r, now)
	}
}

// decode returns the message of a payload, perhaps an own one, which need not be decoded.
func (r *Replica) decode(own uint64, payload []byte) (message, error) {
	if p := r.own(own); p != nil && p.known != nil {
		m := message{version: payload[0], command: p.known}
		p.known = nil
		return m, nil
	}
	return decodeWith(&r.decoding, r.cfg.version, payload)
}

// applyOwn applies a command, perhaps an own one.
func (r *Replica) applyOwn(number uint64, cmd handlespace.Command) {
	p := r.own(number)
	if p == nil {
		r.apply(0, cmd)
		return
	}
	if r.cfg.Faults.Has(fault.ApplyAtStable) && !p.applied {
		p.applied, p.command = true, cmd
		return
	}
	p.applied = true
	r.apply(p.token, cmd)
	if r.cfg.Ack.Local {
		r.answer(p.token)
		p.token = 0
	}
}

func (r *Replica) apply(token uint64, cmd handlespace.Command) {
	if r.cfg.Faults.Has(fault.RemovalWithoutGeneration) {
		cmd = r.blind(cmd)
	}
	events, forgets := r.forgets(cmd)
	if !forgets {
		events = r.cfg.Space.Apply(cmd)
	}
	if token != 0 || len(events) > 0 {
		r.out.Events = append(r.out.Events, Applied{token, events})
	}
}

// forgets is a fault.
func (r *Replica) forgets(cmd handlespace.Command) ([]handlespace.Event, bool) {
	c, ok := cmd.(handlespace.Deregister)
	if !ok || !r.cfg.Faults.Has(fault.AbsentForgotten) || r.cfg.Space.Get(c.Handle, c.ID) != nil {
		return nil, false
	}
	return []handlespace.Event{handlespace.Absent{Handle: c.Handle, ID: c.ID}}, true
}

// blind is a fault.
func (r *Replica) blind(cmd handlespace.Command) handlespace.Command {
	if c, ok := cmd.(handlespace.Remove); ok {
		if e := r.cfg.Space.Get(c.Handle, c.ID); e != nil {
			c.Generation = e.Generation
			return c
		}
	}
	return cmd
}

func (r *Replica) stable(number uint64) {
	for len(r.sent) > 0 && r.sent[0].number <= number {
		p := r.sent[0]
		r.sent[0] = proposal{}
		r.sent = r.sent[1:]
		if p.command != nil {
			r.apply(p.token, p.command)
		}
		r.asking = r.asking && !p.sign
		switch {
		case p.sign && r.enough():
			for _, token := range r.tooFew {
				r.answer(token)
			}
			r.tooFew = nil
		case p.token == 0:
		case r.enough() || r.cfg.Faults.Has(fault.MinMembersIgnored):
			r.answer(p.token)
		default:
			r.tooFew = append(r.tooFew, p.token)
		}
	}
	r.flush()
}

func (r *Replica) notDelivered(first, last uint64) {
	for n := first; n <= last && n <= r.last; n++ {
		if p := r.own(n); p != nil && !p.delivered {
			p.delivered = true
			r.refuse(p.token)
			p.token = 0
			r.asking = r.asking && !p.sign
			if p.duty != nil {
				r.duties.done(p.duty)
			}
		}
	}
}

// ended brings all members to the same state: first what sides knew, then what was
// ordered since.
func (r *Replica) ended(now time.Time) {
	x := r.exchange
	r.exchange = nil
	r.speaks = x.speaks()
	r.apply(0, x.rest())
	r.applyQueue(r.speaks)
	r.stats.Exchanges++
	r.stats.Octets += uint64(x.octets)
	if report, ok := x.report(); ok {
		r.out.Events = append(r.out.Events, report)
	}
	r.tell(true, true)
	r.flush()
	r.duties.holdBack(r, now)
	r.duties.check(r, now)
}

// enqueue keeps a command until END. Members hand the ring nothing new during an
// exchange, so there is only what was under way; but one may be broken. All members
// refuse the same.
func (r *Replica) enqueue(q queued, octets int) {
	b := &r.cfg.bounds
	if len(r.queue) >= b.queue || r.octets+octets > b.octets {
		r.stats.Overflown++
		if p := r.own(q.own); p != nil {
			r.refuse(p.token)
			p.token = 0
		}
		return
	}
	r.octets += octets
	r.queue = append(r.queue, q)
}

// pump goes on with the exchange, and has it ended when there is nothing more.
func (r *Replica) pump(now time.Time) {
	x := r.exchange
	if x == nil || !r.resumed() {
		return
	}
	if hello := x.begin(r.cfg.Space); hello != nil && !r.skips() {
		r.send(proposal{payload: hello})
	}
	for payload := range x.next(r.cfg.Space, r.cfg.Faults) {
		r.send(proposal{payload: payload})
	}
	if done := x.mergeSome(r); done != nil {
		r.send(proposal{payload: done})
	}
	if x.ending || !x.complete() && !r.skips() || r.view.Members[0].Member != r.cfg.Self || r.waits(now) {
		return
	}
	x.ending = true
	r.out.End = true
}

// waits reports whether starting members still hope for others, and when to look
// again. Several that start begin together at once, unless some of them knows a part of
// what others know.
func (r *Replica) waits(now time.Time) bool {
	x := r.exchange
	if r.look = (time.Time{}); r.cfg.Alone || !x.allFresh() || len(r.view.Members) > 1 && !x.partial() {
		return false
	}
	switch begin := r.since.Add(r.cfg.JoinWait); {
	case now.Before(begin):
		r.look = begin
	case r.cfg.Company != nil && now.Before(begin.Add(companyWait)) && r.cfg.Company():
		r.look = now.Add(companyLook)
	}
	return !r.look.IsZero()
}

// Tick does what is due; Next tells when that is (zero: never).
func (r *Replica) Tick(now time.Time) {
	r.pump(now)
	if at := r.duties.next(r); !at.IsZero() && !now.Before(at) {
		r.duties.check(r, now)
	}
}

// Next returns when Tick is due. It may be in the past: there is more to do.
func (r *Replica) Next() time.Time {
	x := r.exchange
	switch {
	case x == nil:
		return r.duties.next(r)
	case !x.begun || x.busy():
		return r.born
	case !x.ending:
		return r.look
	}
	return time.Time{}
}

// ForeignDied says that a registrar outside the ring is dead, which Config.Foreign
// says from now on, too: its elements get new homes. It is enough to tell the
// coordinator, and that looks by itself now and then.
func (r *Replica) ForeignDied(home handlespace.HomeID, now time.Time) {
	if r.coordinates() {
		r.duties.move(r, home, now)
	}
}

// Ready returns what there is to do, and true if that is anything; to be called
// after each other method. It is valid until the next call.
func (r *Replica) Ready() (Output, bool) {
	out, spent := r.out, r.handed
	r.out, r.handed = Output{Events: emptied(spent.Events), Proposals: emptied(spent.Proposals)}, out
	return out, len(out.Events) > 0 || len(out.Proposals) > 0 || out.End
}

// emptied returns s as room for what comes next, unless it is far more than is needed but
// after a merge.
func emptied[T any](s []T) []T {
	if cap(s) > 4096 {
		return nil
	}
	clear(s)
	return s[:0]
}

func (r *Replica) answer(token uint64) {
	if token != 0 {
		r.out.Events = append(r.out.Events, Answer{token})
	}
}

func (r *Replica) refuse(token uint64) {
	if token != 0 {
		r.out.Events = append(r.out.Events, Refused{token})
	}
}

// tell reports what users may be told, if that changed.
func (r *Replica) tell(serve, negative bool) {
	if now := (Readiness{serve, negative}); now != r.ready {
		r.ready = now
		r.out.Events = append(r.out.Events, now)
	}
}

// homeOf returns a member as a home of elements, memberOf a home as a member.
func homeOf(m ring.Member) handlespace.HomeID {
	return handlespace.HomeID{ID: param.RegistrarID(m.ID), Incarnation: uint64(m.Incarnation)}
}

func memberOf(h handlespace.HomeID) ring.Member {
	return ring.Member{ID: ring.NodeID(h.ID), Incarnation: ring.Incarnation(h.Incarnation)}
}
