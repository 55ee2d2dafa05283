package pooluser

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Failover is what a hook learns of the change from one element to another, and its
// way to the new one. It is valid during the hook.
type Failover struct {
	// Pool is the pool of To.
	Pool     param.PoolHandle
	From, To param.PoolElement
	// Cause is why From was given up; Tried are all that failed, From first.
	Cause error
	Tried []Attempt
	// Cookie is what To has got in a COOKIE_ECHO, nil if nothing.
	Cookie []byte
	// Unanswered are the requests kept that have no answer. With AtLeastOnce
	// they are sent again after the hook; else the hook may do that, if it does
	// no harm to do them twice.
	Unanswered []Message
	// Written and Received are, for streams, the octets that Write gave to
	// elements and those that came of them (Read has returned these, or will
	// before any of To), since the hook last returned nil or the stream began.
	// They are the same again after a call that failed, and 0 when the element
	// of a call that returned nil fails before Read and Write go on. So who adds
	// them up where the hook returns nil knows where the stream is.
	Written, Received uint64

	s    *Session
	link sessionLink
	rest []byte // of Read
	ctx  context.Context
	lost bool // the connection, as Send has found; s.mu guards it
}

// Send sends a message to the new element alone.
func (f *Failover) Send(ctx context.Context, m Message) error {
	if err := f.s.cfg.sendable(m); err != nil {
		return err
	}
	_, err := f.link.send(ctx, transport.Message{Data: m.Data, PPID: m.PPID, Stream: m.Stream})
	if err != nil && ctx.Err() == nil && !refused(err) {
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		f.lost = true
	}
	return err
}

// Receive waits for a message from the new element. Those that the hook leaves are
// there for the session's Receive. It returns io.EOF when the element has ended the
// session in an orderly way.
func (f *Failover) Receive(ctx context.Context) (Message, error) {
	s := f.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if f.ctx.Err() != nil {
			return Message{}, context.Cause(f.ctx)
		}
		for i, in := range s.held {
			if in.Notification == nil {
				s.held = slices.Delete(s.held, i, i+1)
				s.taken.fire()
				return in, nil
			}
		}
		if s.machine.over {
			return Message{}, io.EOF
		}
		if err := s.await(ctx, &s.readable); err != nil {
			return Message{}, err
		}
	}
}

// Write sends octets to the new element, for streams.
func (f *Failover) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += transport.StreamChunk {
		if err := f.Send(f.ctx, Message{Data: p[n:min(len(p), n+transport.StreamChunk)]}); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// Read reads octets from the new element, for streams.
func (f *Failover) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		in, err := f.Receive(f.ctx)
		if err != nil {
			return 0, err
		}
		f.rest = in.Data
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// step tells the machine something and does what it says.
func (s *Session) step(f func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(time.Now())
	s.perform()
}

// perform does what the machine says. What takes time is done in a goroutine and told
// in another step.
func (s *Session) perform() {
	for _, a := range s.machine.take() {
		switch a := a.(type) {
		case doSelect:
			s.operate(func(ctx context.Context) { s.choose(ctx, a) })
		case doConnect:
			s.operate(func(ctx context.Context) { s.connect(ctx, a) })
		case doGreet:
			s.operate(func(ctx context.Context) { s.greet(ctx, a) })
		case doCancel:
			s.stopOperation()
		case doDrop:
			s.drop(a.orderly)
		case doAvoid:
			s.avoid(a)
		case doBeat:
			s.link.beat()
		case doResolve:
			s.learn(a.pool)
		case doUp:
			s.up()
		case doHalt:
			s.open = false
		case doNotify:
			s.put(Message{Notification: &a.n})
		case doEnd:
			s.end(a.err)
		}
	}
	s.rearm()
}

// avoid leaves the element out for as long as it takes to find out about two others,
// so that it is not tried again although the registrar still lists it.
func (s *Session) avoid(a doAvoid) {
	if s.r.moved(a.pool, a.element, a.since) {
		return
	}
	if a.report {
		if _, err := s.r.Report(s.ctx, a.pool, a.element.ID); err != nil {
			s.r.cfg.Log.WithError(err).Debug("session: report")
		}
	}
	s.r.Avoid(a.pool, a.element.ID, max(s.r.cfg.RetryPause, 2*(s.cfg.Timers.Silence+s.cfg.Timers.Connect)))
}

// up lets messages go, and gives what came during the failover to Receive.
func (s *Session) up() {
	s.open = true
	if s.first == 0 {
		s.first = s.machine.conn
	} else {
		s.failedOver = s.machine.conn
		s.failover = &FailoverError{
			Pool: s.machine.linkPool, From: s.machine.from, To: s.machine.element,
			Tried: slices.Clone(s.machine.attempts), Err: s.machine.cause,
		}
	}
	s.written, s.came = 0, 0
	for _, m := range s.held {
		s.came += uint64(len(m.Data))
	}
	s.inbox = append(s.inbox, s.held...)
	s.held, s.room = nil, 0
	s.readable.fire()
	s.taken.fire()
	s.changed.fire()
}

// rearm sees to it that tick comes in time. It may come too early.
func (s *Session) rearm() {
	at, ok := s.machine.deadline()
	if ok && (s.timerAt.IsZero() || at.Before(s.timerAt)) {
		s.timerAt = at
		s.timer.Reset(time.Until(at))
	}
}

func (s *Session) tick() {
	s.step(func(now time.Time) {
		s.timerAt = time.Time{}
		var heard time.Time
		if s.link != nil {
			heard = s.link.heard()
		}
		if s.waiting {
			s.machine.received(now, s.machine.conn) // or would have been, if there were room
		}
		s.machine.tick(now, heard)
	})
}

// operate does something in a goroutine; the machine wants one thing at a time.
func (s *Session) operate(f func(ctx context.Context)) {
	s.stopOperation()
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.halt = cancel
	s.work.Go(func() {
		defer cancel(nil)
		f(ctx)
	})
}

func (s *Session) stopOperation() {
	if s.halt != nil {
		s.halt(context.Canceled)
		s.halt = nil
		s.readable.fire() // for hooks
	}
}

func (s *Session) choose(ctx context.Context, a doSelect) {
	element, err := s.r.Select(ctx, s.machine.pool)
	s.step(func(now time.Time) { s.machine.selected(now, a.conn, element, err) })
}

func (s *Session) connect(ctx context.Context, a doConnect) {
	s.r.note(a.pool, a.element.ID)
	link, err := s.r.dialLink(ctx, a.element.User, s.dial)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err != nil {
		s.machine.connectFailed(now, a.conn, err)
	} else if s.machine.connected(now, a.conn, link.kind()); s.machine.phase == greeting && s.machine.conn == a.conn {
		s.link, s.resent = link, !s.machine.opened
		s.machine.kept.measure = s.r.meter(a.pool, a.element.ID)
		read := make(chan struct{})
		s.read = read
		s.work.Go(func() {
			defer close(read)
			s.receive(a.conn, link)
		})
	} else {
		s.work.Go(func() { s.leave(link, false) })
	}
	s.perform()
}

func (s *Session) leave(link sessionLink, orderly bool) {
	if err := link.leave(orderly); err != nil {
		s.r.cfg.Log.WithError(err).Debug("session: close")
	}
}

// drop ends the connection. What has come of it stays for Receive.
func (s *Session) drop(orderly bool) {
	if link, read := s.link, s.read; link != nil {
		s.link = nil
		s.work.Go(func() {
			if orderly {
				<-read
				ctx, cancel := context.WithTimeout(context.Background(), min(s.cfg.Timers.Connect, maxLinger))
				defer cancel()
				link.linger(ctx)
			}
			s.leave(link, orderly)
		})
	}
	if s.answersCount() {
		s.inbox = append(s.inbox, s.held...)
	}
	s.held, s.room, s.waiting = nil, 0, false
	s.taken.fire()
	s.changed.fire()
	s.readable.fire()
}

// answersCount tells whether what is held answers requests that are not kept any more: it
// goes to the application whatever becomes of the failover.
func (s *Session) answersCount() bool { return s.resent && s.cfg.Delivery == AtLeastOnce }

// greet hands over the cookie as the first message on the control channel, lets the
// application set the stage, and sends again what was kept.
func (s *Session) greet(ctx context.Context, a doGreet) {
	err := s.introduce(ctx, a)
	s.step(func(now time.Time) { s.machine.greeted(now, a.conn, err) })
}

func (s *Session) introduce(ctx context.Context, a doGreet) error {
	link, err := s.settled(ctx)
	if err != nil {
		return err
	}
	if a.cookie != nil {
		echo, err := (&asap.CookieEcho{Cookie: a.cookie}).Append(nil)
		if err != nil {
			return fmt.Errorf("cookie: %w", err)
		}
		if _, err := link.send(ctx, transport.Message{Data: echo, PPID: transport.PPIDASAP}); err != nil {
			return fmt.Errorf("cookie: %w", err)
		}
	}
	if f := a.report; f != nil && s.hook != nil {
		if err := s.takeHook(ctx, a.conn); err != nil {
			return err
		}
		err := s.callHook(ctx, link, f)
		s.hooking.End()
		if err != nil {
			return err
		}
	}
	for _, m := range s.again(a.conn) {
		if _, err := link.send(ctx, transport.Message{Data: m.Data, PPID: m.PPID, Stream: m.Stream}); err != nil {
			return fmt.Errorf("send again: %w", err)
		}
	}
	return nil
}

// settled returns the new connection when it is clear what became of the message that
// was being sent over the one before.
func (s *Session) settled(ctx context.Context) (sessionLink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flying {
		if err := s.await(ctx, &s.changed); err != nil {
			return nil, err
		}
	}
	if s.link == nil || ctx.Err() != nil {
		return nil, context.Canceled // it has ended meanwhile, and there may be another
	}
	return s.link, nil
}

// takeHook waits until the hook does not run any more for an element before.
func (s *Session) takeHook(ctx context.Context, conn uint64) error {
	if s.hooking.Try() {
		return nil
	}
	s.step(func(time.Time) { s.machine.delayed(conn, ErrHookRuns) })
	if err := s.hooking.Take(ctx); err != nil {
		return err
	}
	s.step(func(time.Time) { s.machine.delayed(conn, nil) })
	return nil
}

// ofHook is the key of a hook's session in its context.
type ofHook struct{}

// inHook tells a hook that it would wait for its own end.
func (s *Session) inHook(ctx context.Context) error {
	if ctx.Value(ofHook{}) == s {
		return fmt.Errorf("session with pool %q: %w", s.machine.pool, ErrInHook)
	}
	return nil
}

func (s *Session) callHook(ctx context.Context, link sessionLink, f *Failover) error {
	s.mu.Lock()
	ctx = context.WithValue(ctx, ofHook{}, s)
	f.s, f.link, f.ctx = s, link, ctx
	f.Unanswered = s.machine.kept.messages()
	f.Written, f.Received = s.written, s.came
	s.mu.Unlock()
	err := s.hook(ctx, f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("failover hook: %w", err)
		if f.lost {
			return err // no wonder, and not the hook's doing
		}
		return hookError{err}
	}
	s.written, s.came = 0, 0
	if len(f.rest) > 0 && ctx.Err() == nil {
		s.held = slices.Insert(s.held, 0, Message{Data: f.rest, conn: s.machine.conn})
	}
	return nil
}

// again returns what is to be sent again. From now on what comes answers it.
func (s *Session) again(conn uint64) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine.conn != conn || s.resent {
		return nil
	}
	s.resent = true
	if s.cfg.Delivery != AtLeastOnce {
		s.machine.kept.forget()
		return nil
	}
	s.machine.kept.again(time.Now())
	msgs := s.machine.kept.messages()
	s.room = len(msgs) // for their answers
	return msgs
}

// receive receives from one connection until it ends or is given up.
func (s *Session) receive(conn uint64, link sessionLink) {
	for s.hasRoom(conn) {
		m, err := link.next(s.ctx)
		if err != nil {
			s.step(func(now time.Time) {
				s.machine.lost(now, conn, err)
				s.readable.fire() // for hooks
			})
			return
		}
		if m.PPID == transport.PPIDASAP && link.kind().control {
			s.control(conn, link, m.Data)
			continue
		}
		s.data(conn, Message{Data: m.Data, PPID: m.PPID, Stream: m.Stream, conn: conn})
	}
}

// hasRoom waits until another message can be taken, and reports whether the
// connection still counts.
func (s *Session) hasRoom(conn uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.machine.conn == conn && s.link != nil {
		room := len(s.inbox)-s.notified < s.cfg.Inbox
		switch {
		case s.machine.phase != greeting:
		case len(s.held) < s.cfg.Inbox+s.room: // the hook must not wait for the application
			room = true
		case !s.answersCount():
			room = false
		case room: // nor the sending of requests for long answers to those before
			s.inbox, s.held = append(s.inbox, s.held...), nil
			s.readable.fire()
		}
		if room {
			s.waiting = false
			return true
		}
		s.waiting = true
		if s.await(s.ctx, &s.taken) != nil {
			return false
		}
	}
	return false
}

// data takes in a message of the application's.
func (s *Session) data(conn uint64, m Message) {
	s.step(func(now time.Time) {
		if !s.machine.received(now, conn) {
			return
		}
		m.Element = s.machine.element.ID
		if k := &s.machine.kept; k.on && s.resent {
			var request uint64
			if s.cfg.Answers != nil {
				request = s.cfg.Answers(m)
			}
			k.answered(request)
			s.changed.fire()
		}
		s.put(m)
	})
}

// put gives something to Receive; while a failover goes on, messages wait for its end.
func (s *Session) put(m Message) {
	switch n := m.Notification; {
	case n == nil && s.machine.phase == greeting:
		s.held = append(s.held, m)
	case n == nil:
		s.came += uint64(len(m.Data))
		s.inbox = append(s.inbox, m)
	case !s.notes:
	default:
		if s.notified == maxNotifications {
			i := slices.IndexFunc(s.inbox, func(m Message) bool { return m.Notification != nil })
			s.inbox = slices.Delete(s.inbox, i, i+1)
			s.notified--
		}
		s.inbox = append(s.inbox, m)
		s.notified++
	}
	s.readable.fire()
}

// control takes in a message of the control channel.
func (s *Session) control(conn uint64, link sessionLink, data []byte) {
	m, report, err := asap.Decode(data)
	if err != nil {
		var malformed *param.Error
		if errors.As(err, &malformed) {
			report = malformed.Report
		}
		s.r.cfg.Log.WithError(err).Debug("session: malformed message on the control channel")
	} else {
		s.step(func(now time.Time) {
			switch m := m.(type) {
			case *asap.Cookie:
				s.machine.gotCookie(now, conn, m.Cookie)
			case *asap.BusinessCard:
				s.machine.gotCard(now, conn, m.Handle, m.Elements)
			case *asap.Error:
				s.machine.gotError(now, conn, &PeerError{Causes: m.Causes})
			}
		})
	}
	if _, isError := m.(*asap.Error); isError || len(report) == 0 {
		return // no error is answered by an error (ASAP-2.2.14-03)
	}
	if answer, err := (&asap.Error{Causes: report}).Append(nil); err == nil {
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timers.Connect)
		defer cancel()
		if _, err := link.send(ctx, transport.Message{Data: answer, PPID: transport.PPIDASAP}); err != nil {
			s.r.cfg.Log.WithError(err).Debug("session: error report")
		}
	}
}

// learn resolves the pool of a business card if it is not in the cache (BC1). It does so
// for one card at a time and then for the newest: elements may send any number of them.
func (s *Session) learn(pool param.PoolHandle) {
	s.unknown = pool
	if s.learning || s.r.knows(pool) {
		return
	}
	s.learning = true
	s.work.Go(func() {
		for pool, more := s.toLearn(); more; pool, more = s.toLearn() {
			if s.r.knows(pool) {
				continue
			}
			if _, err := s.r.Resolve(s.ctx, pool); err != nil {
				s.r.cfg.Log.WithError(err).Debug("session: pool of a business card")
			}
		}
	})
}

// toLearn returns the pool of the newest card, and false if that is not new.
func (s *Session) toLearn() (param.PoolHandle, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := s.unknown
	s.unknown = ""
	s.learning = pool != "" && !s.ended
	return pool, s.learning
}

// end makes err the answer to all calls.
func (s *Session) end(err error) {
	s.ended, s.err = true, err
	s.timer.Stop()
	s.cancel(err)
	s.changed.fire()
	s.readable.fire()
	s.taken.fire()
}

// cookieQuoted tells whether a cause quotes a Cookie parameter.
func cookieQuoted(c param.Cause) bool {
	return len(c.Data) >= 2 && param.Type(binary.BigEndian.Uint16(c.Data)) == param.TypeCookie
}
