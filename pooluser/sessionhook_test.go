package pooluser_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/pooluser"
)

// A hook that goes on after its element has failed is waited for before it is called for
// the next one.
func TestOneHookAtATime(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, _ *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		var running, calls atomic.Int32
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default, OnFailover: func(_ context.Context, f *pooluser.Failover) error {
			if running.Add(1) > 1 {
				t.Error("two hooks of one session at once")
			}
			defer running.Add(-1)
			if calls.Add(1) == 1 {
				peers[1].kill()
				time.Sleep(5 * time.Second) // whatever its context says
			}
			return nil
		}})
		peers[0].kill()
		start := time.Now()
		l.sendTo(s, "x")
		l.wantNext(s, "x from 3")
		if took := time.Since(start); took < 5*time.Second || calls.Load() != 2 {
			t.Errorf("after %v and %d hooks", took, calls.Load())
		}
	})
}

func TestHooksThatHangEndTheSession(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, _ *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		release := make(chan struct{})
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Fast, OnFailover: func(_ context.Context, f *pooluser.Failover) error {
			peers[1].kill()
			<-release
			return nil
		}})
		peers[0].kill()
		_, err := s.Receive(l.within(time.Minute))
		if !errors.Is(err, pooluser.ErrFailoverTime) || !errors.Is(err, pooluser.ErrHookRuns) {
			t.Errorf("the session ends with %v", err)
		}
		close(release)
	})
}

// A hook that sends by the session in place of its Failover would wait for itself.
func TestHooksCannotUseTheSession(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		other := l.openSession(r, pooluser.SessionConfig{}) // with element 1
		var s *pooluser.Session
		var took time.Duration
		s = l.openSession(r, pooluser.SessionConfig{OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			start := time.Now()
			within, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			m, err := s.Receive(within)
			if string(m.Data) != "a from 2" || err != nil {
				t.Errorf("what came before: %q, %v", m.Data, err)
			}
			_, err = s.Receive(within)
			for _, err := range []error{err, s.Send(within, pooluser.Message{Data: []byte("log in")}), s.SendCard(within, pool, element(1))} {
				if !errors.Is(err, pooluser.ErrInHook) {
					t.Errorf("the hook gets %v", err)
				}
			}
			if err := other.Send(ctx, pooluser.Message{Data: []byte("x")}); err != nil {
				t.Errorf("by another session: %v", err)
			}
			took = time.Since(start)
			return nil
		}})
		l.sendTo(s, "a")
		peers[1].last()
		peers[1].kill()
		sleep(time.Second)
		synctest.Wait()
		if took != 0 {
			t.Errorf("after %v", took)
		}
		l.sendTo(s, "b")
		l.wantNext(s, "b from 3")
	})
}

// deaf is a connection that can't be written to any more; what comes still comes.
type deaf struct{ net.Conn }

func (c deaf) Write(p []byte) (int, error) {
	if len(p) > 8 { // not the preamble
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// The element is to blame when its connection fails under a hook, though nothing has
// been read from it yet that says so.
func TestASAP_3_5_01_ElementsThatFailUnderAHookAreReported(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, _ *pooluser.Resolver) {
		r := l.user(func(c *pooluser.Config) {
			c.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := l.net.Host(userAt).DialStream(ctx, network, address)
				if err == nil && address == fmt.Sprintf("%s:%d", peers[1].name, service) {
					conn = deaf{conn}
				}
				return conn, err
			}
		})
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default, OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			return f.Send(ctx, pooluser.Message{Data: []byte("password")})
		}})
		peers[0].kill()
		l.sendTo(s, "x")
		l.wantNext(s, "password from 3", "x from 3")
		l.wantReports(home, 1, 2)
	})
}

// What a hook can't send anywhere says nothing about the element.
func TestHooksThatSendNonsenseBlameNobody(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{MaxMessage: 100, OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			if f.To.ID == 3 {
				return nil
			}
			return f.Send(ctx, pooluser.Message{Data: make([]byte, 101)})
		}})
		peers[0].kill()
		l.sendTo(s, "x")
		l.wantNext(s, "x from 3")
		l.wantReports(home, 1)
	})
}
