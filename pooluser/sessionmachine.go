package pooluser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport/framed"
)

// phase is what a session is at.
type phase int

const (
	selecting  phase = iota // an element is being selected
	connecting              // a connection to one is being made
	greeting                // it is connected: cookie, hook, what was kept
	up                      // messages go and come
	pausing                 // until the pace allows another attempt
	ended
)

// Actions of a machine, to be carried out in their order. Those that take time report
// back with the number of their connection.
type (
	// doSelect selects an element by the pool's policy: selected.
	doSelect struct{ conn uint64 }
	// doConnect connects to an element: connected or connectFailed.
	doConnect struct {
		conn    uint64
		pool    param.PoolHandle
		element param.PoolElement
	}
	// doGreet sends the cookie as the first message on the control channel, if
	// there are both, calls the hook if this is a failover, and sends what was
	// kept: greeted.
	doGreet struct {
		conn   uint64
		cookie []byte
		report *Failover // nil if this is no failover
	}
	// doCancel ends the selecting, connecting or greeting that is going on.
	doCancel struct{}
	// doDrop ends the connection.
	doDrop struct{ orderly bool }
	// doAvoid avoids the element and, with report, tells the registrar; but not
	// where the resolver has learned since then that it is at other addresses.
	doAvoid struct {
		pool    param.PoolHandle
		element param.PoolElement
		since   time.Time
		report  bool
	}
	// doBeat sends a heartbeat.
	doBeat struct{}
	// doResolve resolves a pool that is not in the cache.
	doResolve struct{ pool param.PoolHandle }
	// doUp lets messages go; doHalt stops them.
	doUp   struct{}
	doHalt struct{}
	// doNotify tells the application.
	doNotify struct{ n Notification }
	// doEnd ends the session; io.EOF for an orderly end, net.ErrClosed for ours.
	doEnd struct{ err error }
)

type action any

// sessionMachine decides what a session does. It has no clock, no connection and no
// lock: its methods are told what happened and when, and leave what is to be done in
// out, to be taken by take.
type sessionMachine struct {
	pool   param.PoolHandle
	timers Timers
	answer time.Duration
	// endOnEOF makes an end of the connection that is not known to be orderly
	// the end of the session, as byte streams have it.
	endOnEOF bool
	// current returns what is known now of an element of a business card that
	// came then, and false if it is better left out.
	current func(pool param.PoolHandle, e param.PoolElement, card time.Time) (param.PoolElement, bool)

	out   []action
	phase phase
	kept  kept

	conn     uint64 // number of the connection, or of the attempt at one
	linkPool param.PoolHandle
	element  param.PoolElement
	link     linkKind
	cookie   []byte
	echoed   bool // on this connection
	card     []param.PoolElement
	cardPool param.PoolHandle
	cardAt   time.Time
	moved    *PeerError // the element's wish on this connection
	over     bool       // the element has ended this connection in order, during the greeting

	opened   bool // there was a connection once
	from     param.PoolElement
	cause    error
	began    time.Time // of the failover, or of opening
	lastTry  time.Time
	tries    int
	attempts []Attempt
	stuck    uint64 // the oldest request without an answer when an element failed last, 0 if there was none
	late     error  // why it takes so long: the last selection failed, or a hook runs on
	wake     time.Time
	by       time.Time // limit of a connection attempt, or of a connection that can't be written to

	since   time.Time // of the connection
	heard   time.Time // last sign of life
	message time.Time // last message, or the beginning
	beat    time.Time // last heartbeat sent
	excused time.Time // before this, silence says nothing about the element
	proved  bool      // the element has sent data
	broken  error     // writing fails; reading will soon
	blame   verdict   // for that
}

// linkKind is what a connection can do.
type linkKind struct {
	control bool // has a control channel
	beats   bool // answers heartbeats
	orderly bool // tells an orderly end from a cut
}

func (m *sessionMachine) do(a action) { m.out = append(m.out, a) }

// take returns the actions since the last call.
func (m *sessionMachine) take() []action {
	out := m.out
	m.out = nil
	return out
}

func (m *sessionMachine) notify(n Notification) { m.do(doNotify{n}) }

// open begins.
func (m *sessionMachine) open(now time.Time) {
	m.began = now
	m.try(now)
}

// try begins an attempt: at the next of the business card that may do, else at
// whom the policy selects.
func (m *sessionMachine) try(now time.Time) {
	m.lastTry = now
	m.conn++
	for len(m.card) > 0 {
		e, ok := m.current(m.cardPool, m.card[0], m.cardAt)
		m.card = m.card[1:]
		if ok && !m.tried(e) {
			m.connect(now, m.cardPool, e)
			return
		}
	}
	m.phase = selecting
	m.do(doSelect{m.conn})
}

func (m *sessionMachine) tried(e param.PoolElement) bool {
	return slices.ContainsFunc(m.attempts, func(a Attempt) bool {
		return a.Element.ID == e.ID && samePlace(a.Element.User, e.User)
	})
}

func (m *sessionMachine) connect(now time.Time, pool param.PoolHandle, e param.PoolElement) {
	m.phase, m.linkPool, m.element = connecting, pool, e
	m.by = now.Add(m.timers.Connect)
	m.tries++
	m.do(doConnect{m.conn, pool, e})
}

// selected takes in what the resolver selected. A failover waits for better times, as
// far as Total goes; opening does not.
func (m *sessionMachine) selected(now time.Time, conn uint64, e param.PoolElement, err error) {
	if conn != m.conn || m.phase != selecting {
		return
	}
	if err == nil {
		m.connect(now, m.pool, e)
		return
	}
	if m.late = err; !m.opened || permanent(err) {
		m.end(m.failure(err))
		return
	}
	m.phase, m.wake = pausing, m.lastTry.Add(m.timers.Pace)
	if !m.wake.After(now) {
		m.wake = now.Add(m.timers.Pace)
	}
}

// failure is the error of a session that found no element.
func (m *sessionMachine) failure(err error) error {
	return &DialError{Pool: m.pool, Attempts: m.attempts, Err: err}
}

// connected takes in that there is a connection.
func (m *sessionMachine) connected(now time.Time, conn uint64, link linkKind) {
	if conn != m.conn || m.phase != connecting {
		return
	}
	m.phase, m.link, m.over = greeting, link, false
	m.since, m.heard, m.message, m.beat, m.excused = now, now, now, now, now
	m.proved, m.broken, m.moved, m.echoed = false, nil, nil, false
	greet := doGreet{conn: conn}
	if link.control && m.cookie != nil {
		greet.cookie, m.echoed = m.cookie, true
	}
	if m.opened {
		greet.report = &Failover{
			Pool: m.linkPool, From: m.from, To: m.element, Cause: m.cause,
			Tried: slices.Clone(m.attempts), Cookie: greet.cookie,
		}
	}
	m.do(greet)
}

// connectFailed takes in that there is none. What fails here is no try of an element's: it
// may do at any moment, as far as Total goes; opening does not wait for that.
func (m *sessionMachine) connectFailed(now time.Time, conn uint64, err error) {
	if conn != m.conn || m.phase != connecting {
		return
	}
	v := judge(err)
	if v == blameless && m.opened {
		m.tries--
		m.late = err
		m.next(now)
		return
	}
	m.attemptFailed(now, err, v)
}

// verdict is what the failure of an attempt says about the element.
type verdict int

const (
	unreachable verdict = iota // it is to be reported
	unusable                   // it is not for us, or not now
	blameless                  // the reason is here
)

func judge(err error) verdict {
	switch {
	case errors.Is(err, ErrTransport) || errors.Is(err, framed.ErrNoFraming) || noWay(err):
		return unusable
	case ownFault(err):
		return blameless
	}
	return unreachable
}

// attemptFailed goes on to the next element.
func (m *sessionMachine) attemptFailed(now time.Time, err error, v verdict) {
	m.attempts = append(m.attempts, Attempt{Element: m.element, Err: err})
	switch {
	case v != blameless:
		m.do(doAvoid{m.linkPool, m.element, m.lastTry, v == unreachable})
	case !m.opened:
		m.end(m.failure(err))
		return
	}
	m.next(now)
}

// next begins another attempt when number, time and pace allow.
func (m *sessionMachine) next(now time.Time) {
	switch {
	case m.tries >= m.timers.Tries:
		m.end(m.failure(nil))
	case now.Before(m.lastTry.Add(m.timers.Pace)):
		m.phase, m.wake = pausing, m.lastTry.Add(m.timers.Pace)
	default:
		m.try(now)
	}
}

// greeted takes in that the element has all it needs, or why not.
func (m *sessionMachine) greeted(now time.Time, conn uint64, err error) {
	if conn != m.conn || m.phase != greeting {
		return
	}
	if err != nil {
		if errors.Is(err, ErrGiveUp) {
			m.end(m.failure(err))
			return
		}
		if m.broken = err; !m.hookFailed(err) && !m.over && !refused(err) {
			m.by, m.blame = now.Add(m.timers.Connect), unreachable // the reader knows better why
			return
		}
		m.do(doDrop{})
		m.attemptFailed(now, err, unusable)
		return
	}
	if m.opened {
		m.notify(Notification{Kind: FailedOver, Element: m.element, Tried: slices.Clone(m.attempts)})
	}
	m.phase, m.opened = up, true
	m.do(doUp{})
	if m.over {
		m.lost(now, conn, io.EOF)
	}
}

// delayed takes in why the greeting does not go on, or nil that it does.
func (m *sessionMachine) delayed(conn uint64, why error) {
	if conn == m.conn && m.phase == greeting {
		m.late = why
	}
}

// hookError is the error of an application's hook.
type hookError struct{ error }

func (e hookError) Unwrap() error { return e.error }

func (m *sessionMachine) hookFailed(err error) bool {
	_, hook := err.(hookError)
	return hook
}

// lost takes in that the connection has ended: io.EOF for an end that looks orderly.
func (m *sessionMachine) lost(now time.Time, conn uint64, err error) {
	if conn != m.conn || m.phase != up && m.phase != greeting {
		return
	}
	orderly := errors.Is(err, io.EOF)
	switch {
	case m.moved != nil && m.refusal():
		m.end(m.failure(fmt.Errorf("%w: %w", ErrCookieRefused, m.moved)))
	case m.moved != nil && m.moved.Causes.Has(param.CauseLackOfResources):
		m.failed(now, fmt.Errorf("%w: %w", ErrMovedOn, m.moved), unusable)
	case orderly && (m.link.orderly || m.endOnEOF) && m.phase == greeting:
		m.over = true // what it has said before counts when the greeting is through
	case orderly && (m.link.orderly || m.endOnEOF):
		m.notify(Notification{Kind: ShutDown, Element: m.element})
		m.end(io.EOF)
	case orderly:
		m.notify(Notification{Kind: ShutDown, Element: m.element})
		m.failed(now, fmt.Errorf("connection closed: %w", err), unreachable)
	case errors.Is(err, net.ErrClosed): // here, in the middle of a message that was given up
		m.failed(now, err, blameless)
	default:
		m.failed(now, err, unreachable)
	}
}

// refusal tells whether the element refused the cookie that it got.
func (m *sessionMachine) refusal() bool {
	if !m.echoed {
		return false
	}
	for _, c := range m.moved.Causes {
		switch c.Code {
		case param.CauseSecurity:
			return true
		case param.CauseInvalidValues:
			if cookieQuoted(c) {
				return true
			}
		}
	}
	return false
}

// failed gives the connection up.
func (m *sessionMachine) failed(now time.Time, err error, v verdict) {
	if v == unreachable {
		m.kept.unanswered(err)
	} else {
		m.kept.unanswered(context.Canceled)
	}
	m.do(doHalt{})
	m.do(doCancel{})
	m.do(doDrop{})
	if m.phase == greeting {
		m.attemptFailed(now, err, v)
		return
	}
	m.notify(Notification{Kind: FailoverBegun, Element: m.element, Err: err})
	m.account(now, err, v)
	m.from, m.cause = m.element, err
	m.attemptFailed(now, err, v)
}

// forced takes in that the application has done with the element.
func (m *sessionMachine) forced(now time.Time, cause error) bool {
	if m.phase != up {
		return false
	}
	m.failed(now, cause, unreachable)
	return true
}

// cannotSend takes in that writing failed, or was given up in the middle of a message.
// What the element said last is still to be read, so the end of the reading counts, if it
// comes soon.
func (m *sessionMachine) cannotSend(now time.Time, conn uint64, err error, v verdict) {
	if conn == m.conn && m.phase == up && m.broken == nil {
		m.broken, m.by, m.blame = err, now.Add(m.timers.Connect), v
		m.do(doHalt{})
	}
}

// received takes in that data came.
func (m *sessionMachine) received(now time.Time, conn uint64) bool {
	if !m.controlled(now, conn) {
		return false
	}
	m.proved = true
	return true
}

// controlled takes in that a message came, maybe of the control channel: cards and cookies
// come before the element serves anybody.
func (m *sessionMachine) controlled(now time.Time, conn uint64) bool {
	if conn != m.conn || m.phase != up && m.phase != greeting {
		return false
	}
	m.heard, m.message = now, now
	return true
}

// gotCookie keeps the newest cookie (ASAP-3.8-02).
func (m *sessionMachine) gotCookie(now time.Time, conn uint64, cookie []byte) {
	if !m.controlled(now, conn) {
		return
	}
	if m.cookie = cookie; cookie == nil {
		m.cookie = []byte{} // an empty one is one, too
	}
	m.notify(Notification{Kind: CookieReceived, Element: m.element, Cookie: m.cookie})
}

// gotCard keeps the newest order for failovers, and sees to it that its pool is known
// (BC1 and BC2 of RFC 5352, section 3.9).
func (m *sessionMachine) gotCard(now time.Time, conn uint64, pool param.PoolHandle, order []param.PoolElement) {
	if !m.controlled(now, conn) {
		return
	}
	m.cardPool, m.card, m.cardAt = pool, order, now
	m.do(doResolve{pool})
	m.notify(Notification{Kind: BusinessCardReceived, Element: m.element, Card: order})
}

// gotError keeps what the element says before it ends the connection.
func (m *sessionMachine) gotError(now time.Time, conn uint64, err *PeerError) {
	if conn != m.conn || m.phase != up && m.phase != greeting {
		return
	}
	m.heard, m.moved = now, err
	m.notify(Notification{Kind: ErrorReceived, Element: m.element, Err: err})
}

// close takes in that the application ends the session.
func (m *sessionMachine) close(err error) {
	if m.phase == ended {
		return
	}
	orderly := m.phase == up
	m.kept.unanswered(context.Canceled)
	m.phase = ended
	m.do(doHalt{})
	m.do(doCancel{})
	m.do(doDrop{orderly})
	m.do(doEnd{err})
}

func (m *sessionMachine) end(err error) {
	m.kept.unanswered(context.Canceled)
	m.phase = ended
	m.do(doHalt{})
	m.do(doCancel{})
	m.do(doDrop{})
	m.do(doEnd{err})
}

// tick takes in the time, and when something last came over the connection.
func (m *sessionMachine) tick(now, heard time.Time) {
	if limit, ok := m.total(); ok && !now.Before(limit) {
		err := fmt.Errorf("%w: %v have passed", ErrFailoverTime, now.Sub(m.began))
		if m.late != nil {
			err = fmt.Errorf("%w; %w", err, m.late)
		}
		m.end(m.failure(err))
		return
	}
	// Who was stopped or starved here says nothing about the element.
	if due, ok := m.deadline(); ok && now.Sub(due) > m.timers.Heartbeat {
		m.excused, m.by = now, now.Add(m.timers.Connect)
	}
	switch m.phase {
	case pausing:
		if !now.Before(m.wake) {
			m.try(now)
		}
	case connecting:
		if !now.Before(m.by) {
			m.do(doCancel{})
			m.attemptFailed(now, fmt.Errorf("%w within %v", ErrNoConnection, m.timers.Connect), unreachable)
		}
	case greeting, up:
		if !m.over {
			m.watch(now, heard)
		}
	}
}

// watch looks for signs of life.
func (m *sessionMachine) watch(now, heard time.Time) {
	if heard.After(m.heard) {
		m.heard = heard
	}
	switch {
	case m.broken != nil && !now.Before(m.by):
		m.failed(now, m.broken, m.blame)
		return
	case m.link.beats && now.Sub(latest(m.heard, m.excused)) >= m.timers.Silence:
		m.failed(now, fmt.Errorf("%w for %v", ErrSilent, m.timers.Silence), unreachable)
		return
	}
	if at, ok := m.answerBy(); ok && !now.Before(at) {
		m.failed(now, fmt.Errorf("%w within %v", ErrNoAnswer, m.answer), unreachable)
		return
	}
	if m.link.beats && now.Sub(latest(m.heard, m.beat)) >= m.timers.Heartbeat {
		m.beat = now
		m.do(doBeat{})
	}
}

// answerBy returns when the oldest request counts as not answered.
func (m *sessionMachine) answerBy() (time.Time, bool) {
	oldest, ok := m.kept.oldest()
	if m.answer == 0 || !ok || m.phase != up {
		return time.Time{}, false
	}
	return latest(oldest, latest(m.message, m.excused)).Add(m.answer), true
}

func (m *sessionMachine) total() (time.Time, bool) {
	return m.began.Add(m.timers.Total), m.phase != up && m.phase != ended
}

// deadline returns when tick is to be called, if nothing happens before.
func (m *sessionMachine) deadline() (time.Time, bool) {
	var at time.Time
	add := func(t time.Time, ok bool) {
		if ok && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	add(m.total())
	add(m.wake, m.phase == pausing)
	add(m.by, m.phase == connecting)
	if (m.phase == up || m.phase == greeting) && !m.over {
		add(m.by, m.broken != nil)
		add(latest(m.heard, m.excused).Add(m.timers.Silence), m.link.beats)
		add(latest(m.heard, m.beat).Add(m.timers.Heartbeat), m.link.beats)
		add(m.answerBy())
	}
	return at, !at.IsZero()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
