package poolelement

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// Server serves the users of one or several pools. One goroutine, the loop, owns
// the table of sessions and answers the registrars' keep-alives. Besides it there
// are one per listener, two per session in message style and one in plain stream
// style, those of the elements, and one for Health. Run ends and awaits all.
type Server struct {
	cfg     ServeConfig
	log     logrus.FieldLogger
	handle  func(*Session) error
	streams bool
	plain   bool // no session framing on byte streams
	born    time.Time

	draining chan struct{} // closed when sessions are to end
	arrivals chan arrival
	ended    chan *Session
	answers  chan func()   // to keep-alives
	joined   chan struct{} // holds one: an element has registered
	ops      chan func()
	done     chan struct{} // closed when the loop has ended
	ctx      context.Context
	cancel   context.CancelCauseFunc
	workers  sync.WaitGroup
	cards    cards
	stats    counters
	lines    lines

	mu       sync.Mutex
	ran      bool
	addrs    []netip.AddrPort
	elements []*Element

	// Owned by the loop.
	sessions map[*Session]struct{}
	hosts    map[netip.Prefix]int // sessions from each
	numbers  uint64
	worked   int64 // when a handler that has ended last worked
	refusing int
	load     float64
	hung     error // why keep-alives are not answered
	held     []func()
	check    healthCheck
	stopping bool // no new sessions

	departure error // of the goroutine that drains
}

// arrival is a connection, of either kind.
type arrival struct {
	conn   transport.Conn
	stream net.Conn
}

// NewServer makes a server in message style that does nothing before Run.
func NewServer(cfg ServeConfig, handler Handler) (*Server, error) {
	return newServer(cfg, false, func(s *Session) error { return handler.ServeSession(s.ctx, s) })
}

// NewStreamServer is NewServer in stream style.
func NewStreamServer(cfg ServeConfig, handler StreamHandler) (*Server, error) {
	return newServer(cfg, true, func(s *Session) error { return handler.ServeStream(s.ctx, newStreamSession(s)) })
}

func newServer(cfg ServeConfig, streams bool, handle func(*Session) error) (*Server, error) {
	if err := cfg.validate(!streams); err != nil {
		return nil, fmt.Errorf("pool element: %w", err)
	}
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, log: cfg.Element.Log, handle: handle, streams: streams, plain: streams && !cfg.Control,
		draining: make(chan struct{}),
		arrivals: make(chan arrival),
		ended:    make(chan *Session),
		answers:  make(chan func(), maxHeld),
		joined:   make(chan struct{}, 1),
		ops:      make(chan func()),
		done:     make(chan struct{}),
		sessions: make(map[*Session]struct{}),
		hosts:    make(map[netip.Prefix]int),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Addrs returns the addresses listened on, nil before Run does so.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.addrs)
}

// Elements returns the registered elements: for each entry of Listen one per pool;
// nil before Run has made them. They must not be stopped.
func (s *Server) Elements() []*Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.elements)
}

// Run listens, registers the elements, and serves until ctx ends. Then it drains:
// it deregisters, stops listening, lets the sessions end by themselves for
// DrainTimeout, sends the users of the rest to other elements, and ends the
// sessions' contexts.
//
// It returns when everything has ended: nil, what could not be begun, or what the
// deregistration failed by (see Element.Stop). Handlers that do not return a while
// after their context has ended are left alone, which the error says: it wraps
// ErrHandlersHang. A server runs once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	ran := s.ran
	s.ran = true
	s.born = time.Now()
	s.mu.Unlock()
	if ran {
		return errors.New("pool element: server run twice")
	}
	ends, err := s.listen(ctx)
	if err == nil {
		err = s.register(ctx, ends)
	}
	if err != nil {
		for _, e := range ends {
			err = errors.Join(err, e.close())
		}
		close(s.done)
		s.cancel(err)
		return fmt.Errorf("pool element: %w", err)
	}
	acceptCtx, stopAccepting := context.WithCancel(context.Background())
	defer stopAccepting()
	for _, e := range ends {
		s.workers.Go(func() { s.accept(acceptCtx, e) })
	}
	if s.cfg.Health != nil {
		s.workers.Go(s.watchHealth)
	}
	err = s.loop(ctx, func() error {
		stopAccepting()
		var errs []error
		for _, e := range ends {
			errs = append(errs, e.close())
		}
		return errors.Join(errs...)
	})
	close(s.done)
	s.cancel(ErrDrained)
	s.workers.Wait()
	return errors.Join(s.departure, err)
}

// loop owns the sessions until they have ended.
func (s *Server) loop(ctx context.Context, stopListening func() error) error {
	tick := time.NewTicker(s.tickInterval())
	defer tick.Stop()
	leave := ctx.Done()
	var limit, grace <-chan time.Time
	for {
		if s.stopping && len(s.sessions) == 0 && s.refusing == 0 {
			return nil
		}
		select {
		case a := <-s.arrivals:
			s.admit(a)
		case session := <-s.ended:
			s.forget(session)
			s.worked = max(s.worked, session.beat.worked.Load())
			s.stats.sessions.Store(int64(len(s.sessions)))
			s.gauge(false)
		case answer := <-s.answers:
			s.answer(answer)
		case <-tick.C:
			s.watch()
			s.gauge(true)
		case <-s.joined:
			s.cards.refresh(s)
		case op := <-s.ops:
			op()
		case <-leave:
			leave = nil
			limit = time.After(s.cfg.DrainTimeout)
			s.log.WithField("sessions", len(s.sessions)).Info("draining")
			s.workers.Go(func() { s.drain(stopListening) })
		case <-limit:
			grace = time.After(s.cfg.Element.StopTimeout + answerTime)
			s.expel()
		case <-grace:
			return fmt.Errorf("pool element: %w: %d", ErrHandlersHang, len(s.sessions))
		}
	}
}

// post hands a closure to the loop; it does nothing when that has ended.
func (s *Server) post(op func()) {
	select {
	case s.ops <- op:
	case <-s.done:
	}
}

// admit starts a session, or refuses it.
func (s *Server) admit(a arrival) {
	session := s.session(a)
	host := hostOf(session.remote)
	if full := s.full(host); full != nil {
		s.turnAway(session, full)
		return
	}
	s.sessions[session] = struct{}{}
	s.hosts[host]++
	s.stats.opened.Add(1)
	s.stats.sessions.Store(int64(len(s.sessions)))
	s.gauge(false)
	if session.on && !s.cfg.NoCards {
		s.cards.refresh(s)
	}
	go func() { // awaited by the loop, by way of ended
		s.serve(session)
		select {
		case s.ended <- session:
		case <-s.done:
		}
	}()
}

// full says why there is no room for a session from there.
func (s *Server) full(host netip.Prefix) error {
	switch n := s.hosts[host]; {
	case s.stopping || len(s.sessions) >= s.cfg.MaxSessions:
		return fmt.Errorf("%d sessions", len(s.sessions))
	case s.cfg.MaxPerAddress > 0 && n >= s.cfg.MaxPerAddress && host.IsValid():
		return fmt.Errorf("%d sessions from %v", n, host)
	}
	return nil
}

// forget takes a session that has ended out of the tables.
func (s *Server) forget(session *Session) {
	delete(s.sessions, session)
	host := hostOf(session.remote)
	if s.hosts[host]--; s.hosts[host] == 0 {
		delete(s.hosts, host)
	}
}

// hostOf returns what counts as one user's host: its primary address, with IPv6 the
// network in which it may take any.
func hostOf(remote []netip.AddrPort) netip.Prefix {
	if len(remote) == 0 {
		return netip.Prefix{}
	}
	addr := remote[0].Addr().Unmap()
	prefix, _ := addr.Prefix(min(addr.BitLen(), 64)) // always valid
	return prefix
}

func (s *Server) session(a arrival) *Session {
	s.numbers++
	session := &Session{Control: Control{
		server: s, number: s.numbers, conn: a.conn, gone: make(chan struct{}),
		on: a.conn != nil && (!s.streams || s.cfg.Control), saving: transport.NewTurn(),
	}}
	session.ctx, session.cancel = context.WithCancelCause(s.ctx)
	if a.conn == nil {
		session.stream = a.stream
		session.remote = streamAddrs(a.stream)
		close(session.gone)
		return session
	}
	session.remote = a.conn.RemoteAddrs()
	session.in.init()
	return session
}

// serve runs a session to its end.
func (s *Server) serve(c *Session) {
	if c.conn != nil {
		go c.read() // awaited by way of gone
		if c.on && !s.cfg.NoCards {
			_ = c.greet() // which logs it
		}
	}
	err := s.secure(c)
	if err == nil {
		c.beat.since.Store(c.now())
		err = s.protect(c)
		c.touch()
		c.beat.since.Store(0)
		c.beat.resume()
	}
	if c.conn != nil {
		c.in.close()
	}
	orderly := err == nil
	switch {
	case orderly:
		s.stats.finished.Add(1)
	case errors.Is(err, ErrHandOver), c.expelled.Load():
		s.stats.handedOver.Add(1)
		c.dismiss()
		orderly = true
	case errors.Is(err, ErrCookieRefused):
		s.stats.failed.Add(1)
		orderly = true
	case c.ctx.Err() == nil && !ofConnection(err):
		s.stats.failed.Add(1)
		s.warn("failed", &c.Control, err, "the handler has failed")
	default:
		s.stats.failed.Add(1)
		s.log.WithError(err).WithFields(logrus.Fields{"session": c.number, "user": c.remote}).Debug("session failed")
	}
	if closeErr := c.close(orderly); closeErr != nil {
		s.log.WithError(closeErr).WithField("session", c.number).Debug("close session")
	}
	c.cancel(net.ErrClosed)
	<-c.gone
}

// ofConnection tells whether an error of a handler is about the user's connection, and not
// the handler's own, nor a panic, of which the log has told.
func ofConnection(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, framed.ErrCut, errHandshake, errPanic, context.Canceled} {
		if errors.Is(err, end) {
			return true
		}
	}
	var errno syscall.Errno
	var timeout net.Error
	return errors.As(err, &errno) || errors.As(err, &timeout)
}

var (
	errHandshake = errors.New("TLS")
	errPanic     = errors.New("panics")
)

// secure makes the handshake of TLS on a plain byte stream.
func (s *Server) secure(c *Session) error {
	stream, ok := c.stream.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, s.cfg.Handshake)
	defer cancel()
	if err := stream.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", errHandshake, err)
	}
	return nil
}

// protect calls the handler and makes an error of a panic.
func (s *Server) protect(c *Session) (err error) {
	defer s.recovered(&c.Control, "handler", &err)
	return s.handle(c)
}

// recovered makes an error of a panic of the application's, when it is deferred.
func (s *Server) recovered(c *Control, who string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = fmt.Errorf("%s %w: %v", who, errPanic, p)
	s.stats.panics.Add(1)
	s.log.WithFields(logrus.Fields{"session": c.number, "user": c.remote, "stack": string(debug.Stack())}).Error(*err)
}

const (
	// maxRefusing bounds the connections that stay to be told that there is no
	// room.
	maxRefusing = 256
	// turnAwayTime is how long they stay for what is under way.
	turnAwayTime = 100 * time.Millisecond
)

// turnAway tells a user to try another element.
func (s *Server) turnAway(session *Session, full error) {
	s.stats.refused.Add(1)
	s.warn("full", &session.Control, full, "session refused")
	switch {
	case session.conn == nil:
		session.cancel(ErrDrained)
		_ = session.close(false) // there is nobody to tell
		return
	case s.refusing >= maxRefusing:
		// Who sees a reset would report the element as dead. What is said first on a
		// connection finds room, so that the loop does not wait.
		close(session.gone)
		session.cancel(ErrDrained)
		if !session.on || session.sendAway() != nil {
			_ = session.conn.Abort() // there is nobody to tell
			return
		}
		_ = session.conn.Close() // there is nobody to tell
		return
	}
	s.refusing++
	go func() { // awaited by the loop, by way of refusing
		go session.read()
		session.dismiss()
		select { // the user begins with a cookie, which had better not fail
		case <-session.gone:
		case <-time.After(turnAwayTime):
		}
		session.cancel(ErrDrained)
		_ = session.close(true) // there is nobody to tell
		<-session.gone
		s.post(func() { s.refusing-- })
	}()
}

// end is where users connect.
type end struct {
	listeners []transport.Listener
	streams   []net.Listener // plain ones
	user      param.Transport
}

func (e *end) close() error {
	var errs []error
	for _, l := range e.listeners {
		errs = append(errs, l.Close())
	}
	for _, l := range e.streams {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// accept takes the users' connections until ctx ends.
func (s *Server) accept(ctx context.Context, e *end) {
	var all sync.WaitGroup
	defer all.Wait()
	take := func(next func() (arrival, error)) {
		for {
			a, err := next()
			switch {
			case err == nil:
				select {
				case s.arrivals <- a:
				case <-s.done:
					_ = a.close() // there is nobody to tell
				}
			case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
				return
			default:
				s.warn("accept", nil, err, "accept a session")
				select {
				case <-time.After(acceptPause):
				case <-ctx.Done():
				}
			}
		}
	}
	for _, l := range e.listeners {
		all.Go(func() {
			take(func() (arrival, error) {
				conn, err := l.Accept(ctx)
				if err == nil && l.Network() != transport.TCP {
					conn = framed.Over(conn)
				}
				return arrival{conn: conn}, err
			})
		})
	}
	for _, l := range e.streams {
		all.Go(func() {
			take(func() (arrival, error) {
				stream, err := l.Accept()
				return arrival{stream: stream}, err
			})
		})
	}
}

func (a arrival) close() error {
	if a.conn != nil {
		return a.conn.Abort()
	}
	return a.stream.Close()
}
