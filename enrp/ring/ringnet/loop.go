package ringnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rserpool/enrp/ring"
)

const (
	// inboxLen is how many received messages, which can be long, wait for the
	// owner before readers wait.
	inboxLen = 16
	// batch is how many messages are taken to the machine before other things are
	// looked at.
	batch = 64
	// flushTime is how long connections have to send what is queued at the end.
	flushTime = 200 * time.Millisecond
)

// loop belongs to the one who has the turn.
type loop struct {
	holder  *holder // nil: run has the turn
	machine *ring.Machine
	store   *store
	net     peers

	waiting    []request // from Group.proposals
	first      int       // of those that the machine does not have
	proposed   uint64    // number of the last proposal that the machine has
	leaving    bool
	due        time.Time // what the timer is set to
	timer      *time.Timer
	maintainAt time.Time
	touched    []*conn // with something to send
	late       lateAck

	slow   *time.Timer // an application is, when it fires
	later  []received  // messages that came while the application was at it
	strain strain
}

func (l *loop) init(g *Group, machine *ring.Machine, store *store) {
	l.machine, l.store = machine, store
	l.net.init(g)
	l.timer = time.NewTimer(0)
	l.slow = time.NewTimer(0)
	l.slow.Stop()
}

// holder is a reader that has the turn. While the application is at work somebody else has
// to read what comes: members ask whether this one is still there.
type holder struct {
	standIn  func() // goes on reading
	relieved bool
}

func (h *holder) relieve() {
	if h != nil && !h.relieved {
		h.relieved = true
		h.standIn()
	}
}

// run does what is due, and what was asked for, until the group ends. What others have
// sent readers take to the machine themselves where they can (serve): to wake another
// goroutine for each token takes longer than most visits.
func (g *Group) run() {
	defer close(g.done)
	l := &g.loop
	g.maintain(time.Now())
	g.act() // the first view
	for !g.finish(nil) {
		select {
		case <-g.ctx.Done():
			g.turn <- struct{}{}
		case <-g.more:
			g.turn <- struct{}{}
		case op := <-g.ops:
			g.turn <- struct{}{}
			op(time.Now())
			g.act()
		case a := <-g.arrivals:
			g.turn <- struct{}{}
			a.then(a.conn, a.err, time.Now())
		case <-g.proposals.wake:
			g.turn <- struct{}{}
			g.propose(time.Now())
		case <-l.timer.C:
			g.turn <- struct{}{}
			l.due = time.Time{}
			g.tick(time.Now())
		}
	}
	l.timer.Stop()
	l.slow.Stop()
	g.cancel()
	g.closeListeners()
	l.net.endAll()
	g.workers.Wait()
}

// serve takes what is in the inbox to the machine, unless somebody has the turn, who does
// so then.
func (g *Group) serve(h *holder) {
	if g.tryTurn() && g.finish(h) {
		g.loop.holder = nil
		<-g.turn // run takes it, and ends the group
	}
}

func (g *Group) tryTurn() bool {
	select {
	case g.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// finish ends a turn: it takes messages to the machine, until there are none or run has
// to look at other things, and gives the turn back. It reports whether the group ends, and
// keeps the turn then.
func (g *Group) finish(h *holder) (over bool) {
	l := &g.loop
	for left := batch; ; {
		l.holder = h
		left = g.drain(left)
		if g.ctx.Err() != nil {
			return true
		}
		if l.stuck() {
			g.propose(time.Now()) // the machine may have room again
		}
		if l.leaving && l.machine.Status().State == ring.Left {
			g.acknowledge()
			g.flush()
			g.flushAll()
			g.cancel()
			return true
		}
		g.arm()
		g.proposals.expect(l.machine.Coming())
		l.holder = nil
		waits := len(l.later) > 0
		<-g.turn
		switch {
		case !waits && len(g.inbox) == 0:
			return false
		case left == 0:
			select {
			case g.more <- struct{}{}:
			default:
			}
			return false
		case !g.tryTurn():
			return false
		}
	}
}

// drain takes up to so many messages that are already there, and returns for how many
// there was room.
func (g *Group) drain(most int) (left int) {
	l := &g.loop
	for ; most > 0 && g.ctx.Err() == nil; most-- {
		var m received
		if len(l.later) > 0 {
			m = l.later[0]
			l.later = slices.Delete(l.later, 0, 1)
		} else {
			select {
			case m = <-g.inbox:
			default:
				return most
			}
		}
		g.step(m, time.Now())
	}
	return most
}

// arm sets the timer to the next deadline. Later deadlines are left to an early call,
// which costs less than setting the timer each time.
func (g *Group) arm() {
	l := &g.loop
	next := l.maintainAt
	for _, at := range []time.Time{l.machine.Next(), l.net.retryAt, l.late.at} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	if !l.due.IsZero() && !next.Before(l.due) {
		return
	}
	l.due = next
	l.timer.Reset(time.Until(next))
}

// tick does what is due.
func (g *Group) tick(now time.Time) {
	l := &g.loop
	if !l.late.at.IsZero() && !now.Before(l.late.at) {
		g.acknowledge()
	}
	l.machine.Tick(now)
	g.act()
	g.flush()
	if at := l.net.retryAt; !at.IsZero() && !now.Before(at) {
		l.net.retry(now)
	}
	if !now.Before(l.maintainAt) {
		g.maintain(now)
	}
}

// step hands a message to the machine, together with what shall be ordered, which
// may go with the token.
func (g *Group) step(m received, now time.Time) {
	l := &g.loop
	if m.from.node.Member != m.msg.Head().From.Member {
		g.refusals.add(&refusal{refusedMessage, fmt.Sprintf("message in the name of %s", m.msg.Head().From.Member)}, m.from.node.Member.String())
		return
	}
	if g.proposals.some() || l.stuck() {
		g.propose(now)
	}
	l.machine.Step(m.msg, now)
	g.act()
}

// propose hands requests to the machine, as far as it has room.
func (g *Group) propose(now time.Time) {
	l := &g.loop
	select {
	case <-g.proposals.wake:
	default:
	}
	for {
		if !l.stuck() {
			l.waiting, l.first = g.proposals.take(l.waiting), 0
		}
		moved, octets := 0, 0
		for l.stuck() {
			r := &l.waiting[l.first]
			if !g.request(r, now) {
				break
			}
			moved++
			octets += len(r.payload)
			*r = request{}
			l.first++
		}
		if moved == 0 {
			return
		}
		g.act()
		g.proposals.moved(moved, octets)
	}
}

// stuck reports whether there are requests that the machine had no room for.
func (l *loop) stuck() bool { return l.first < len(l.waiting) }

// request hands one request to the machine; false: there is no room now.
func (g *Group) request(r *request, now time.Time) bool {
	l := &g.loop
	var err error
	switch r.kind {
	case propose:
		var number uint64
		number, err = l.machine.Propose(r.payload, now)
		switch {
		case err == nil:
			if l.proposed++; number != l.proposed {
				panic(fmt.Sprintf("ringnet: the machine numbers a proposal %d that was promised to be %d", number, l.proposed))
			}
		case !errors.Is(err, ring.ErrFull):
			l.proposed++
			g.cfg.Handler.Handle([]ring.Event{ring.NotDelivered{First: l.proposed, Last: l.proposed}})
			return true
		}
	case endExchange:
		if view := l.machine.View(); view.ID == r.view {
			err = l.machine.End(now)
		}
	case lock:
		err = l.machine.Lock(r.name, now)
	case unlock:
		err = l.machine.Unlock(r.name, now)
	}
	if errors.Is(err, ring.ErrFull) {
		return false
	}
	if err != nil {
		g.cfg.Log.WithError(err).Debug("ring: request without effect")
	}
	return true
}

// act does what the machine wants.
func (g *Group) act() {
	l := &g.loop
	for {
		out, ok := l.machine.Ready()
		if !ok {
			break
		}
		if out.Persist != nil {
			if err := l.store.save(*out.Persist); err != nil {
				// Without it nothing that follows may be seen by anybody.
				g.fail(fmt.Errorf("ringnet: make the fence durable: %w", err))
				return
			}
		}
		early, then := false, func() {}
		if len(out.Events) > 0 {
			var applied bool
			if early, applied, then = g.apply(&out); !applied {
				return
			}
			now := time.Now()
			l.machine.Handled(now)
			for _, e := range out.Events {
				if installed, ok := e.(ring.Installed); ok {
					l.net.installed(installed.View, now)
				}
			}
		}
		g.send(out.Messages, func(e *ring.Envelope) bool {
			return !(early && e.Early()) && !g.withhold(e)
		})
		then()
	}
}

// send sends those of some messages that are to be.
func (g *Group) send(messages []ring.Envelope, which func(*ring.Envelope) bool) {
	l := &g.loop
	for i := range messages {
		if which(&messages[i]) {
			l.net.send(&messages[i])
		}
	}
	g.flush()
}

// flush sends what was queued on connections.
func (g *Group) flush() {
	l := &g.loop
	for _, c := range l.touched {
		c.flush(g.ctx)
	}
	l.touched = l.touched[:0]
}

// apply has the application take events. If that takes long, the others are told
// meanwhile what does not depend on it: that the token came, and how this member is.
// It reports whether the early messages were sent, whether the events were applied (not
// if the group ends), and what is to be called when all messages were sent.
func (g *Group) apply(out *ring.Output) (early, applied bool, then func()) {
	l := &g.loop
	then = func() {}
	starter, ok := g.cfg.Handler.(Starter)
	if !ok {
		g.cfg.Handler.Handle(out.Events)
		return false, g.ctx.Err() == nil, then
	}
	done, after := starter.Start(out.Events)
	if done == nil {
		return false, true, after
	}
	l.holder.relieve()
	l.slow.Reset(g.cfg.Timers.HopRetry / 4)
	defer l.slow.Stop()
	var inbox <-chan received
	for {
		select {
		case <-done:
			return early, true, then
		case <-g.ctx.Done():
			return early, false, then
		case <-l.slow.C:
			early, inbox = true, g.inbox
			g.acknowledge()
			g.send(out.Messages, (*ring.Envelope).Early)
		case m := <-inbox:
			answers, ok := []ring.Envelope(nil), false
			if m.from.node.Member == m.msg.Head().From.Member {
				answers, ok = l.machine.Answer(m.msg, time.Now())
			}
			if ok {
				g.send(answers, (*ring.Envelope).Early)
			} else if l.later = append(l.later, m); len(l.later) >= batch {
				inbox = nil
			}
		}
	}
}

// leave begins to leave the ring.
func (g *Group) leave(now time.Time) {
	l := &g.loop
	l.leaving = true
	g.propose(now)
	l.machine.Leave(now)
	g.act()
}

// fail ends the group without a word to the others, as a crash would.
func (g *Group) fail(err error) {
	g.mu.Lock()
	g.err = err
	g.mu.Unlock()
	g.cfg.Log.WithError(err).Error("ring: this member ends")
	g.cancel()
}

// flushAll waits until what is queued was sent, for a short time.
func (g *Group) flushAll() {
	ctx, cancel := context.WithTimeout(g.ctx, flushTime)
	defer cancel()
	for !g.loop.net.idle() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(flushTime / 100):
		}
	}
}

// maintain does what is to be done each ProbeInterval.
func (g *Group) maintain(now time.Time) {
	l := &g.loop
	l.maintainAt = now.Add(g.cfg.Timers.ProbeInterval)
	l.net.maintain(now)
	connected := l.net.connected()
	g.company.Store(len(connected) > 0)
	for _, n := range connected {
		l.machine.Found(n, now)
		g.act()
	}
	l.net.introduce(connected)
	l.strain.report(g, l.machine.Strain(), now)
}
