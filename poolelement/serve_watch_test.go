package poolelement

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// pinger is the user's side of heartbeats.
type pinger interface {
	Ping(context.Context) error
}

// alive tells whether the user's heartbeats are answered.
func (u *user) alive() bool {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	received := make(chan struct{})
	go func() { // answers are received like everything else
		defer close(received)
		u.conn.Receive(ctx, make([]byte, transport.MaxMessage))
	}()
	err := u.conn.(pinger).Ping(ctx)
	cancel()
	<-received
	return err == nil
}

// keepAlive sends a keep-alive and tells whether it is answered at once.
func (s *served) keepAlive() bool {
	s.t.Helper()
	s.a.mu.Lock()
	conn := s.a.conns[len(s.a.conns)-1]
	s.a.mu.Unlock()
	s.a.send(conn, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool})
	select {
	case got := <-s.a.got:
		if _, ok := got.msg.(*asap.EndpointKeepAliveAck); !ok {
			s.t.Fatalf("registrar got %T", got.msg)
		}
		return true
	case <-time.After(time.Second):
		return false
	}
}

func TestAHandlerThatHangsIsFound(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		release := make(chan struct{})
		s := w.serve(network, func(c *ServeConfig) { c.HandlerLimit = 10 * time.Second }, func(ctx context.Context, s *Session) error {
			for {
				in, err := s.Receive(ctx)
				if err != nil {
					return nil
				}
				if string(in.Data) == "hang" {
					<-release
				}
				s.Send(ctx, in.Message)
			}
		})
		expect[*asap.Registration](t, w.a)
		u, other := w.dial(network), w.dial(network)
		u.send("hang")
		time.Sleep(5 * time.Second)
		if !u.alive() || !s.keepAlive() {
			t.Error("not alive though busy for a short time only")
		}
		other.send("work")
		other.expect("work")
		time.Sleep(8 * time.Second)
		if u.alive() {
			t.Error("heartbeats are answered though the handler hangs")
		}
		if !other.alive() || !s.keepAlive() {
			t.Error("another session gets on, but seems dead")
		}
		time.Sleep(10 * time.Second)
		if s.keepAlive() {
			t.Error("keep-alive answered though no handler gets on")
		}
		if !other.alive() {
			t.Error("a session whose handler waits seems dead")
		}
		if got := s.server.Stats(); got.Overdue != 1 || got.KeepAlivesHeld != 1 {
			t.Errorf("%+v", got)
		}
		if !strings.Contains(s.log.String(), "handler is busy") || !strings.Contains(s.log.String(), "service hangs") {
			t.Errorf("log: %s", s.log)
		}

		close(release)
		u.expect("hang")
		expect[*asap.EndpointKeepAliveAck](t, w.a) // the one that was held
		if !s.keepAlive() || !u.alive() {
			t.Error("not alive after it has gone on")
		}
	})
}

func TestAHandlerThatGivesSignsIsAlive(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, func(c *ServeConfig) { c.HandlerLimit = 10 * time.Second }, func(ctx context.Context, s *Session) error {
			if _, err := s.Receive(ctx); err != nil {
				return nil
			}
			for range 20 { // a long computation
				time.Sleep(4 * time.Second)
				s.Beat()
			}
			_, err := s.Receive(ctx)
			return err
		})
		expect[*asap.Registration](t, w.a)
		u := w.dial(network)
		u.send("compute")
		for range 5 {
			time.Sleep(12 * time.Second)
			if !u.alive() || !s.keepAlive() {
				t.Fatal("taken to hang")
			}
		}
	})
}

func TestAUserThatDoesNotReadHangsNobody(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, func(c *ServeConfig) { c.HandlerLimit = 10 * time.Second }, func(ctx context.Context, s *Session) error {
			if _, err := s.Receive(ctx); err != nil {
				return nil
			}
			for {
				if err := s.Send(ctx, transport.Message{Data: make([]byte, 60000)}); err != nil {
					return err
				}
			}
		})
		expect[*asap.Registration](t, w.a)
		u := w.dial(network)
		u.send("all of it")
		time.Sleep(30 * time.Second)
		if !s.keepAlive() {
			t.Error("the service seems dead")
		}
		if got := s.server.Stats(); got.Overdue != 0 {
			t.Errorf("%+v", got)
		}
		u.conn.Abort()
	})
}

func TestKeepAlivesWhileTheServiceHangs(t *testing.T) {
	// The element's registration is not repeated, and is when it goes on.
	inWorld(t, func(t *testing.T, w *world) {
		var hangs atomic.Bool
		held := make(chan func(), 1)
		w.startA().oblige()
		e := w.element(func(c *Config) {
			c.Life, c.Reregister = 300, 30*time.Second
			c.KeepAlive = func(answer func()) {
				if hangs.Load() {
					held <- answer
					return
				}
				answer()
			}
		})
		_, got := expect[*asap.Registration](t, w.a)
		w.state(e, Registered)
		w.a.send(got.conn, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool})
		expect[*asap.EndpointKeepAliveAck](t, w.a)
		hangs.Store(true)
		w.a.send(got.conn, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool})
		w.a.expectNothing(t, 2*time.Minute)
		(<-held)()
		expect[*asap.EndpointKeepAliveAck](t, w.a)
		expect[*asap.Registration](t, w.a)
	})
}

func TestHealthDecidesOnThePool(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ill := errors.New("no disk")
		health := atomic.Pointer[error]{}
		health.Store(&ill)
		s := w.serve(transport.TCP, func(c *ServeConfig) {
			c.Health = func(context.Context) error { return *health.Load() }
		}, echo)
		w.a.expectNothing(t, 10*time.Second)
		well := error(nil)
		health.Store(&well)
		expect[*asap.Registration](t, w.a)
		u := w.dial(transport.TCP)
		health.Store(&ill)
		expect[*asap.Deregistration](t, w.a)
		u.send("sessions go on")
		u.expect("sessions go on")
		if !strings.Contains(s.log.String(), "no disk") {
			t.Errorf("log: %s", s.log)
		}
	})
}

func TestAHealthCheckThatHangsIsFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var lock atomic.Bool
		release := make(chan struct{})
		s := w.serve(transport.TCP, func(c *ServeConfig) {
			c.Health = func(context.Context) error {
				if lock.Load() {
					<-release
				}
				return nil
			}
		}, echo)
		expect[*asap.Registration](t, w.a)
		time.Sleep(time.Minute)
		if !s.keepAlive() {
			t.Error("a healthy server does not answer")
		}
		lock.Store(true)
		time.Sleep(5 * time.Second)
		if s.keepAlive() {
			t.Error("keep-alive answered though the check hangs")
		}
		lock.Store(false)
		close(release)
		expect[*asap.EndpointKeepAliveAck](t, w.a)
	})
}

func TestAQueueThatIsFullHoldsTheUserBack(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		const size, total = 10000, 200
		release := make(chan struct{})
		var got atomic.Int32
		w.net.Buffer = 4 * size
		w.serve(network, func(c *ServeConfig) { c.Queue = 5 * size }, func(ctx context.Context, s *Session) error {
			<-release
			for {
				in, err := s.Receive(ctx)
				if err != nil {
					return nil
				}
				if len(in.Data) == size && in.Data[0] == byte(got.Load()) {
					got.Add(1)
				}
			}
		})
		u := w.dial(network)
		var sent atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range total {
				data := make([]byte, size)
				data[0] = byte(i)
				if err := u.conn.Send(context.Background(), transport.Message{Data: data}); err != nil {
					return
				}
				sent.Add(1)
			}
		}()
		synctest.Wait()
		if n := sent.Load(); n > 12 {
			t.Errorf("%d messages taken though nobody takes them", n)
		}
		close(release)
		<-done
		synctest.Wait()
		if got.Load() != total {
			t.Errorf("%d messages of %d came, in order", got.Load(), total)
		}
	})
}

func TestStrangersOnTheSessionPort(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve(transport.TCP, nil, echo)
		stream := w.dialStream(transport.TCP)
		stream.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		silent := w.dialStream(transport.TCP)
		time.Sleep(defaultHandshake + time.Second)
		if got := s.server.Stats(); got.Handshakes != 2 || got.Opened != 0 {
			t.Errorf("%+v", got)
		}
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("a silent connection stays open")
		}
		if !strings.Contains(s.log.String(), framed.ErrNoFraming.Error()) {
			t.Errorf("log: %s", s.log)
		}
	})
}

func TestAServingLoopThatHangsIsFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var stuck atomic.Bool
		release := make(chan struct{})
		s := w.serve(transport.TCP, func(c *ServeConfig) {
			c.Load = func() float64 { // called by the loop
				if stuck.Load() {
					<-release
				}
				return 0
			}
		}, echo)
		expect[*asap.Registration](t, w.a)
		if !s.keepAlive() {
			t.Error("a server that works does not answer")
		}
		stuck.Store(true)
		time.Sleep(3 * time.Second)
		if s.keepAlive() {
			t.Error("keep-alive answered though the loop hangs")
		}
		stuck.Store(false)
		close(release)
		expect[*asap.EndpointKeepAliveAck](t, w.a)
		u := w.dial(transport.TCP)
		u.send("hello")
		u.expect("hello")
	})
}
