package poolelement

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

func TestDrainHandsSessionsOver(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.startA().oblige()
		s := w.serve(network, func(c *ServeConfig) { c.HandOver = true }, func(ctx context.Context, s *Session) error {
			for {
				in, err := s.Receive(ctx)
				switch {
				case err != nil:
					return err
				case in.Kind == Draining:
					return errors.Join(s.SaveState(ctx, []byte("so far")), ErrHandOver)
				}
			}
		})
		u := w.dial(network)
		w.a.know(element(1)) // joins later
		synctest.Wait()
		s.stop()
		if got := ids(expectASAP[*asap.BusinessCard](u)); len(got) != 1 || got[0] != 1 {
			t.Errorf("card with %v", got)
		}
		if state, err := sealer(t, pool).Open(expectASAP[*asap.Cookie](u).Cookie); err != nil || string(state) != "so far" {
			t.Errorf("state %q, %v", state, err)
		}
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseLackOfResources) {
			t.Errorf("causes %v", causes)
		}
		u.conn.Close()
		s.end()
		if got := s.server.Stats(); got.HandedOver != 1 || got.Expelled != 0 || got.Failed != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestDrainEndsWithItsTime(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		var got error
		var ended time.Time
		s := w.serve(network, func(c *ServeConfig) { c.DrainTimeout = 10 * time.Second }, func(ctx context.Context, s *Session) error {
			for {
				in, err := s.Receive(ctx)
				if err != nil {
					got, ended = err, time.Now()
					return err
				}
				if in.Kind == Data && ctx.Err() == nil {
					s.Send(ctx, in.Message)
				}
			}
		})
		u := w.dial(network)
		synctest.Wait() // until it is accepted
		began := time.Now()
		s.stop()
		time.Sleep(9 * time.Second)
		u.send("still")
		u.expect("still")
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseLackOfResources) {
			t.Errorf("causes %v", causes)
		}
		u.expectEnd(io.EOF)
		s.end()
		if !errors.Is(got, ErrDrained) || ended.Sub(began) != 10*time.Second {
			t.Errorf("the handler got %v after %v", got, ended.Sub(began))
		}
		if got := s.server.Stats(); got.Expelled != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestHandlersThatHangAreNamedAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		release := make(chan struct{})
		cfg := w.serveConfig(transport.TCP)
		cfg.DrainTimeout = time.Second
		s := w.run(cfg, func(c ServeConfig) (*Server, error) {
			return NewServer(c, HandlerFunc(func(context.Context, *Session) error {
				<-release
				return nil
			}))
		})
		u := w.dial(transport.TCP)
		synctest.Wait()
		s.stop()
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseLackOfResources) {
			t.Errorf("causes %v", causes)
		}
		u.expectEnd(io.EOF)
		if err := <-s.result; !errors.Is(err, ErrHandlersHang) {
			t.Errorf("Run: %v, want ErrHandlersHang", err)
		}
		close(release)
	})
}

func TestDrainWithoutRegistrar(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Millisecond} { // shorter than the registrar is waited for
		inWorld(t, func(t *testing.T, w *world) {
			s := w.serve(transport.TCP, func(c *ServeConfig) { c.DrainTimeout = limit }, echo)
			w.a.close()
			began := time.Now()
			s.stop()
			if err := <-s.result; !errors.Is(err, ErrStopTimeout) {
				t.Errorf("Run: %v, want ErrStopTimeout", err)
			}
			s.result <- nil
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestAFullServerSendsUsersOn(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, func(c *ServeConfig) { c.MaxSessions = 2 }, echo)
		reg, _ := expect[*asap.Registration](t, w.a)
		if reg.Element.Policy.Load != 0 {
			t.Errorf("load %#x at first", reg.Element.Policy.Load)
		}
		one, two := w.dial(network), w.dial(network)
		one.send("in")
		one.expect("in")
		two.send("in")
		two.expect("in")
		if reg, _ = expect[*asap.Registration](t, w.a); reg.Element.Policy.Load != param.MaxLoad {
			t.Errorf("load %#x when full", reg.Element.Policy.Load)
		}
		three := w.dial(network)
		three.sendASAP(&asap.CookieEcho{Cookie: []byte("x")}) // too early to know
		if causes := expectASAP[*asap.Error](three).Causes; !causes.Has(param.CauseLackOfResources) {
			t.Errorf("causes %v", causes)
		}
		three.expectEnd(io.EOF)
		one.conn.Close()
		synctest.Wait()
		four := w.dial(network)
		four.send("in")
		four.expect("in")
		if got := s.server.Stats(); got.Refused != 1 || got.Opened != 3 || got.Sessions != 2 {
			t.Errorf("%+v", got)
		}
	})
}

func TestOneHostCannotTakeAllSessions(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, func(c *ServeConfig) { c.MaxPerAddress = 2 }, echo)
		one, two := w.dial(network), w.dial(network)
		for _, u := range []*user{one, two} {
			u.send("in")
			u.expect("in")
		}
		three := w.dial(network)
		if causes := expectASAP[*asap.Error](three).Causes; !causes.Has(param.CauseLackOfResources) {
			t.Errorf("causes %v", causes)
		}
		three.expectEnd(io.EOF)
		other, err := w.tryDialFrom("a", network)
		if err != nil {
			t.Fatal(err)
		}
		other.send("in")
		other.expect("in")
		one.conn.Close()
		synctest.Wait()
		four := w.dial(network)
		four.send("in")
		four.expect("in")
		if got := s.server.Stats(); got.Refused != 1 || got.Opened != 4 || !strings.Contains(s.log.String(), "2 sessions from 10.") {
			t.Errorf("%+v\n%s", got, s.log)
		}
	})
}

func TestHosts(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1:5", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:5", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:7", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:7", "fe80::/64"},
	} {
		if got := hostOf([]netip.AddrPort{netip.MustParseAddrPort(tt.addr), {}}).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.addr, got, tt.want)
		}
	}
	if hostOf(nil).IsValid() {
		t.Error("no address is a host")
	}
}

func TestTheGaugeSetsTheLoad(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var percent atomic.Int32
		percent.Store(50)
		w.serve(transport.TCP, func(c *ServeConfig) { c.Load = func() float64 { return float64(percent.Load()) / 100 } }, echo)
		expect[*asap.Registration](t, w.a)
		loads := func() uint32 {
			t.Helper()
			reg, _ := expect[*asap.Registration](t, w.a)
			return reg.Element.Policy.Load
		}
		if got := loads(); got != LoadOf(0.5) {
			t.Errorf("load %#x, want 50 %%", got)
		}
		percent.Store(51) // less than LoadStep away
		w.a.expectNothing(t, 10*time.Second)
		percent.Store(60)
		if got := loads(); got != LoadOf(0.6) {
			t.Errorf("load %#x, want 60 %%", got)
		}
	})
}

func TestTheShareOfSessionsIsTheLoad(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(transport.TCP, func(c *ServeConfig) { c.MaxSessions = 4 }, echo)
		expect[*asap.Registration](t, w.a)
		w.dial(transport.TCP)
		if reg, _ := expect[*asap.Registration](t, w.a); reg.Element.Policy.Load != LoadOf(0.25) {
			t.Errorf("load %#x, want 25 %%", reg.Element.Policy.Load)
		}
	})
}

// However many users don't read, the others' handlers hear of draining soon.
func TestUsersThatDoNotReadDoNotDelayDraining(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const full = 300
		w.startA().oblige()
		told := make(chan time.Time, 1)
		s := w.serve(transport.TCP, func(c *ServeConfig) {
			c.HandOver, c.DrainTimeout = true, 5*time.Second
		}, func(ctx context.Context, s *Session) error {
			if in, err := s.Receive(ctx); err != nil || string(in.Data) == "reads" {
				<-s.Draining()
				told <- time.Now()
				return err
			}
			for {
				if err := s.Send(ctx, transport.Message{Data: make([]byte, 10000), PPID: 7}); err != nil {
					return err
				}
			}
		})
		for range full {
			w.dial(transport.TCP).send("does not read")
		}
		w.dial(transport.TCP).send("reads")
		w.a.know(element(1))
		time.Sleep(time.Second)
		began := time.Now()
		s.stop()
		if took := (<-told).Sub(began); took > answerTime {
			t.Errorf("after %v, want %v at most", took, answerTime)
		}
	})
}

// A user that does not read is told to leave by the server, which gives up after a while, and
// by the handler's goroutine, which does so as well.
func TestADrainDoesNotWaitForUsersThatDoNotRead(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		full := make(chan struct{})
		s := w.serve(network, func(c *ServeConfig) { c.DrainTimeout = 100 * time.Millisecond }, func(ctx context.Context, s *Session) error {
			for _, size := range []int{3000, 1} { // until the user's buffer is full
				for err := error(nil); err == nil; {
					soon, stop := context.WithTimeout(ctx, 10*time.Millisecond)
					err = s.Send(soon, transport.Message{Data: make([]byte, size), PPID: 7})
					stop()
				}
			}
			close(full)
			<-ctx.Done()
			time.Sleep(answerTime + answerTime/2) // the server is telling the user
			return ctx.Err()
		})
		w.dial(network)
		<-full
		began := time.Now()
		s.end()
		if took, most := time.Since(began), 5*answerTime; took > most {
			t.Errorf("took %v, at most %v", took, most)
		}
	})
}

// Who sees a reset reports the element as dead, and some reports have a registrar remove it.
// So a full element tells all users, as many as come from one that has died.
func TestAFullServerSendsAllOnWhoComeTogether(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		const many = maxRefusing + 100
		s := w.serve(network, func(c *ServeConfig) { c.MaxSessions = 1 }, echo)
		one := w.dial(network)
		one.send("in")
		one.expect("in")
		began := time.Now()
		var all []*user
		for range many {
			all = append(all, w.dial(network))
		}
		if took := time.Since(began); took > turnAwayTime {
			t.Errorf("they come within %v", took)
		}
		for _, u := range all {
			if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseLackOfResources) {
				t.Errorf("causes %v", causes)
			}
			u.expectEnd(io.EOF)
		}
		if got := s.server.Stats(); got.Refused != many {
			t.Errorf("%+v", got)
		}
	})
}
