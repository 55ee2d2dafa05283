package registrar

import (
	"math/rand/v2"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica"
)

// Batches: how many tasks are done in one turn, of those of the ring's goroutine in
// one of these, and how many deadlines are handled together.
const (
	inboxBatch  = 64
	ringBatch   = 16
	expiryBatch = 256
)

// sweeps is how often idle connections are looked for within the idle time-out.
const sweeps = 2

// owner is the registrar's owner loop with all that may be touched only by the one
// who has the turn: the writing end of the handlespace, the pure machines, and who is
// reached over which connection. Other goroutines pass it work by post. Readers and the
// ring take the turn themselves where they can (help, ringEnd.Start): to wake another
// goroutine for each request, and for each token, takes longer than what there is to do.
type owner struct {
	r     *Registrar
	home  handlespace.HomeID // this registrar
	space *handlespace.Space
	order sequencer
	ring  *ringEnd // nil without a ring
	peers *peering

	lastToken uint64
	proposed  map[uint64]*proposal
	expiring  int // removals of the latest batch that are not applied yet
	expiry    expiry
	synced    bool // the ring has given the handlespace
	opening   bool // ASAP is being opened, or is
	serving   bool // ASAP is answered
	leaving   bool // what elements ask for is left to other registrars
	disowned  bool // what the ring orders from now on only this registrar may know
	withheld  withheld
	takeover  takeover // under way

	keepAlive     *keepAlive
	elements      map[elementKey]*attended
	clients       ledger
	subscriptions *subscriptions[*conn]
	updates       *updates
	probes        *prober
	others        time.Time        // earliest deadline of elements and peers
	hearing       hearing          // before these count
	announce      *announceMachine // nil without multicast
	timer         *time.Timer
	due           time.Time // what it is set to; zero: it has fired
	unsent        []*conn   // with something to send
	sweep         time.Time // for idle connections
	look          time.Time // at sends
	expired       []handlespace.Command
}

// proposal waits for its command. Its functions may be nil.
type proposal struct {
	// applied is called when the command was applied here, before others hear of
	// it, with what it changed.
	applied func([]handlespace.Event, time.Time)
	// answer is called with the same when the answer may go out.
	answer func([]handlespace.Event, time.Time)
	// refused is called instead when the command never will be applied.
	refused func(time.Time)

	events []handlespace.Event
}

// task is work for the owner loop; at is when it was handed in.
type task struct {
	at time.Time
	do func(now time.Time)
}

func newOwner(r *Registrar, space *handlespace.Space, order sequencer, now time.Time) *owner {
	o := &owner{
		r: r, space: space, order: order,
		home:     handlespace.HomeID{ID: r.id, Incarnation: r.incarnation},
		proposed: make(map[uint64]*proposal),
		elements: make(map[elementKey]*attended),
		clients:  make(ledger),
		sweep:    now,
		look:     now,
		others:   now,
	}
	if end, ok := order.(*ringEnd); ok {
		o.ring = end
	}
	cfg := r.config()
	o.peers = newPeering(o, now)
	if !r.mustLearn() {
		o.opening, o.serving = true, true
	}
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	o.keepAlive = newKeepAlive(cfg.Timers.KeepAlive, random)
	o.subscriptions = newSubscriptions[*conn](cfg.Timers.UpdateDelay, cfg.Limits.Subscriptions)
	o.updates = newUpdates(o)
	o.probes = newProber(o)
	if len(cfg.Announce) > 0 {
		o.announce = newAnnounceMachine(r.id, cfg.Timers.Announce, maxRegistrars, now)
	}
	return o
}

// run is the loop. It ends when the registrar's context does, and then keeps the turn.
func (o *owner) run() {
	r := o.r
	o.timer = time.NewTimer(0)
	defer o.timer.Stop()
	for o.finish(inboxBatch); ; o.finish(inboxBatch) {
		select {
		case <-r.ctx.Done():
			r.turn <- struct{}{}
			return
		case <-r.wake:
			r.turn <- struct{}{}
		case events := <-o.ring.delivered():
			r.turn <- struct{}{}
			o.handle(events)
		case <-o.ring.room():
			r.turn <- struct{}{}
			o.ring.flush()
		case <-o.ring.ended():
			r.turn <- struct{}{}
			o.missing()
		case <-o.timer.C:
			r.turn <- struct{}{}
			o.due = time.Time{}
		}
	}
}

// finish ends a turn: it does what is due, and some of the tasks that wait, hands the
// turn back, and sends what is to be sent. Who hands in a task while somebody has the
// turn leaves it to that one, so it goes on until there is none, or the loop does.
func (o *owner) finish(tasks int) {
	for {
		for tasks > 0 && o.task() {
			tasks--
		}
		now := time.Now()
		o.deliver(now)
		o.tick(now)
		o.arm(now)
		unsent := o.unsent
		o.unsent = nil
		<-o.r.turn
		for _, c := range unsent {
			c.push()
		}
		switch {
		case len(o.r.inbox) == 0:
			return
		case tasks == 0 || o.ring.waits():
			o.r.alert()
			return
		case !o.r.tryTurn():
			return
		}
	}
}

// task does the next task; false: there is none, or what the ring has ordered goes
// first, because its token waits for that.
func (o *owner) task() bool {
	if o.ring.waits() {
		return false
	}
	select {
	case t := <-o.r.inbox:
		now := time.Now()
		o.r.metrics.loopWait.Observe(now.Sub(t.at).Seconds())
		t.do(now)
		o.deliver(now)
		return true
	default:
		return false
	}
}

// arm sets the timer to the next deadline, if that is earlier than the one it is set to:
// an early call costs less than setting it each time.
func (o *owner) arm(now time.Time) {
	next := o.next()
	if !o.due.IsZero() && !next.Before(o.due) {
		return
	}
	o.due = next
	o.timer.Reset(max(0, next.Sub(now)))
}

// handle takes what the ring has ordered.
func (o *owner) handle(events []ring.Event) {
	now := time.Now()
	o.ring.accept(events, now)
	o.ring.handled()
	o.settle(len(events), now)
}

// settle does what follows when the token has gone on.
func (o *owner) settle(events int, begun time.Time) {
	now := time.Now()
	took := now.Sub(begun)
	o.deliver(now)
	o.peers.regroup(now)
	if t := o.r.cfg.Ring.Timers; took > t.HopTimeout {
		o.r.notices.slow.log(o.r.cfg.Log.WithFields(logrus.Fields{
			"took": took.String(), "events": events, "limit": (t.Starving() - t.CollectWait).String(),
		}).Warn, "ring: slow to apply what was ordered; beyond the limit the other members leave this one out", now)
	}
}

// next returns when tick has something to do at the latest.
func (o *owner) next() time.Time {
	at := o.sweep
	earlier := func(t time.Time, ok bool) {
		if ok && t.Before(at) {
			at = t
		}
	}
	earlier(o.look, true)
	earlier(o.subscriptions.next())
	earlier(o.updates.wake())
	earlier(o.withheld.next())
	o.others = o.judgement()
	earlier(o.others, true)
	if at, ok := o.keepAlive.next(); ok && at.Before(o.others) {
		o.others = at
		earlier(at, true)
	}
	if at := o.order.next(); !at.IsZero() {
		earlier(at, true)
	}
	if o.announce != nil {
		earlier(o.announce.due, true)
	}
	return at
}

// judgement returns when registrations run out, and what peers say is due.
func (o *owner) judgement() time.Time {
	if !o.hearing.until.IsZero() {
		return o.hearing.until
	}
	if o.expiring == 0 {
		if o.expiry.moved {
			o.expiry = expiry{}
			if at, ok := o.space.NextDeadline(o.r.id); ok {
				o.expiry.at = at
			}
		}
		if at := o.expiry.at; !at.IsZero() && at.Before(o.peers.next) {
			return at
		}
	}
	return o.peers.next
}

// expiry is when the first of this registrar's elements is due, or sooner; zero: never.
// To ask the handlespace on every turn would take longer than to note what changes it.
type expiry struct {
	at    time.Time
	moved bool // perhaps: it is to be asked
}

// observe notes a change of the handlespace.
func (e *expiry) observe(event handlespace.Event) {
	switch event := event.(type) {
	case handlespace.Registered:
		at := event.Record.Expires()
		e.moved = e.moved || !at.IsZero() && (e.at.IsZero() || at.Before(e.at))
	case handlespace.Removed: // none is due sooner
	default:
		e.moved = true
	}
}

// tick does what is due.
func (o *owner) tick(now time.Time) {
	over := o.hearing.over(o.others, now)
	o.keepAlive.hearing = o.hearing.until
	probes, dead := o.keepAlive.tick(now)
	for _, key := range probes {
		o.probes.send(key)
	}
	for _, v := range dead {
		o.r.metrics.keepAlives.WithLabelValues("failed").Inc()
		o.suggest(handlespace.Remove{
			Handle: v.key.Handle, ID: v.key.ID, Generation: v.generation,
			Cause: handlespace.Unreachable, Now: now,
		}, now)
	}
	if over && !now.Before(o.others) {
		o.expire(now)
	}
	o.order.tick(now)
	o.deliver(now)
	o.letGo(now)
	if over {
		o.peers.tick(now)
		o.deliver(now)
	}

	for _, handle := range o.subscriptions.tick(now) {
		o.updates.changed(handle, now)
	}
	o.updates.tick(now)
	if o.announce != nil && o.announce.tick(now) && o.serving {
		o.r.announcer.wake()
	}
	if !now.Before(o.sweep) {
		o.sweepIdle()
		o.sweep = now.Add(o.r.timers().Idle / sweeps)
	}
	if !now.Before(o.look) {
		for _, c := range o.r.census.all() {
			c.cutIfStuck()
			o.probes.release(c)
		}
		o.look = now.Add(o.r.timers().Write / writeLooks)
	}
	o.r.subscribed.Store(int64(o.subscriptions.total))
}

// expire proposes the removal of elements whose registrations have run out, the
// next ones when that of the last ones has been applied: until then they are due
// as before.
func (o *owner) expire(now time.Time) {
	if o.expiring > 0 || o.order.full() {
		return
	}
	o.expired, o.expiry.moved = o.space.Due(o.expired[:0], o.r.id, now, expiryBatch), true
	o.expiring = len(o.expired)
	for _, cmd := range o.expired {
		o.propose(cmd, proposal{
			applied: func([]handlespace.Event, time.Time) { o.expiring-- },
			refused: func(time.Time) { o.expiring-- },
		}, now)
	}
}

// propose puts a command on its way.
func (o *owner) propose(cmd handlespace.Command, p proposal, now time.Time) {
	o.lastToken++
	o.proposed[o.lastToken] = &p
	o.order.propose(o.lastToken, cmd, now)
}

// suggest proposes what will be proposed again if it is lost: it is, when there is no
// room.
func (o *owner) suggest(cmd handlespace.Command, now time.Time) {
	if o.order.full() {
		o.r.metrics.drops.WithLabelValues("ring").Inc()
		return
	}
	o.order.propose(0, cmd, now)
}

// deliver brings what the registrar tells and watches in line with what was
// ordered.
func (o *owner) deliver(now time.Time) {
	for {
		happened := o.order.take(now)
		if len(happened) == 0 {
			return
		}
		for _, e := range happened {
			o.happen(e, now)
		}
		o.peers.act(now)
	}
}

func (o *owner) happen(event replica.Event, now time.Time) {
	switch e := event.(type) {
	case replica.Applied:
		if p := o.proposed[e.Token]; p != nil {
			p.events = e.Events
			if p.applied != nil {
				p.applied(e.Events, now)
			}
			if p.answer == nil {
				delete(o.proposed, e.Token)
			}
		}
		o.observeAll(e.Events, now)
	case replica.Answer:
		if p := o.proposed[e.Token]; p != nil {
			delete(o.proposed, e.Token)
			switch {
			case !o.disowned && p.answer != nil:
				p.answer(p.events, now)
			case o.disowned && p.refused != nil:
				p.refused(now)
			}
		}
	case replica.Refused:
		if p := o.proposed[e.Token]; p != nil {
			delete(o.proposed, e.Token)
			if p.refused != nil {
				p.refused(now)
			}
		}
	case replica.Readiness:
		o.readiness(e, now)
	case replica.Merged:
		o.merged(e, now)
	}
}

// left ends what the loop knows of a connection: its elements are probed at once
// (AMB-84), its subscriptions end.
func (o *owner) left(c *conn, now time.Time) {
	c.gone = true
	for _, a := range c.elements {
		a.conn = nil
		o.keepAlive.fall(&a.watch, now)
		o.tidy(a)
	}
	c.elements = nil
	for handle := range c.subscriptions {
		o.subscriptions.remove(handle, c)
	}
	clear(c.subscriptions)
	o.probes.left(c)
	o.peers.left(c, now)
}

// sweepIdle closes connections that were silent for a whole idle time-out, but
// for those of elements and subscribers.
func (o *owner) sweepIdle() {
	for _, c := range o.r.census.all() {
		switch {
		case c.active.Swap(false), len(c.elements) > 0, len(c.subscriptions) > 0:
			c.silent = 0
		case c.silent+1 < sweeps:
			c.silent++
		default:
			c.end(reasonIdle)
		}
	}
}

func (o *owner) unsubscribe(c *conn, handle param.PoolHandle) {
	o.subscriptions.remove(handle, c)
	delete(c.subscriptions, handle)
	c.subscribed.Store(len(c.subscriptions) > 0)
}

// reconfigure passes new timers and limits on to the machines. Deadlines that are
// set stay.
func (o *owner) reconfigure(cfg *Config) {
	o.keepAlive.timers = cfg.Timers.KeepAlive
	o.subscriptions.delay, o.subscriptions.limit = cfg.Timers.UpdateDelay, cfg.Limits.Subscriptions
	o.r.reports.set(cfg.Limits.ReportRate, float64(cfg.Limits.ReportBurst), cfg.Limits.Reporters)
	if o.announce != nil {
		o.announce.t6 = cfg.Timers.Announce
	}
}

// heard returns which other registrars announced themselves, and when last.
func (o *owner) heard(now time.Time) map[param.RegistrarID]time.Time {
	out := make(map[param.RegistrarID]time.Time)
	if o.announce != nil {
		o.announce.expire(now)
		for id, h := range o.announce.others {
			out[id] = h.last
		}
	}
	return out
}
