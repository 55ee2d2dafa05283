package registrar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica"
)

// ringGroup is what the registrar needs of a ringnet.Group.
type ringGroup interface {
	Start(context.Context) error
	Stop(context.Context) error
	Self() ring.Node
	Propose([]byte) (uint64, error)
	Room() <-chan struct{}
	End(ring.ViewID)
	// Company reports whether other members can be reached.
	Company() bool
	Status(context.Context) (ringnet.Status, error)
	// Done is closed when the group has ended, by Stop or by the trouble that Err
	// names.
	Done() <-chan struct{}
	Err() error
}

// ringBacklog is how many commands, and ringBacklogOctets how many octets of them, wait
// for the ring when its configuration does not say.
const (
	ringBacklog       = 1 << 16
	ringBacklogOctets = 64 << 20
)

// ringEnd is the owner loop's end of the ring: the order of commands that the ring
// gives, by way of the replica. Its methods are for the owner loop, but for Handle.
//
// The ring's goroutine hands over what was ordered; its token waits until that is
// applied. The loop never waits for the ring.
type ringEnd struct {
	r       *Registrar
	group   ringGroup
	replica *replica.Replica // set before the loop begins

	events  chan []ring.Event
	applied chan struct{}
	waiting atomic.Bool     // for the events to be taken
	over    <-chan struct{} // closed when the loop has ended

	gone            bool        // the group has ended
	view            ring.ViewID // installed
	members         []ring.Node // of it
	backlog         [][]byte
	octets          int  // of the backlog
	end             bool // of the view, to be ordered behind the backlog
	happened, taken []replica.Event
}

func newRingEnd(r *Registrar) *ringEnd {
	return &ringEnd{r: r, events: make(chan []ring.Event, 1), applied: make(chan struct{}, 1), over: r.loopDone}
}

// joinRing starts the registrar's member of the ring; its incarnation is the
// registrar's.
func (r *Registrar) joinRing(ctx context.Context) error {
	cfg := r.cfg.Ring
	end := newRingEnd(r)
	group, err := r.newGroup(ringnet.Config{
		Cluster: cfg.Cluster, ID: ring.NodeID(r.id), Networks: cfg.Networks,
		Listen: cfg.Listen, Peers: cfg.Peers, Advertise: cfg.Advertise,
		Timers: cfg.Timers, Limits: cfg.Limits, Size: cfg.Size, StateDir: cfg.StateDir, MaxSkew: cfg.MaxSkew,
		Handler: end, Log: r.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	end.group = group
	r.ring = end
	if err := group.Start(ctx); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	self := group.Self().Member
	r.incarnation = uint64(self.Incarnation)
	r.shown.join(cfg, group.Status, r.ringWork)
	end.replica = replica.New(replica.Config{
		Space: r.space, Self: self, Ack: cfg.Ack, Alone: len(cfg.Peers) == 0, JoinWait: cfg.JoinWait,
		MeetWait: 2 * cfg.Timers.ProbeInterval,
		Company:  group.Company,
		Foreign:  func(home handlespace.HomeID) bool { return r.owner.peers.lives(home.ID) },
	}, r.started)
	r.tellRing(group)
	r.cfg.Log.WithFields(logrus.Fields{
		"cluster": cfg.Cluster, "member": self.String(), "peers": len(cfg.Peers), "wait": cfg.JoinWait.String(), "ack": showAck(cfg.Ack),
	}).Info("ring: joining; elements and users are served when the members have told what they know")
	return nil
}

// tellRing says in the log where members reach this one.
func (r *Registrar) tellRing(group ringGroup) {
	r.cfg.Log.WithFields(logrus.Fields{"protocol": "ring", "addresses": strings.Fields(group.Self().Contact)}).Info("listening")
}

// leaveRing has the others take over this registrar's elements, after what was asked
// for has been answered.
func (r *Registrar) leaveRing(ctx context.Context) error {
	r.post(func(time.Time) { r.owner.leave() })
	half, cancel := context.WithTimeout(ctx, r.timers().Stop/2)
	defer cancel()
	r.settle(half)
	r.await(half, func() bool { return !r.owner.ring.exchanging() })
	if err := r.ring.group.Stop(ctx); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	return nil
}

// exchanging reports whether others wait for what this member has to tell them, which
// it can't any more once it begins to leave the ring.
func (e *ringEnd) exchanging() bool {
	return !e.gone && len(e.members) > 1 && e.replica.Stats().Exchanging
}

// await waits until a condition holds in the owner loop, or ctx ends.
func (r *Registrar) await(ctx context.Context, holds func() bool) {
	poll := time.NewTicker(settlePause)
	defer poll.Stop()
	result := make(chan bool, 1)
	for r.post(func(time.Time) { result <- holds() }) {
		select {
		case ok := <-result:
			if ok {
				return
			}
		case <-r.loopDone:
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// leave leaves what is asked for from now on to other registrars.
func (o *owner) leave() {
	o.leaving = true
	for _, h := range o.withheld.queries {
		h.c.done()
	}
	o.withheld.queries = nil
}

// abandon ends the ring after the loop, where it was not left.
func (e *ringEnd) abandon() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.group.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("ring: %w", err)
	}
	return nil
}

// ringWork is what waits for the ring, or for END of the exchange that runs.
type ringWork struct {
	replica.Stats
	awaited []ring.Member // who have not told all
}

// ringWork asks the owner loop.
func (r *Registrar) ringWork(ctx context.Context) (ringWork, error) {
	result := make(chan ringWork, 1)
	select {
	case r.inbox <- task{time.Now(), func(time.Time) { result <- ringWork{r.ring.replica.Stats(), r.ring.replica.Awaited()} }}:
		r.alert()
	case <-ctx.Done():
		return ringWork{}, context.Cause(ctx)
	case <-r.loopDone:
		return ringWork{}, ErrState
	}
	select {
	case w := <-result:
		return w, nil
	case <-ctx.Done():
		return ringWork{}, context.Cause(ctx)
	case <-r.loopDone:
		return ringWork{}, ErrState
	}
}

// sameRing reports whether two configurations of the ring mean the same.
func sameRing(a, b *RingConfig) bool {
	x, y := *a, *b
	x.Networks, y.Networks = nil, nil
	return reflect.DeepEqual(x, y)
}

// Start implements ringnet.Starter: there is one batch at a time, so there is room. A
// short one is applied at once, unless the owner is at work.
func (e *ringEnd) Start(events []ring.Event) (applied <-chan struct{}, then func()) {
	if short(events) && e.r.tryTurn() {
		now := time.Now()
		e.accept(events, now)
		return nil, func() {
			e.r.owner.settle(len(events), now)
			e.r.owner.finish(ringBatch)
		}
	}
	e.waiting.Store(true)
	select {
	case e.events <- events:
	case <-e.over:
	}
	return e.applied, nil
}

// waits reports whether there are events of the ring to be taken first.
func (e *ringEnd) waits() bool { return e != nil && e.waiting.Load() }

// shortBatch is how many commands at most are applied by the ring's goroutine.
const shortBatch = 256

// short reports whether it takes no time to speak of to handle events.
func short(events []ring.Event) bool {
	n := 0
	for _, event := range events {
		switch e := event.(type) {
		case ring.Delivered:
			n += len(e.Entries)
		case ring.Stable:
		default:
			return false
		}
	}
	return n <= shortBatch
}

// Handle implements ringnet.Handler.
func (e *ringEnd) Handle(events []ring.Event) {
	applied, then := e.Start(events)
	if then != nil {
		then()
		return
	}
	select {
	case <-applied:
	case <-e.over:
	}
}

// delivered is where events of the ring come from, each batch to be taken and then
// reported as handled.
func (e *ringEnd) delivered() <-chan []ring.Event {
	if e == nil {
		return nil
	}
	return e.events
}

// room tells when flush may have success again.
func (e *ringEnd) room() <-chan struct{} {
	if e == nil {
		return nil
	}
	return e.group.Room()
}

// ended tells that the group has ended; missing is to be called then.
func (e *ringEnd) ended() <-chan struct{} {
	if e == nil || e.gone {
		return nil
	}
	return e.group.Done()
}

// missing ends a registrar that has lost its ring by some trouble of its own: what
// it knows gets old.
func (o *owner) missing() {
	o.ring.gone = true
	err := o.ring.group.Err()
	if err == nil {
		return // it was left
	}
	o.r.cfg.Log.WithError(err).Error("ring: cannot go on")
	o.r.ready.Store(false)
	o.leave()
	select {
	case o.r.failed <- fmt.Errorf("ring: %w", err):
	default:
	}
}

// accept takes events in.
func (e *ringEnd) accept(events []ring.Event, now time.Time) {
	e.waiting.Store(false)
	self := e.group.Self().Member
	for _, event := range events {
		if installed, ok := event.(ring.Installed); ok {
			e.view, e.members, e.end = installed.View.ID, installed.View.Members, false
			e.r.shown.installed(installed, self, now)
		}
		if _, ok := event.(ring.Ended); ok {
			e.r.shown.ended()
		}
		if c, ok := event.(ring.Clash); ok {
			e.clash(c)
		}
		e.log(event)
		e.replica.Handle(event, now)
		e.collect()
	}
	e.flush()
}

// handled lets the ring's goroutine go on.
func (e *ringEnd) handled() { e.applied <- struct{}{} }

// collect does what the replica wants to have done.
func (e *ringEnd) collect() {
	for {
		out, ok := e.replica.Ready()
		if !ok {
			return
		}
		e.happened = append(e.happened, out.Events...)
		e.backlog = append(e.backlog, out.Proposals...)
		for _, p := range out.Proposals {
			e.octets += len(p)
		}
		e.end = e.end || out.End
	}
}

// flush hands the ring what it has room for.
func (e *ringEnd) flush() {
	sent := 0
	for _, payload := range e.backlog {
		_, err := e.group.Propose(payload)
		if errors.Is(err, ring.ErrFull) {
			break
		}
		sent++
		e.octets -= len(payload)
		if err != nil && !errors.Is(err, ring.ErrLeft) {
			e.r.cfg.Log.WithError(err).Error("the ring does not take a command")
		}
	}
	if sent > 0 {
		rest := copy(e.backlog, e.backlog[sent:])
		clear(e.backlog[rest:])
		e.backlog = e.backlog[:rest]
	}
	if e.end && len(e.backlog) == 0 {
		e.end = false
		e.group.End(e.view)
	}
}

func (e *ringEnd) propose(token uint64, cmd handlespace.Command, now time.Time) {
	e.replica.Propose(token, cmd, now)
	e.collect()
	e.flush()
}

func (e *ringEnd) take(time.Time) []replica.Event {
	clear(e.taken)
	e.happened, e.taken = e.taken[:0], e.happened
	return e.taken
}

func (e *ringEnd) full() bool {
	limits := e.r.cfg.Ring.Limits
	count, octets := cmp.Or(limits.QueueProposals, ringBacklog), cmp.Or(limits.QueueOctets, ringBacklogOctets)
	stats := e.replica.Stats()
	return len(e.backlog)+stats.Waiting >= count || stats.TooFew >= count || e.octets+stats.WaitingOctets >= octets
}

func (e *ringEnd) tick(now time.Time) {
	e.replica.Tick(now)
	e.collect()
	e.flush()
}

func (e *ringEnd) next() time.Time { return e.replica.Next() }

// foreignDied has the members take over the elements of a registrar outside the
// ring.
func (e *ringEnd) foreignDied(home handlespace.HomeID, now time.Time) {
	e.replica.ForeignDied(home, now)
	e.collect()
	e.flush()
}

// log writes what becomes of the ring's views.
func (e *ringEnd) log(event ring.Event) {
	log := e.r.cfg.Log
	switch event := event.(type) {
	case ring.Installed:
		fields := logrus.Fields{
			"view": event.View.ID.String(), "cause": event.Cause.String(), "members": memberNames(event.View.Members),
			"exchange": event.Exchange,
		}
		if len(event.Left) > 0 {
			fields["left"] = memberNames(event.Left)
		}
		log.WithFields(fields).Info("ring: new view")
	case ring.EndStable:
		log.WithFields(logrus.Fields{"view": event.View.String(), "members": len(e.members)}).Info("ring: all members know the same")
	case ring.Clash:
		log.WithFields(logrus.Fields{
			"member": event.Mine.Member.String(), "member_at": event.Mine.Contact, "other": event.Other.Member.String(), "other_at": event.Other.Contact,
		}).Error("ring: another registrar that lives uses the identifier of a member: it is kept out of the ring; stop one of them")
	}
}

func memberNames(nodes []ring.Node) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Member.String())
	}
	return names
}

// ErrIdentifierTaken says that another registrar that lives is the member under the
// identifier.
var ErrIdentifierTaken = errors.New("another registrar that lives is the member with this identifier")

// clash reports another live process under the identifier of a member. If it is this
// member's, one of the two can't go on, as the members keep it out of the ring, and what
// it acknowledges nobody else has: the one that is alone; if both are, the one that
// started later; and if none is, the one in the lower view, which the members have left.
func (e *ringEnd) clash(c ring.Clash) {
	e.r.shown.clashed(c)
	if c.Mine.Member != e.group.Self().Member || e.r.owner.disowned {
		return
	}
	alone, otherAlone := len(e.members) == 1, len(c.View.Members) == 1
	first := c.Mine.Incarnation < c.Other.Incarnation
	if !alone {
		first = e.view.Compare(c.View.ID) > 0
	}
	if alone == otherAlone && first || otherAlone && !alone {
		return
	}
	e.r.ready.Store(false)
	e.r.owner.leave()
	e.r.owner.disowned = true
	if alone {
		e.r.cfg.Log.WithField("elements", e.r.space.Counts().Elements).
			Error("ring: this registrar ends, and was alone: nobody else knows what it has acknowledged since; these elements have to register again")
	} else {
		e.r.cfg.Log.WithField("members", memberNames(e.members)).Error("ring: this registrar ends; the members of its view know what it has acknowledged")
	}
	select {
	case e.r.failed <- fmt.Errorf("ring: %w: %s at %s", ErrIdentifierTaken, c.Other.Member, c.Other.Contact):
	default:
	}
}

// merged reports a state exchange.
func (o *owner) merged(e replica.Merged, now time.Time) {
	report := o.r.shown.merged(e, now)
	o.r.cfg.Log.WithFields(logrus.Fields{
		"view": report.View, "sides": report.Sides, "differences": report.Differences, "octets": report.Octets,
	}).Info("ring: sides have met")
}

// confirm proposes that an element knows this registrar as its home.
func (o *owner) confirm(key elementKey, generation handlespace.Generation, now time.Time) {
	o.suggest(handlespace.Confirm{Handle: key.Handle, ID: key.ID, Generation: generation, Home: o.home, Now: now}, now)
}
