package poolelement

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/transport"
)

func TestServeRegistersAndEchoes(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, echo)
		reg, _ := expect[*asap.Registration](t, w.a)
		if reg.Handle != pool || reg.Element.User.Port != 7000 || reg.Element.User.Type != transportTypes[network] ||
			len(reg.Element.User.Addrs) != 1 || reg.Element.User.Addrs[0].String() != elementAddr {
			t.Errorf("registered %+v", reg)
		}
		u := w.dial(network)
		u.send("hello")
		u.expect("hello")
		if got := s.server.Stats(); got.Sessions != 1 || got.Opened != 1 {
			t.Errorf("%+v", got)
		}
		u.conn.Close()
		synctest.Wait()
		if got := s.server.Stats(); got.Sessions != 0 || got.Finished != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAPanicEndsItsSessionOnly(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, func(ctx context.Context, s *Session) error {
			in, err := s.Receive(ctx)
			if err == nil && string(in.Data) == "die" {
				panic("as told")
			}
			return err
		})
		other, u := w.dial(network), w.dial(network)
		u.send("die")
		if _, err := u.next(); err == nil || err == io.EOF {
			t.Errorf("user sees %v, want a failure", err)
		}
		synctest.Wait()
		if got := s.server.Stats(); got.Panics != 1 || got.Failed != 1 || got.Sessions != 1 {
			t.Errorf("%+v", got)
		}
		if !strings.Contains(s.log.String(), "handler panics: as told") || !strings.Contains(s.log.String(), "serve_test.go") {
			t.Errorf("the log does not tell of the panic: %s", s.log)
		}
		other.send("live")
		other.expectEnd(io.EOF)
	})
}

// What a handler fails by itself is in the log, however many sessions it fails, and not
// that users go.
func TestFailuresOfHandlersAreLogged(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, func(ctx context.Context, s *Session) error {
			in, err := s.Receive(ctx)
			if err == nil && string(in.Data) == "nonsense" {
				err = errors.New("not understood")
			}
			return err
		})
		for range 10 {
			w.dial(network).conn.Abort()
		}
		synctest.Wait()
		if log := s.log.String(); strings.Contains(log, "failed") {
			t.Errorf("users that go are logged: %s", log)
		}
		for range 10 {
			w.dial(network).send("nonsense")
		}
		synctest.Wait()
		if log := s.log.String(); strings.Count(log, "the handler has failed") != 1 || !strings.Contains(log, "not understood") {
			t.Errorf("log: %s", log)
		}
		if got := s.server.Stats(); got.Failed != 20 {
			t.Errorf("%+v", got)
		}
	})
}

func TestDrainLetsSessionsFinish(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, echo)
		expect[*asap.Registration](t, w.a)
		u := w.dial(network)
		u.send("before")
		u.expect("before")
		s.stop()
		expect[*asap.Deregistration](t, w.a)
		synctest.Wait()
		u.send("after")
		u.expect("after")
		if _, err := w.tryDial(network); err == nil {
			t.Error("a new session was accepted while draining")
		}
		u.conn.Close()
		began := time.Now()
		s.end()
		if d := time.Since(began); d > time.Second {
			t.Errorf("ended %v after its last session", d)
		}
	})
}

// A session that ends while its user has sent more than the queue holds hears of the
// user's end all the same, and is not kept for its limit.
func TestEndOfASessionWithAFullQueue(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, func(c *ServeConfig) { c.Queue = 1000 }, func(ctx context.Context, s *Session) error {
			if _, err := s.Receive(ctx); err != nil {
				return err
			}
			time.Sleep(time.Second) // the queue fills up
			return s.Send(ctx, transport.Message{Data: []byte("enough")})
		})
		u := w.dial(network)
		for range 10 {
			u.send(strings.Repeat("x", 900))
		}
		u.expect("enough")
		u.expectEnd(io.EOF)
		u.conn.Close()
		synctest.Wait()
		if n := s.server.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions after the user's end", n)
		}
	})
}
