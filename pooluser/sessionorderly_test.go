package pooluser_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/pooluser"
)

// say sends a message as an element.
func say(c transport.Conn, text string) {
	_ = c.Send(context.Background(), transport.Message{Data: []byte(text), PPID: appPPID})
}

// What the new element says before its orderly end is received, also when the hook goes on
// for longer than that takes: nobody takes half of a stream for the whole.
func TestRestThatComesDuringTheHook(t *testing.T) {
	for name, c := range map[string]struct {
		control       bool
		first, second func(net.Conn)
	}{
		"plain": {
			first: func(c net.Conn) {
				_, _ = io.WriteString(c, "first half, ")
				time.Sleep(time.Second)
				reset(c)
			},
			second: func(c net.Conn) {
				_, _ = c.Read(make([]byte, 100))
				_, _ = io.WriteString(c, "second half")
				_ = c.Close()
			},
		},
		"framed": {
			control: true,
			first: inFrames(func(c *framed.Conn) {
				say(c, "first half, ")
				time.Sleep(time.Second)
				_ = c.Abort()
			}),
			second: inFrames(func(c *framed.Conn) {
				_, _ = c.Next(context.Background())
				say(c, "second half")
				_ = c.Close()
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				home := l.registrar(home1)
				l.scripted(1, c.first)
				l.scripted(2, c.second)
				l.setPool(pool, param.RoundRobin, 1, 2)
				st := l.openStream(l.sessionUser(), pooluser.StreamConfig{Control: c.control, Resume: func(_ context.Context, f *pooluser.Failover) error {
					_, err := fmt.Fprintf(f, "from %d", f.Received)
					time.Sleep(pooluser.Fast.Silence + time.Second)
					return err
				}})
				if all, err := io.ReadAll(st); err != nil || string(all) != "first half, second half" {
					t.Errorf("read %q, %v", all, err)
				}
				l.wantReports(home, 1)
			})
		})
	}
}

// A hook that waits for more than the element says before its end hears of the end, and the
// session goes on with another element.
func TestHookHearsOfTheOrderlyEnd(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.scripted(1, inFrames(dies))
		l.scripted(2, inFrames(func(c *framed.Conn) {
			say(c, "hello")
			_ = c.Close()
		}))
		l.scripted(3, inFrames(func(c *framed.Conn) {
			say(c, "hello")
			say(c, "more")
			_ = c.Close()
		}))
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		var ends []error
		s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Notifications: true, OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			for range 2 {
				if _, err := f.Receive(ctx); err != nil {
					ends = append(ends, err)
					return err
				}
			}
			return nil
		}})
		l.sendTo(s, "x")
		l.wantNext(s, "[failover begun 1: connection reset by peer]", "[failed over 3]", "[shut down 3]", "error EOF")
		if len(ends) != 1 || ends[0] != io.EOF {
			t.Errorf("hooks heard of %v", ends)
		}
		l.wantReports(home, 1)
	})
}

// An element that ends in order before it has got what the hook says is not the end of the
// session.
func TestOrderlyEndBeforeTheHookIsThrough(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.scripted(1, func(c net.Conn) {
			_, _ = io.WriteString(c, "half, ")
			time.Sleep(time.Second)
			reset(c)
		})
		l.scripted(2, func(c net.Conn) { _ = c.Close() })
		l.scripted(3, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "rest")
			_ = c.Close()
		})
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{Resume: func(_ context.Context, f *pooluser.Failover) error {
			time.Sleep(100 * time.Millisecond)
			_, err := fmt.Fprintf(f, "from %d", f.Received)
			return err
		}})
		if all, err := io.ReadAll(st); err != nil || string(all) != "half, rest" {
			t.Errorf("read %q, %v", all, err)
		}
		l.wantReports(home, 1)
	})
}

// An element that says what it has to say and ends at once: the session, or stream, has that
// in it.
func TestElementThatEndsAtOnce(t *testing.T) {
	for range 50 { // the opening is through before the end, or not
		inLab(t, func(t *testing.T, l *lab) {
			home := l.registrar(home1)
			daytime := inFrames(func(c *framed.Conn) {
				say(c, "Sat Nov 21")
				_ = c.Close()
			})
			l.scripted(1, daytime)
			l.setPool(pool, param.RoundRobin, 1)
			r := l.sessionUser()
			s := l.openSession(r, pooluser.SessionConfig{})
			l.wantNext(s, "Sat Nov 21", "error EOF")
			st := l.openStream(r, pooluser.StreamConfig{Control: true})
			if all, err := io.ReadAll(st); err != nil || string(all) != "Sat Nov 21" {
				t.Errorf("read %q, %v", all, err)
			}
			l.wantReports(home)
		})
	}
}

// The end of a stream is never taken for that of another element's: who has no Resume hook
// hears of the failover first.
func TestFailoverIsToldBeforeTheEnd(t *testing.T) {
	for _, text := range []string{"", "rest"} {
		inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
			l.scripted(2, inFrames(func(c *framed.Conn) {
				if text != "" {
					say(c, text)
				}
				_ = c.Close()
			}))
			st := l.openStream(r, pooluser.StreamConfig{Control: true})
			l.setPool(pool, param.RoundRobin, 2)
			r.Purge(pool)
			peers[0].kill()
			time.Sleep(time.Second)
			var failover *pooluser.FailoverError
			if _, err := st.Read(make([]byte, 10)); !errors.As(err, &failover) || failover.To.ID != 2 {
				t.Fatalf("read: %v", err)
			}
			st.Continue()
			if all, err := io.ReadAll(st); err != nil || string(all) != text {
				t.Errorf("read %q, %v", all, err)
			}
		})
	}
}
