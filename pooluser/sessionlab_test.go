package pooluser_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/pooluser"
)

const appPPID = 40

// peer is an element that speaks the session framing. It records what it gets, as
// "40 data", "echo cookie" or "card ...", and answers data by the same with its number.
type peer struct {
	l    *lab
	id   param.PEID
	name string
	done sync.WaitGroup

	mu     sync.Mutex
	got    []string
	cookie bool // it sends a cookie after each answer
	mute   bool // it does not answer
	conns  []transport.Conn
}

// peers starts elements by TCP and puts them into the pool.
func (l *lab) peers(n int) []*peer {
	l.t.Helper()
	var out []*peer
	var ids []param.PEID
	for i := range n {
		p := &peer{l: l, id: param.PEID(i + 1), name: address(param.PEID(i + 1)).String()}
		p.start()
		out, ids = append(out, p), append(ids, p.id)
	}
	l.setPool(pool, param.RoundRobin, ids...)
	return out
}

func (p *peer) start() {
	p.l.t.Helper()
	socket, err := p.l.net.Host(p.name).ListenStream(p.l.t.Context(), "tcp", fmt.Sprintf("%s:%d", p.name, service))
	if err != nil {
		p.l.t.Fatal(err)
	}
	p.serve(framed.NewListener(socket, framed.Options{}))
}

// serve accepts connections until the test ends.
func (p *peer) serve(listener transport.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	p.l.t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Abort()
		}
		p.mu.Unlock()
		p.done.Wait()
	})
	p.done.Go(func() {
		for {
			c, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			p.done.Go(func() { p.converse(ctx, c) })
		}
	})
}

func (p *peer) converse(ctx context.Context, c transport.Conn) {
	buf := make([]byte, transport.MaxMessage)
	for n := 1; ; n++ {
		m, err := c.Receive(ctx, buf)
		switch {
		case err != nil:
			p.note(fmt.Sprintf("end %v", simple(err)))
			return
		case m.PPID == transport.PPIDASAP:
			n--
			p.control(c, m.Data)
			continue
		}
		p.note(fmt.Sprintf("%d %s", m.PPID, m.Data))
		p.mu.Lock()
		mute, cookie := p.mute, p.cookie
		p.mu.Unlock()
		if !mute {
			p.say(c, fmt.Sprintf("%s from %d", m.Data, p.id))
		}
		if cookie {
			p.tell(c, &asap.Cookie{Cookie: fmt.Appendf(nil, "%s at %d", m.Data, p.id)})
		}
	}
}

// simple takes the addresses out of an error.
func simple(err error) string {
	text := err.Error()
	return text[strings.LastIndex(": "+text, ": "):]
}

func (p *peer) control(c transport.Conn, data []byte) {
	m, _, err := asap.Decode(data)
	if err != nil {
		p.l.t.Errorf("element %v: %v", p.id, err)
	}
	switch m := m.(type) {
	case *asap.CookieEcho:
		p.note("echo " + string(m.Cookie))
	case *asap.BusinessCard:
		p.note(fmt.Sprintf("card of %s, %d elements", m.Handle, len(m.Elements)))
	case *asap.Error:
		p.note(fmt.Sprintf("error %v", m.Causes))
	default:
		p.l.t.Errorf("element %v got %T", p.id, m)
	}
}

func (p *peer) note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, s)
}

func (p *peer) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// last returns the latest connection.
func (p *peer) last() transport.Conn {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) == 0 {
		p.l.t.Fatalf("element %v has no connection", p.id)
	}
	return p.conns[len(p.conns)-1]
}

func (p *peer) say(c transport.Conn, text string) {
	_ = c.Send(p.l.t.Context(), transport.Message{Data: []byte(text), PPID: appPPID}) // the user may be gone
}

// tell sends a message on the control channel.
func (p *peer) tell(c transport.Conn, m asap.Message) {
	data, err := m.Append(nil)
	if err != nil {
		p.l.t.Error(err)
	}
	_ = c.Send(p.l.t.Context(), transport.Message{Data: data, PPID: transport.PPIDASAP})
}

// want compares what the element has got, and forgets it.
func (p *peer) want(t testing.TB, want ...string) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.got, want) {
		t.Errorf("element %v got %q, want %q", p.id, p.got, want)
	}
	p.got = nil
}

func (p *peer) kill()   { p.l.net.Kill(p.name) }
func (p *peer) freeze() { p.l.net.Freeze(p.name) }
func (p *peer) cut()    { p.l.net.Cut(p.name, userAt) }

// sessionUser returns a resolver whose TCP elements are on the network in memory.
func (l *lab) sessionUser() *pooluser.Resolver {
	return l.user(func(c *pooluser.Config) { c.DialStream = l.net.Host(userAt).DialStream })
}

// inSession runs a story with a registrar and elements 1 to n in the pool, by Round
// Robin.
func inSession(t *testing.T, n int, story func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver)) {
	t.Helper()
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		peers := l.peers(n)
		story(t, l, home, peers, l.sessionUser())
	})
}

func (l *lab) openSession(r *pooluser.Resolver, cfg pooluser.SessionConfig) *pooluser.Session {
	l.t.Helper()
	if cfg.PPID == 0 {
		cfg.PPID = appPPID
	}
	if cfg.Timers == (pooluser.Timers{}) {
		cfg.Timers = pooluser.Fast
	}
	s, err := r.Open(l.t.Context(), pool, cfg)
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.t.Cleanup(func() { _ = s.Close() })
	return s
}

// within bounds a call in virtual time.
func (l *lab) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(l.t.Context(), d)
	l.t.Cleanup(cancel)
	return ctx
}

func (l *lab) sendTo(s *pooluser.Session, text string) {
	l.t.Helper()
	if err := s.Send(l.within(10*time.Second), pooluser.Message{Data: []byte(text)}); err != nil {
		l.t.Errorf("send %q: %v", text, err)
	}
}

// next returns what Receive gives: data, or "[notification]".
func (l *lab) next(s *pooluser.Session) string {
	m, err := s.Receive(l.within(10 * time.Second))
	switch n := m.Notification; {
	case err != nil:
		return "error " + simple(err)
	case n == nil:
		return string(m.Data)
	case n.Err != nil:
		return fmt.Sprintf("[%v %d: %s]", n.Kind, n.Element.ID, simple(n.Err))
	default:
		return fmt.Sprintf("[%v %d]", n.Kind, n.Element.ID)
	}
}

func (l *lab) wantNext(s *pooluser.Session, want ...string) {
	l.t.Helper()
	for _, w := range want {
		if got := l.next(s); got != w {
			l.t.Errorf("received %q, want %q", got, w)
		}
	}
}

// wantNothing checks that nothing comes for a while.
func (l *lab) wantNothing(s *pooluser.Session) {
	l.t.Helper()
	if m, err := s.Receive(l.within(time.Second)); !errors.Is(err, context.DeadlineExceeded) {
		l.t.Errorf("received %q, %+v, %v; want nothing", m.Data, m.Notification, err)
	}
}

// scripted starts an element by TCP that serves each connection so.
func (l *lab) scripted(id param.PEID, serve func(c net.Conn)) {
	l.t.Helper()
	name := address(id).String()
	socket, err := l.net.Host(name).ListenStream(l.t.Context(), "tcp", fmt.Sprintf("%s:%d", name, service))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.net.Kill(name) })
	go func() {
		for c, err := socket.Accept(); err == nil; c, err = socket.Accept() {
			go serve(c)
		}
	}()
}

// inFrames serves a connection in the session framing.
func inFrames(serve func(c *framed.Conn)) func(net.Conn) {
	return func(stream net.Conn) {
		if c, err := framed.Server(context.Background(), stream, framed.Options{}); err == nil {
			serve(c)
		}
	}
}

// dies reads a message and goes without a word.
func dies(c *framed.Conn) {
	_, _ = c.Next(context.Background())
	_ = c.Abort()
}

// reset ends a stream as the kernel of a process does that was killed with data unread.
func reset(c net.Conn) { _ = transport.Reset(c) }

var _ net.Conn = (*pooluser.Stream)(nil)
