package pooluser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

const (
	// maxNotifications bounds the notifications that wait for Receive; the oldest goes.
	maxNotifications = 64
	// maxLinger bounds the wait of Close for an element that does not end.
	maxLinger = time.Second
)

// Session is a conversation with a pool. It has one element at a time, and goes on
// with another when that one fails: it reports it, selects another, connects, hands
// over the newest cookie, calls the application's hook, and sends again what it kept.
//
// Its methods may be called concurrently. It has one goroutine, which receives, and a
// second one while it fails over. Close ends and awaits them; they also end when the
// session does.
type Session struct {
	r       *Resolver
	cfg     SessionConfig
	dial    linkConfig
	hook    func(context.Context, *Failover) error
	notes   bool
	ctx     context.Context
	cancel  context.CancelCauseFunc
	work    sync.WaitGroup
	sending transport.Turn // of the one who sends
	hooking transport.Turn // of the hook; nil without one

	mu       sync.Mutex // guards all below
	machine  sessionMachine
	timer    *time.Timer
	timerAt  time.Time
	link     sessionLink   // nil while there is none
	read     chan struct{} // closed when nothing more is received over the latest one
	open     bool          // messages go
	flying   bool          // a message is between admit and settle
	halt     context.CancelCauseFunc
	resent   bool             // what comes answers requests: what was kept is sent again
	inbox    []Message        // for Receive
	held     []Message        // for the hook, and for inbox when the failover is over
	room     int              // how many more than Inbox may be in held
	waiting  bool             // the reader waits for room
	notified int              // notifications in inbox
	learning bool             // a goroutine resolves pools of business cards
	unknown  param.PoolHandle // of the newest card, for that goroutine
	ended    bool
	err      error // set when ended

	first      uint64         // the first connection
	failedOver uint64         // the latest connection by a failover,
	failover   *FailoverError // which was this
	// written and came count the octets of data of the latest connection that
	// was up.
	written, came uint64

	changed  wake // open, ended, room for kept requests, the connection
	readable wake // inbox, held, ended
	taken    wake // room in inbox, the connection
}

// wake lets goroutines wait for a change of what a lock guards.
type wake struct{ ch chan struct{} }

func (w *wake) wait() <-chan struct{} {
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

func (w *wake) fire() {
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}

// Open begins a session with the pool, in the style of messages, over SCTP, or over
// TCP in the framing of docs/sessions.md. ctx bounds the opening alone; its values go
// on to the hook and to the policy (WithKey). The error is a *DialError or that of
// Validate.
func (r *Resolver) Open(ctx context.Context, pool param.PoolHandle, cfg SessionConfig) (*Session, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("session with pool %q: %w", pool, err)
	}
	s := r.newSession(ctx, pool, cfg)
	s.notes = cfg.Notifications
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (r *Resolver) newSession(ctx context.Context, pool param.PoolHandle, cfg SessionConfig) *Session {
	cfg = cfg.withDefaults()
	s := &Session{
		r: r, cfg: cfg, hook: cfg.OnFailover, sending: transport.NewTurn(),
		dial: linkConfig{beatSCTP: cfg.SCTPHeartbeats, maxMessage: cfg.MaxMessage, defaultPPID: cfg.PPID},
		machine: sessionMachine{
			pool: pool, timers: cfg.Timers, answer: cfg.Answer, current: r.current, cookie: cfg.Cookie,
			kept: kept{
				on: cfg.Keep > 0 || cfg.Answer > 0, store: cfg.Keep > 0,
				limit: cfg.Keep, octets: cfg.KeepOctets, ordered: cfg.Answers == nil,
			},
		},
	}
	if s.hook != nil {
		s.hooking = transport.NewTurn()
	}
	values := context.WithoutCancel(ctx)
	if cfg.Key != "" {
		values = WithKey(values, cfg.Key)
	}
	s.ctx, s.cancel = context.WithCancelCause(values)
	return s
}

// begin opens, and waits until that is done.
func (s *Session) begin(ctx context.Context) error {
	s.mu.Lock()
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.mu.Unlock()
	s.step(s.machine.open)
	for {
		s.mu.Lock()
		changed, open, ended, err := s.changed.wait(), s.machine.opened, s.ended, s.err
		s.mu.Unlock()
		switch {
		case ended && !(open && err == io.EOF):
			s.work.Wait()
			return err
		case open: // and may have ended: what came is still to be received
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.step(func(time.Time) { s.machine.close(s.machine.failure(context.Cause(ctx))) })
		}
	}
}

// permanent tells whether a resolution need not be tried again.
func permanent(err error) bool {
	return errors.Is(err, huntnet.ErrStopped) || errors.Is(err, ErrHandle)
}

// Send sends a message to the element of the moment. While there is none it waits,
// and while the requests kept reach their bound. When the element fails meanwhile, a
// message of which no octet has left goes to the next element. One that may have left
// is kept where Delivery says so, and then Send has done its part; else the error
// wraps ErrUncertain. Other errors: ctx's cause, what ended the session (net.ErrClosed
// after Close), and why the message can't be sent: transport.ErrTooLong, or what SCTP says
// of an empty one or a stream that there is not; the session goes on then. With a hook's
// context it returns ErrInHook.
func (s *Session) Send(ctx context.Context, m Message) error {
	if err := s.cfg.sendable(m); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.sending.End()
	for {
		t, err := s.admit(ctx, &m, nil)
		if err != nil {
			return err
		}
		n, err := t.link.send(ctx, transport.Message{Data: m.Data, PPID: m.PPID, Stream: m.Stream})
		if again, err := s.settle(ctx, t, n, err); !again {
			return err
		}
	}
}

// take waits for the turn to send. A hook never gets it.
func (s *Session) take(ctx context.Context) error {
	if err := s.inHook(ctx); err != nil {
		return err
	}
	return s.sending.Take(ctx)
}

// sendable tells why a message can't be sent, whatever the connection.
func (cfg SessionConfig) sendable(m Message) error {
	if errs := ppidErrs(m.PPID); errs != nil {
		return fmt.Errorf("send: %w: %w", framed.ErrNotSent, errors.Join(errs...))
	}
	if len(m.Data) > cfg.MaxMessage {
		return fmt.Errorf("send: %w: %w: %d octets, limit %d", framed.ErrNotSent, transport.ErrTooLong, len(m.Data), cfg.MaxMessage)
	}
	return nil
}

// refused tells whether a connection does not take a message and is none the worse for it:
// the message is too long for the transport or for its buffer, or empty, or goes to a
// stream that there is not.
func refused(err error) bool {
	return errors.Is(err, transport.ErrTooLong) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EINVAL)
}

// turn is a message that is being sent.
type turn struct {
	link sessionLink
	conn uint64
	seq  uint64 // among those kept, 0 if it is not
}

// admit waits until a message can be sent, and counts it as a request where requests
// are counted; m is nil for what is none. check, if set, has the last word about the
// connection.
func (s *Session) admit(ctx context.Context, m *Message, check func(conn uint64) error) (turn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return turn{}, s.endErr()
		case s.open && (m == nil || m.OneWay || !s.machine.kept.full(len(m.Data))):
			t := turn{link: s.link, conn: s.machine.conn}
			if check != nil {
				if err := check(t.conn); err != nil {
					return turn{}, err
				}
			}
			s.flying = true
			if m != nil {
				t.seq = s.machine.kept.add(*m, time.Now())
				s.rearm()
			}
			return t, nil
		}
		if err := s.await(ctx, &s.changed); err != nil {
			return turn{}, err
		}
	}
}

// await waits for w without the lock.
func (s *Session) await(ctx context.Context, w *wake) error {
	ch := w.wait()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// endErr is what calls return that come too late.
func (s *Session) endErr() error {
	return fmt.Errorf("session with pool %q has ended: %w", s.machine.pool, errors.Join(net.ErrClosed, s.err))
}

// settle decides what becomes of a message after send.
func (s *Session) settle(ctx context.Context, t turn, n int, err error) (again bool, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying = false
	s.changed.fire()
	k := &s.machine.kept
	if err == nil {
		k.sent(t.seq)
		return false, nil
	}
	if refused(err) {
		k.remove(t.seq)
		return false, err
	}
	gaveUp, blame := ctx.Err() != nil, unreachable
	if gaveUp {
		blame = blameless
	}
	if n > 0 || !gaveUp {
		s.machine.cannotSend(time.Now(), t.conn, err, blame)
		s.perform()
	}
	switch {
	case gaveUp:
		k.remove(t.seq)
		return false, err
	case s.cfg.Delivery == AtLeastOnce && t.seq != 0:
		k.sent(t.seq)
		return false, nil // it will be sent again
	case n == 0:
		k.remove(t.seq)
		return true, nil
	}
	k.sent(t.seq)
	return false, fmt.Errorf("%w: %w", ErrUncertain, err)
}

// Receive waits for the next message, or notification if these are wanted. It returns
// io.EOF when the element has ended the session in an orderly way, an error that wraps
// net.ErrClosed after Close, a *DialError when no element was found, and ctx's cause. With
// a hook's context it returns ErrInHook where it would wait.
func (s *Session) Receive(ctx context.Context) (Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if len(s.inbox) > 0 {
			return s.pop(), nil
		}
		if s.ended {
			return Message{}, s.err
		}
		if err := s.inHook(ctx); err != nil {
			return Message{}, err
		}
		if err := s.await(ctx, &s.readable); err != nil {
			return Message{}, err
		}
	}
}

func (s *Session) pop() Message {
	in := s.inbox[0]
	if s.inbox = s.inbox[1:]; len(s.inbox) == 0 {
		s.inbox = nil
	}
	if in.Notification != nil {
		s.notified--
	}
	s.taken.fire()
	return in
}

// Pool returns the pool's handle.
func (s *Session) Pool() param.PoolHandle { return s.machine.pool }

// Element returns the element of the moment, and false while there is none.
func (s *Session) Element() (param.PoolElement, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.element, s.open
}

// Cookie returns the newest cookie, nil if there is none: to go on in another session
// (SessionConfig.Cookie).
func (s *Session) Cookie() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.machine.cookie)
}

// Failover gives the element up because the application says so, reports it and goes
// on with another; cause, if not nil, says why in notifications and errors. It does not
// wait, and does nothing while there is no element.
func (s *Session) Failover(cause error) {
	if cause == nil {
		cause = errForced
	}
	s.step(func(now time.Time) { s.machine.forced(now, cause) })
}

var errForced = errors.New("the application gives the element up")

// SendCard sends a business card: the elements of a pool to which this user belongs,
// in the order in which the other end is to fail over. For users that are elements as
// well (RFC 5352, section 3.9); without a control channel the error wraps ErrNoControl.
func (s *Session) SendCard(ctx context.Context, pool param.PoolHandle, order ...param.PoolElement) error {
	data, err := (&asap.BusinessCard{Handle: pool, Elements: order}).Append(nil)
	if err != nil {
		return fmt.Errorf("business card: %w", err)
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.sending.End()
	for {
		t, err := s.admit(ctx, nil, func(uint64) error {
			if !s.link.kind().control {
				return fmt.Errorf("business card: %w", ErrNoControl)
			}
			return nil
		})
		if err != nil {
			return err
		}
		_, err = t.link.send(ctx, transport.Message{Data: data, PPID: transport.PPIDASAP})
		if again, err := s.settle(ctx, t, 0, err); !again {
			return err
		}
	}
}

// Close ends the session in an orderly way. What was sent arrives, if the element takes it:
// Close waits until it has ended the session too, for Timers.Connect at most and never
// longer than a second; then the rest is lost. Hooks must not call it.
func (s *Session) Close() error {
	s.step(func(time.Time) {
		s.machine.close(fmt.Errorf("session with pool %q: %w", s.machine.pool, net.ErrClosed))
	})
	s.work.Wait()
	return nil
}
