package pooluser_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/pooluser"
)

func TestASAP_6_5_5_01_DialTriesTheNextElement(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		l.fail(1, true)
		l.fail(2, true)
		r := l.user(nil)
		if got := l.dialOK(r); got != 3 {
			t.Errorf("connected to %v, want 3", got)
		}
		l.row("ASAP_3_5_01_FailedElementsAreReported", func(*row) { l.wantReports(home, 1, 2) })
		l.row("SM_PU_12_ReportThenTheNext", func(*row) { l.wantReports(home, 1, 2) })
		l.row("FailedElementsAreAvoidedUntilTheListIsRenewed", func(t *row) {
			l.fail(1, false)
			l.fail(2, false)
			for range 5 {
				if got := l.dialOK(r); got != 3 {
					t.Errorf("connected to %v, want 3", got)
				}
			}
			l.wantReports(home, 1, 2)
			sleep(30 * time.Second)
			l.wantAnswer(r, 1, 2, 3)
			synctest.Wait()
			if got := l.dialOK(r); got != 1 {
				t.Errorf("connected to %v, want 1 after a new answer", got)
			}
		})
	})
}

func TestASAP_3_5_03_OneReportPerFailure(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		conn, err := r.Dial(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := conn.Failed(t.Context()); err != nil {
				t.Error(err)
			}
		}
		l.wantReports(home, 1)
		l.row("ASAP_3_5_04_OnlyElementsThatWereAskedFor", func(t *row) {
			for _, id := range []param.PEID{1, 2} {
				if sent, err := r.Report(t.Context(), pool, id); sent || err != nil {
					t.Errorf("element %v: reported %v, %v", id, sent, err)
				}
			}
			if sent, err := r.Report(t.Context(), "other", 1); sent || err != nil {
				t.Errorf("other pool: reported %v, %v", sent, err)
			}
			l.wantReports(home, 1)
		})
		l.row("AnotherFailureIsAnotherReport", func(t *row) {
			conn, err := r.Dial(t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Failed(t.Context()); err != nil {
				t.Error(err)
			}
			l.wantReports(home, 1, 1)
		})
		if r.Stats().Reports != 2 {
			t.Errorf("stats %+v", r.Stats())
		}
	})
}

func TestASAP_6_7_01_DialErrorListsWhatWasTried(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		l.fail(1, true)
		l.freeze(2)
		r := l.user(func(c *pooluser.Config) { c.MaxTries = 4 })
		start := time.Now()
		_, err := r.Dial(t.Context(), pool)
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || len(failure.Attempts) != 4 || failure.Err != nil {
			t.Fatalf("error %v, want four attempts", err)
		}
		var tried []param.PEID
		for _, a := range failure.Attempts {
			tried = append(tried, a.Element.ID)
		}
		if !slices.Equal(tried, []param.PEID{1, 2, 1, 1}) { // 2 failed a moment ago
			t.Errorf("tried %v", tried)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v does not say why", err)
		}
		for _, part := range []string{"192.0.2.1:8000", "192.0.2.2:8000", "refused"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %s", err, part)
			}
		}
		if took := time.Since(start); took < 5125*time.Millisecond || took > 5250*time.Millisecond {
			t.Errorf("took %v, want a time-out of 5 s and a pause of up to 250 ms", took)
		}
	})
}

// Elements that take connections and do no more, and a registrar that goes on
// listing them, must not make users turn in a circle at full speed.
func TestFailingElementsAreRetriedAfterAPauseOnly(t *testing.T) {
	for name, stale := range map[string]time.Duration{"cache": 0, "no cache": -1} {
		inLab(t, func(t *testing.T, l *lab) {
			l.registrar(home1)
			l.setPool(pool, param.RoundRobin, 1, 2)
			r := l.user(func(c *pooluser.Config) { c.Stale = stale })
			n := 0
			for start := time.Now(); time.Since(start) < 10*time.Second; n++ {
				conn, err := r.Dial(t.Context(), pool)
				if err != nil {
					t.Fatal(err)
				}
				if err := conn.Failed(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n < 2*10*4 || n > 2*10*8 {
				t.Errorf("%s: %d attempts in 10 s, want 2 per 125 to 250 ms", name, n)
			}
		})
	}
}

func TestFailedElementIsAvoidedWithoutCacheToo(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.Priority, 1, 2)
		l.pools[pool].Elements[0].Policy.Priority = 9
		l.fail(1, true)
		r := l.user(func(c *pooluser.Config) { c.Stale = -1 })
		if got := l.dialOK(r); got != 2 {
			t.Errorf("connected to %v, want 2 although each answer prefers 1", got)
		}
	})
}

func TestDialEndsWithItsContextAndBlamesNobody(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		l.freeze(1)
		r := l.user(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Dial(ctx, pool)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline", err)
		}
		l.wantReports(home)
	})
}

func TestOwnFaultsBlameNobody(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(func(c *pooluser.Config) {
			c.DialStream = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
			}
		})
		_, err := r.Dial(t.Context(), pool)
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || len(failure.Attempts) != 1 {
			t.Errorf("error %v, want one attempt", err)
		}
		if n := strings.Count(err.Error(), syscall.EMFILE.Error()); n != 1 {
			t.Errorf("%q says why %d times", err, n)
		}
		l.wantReports(home)
	})
}

func TestElementsBeyondTheOwnNetworkAreAvoidedAndBlameless(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(func(c *pooluser.Config) {
			c.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "192.0.2.1:") {
					return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
				}
				return l.dial(ctx, network, address)
			}
		})
		for range 5 {
			if got := l.dialOK(r); got != 2 {
				t.Errorf("connected to %v, want 2", got)
			}
		}
		_, err := r.DialElement(t.Context(), pool, 1)
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("error %v, want ENETUNREACH", err)
		}
		l.wantReports(home)
	})
}

func TestDialOfUnknownPool(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.user(nil)
		if _, err := r.Dial(t.Context(), pool); !errors.Is(err, hunt.ErrNoRegistrar) || !strings.Contains(err.Error(), "not reached") {
			t.Errorf("error %v, want ErrNoRegistrar", err)
		}
		l.registrar(home1)
		sleep(time.Minute)
		if _, err := r.Dial(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("error %v, want ErrUnknownPool", err)
		}
	})
}

func TestAllFailedWithoutRegistrarBeginsAnew(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.dialOK(r)
		home.Stop()
		synctest.Wait()
		l.fail(1, true)
		go func() {
			sleep(time.Second)
			l.fail(1, false)
		}()
		if got := l.dialOK(r); got != 1 {
			t.Errorf("connected to %v", got)
		}
	})
}

func TestReportWaitsForTheNextRegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(nil)
		l.wantAnswer(r, 1, 2)
		home.Stop()
		synctest.Wait() // a report on its way is lost with the connection
		l.fail(1, true)
		l.dialOK(r)
		second := l.registrar(home2)
		sleep(15 * time.Second)
		l.row("AMB_32_ToTheFirstThatComesUp", func(*row) { l.wantReports(second, 1) })
	})
}

// sctpEcho is an element by SCTP that echoes messages and puts a COOKIE before
// each.
func (l *lab) sctpEcho(id param.PEID) {
	l.t.Helper()
	at := netip.AddrPortFrom(address(id), service)
	listener, err := l.net.Host(address(id).String()).Listen(l.t.Context(), []netip.AddrPort{at}, transport.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = listener.Close() })
	cookie, err := (&asap.Cookie{Cookie: []byte("state")}).Append(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(cancel)
	go func() {
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, transport.MaxMessage)
				for {
					m, err := conn.Receive(ctx, buf)
					if err != nil {
						_ = conn.Close()
						return
					}
					l.mu.Lock()
					l.ppid = m.PPID
					l.mu.Unlock()
					if conn.Send(ctx, transport.Message{Data: cookie, PPID: transport.PPIDASAP}, m) != nil {
						return
					}
				}
			}()
		}
	}()
}

func (l *lab) sctpPool(ids ...param.PEID) {
	l.setPool(pool, param.RoundRobin, ids...)
	for i := range ids {
		e := &l.pools[pool].Elements[i]
		e.User.Type, e.User.Use = param.TypeSCTPTransport, param.DataAndControl
	}
}

func TestDialBySCTP(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.sctpPool(1, 2)
		l.net.Host(address(1).String()) // a machine without the service
		l.sctpEcho(2)
		r := l.user(func(cfg *pooluser.Config) { cfg.PPID = 7 })
		if got := l.dialOK(r); got != 2 {
			t.Errorf("connected to %v, want 2", got)
		}
		l.wantReports(home, 1)
		l.row("Deadlines", func(t *row) {
			conn, err := r.Dial(l.t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			go func() {
				sleep(500 * time.Millisecond)
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			}()
			start := time.Now()
			_, err = conn.Read(make([]byte, 10))
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2500*time.Millisecond {
				t.Errorf("read: %v after %v, want the moved deadline", err, time.Since(start))
			}
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			part := make([]byte, 2)
			if _, err := io.ReadFull(conn, part); err != nil || string(part) != "he" {
				t.Errorf("read %q, %v", part, err)
			}
			rest := make([]byte, 10)
			if n, err := conn.Read(rest); err != nil || string(rest[:n]) != "llo" {
				t.Errorf("read %q, %v", rest[:n], err)
			}
			l.mu.Lock()
			if l.ppid != 7 {
				t.Errorf("the element got PPID %d, want Config.PPID", l.ppid)
			}
			l.mu.Unlock()
			if conn.RemoteAddr().String() != "192.0.2.2:8000" {
				t.Errorf("remote address %v", conn.RemoteAddr())
			}
		})
		l.row("ASAP_6_6_01_DataComesWithItsElement", func(t *row) {
			conn, err := r.DialMessage(l.t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.Send(l.t.Context(), transport.Message{Data: []byte("x"), PPID: 7}); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Receive(l.t.Context(), make([]byte, 100)); err != nil || conn.Element.ID != 2 {
				t.Errorf("data of element %v, %v; want that of 2", conn.Element.ID, err)
			}
		})
		l.row("Messages", func(t *row) {
			conn, err := r.DialMessage(l.t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Send(l.t.Context(), transport.Message{Data: []byte("one"), PPID: 7}); err != nil {
				t.Fatal(err)
			}
			m, err := conn.Receive(l.t.Context(), make([]byte, 100))
			if err != nil || string(m.Data) != "one" || m.PPID != 7 {
				t.Errorf("received %+v, %v: the control message is not ours", m, err)
			}
			if err := conn.Failed(l.t.Context()); err != nil {
				t.Error(err)
			}
			l.wantReports(home, 1, 2)
		})
		l.row("ASAP_5_04_DataNeverHasTheControlPPID", func(t *row) {
			err := pooluser.Config{PPID: transport.PPIDASAP}.Validate()
			if err == nil || !strings.Contains(err.Error(), "PPID is 11") {
				t.Errorf("streams: %v, want the PPID refused", err)
			}
			conn, err := r.DialMessage(l.t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.Send(l.t.Context(), transport.Message{Data: []byte("x"), PPID: transport.PPIDASAP}); !errors.Is(err, pooluser.ErrTransport) {
				t.Errorf("message: %v, want ErrTransport", err)
			}
		})
		l.row("LongWritesAreCut", func(t *row) {
			conn, err := r.Dial(l.t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			data := make([]byte, 40_000)
			for i := range data {
				data[i] = byte(i)
			}
			if n, err := conn.Write(data); n != len(data) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			back := make([]byte, len(data))
			if _, err := io.ReadFull(conn, back); err != nil || !slices.Equal(back, data) {
				t.Errorf("echo differs: %v", err)
			}
		})
	})
}

func TestASAP_6_5_3_01_SendToOneElement(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(nil)
		for range 3 {
			conn, err := r.DialElement(t.Context(), pool, 2)
			if err != nil {
				t.Fatal(err)
			}
			if conn.Element.ID != 2 {
				t.Errorf("connected to %v", conn.Element.ID)
			}
			_ = conn.Close()
		}
		l.wantRequests(home, 1) // the first found nothing in the cache
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		if _, err := r.DialElement(t.Context(), pool, 4); !errors.Is(err, pooluser.ErrUnknownElement) {
			t.Errorf("error %v, want ErrUnknownElement", err)
		}
		l.wantRequests(home, 2) // it might have been new
		l.fail(3, true)
		if _, err := r.DialElement(t.Context(), pool, 3); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want the refusal", err)
		}
		l.wantReports(home, 3)
	})
}

func TestDialMessageNeedsMessages(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		if _, err := r.DialMessage(t.Context(), pool); !errors.Is(err, pooluser.ErrTransport) {
			t.Errorf("error %v, want ErrTransport", err)
		}
		l.wantReports(home) // it is our fault
	})
}
