package pooluser_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/pooluser"
)

func TestSessionSurvivesAKill(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		peers[0].cookie = true
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1", "[cookie received 1]")
		peers[0].kill()
		l.wantNext(s, "[failover begun 1: connection cut off]", "[failed over 2]")
		l.sendTo(s, "b")
		l.wantNext(s, "b from 2")
		l.row("SM_PU_12_ReportThenTheNextWithTheCookieFirst", func(t *row) {
			peers[1].want(t, "echo a at 1", "40 b")
			l.wantReports(home, 1)
		})
		l.row("ASAP_6_5_5_03_FurtherMessagesGoToTheSameElement", func(t *row) {
			for range 5 {
				l.sendTo(s, "c")
			}
			peers[1].want(t, "40 c", "40 c", "40 c", "40 c", "40 c")
		})
	})
}

func TestTHR_2_9_3_01_HookBeforeAnyOctet(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		calls := 0
		hook := func(ctx context.Context, f *pooluser.Failover) error {
			calls++
			if calls == 1 {
				peers[1].want(t) // nothing so far
				if f.From.ID != 1 || f.To.ID != 2 || f.Pool != pool || !errors.Is(f.Cause, framed.ErrCut) || len(f.Tried) != 1 {
					t.Errorf("the hook hears of %+v", f)
				}
				return errors.New("authentication failed")
			}
			if err := f.Send(ctx, pooluser.Message{Data: []byte("who are you?")}); err != nil {
				t.Error(err)
			}
			m, err := f.Receive(ctx)
			if err != nil || string(m.Data) != "who are you? from 3" {
				t.Errorf("the hook receives %q, %v", m.Data, err)
			}
			peers[2].want(t, "40 who are you?")
			return nil
		}
		s := l.openSession(r, pooluser.SessionConfig{OnFailover: hook, Notifications: true})
		peers[0].kill()
		l.sendTo(s, "x")
		l.row("AMB_80_TheUserIsTheOneToTell", func(t *row) {
			l.wantNext(s, "[failover begun 1: connection cut off]", "[failed over 3]", "x from 3")
		})
		peers[1].want(t, "end connection reset by peer")
		peers[2].want(t, "40 x")
		l.wantReports(home, 1) // 2 is not to blame
	})
}

func TestHookGivesUp(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		why := errors.New("no licence")
		s := l.openSession(r, pooluser.SessionConfig{OnFailover: func(context.Context, *pooluser.Failover) error {
			return fmt.Errorf("%w: %w", pooluser.ErrGiveUp, why)
		}})
		peers[0].kill()
		_, err := s.Receive(t.Context())
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || !errors.Is(err, why) || len(failure.Attempts) != 1 || failure.Attempts[0].Element.ID != 1 {
			t.Errorf("error %v", err)
		}
		if err := s.Send(t.Context(), pooluser.Message{}); !errors.Is(err, net.ErrClosed) || !errors.Is(err, why) {
			t.Errorf("send: %v", err)
		}
	})
}

// The times of docs/sessions.md, as a user sees them who asks every millisecond.
func TestFailoverTimes(t *testing.T) {
	faults := map[string]func(p *peer){"kill": (*peer).kill, "hang": (*peer).freeze, "cut": (*peer).cut}
	for preset, timers := range map[string]pooluser.Timers{"fast": pooluser.Fast, "default": pooluser.Default, "patient": pooluser.Patient} {
		for fault, strike := range faults {
			for dead := range 3 { // further elements that are dead, too
				t.Run(fmt.Sprintf("%s/%s/%d more", preset, fault, dead), func(t *testing.T) {
					inSession(t, 4, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
						l.net.FailureTime = time.Hour
						s := l.openSession(r, pooluser.SessionConfig{Timers: timers, Delivery: pooluser.AtLeastOnce})
						ask := func() {
							l.sendTo(s, "x")
							if _, err := s.Receive(t.Context()); err != nil {
								t.Error(err)
							}
						}
						time.Sleep(timers.Pace)
						for range 10 {
							ask()
							time.Sleep(time.Millisecond)
						}
						for _, p := range peers[:1+dead] {
							strike(p)
						}
						start := time.Now()
						ask()
						limit, wait := timers.Silence, timers.Connect
						if fault == "kill" {
							limit, wait = 0, timers.Pace
						}
						limit += time.Duration(dead) * wait
						if took := time.Since(start); took > limit || fault != "kill" && took < limit-2*time.Millisecond {
							t.Errorf("%v, the formula says %v", took, limit)
						}
					})
				})
			}
		}
	}
}

func TestIdleSessionsNoticeToo(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default, Notifications: true})
		time.Sleep(time.Hour)
		peers[0].cut()
		start := time.Now()
		l.wantNext(s, "[failover begun 1: no sign of life for 2s]", "[failed over 2]")
		if took, limit := time.Since(start), pooluser.Default.Silence+pooluser.Default.Heartbeat; took > limit {
			t.Errorf("noticed after %v, limit %v", took, limit)
		}
	})
}

func TestASAP_6_5_5_02_AtMostOnceIsNotSentAgain(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		var unanswered []string
		hook := func(_ context.Context, f *pooluser.Failover) error {
			for _, m := range f.Unanswered {
				unanswered = append(unanswered, string(m.Data))
			}
			return nil
		}
		s := l.openSession(r, pooluser.SessionConfig{OnFailover: hook, Keep: 10})
		peers[0].set(func() { peers[0].mute = true })
		for _, text := range []string{"a", "b"} {
			l.sendTo(s, text)
		}
		peers[0].want(t, "40 a", "40 b")
		peers[0].kill()
		l.sendTo(s, "c")
		l.wantNext(s, "c from 2")
		peers[1].want(t, "40 c")
		if !slices.Equal(unanswered, []string{"a", "b"}) {
			t.Errorf("the hook hears of %q", unanswered)
		}
	})
}

// A message that is being written when the element fails has left or not, and what
// becomes of it goes by that.
func TestMessagesThatAreBeingSent(t *testing.T) {
	for _, delivery := range []pooluser.Delivery{pooluser.AtMostOnce, pooluser.AtLeastOnce} {
		t.Run(fmt.Sprint(delivery), func(t *testing.T) {
			inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
				s := l.openSession(r, pooluser.SessionConfig{Delivery: delivery, Timers: pooluser.Fast, Keep: 1000, KeepOctets: 100 << 20})
				peers[0].freeze()
				long := strings.Repeat("x", 60000)
				uncertain := 0
				for range 20 { // more than the buffers hold
					err := s.Send(l.within(time.Minute), pooluser.Message{Data: []byte(long)})
					if errors.Is(err, pooluser.ErrUncertain) {
						uncertain++
					} else if err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				peers[1].mu.Lock()
				got := len(peers[1].got)
				peers[1].mu.Unlock()
				if delivery == pooluser.AtLeastOnce && (got != 20 || uncertain != 0) {
					t.Errorf("%d of 20 arrived, %d uncertain", got, uncertain)
				}
				if delivery == pooluser.AtMostOnce && (uncertain != 1 || got >= 19 || got == 0) {
					t.Errorf("%d arrived at the second element, %d uncertain", got, uncertain)
				}
			})
		})
	}
}

func TestAtLeastOnceWaitsForRoom(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce, Keep: 2})
		peers[0].set(func() { peers[0].mute = true })
		l.sendTo(s, "a")
		l.sendTo(s, "b")
		if err := s.Send(l.within(time.Second), pooluser.Message{Data: []byte("c")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third request of two: %v", err)
		}
		if err := s.Send(l.within(time.Second), pooluser.Message{Data: []byte("one way"), OneWay: true}); err != nil {
			t.Error(err)
		}
		peers[0].kill()
		l.wantNext(s, "a from 2", "b from 2")
		l.sendTo(s, "c")
		l.wantNext(s, "c from 2")
		peers[1].want(t, "40 a", "40 b", "40 c")
	})
}

func TestAnswersByNumber(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		answers := func(m pooluser.Message) uint64 {
			var n uint64
			_, _ = fmt.Sscanf(string(m.Data), "answer %d", &n)
			return n
		}
		s := l.openSession(r, pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce, Answers: answers})
		peers[0].set(func() { peers[0].mute = true })
		for n := range uint64(4) { // 0 needs no answer
			if err := s.Send(t.Context(), pooluser.Message{Data: fmt.Appendf(nil, "%d", n), Request: n}); err != nil {
				t.Error(err)
			}
		}
		peers[0].say(peers[0].last(), "answer 2")
		peers[0].say(peers[0].last(), "news")
		peers[0].say(peers[0].last(), "answer 9")
		l.wantNext(s, "answer 2", "news", "answer 9")
		peers[0].kill()
		sleep(time.Second)
		peers[1].want(t, "40 1", "40 3")
	})
}

// An answer of many messages to each request does not stop the sending of the others.
func TestLongAnswersToWhatIsSentAgain(t *testing.T) {
	const requests, parts = 100, 40
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		serve := func(answer func(c *framed.Conn, request byte) error) func(net.Conn) {
			return inFrames(func(c *framed.Conn) {
				m, err := c.Next(context.Background())
				for ; err == nil; m, err = c.Next(context.Background()) {
					if answer(c, m.Data[0]) != nil {
						return
					}
				}
			})
		}
		l.scripted(1, serve(func(*framed.Conn, byte) error { return nil }))
		l.scripted(2, serve(func(c *framed.Conn, request byte) error {
			for i := range parts {
				data := append([]byte{request, byte(i)}, make([]byte, 1000)...)
				if err := c.Send(context.Background(), transport.Message{Data: data, PPID: appPPID}); err != nil {
					return err
				}
			}
			return nil
		}))
		l.setPool(pool, param.RoundRobin, 1, 2)
		s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce, Answers: func(m pooluser.Message) uint64 {
			if m.Data[1] < parts-1 {
				return 0
			}
			return uint64(m.Data[0])
		}})
		for i := range requests {
			m := pooluser.Message{Data: append([]byte{byte(i + 1)}, make([]byte, 8000)...), Request: uint64(i + 1)}
			if err := s.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		l.net.Kill("192.0.2.1")
		for i := range requests * parts {
			m, err := s.Receive(l.within(time.Second))
			if err != nil || m.Data[0] != byte(1+i/parts) || m.Data[1] != byte(i%parts) {
				t.Fatalf("message %d: % x, %v", i, m.Data[:min(len(m.Data), 2)], err)
			}
		}
		l.wantNothing(s)
	})
}

func TestASAP_6_7_01_ErrorListsAllThatWasTried(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		timers := pooluser.Fast
		timers.Tries = 4
		s := l.openSession(r, pooluser.SessionConfig{Timers: timers})
		l.sendTo(s, "x")
		l.wantNext(s, "x from 1")
		peers[1].freeze()
		peers[2].kill()
		peers[0].kill()
		_, err := s.Receive(t.Context())
		var failure *pooluser.DialError
		if !errors.As(err, &failure) {
			t.Fatalf("error %v", err)
		}
		var tried []param.PEID
		for _, a := range failure.Attempts {
			tried = append(tried, a.Element.ID)
		}
		if len(tried) != 5 || !slices.Equal(tried[:3], []param.PEID{1, 2, 3}) {
			t.Errorf("tried %v", tried)
		}
		for _, part := range []string{"cut off", "does not answer within 60ms", "refused", "192.0.2.1:8000"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %q lacks %q", err, part)
			}
		}
		if _, again := s.Receive(t.Context()); again != err {
			t.Errorf("then %v", again)
		}
	})
}

func TestFailoverEndsInTime(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		l.setPool(pool, param.RoundRobin) // the registrar knows it no more
		r.Purge(pool)
		start := time.Now()
		peers[0].kill()
		_, err := s.Receive(t.Context())
		if !errors.Is(err, pooluser.ErrFailoverTime) || !errors.Is(err, pooluser.ErrUnknownPool) || time.Since(start) != pooluser.Fast.Total {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestPoolThatComesBackInTime(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		l.setPool(pool, param.RoundRobin)
		r.Purge(pool)
		peers[0].kill()
		time.Sleep(500 * time.Millisecond)
		l.setPool(pool, param.RoundRobin, 2)
		l.sendTo(s, "x")
		l.wantNext(s, "x from 2")
	})
}

func TestOpenSaysWhy(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		if _, err := r.Open(t.Context(), "nowhere", pooluser.SessionConfig{}); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("unknown pool: %v", err)
		}
		peers[0].freeze()
		peers[1].freeze()
		ctx := l.within(100 * time.Millisecond)
		start := time.Now()
		_, err := r.Open(ctx, pool, pooluser.SessionConfig{Timers: pooluser.Fast})
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || !errors.Is(err, context.DeadlineExceeded) || len(failure.Attempts) != 1 || time.Since(start) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// A failure of this machine's own is no try: the failover goes on when it is over, and when it
// is not, Total ends it and the error says why.
func TestFailoverWaitsForThisMachine(t *testing.T) {
	for name, c := range map[string]struct {
		lasts time.Duration
		ok    bool
	}{
		"a moment": {pooluser.Default.Total - time.Second, true},
		"for ever": {time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				home := l.registrar(home1)
				l.peers(3)
				var until time.Time
				r := l.user(func(c *pooluser.Config) {
					c.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
						if time.Now().Before(until) {
							return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
						}
						return l.net.Host(userAt).DialStream(ctx, network, address)
					}
				})
				s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default})
				until = time.Now().Add(c.lasts)
				l.net.Kill(address(1).String())
				if c.ok {
					time.Sleep(c.lasts)
					l.sendTo(s, "x")
					if got := l.next(s); got != "x from 2" && got != "x from 3" {
						t.Errorf("received %q", got)
					}
				} else {
					start := time.Now()
					_, err := s.Receive(t.Context())
					var failure *pooluser.DialError
					if !errors.As(err, &failure) || len(failure.Attempts) != 1 || !errors.Is(err, syscall.EMFILE) || time.Since(start) != pooluser.Default.Total {
						t.Errorf("after %v: %v", time.Since(start), err)
					}
				}
				l.wantReports(home, 1)
			})
		})
	}
}

// All elements are full: the session does not swing between them for ever.
func TestASAP_5_04_SessionsDontSendASAPData(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{MaxMessage: 100})
		for _, m := range []pooluser.Message{{PPID: transport.PPIDASAP}, {PPID: framed.PPIDHeartbeat}, {Data: make([]byte, 101)}} {
			if err := s.Send(t.Context(), m); !errors.Is(err, framed.ErrNotSent) {
				t.Errorf("PPID %d, %d octets: %v", m.PPID, len(m.Data), err)
			}
		}
		peers[0].want(t)
	})
}

// A user that was stopped itself does not blame the element.
func TestUserWasStopped(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Inbox: 1, Notifications: true})
		c := peers[0].last()
		for range 10 { // the application does not receive, so nobody reads heartbeats
			peers[0].say(c, "news")
		}
		time.Sleep(time.Hour)
		for range 10 {
			l.wantNext(s, "news")
		}
		time.Sleep(time.Hour)
		l.wantNothing(s)
		l.wantReports(home)
	})
}

func TestSlowReceiverHoldsTheElementBack(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Inbox: 4})
		c := peers[0].last()
		long := make([]byte, 60000)
		sent := 0
		for ; sent < 100; sent++ {
			if err := c.Send(l.within(time.Second), transport.Message{Data: long, PPID: appPPID}); err != nil {
				break
			}
		}
		if sent == 100 {
			t.Errorf("%d messages were taken that nobody receives", sent)
		}
		if m, err := s.Receive(t.Context()); err != nil || m.Element != 1 {
			t.Errorf("from %v, %v", m.Element, err)
		}
	})
}

func TestApplicationForcesAFailover(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		s.Failover(errors.New("answers nonsense"))
		l.wantNext(s, "[failover begun 1: answers nonsense]", "[failed over 2]")
		l.wantReports(home, 1)
		if e, ok := s.Element(); !ok || e.ID != 2 {
			t.Errorf("element %v, %v", e.ID, ok)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		time.AfterFunc(time.Second, func() { _ = s.Close() })
		if _, err := s.Receive(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("receive: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := s.Send(t.Context(), pooluser.Message{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("send: %v", err)
		}
		peers[0].want(t, "end EOF") // in an orderly way
		l.wantReports(home)
	})
}

func TestCloseDuringAFailover(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		hooked := make(chan error, 1)
		s := l.openSession(r, pooluser.SessionConfig{OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			_, err := f.Receive(ctx)
			hooked <- err
			return err
		}})
		peers[0].kill()
		sleep(time.Second)
		_ = s.Close()
		if err := <-hooked; !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("the hook ends with %v", err)
		}
	})
}

func TestSessionConfigValidate(t *testing.T) {
	bad := pooluser.SessionConfig{
		Timers:   pooluser.Timers{Connect: -1, Silence: 1, Tries: -1, Pace: -1, Total: -1, Heartbeat: -1},
		Delivery: 7, Answer: -1, Keep: -1, KeepOctets: -1, Inbox: -1, MaxMessage: -1, PPID: transport.PPIDASAP,
		Cookie: make([]byte, 1<<16), // more than an ASAP message has room for
	}
	err := bad.Validate()
	for _, part := range []string{"Connect", "Tries", "Pace", "Total", "Heartbeat", "Delivery", "Answer", "Keep is", "KeepOctets", "Inbox", "MaxMessage", "PPID", "Cookie"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v lacks %s", err, part)
		}
	}
	for _, timers := range []pooluser.Timers{pooluser.Fast, pooluser.Default, pooluser.Patient, {}} {
		if err := (pooluser.SessionConfig{Timers: timers}).Validate(); err != nil {
			t.Error(err)
		}
	}
	if err := (pooluser.SessionConfig{Timers: pooluser.Timers{Heartbeat: time.Minute}}).Validate(); err == nil {
		t.Error("Silence may be shorter than Heartbeat")
	}
	if total := pooluser.Fast.Silence + pooluser.Fast.Connect + pooluser.Fast.Pace; total > 200*time.Millisecond {
		t.Errorf("Fast takes %v for two elements", total)
	}
}

// Who gives a message up in the middle loses the connection, and that is not the
// element's fault.
func TestMessageGivenUpInTheMiddle(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Patient})
		peers[0].freeze()
		for {
			err := s.Send(l.within(time.Second), pooluser.Message{Data: make([]byte, 60001)})
			if errors.Is(err, context.DeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		sleep(time.Second)
		l.wantReports(home)
		if e, ok := s.Element(); !ok || e.ID != 2 {
			t.Errorf("element %v, %v", e.ID, ok)
		}
	})
}

// Nor is it where the application reads nothing, so that the element can't send, does not read
// what is sent, and nobody hears the connection's end.
func TestMessageGivenUpBecauseOfAFullInbox(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Inbox: 2})
		var err error
		for err == nil {
			err = s.Send(l.within(time.Second), pooluser.Message{Data: make([]byte, 60001)})
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		sleep(10 * time.Second)
		l.wantReports(home)
		if e, ok := s.Element(); !ok || e.ID != 2 {
			t.Errorf("element %v, %v", e.ID, ok)
		}
	})
}

func TestOneGoroutineForASession(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		const sessions = 100
		before := runtime.NumGoroutine()
		for range sessions {
			s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default})
			l.sendTo(s, "x")
			l.next(s)
		}
		sleep(time.Minute)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 2*sessions+5 { // the elements have one, too
			t.Errorf("%d goroutines for both ends of %d sessions", n, sessions)
		}
	})
}

// A session that waits has no buffer, over SCTP neither.
func TestWaitingSessionsHoldLittleMemory(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		const sessions = 100
		l.registrar(home1)
		l.sctpPool(1)
		listener := l.listenSCTP(1)
		defer listener.Close()
		heap := func() uint64 {
			synctest.Wait()
			runtime.GC()
			runtime.GC() // pools let go of what they hold at the second
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		r := l.sessionUser()
		l.wantAnswer(r, 1)
		before := heap()
		for range sessions {
			s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default})
			conn, err := listener.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.Send(t.Context(), transport.Message{Data: []byte("x"), PPID: appPPID}); err != nil {
				t.Fatal(err)
			}
			l.wantNext(s, "x")
		}
		each := (heap() - before) / sessions
		t.Logf("%d octets for both ends of a session", each)
		if each > 16<<10 {
			t.Errorf("a session that waits holds %d octets", each)
		}
	})
}
