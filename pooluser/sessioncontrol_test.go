package pooluser_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
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
	"rserpool/internal/authoritytest"
	"rserpool/pooluser"
)

func TestASAP_3_8_02_OnlyTheNewestCookieIsKept(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		for i := range 20 {
			peers[0].tell(peers[0].last(), &asap.Cookie{Cookie: fmt.Appendf(nil, "cookie %d", i)})
		}
		l.row("SM_PU_13_CookieReplacesTheStoredOne", func(t *row) {
			synctest.Wait()
			if got := s.Cookie(); string(got) != "cookie 19" {
				t.Errorf("kept %q", got)
			}
		})
		peers[0].kill()
		l.sendTo(s, "x")
		peers[1].want(t, "echo cookie 19", "40 x")
	})
}

func TestASAP_3_8_03_CookieEchoIsTheFirstMessage(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		hook := func(ctx context.Context, f *pooluser.Failover) error {
			if string(f.Cookie) != "state" {
				t.Errorf("the hook hears of cookie %q", f.Cookie)
			}
			return f.Send(ctx, pooluser.Message{Data: []byte("hook")})
		}
		s := l.openSession(r, pooluser.SessionConfig{OnFailover: hook, Delivery: pooluser.AtLeastOnce})
		peers[0].set(func() { peers[0].mute = true })
		l.sendTo(s, "kept")
		peers[0].tell(peers[0].last(), &asap.Cookie{Cookie: []byte("state")})
		synctest.Wait()
		peers[0].kill()
		l.sendTo(s, "new")
		sleep(time.Second)
		peers[1].want(t, "echo state", "40 hook", "40 kept", "40 new")
	})
}

func TestAMB_81_TheUserSendsTheEcho(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Cookie: []byte("from an earlier session")})
		peers[0].want(t, "echo from an earlier session")
		peers[0].kill()
		l.sendTo(s, "x")
		peers[1].want(t, "echo from an earlier session", "40 x")
	})
}

func TestASAP_3_8_04_CookieComesBackBitForBit(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, cookie := range map[string][]byte{
		"empty": {}, "one octet": {0}, "no multiple of four": []byte("rsplib"), "all octets": all,
		"the longest": bytes.Repeat([]byte{0xa5}, 65535-8),
	} {
		t.Run(name, func(t *testing.T) {
			inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
				s := l.openSession(r, pooluser.SessionConfig{})
				peers[0].tell(peers[0].last(), &asap.Cookie{Cookie: cookie})
				synctest.Wait()
				peers[0].kill()
				l.sendTo(s, "x")
				peers[1].want(t, "echo "+string(cookie), "40 x")
			})
		})
	}
}

func (p *peer) card(pool param.PoolHandle, ids ...param.PEID) {
	p.l.t.Helper()
	card := &asap.BusinessCard{Handle: pool}
	for _, id := range ids {
		card.Elements = append(card.Elements, element(id))
	}
	p.tell(p.last(), card)
	synctest.Wait()
}

func TestASAP_3_9_06_BusinessCardGivesTheOrder(t *testing.T) {
	inSession(t, 5, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		l.row("ASAP_2_2_13_01_ElementsInPreferredOrder", func(t *row) {
			peers[0].card(pool, 4, 5)
			m, err := s.Receive(t.Context())
			if n := m.Notification; err != nil || n == nil || n.Kind != pooluser.BusinessCardReceived || len(n.Card) != 2 || n.Card[0].ID != 4 || n.Card[1].ID != 5 {
				t.Errorf("notification %+v, %v", n, err)
			}
		})
		peers[0].kill()
		l.wantNext(s, "[failover begun 1: connection cut off]", "[failed over 4]")
		l.row("SM_PU_12_TheOrderGoesOnWhileThereIsNoOther", func(t *row) {
			peers[3].kill()
			l.wantNext(s, "[failover begun 4: connection cut off]", "[failed over 5]")
		})
		l.row("ASAP_3_9_04_AFreshCardTakesItsPlace", func(t *row) {
			peers[4].card(pool, 3)
			peers[4].card(pool, 1, 3, 2) // 1 has failed a moment ago
			l.wantNext(s, "[business card received 5]", "[business card received 5]")
			peers[4].kill()
			l.wantNext(s, "[failover begun 5: connection cut off]", "[failed over 3]")
		})
		l.row("PolicyWhereTheCardEnds", func(t *row) {
			peers[2].card(pool, 5, 4)
			peers[2].kill()
			l.wantNext(s, "[business card received 3]", "[failover begun 3: connection cut off]", "[failed over 2]")
		})
		l.wantReports(home, 1, 4, 5, 3)
	})
}

func TestASAP_3_9_05_PoolOfTheCardIsResolved(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		l.wantRequests(home, 1)
		l.setPool("spare", param.RoundRobin, 2)
		peers[0].card("spare", 2)
		l.wantRequests(home, 2)
		peers[0].card("spare", 2) // is in the cache now
		l.wantRequests(home, 2)
		peers[0].kill()
		l.sendTo(s, "x")
		peers[1].want(t, "40 x")
		l.row("ASAP_3_5_01_ReportsNameThePoolOfTheCard", func(t *row) {
			peers[1].kill()
			synctest.Wait()
			reports := received[*asap.EndpointUnreachable](home)
			if len(reports) != 2 || reports[0].Handle != pool || reports[1].Handle != "spare" || reports[1].ID != 2 {
				t.Errorf("reports %+v", reports)
			}
		})
	})
}

// An element may send any number of cards, and the registrar answer none of them.
func TestManyCardsCostLittle(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		l.openSession(r, pooluser.SessionConfig{})
		l.wantRequests(home, 1)
		l.setMute(true)
		before := runtime.NumGoroutine()
		for i := range 50 {
			peers[0].card(param.PoolHandle(fmt.Sprintf("pool %d", i)), 2)
			peers[0].card("always the same", 2)
		}
		l.wantRequests(home, 2)
		if more := runtime.NumGoroutine() - before; more > 5 {
			t.Errorf("%d goroutines for cards", more)
		}
		l.setMute(false)
		l.setPool("always the same", param.RoundRobin, 2)
		sleep(30 * time.Second)
		if _, err := r.Resolve(l.within(0), "always the same"); err != nil {
			t.Errorf("pool of the newest card: %v", err)
		}
	})
}

func TestASAP_3_9_02_UserThatIsAnElementSendsACard(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		peers[0].want(t) // none unless the application says so
		if err := s.SendCard(t.Context(), "mine", element(7), element(8)); err != nil {
			t.Error(err)
		}
		peers[0].want(t, "card of mine, 2 elements")
		if err := s.SendCard(t.Context(), "mine"); err == nil {
			t.Error("a card without elements was sent")
		}
	})
}

func TestASAP_3_9_03_NoCardWithoutControlChannel(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		p := l.sctpPeer(1, param.DataOnly)
		p.cookie = true
		s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Cookie: []byte("old")})
		if err := s.SendCard(t.Context(), "mine", element(7)); !errors.Is(err, pooluser.ErrNoControl) {
			t.Errorf("card: %v", err)
		}
		l.sendTo(s, "x")
		p.want(t, "40 x") // no echo either
	})
}

// A card that can't be sent is no message on its way that a failover would wait for.
func TestFailoverAfterACardWithoutControlChannel(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		p := l.sctpPeer(1, param.DataOnly)
		p2 := l.sctpPeer(2, param.DataOnly)
		s := l.openSession(l.sessionUser(), pooluser.SessionConfig{})
		if err := s.SendCard(t.Context(), "mine", element(7)); !errors.Is(err, pooluser.ErrNoControl) {
			t.Errorf("card: %v", err)
		}
		p.kill()
		sleep(time.Second) // without a word of the application
		l.sendTo(s, "x")
		l.wantNext(s, "x from 2")
		p2.want(t, "40 x")
	})
}

// listenSCTP listens where the element is, by what passes for SCTP.
func (l *lab) listenSCTP(id param.PEID) transport.Listener {
	l.t.Helper()
	at := netip.AddrPortFrom(address(id), service)
	listener, err := l.net.Host(at.Addr().String()).As(transport.SCTP).Listen(l.t.Context(), []netip.AddrPort{at}, transport.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	return listener
}

// sctpPeer starts an element that passes for one by SCTP, like rsplib's: without
// heartbeats.
func (l *lab) sctpPeer(id param.PEID, use param.TransportUse) *peer {
	l.t.Helper()
	p := &peer{l: l, id: id, name: address(id).String()}
	p.serve(l.listenSCTP(id))
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.pools[pool]
	if r == nil {
		r = response(param.RoundRobin)
		l.pools[pool] = r
	}
	e := element(id)
	e.User.Type, e.User.Use = param.TypeSCTPTransport, use
	r.Elements = append(r.Elements, e)
	return p
}

func TestASAP_5_03_ControlChannelOverSCTP(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		p1, p2 := l.sctpPeer(1, param.DataAndControl), l.sctpPeer(2, param.DataAndControl)
		p1.cookie = true
		s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Notifications: true, Answer: time.Second})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1", "[cookie received 1]")
		p1.want(t, "40 a") // the user sends no heartbeats to foreign elements
		time.Sleep(time.Minute)
		l.row("RequestsThatAreNotAnsweredEndTheSilence", func(t *row) {
			p1.freeze()
			start := time.Now()
			l.sendTo(s, "b")
			l.wantNext(s, "[failover begun 1: requests are not answered within 1s]", "[failed over 2]")
			if took := time.Since(start); took != time.Second {
				t.Errorf("after %v", took)
			}
			p2.want(t, "echo a at 1") // at most once: b is not sent again
			l.wantReports(home, 1)
		})
		l.row("AnEndThatMayBeADeathIsAFailure", func(t *row) {
			_ = p2.last().Close() // the kernel does so for a process that was killed
			l.wantNext(s, "[shut down 2]", "[failover begun 2: EOF]")
			l.wantReports(home, 1, 2)
		})
	})
}

func TestSCTPElementsOfOurOwn(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(*peer, *framed.Assoc)
		want []string
	}{
		"hang":    {func(p *peer, _ *framed.Assoc) { p.freeze() }, []string{"[failover begun 1: no sign of life for 120ms]"}},
		"death":   {func(_ *peer, a *framed.Assoc) { _ = a.Conn.Close() }, []string{"[failover begun 1: connection cut off]"}},
		"orderly": {func(_ *peer, a *framed.Assoc) { _ = a.Close() }, []string{"[shut down 1]", "error EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.registrar(home1)
				p := &peer{l: l, id: 1, name: address(1).String()}
				p.serve(over{l.listenSCTP(1)})
				l.setPool(pool, param.RoundRobin, 1)
				l.pools[pool].Elements[0].User.Type = param.TypeSCTPTransport
				s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Notifications: true, SCTPHeartbeats: true})
				time.Sleep(time.Minute) // heartbeats keep it
				end.by(p, p.last().(*framed.Assoc))
				l.wantNext(s, end.want...)
			})
		})
	}
}

// over gives associations heartbeats.
type over struct{ transport.Listener }

func (l over) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return framed.Over(c), nil
}

func TestElementWithoutFraming(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		socket, err := l.net.Host("192.0.2.9").ListenStream(t.Context(), "tcp", "192.0.2.9:8000")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		go func() {
			for c, err := socket.Accept(); err == nil; c, err = socket.Accept() {
				_, _ = io.WriteString(c, "220 ready\r\n")
				defer c.Close()
			}
		}()
		l.setPool(pool, param.RoundRobin, 9)
		timers := pooluser.Fast
		timers.Tries = 1
		if _, err := r.Open(t.Context(), pool, pooluser.SessionConfig{Timers: timers}); !errors.Is(err, framed.ErrNoFraming) {
			t.Errorf("open: %v", err)
		}
		l.wantReports(home) // it is well, only no element for us
	})
}

func TestElementEndsTheSession(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		c := peers[0].last()
		peers[0].say(c, "bye")
		_ = c.Close()
		l.wantNext(s, "bye", "[shut down 1]", "error EOF")
		l.wantReports(home)
	})
}

func TestElementSendsAway(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		c := peers[0].last()
		peers[0].card(pool, 3, 2)
		peers[0].tell(c, &asap.Cookie{Cookie: []byte("half done")})
		peers[0].tell(c, &asap.Error{Causes: param.OperationError{{Code: param.CauseLackOfResources}}})
		_ = c.Close()
		l.wantNext(s, "[business card received 1]", "[cookie received 1]",
			"[error received 1: "+(&pooluser.PeerError{Causes: param.OperationError{{Code: param.CauseLackOfResources}}}).Causes.String()+"]")
		if m, err := s.Receive(t.Context()); err != nil || m.Notification == nil || !errors.Is(m.Notification.Err, pooluser.ErrMovedOn) {
			t.Errorf("received %+v, %v", m.Notification, err)
		}
		l.wantNext(s, "[failed over 3]")
		peers[2].want(t, "echo half done")
		l.wantReports(home) // the element is well
	})
}

func TestAllElementsSendAway(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		var stop sync.WaitGroup
		defer stop.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.openSession(r, pooluser.SessionConfig{})
		for _, p := range peers {
			stop.Go(func() {
				for seen := 0; ctx.Err() == nil; time.Sleep(time.Millisecond) {
					p.mu.Lock()
					conns := slices.Clone(p.conns[seen:])
					p.mu.Unlock()
					for _, c := range conns {
						seen++
						p.tell(c, &asap.Error{Causes: param.OperationError{{Code: param.CauseLackOfResources}}})
						_ = c.Close()
					}
				}
			})
		}
		_, err := s.Receive(t.Context())
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || !errors.Is(err, pooluser.ErrMovedOn) || len(failure.Attempts) > pooluser.Fast.Tries+1 {
			t.Errorf("error %v", err)
		}
	})
}

func TestCookieRefused(t *testing.T) {
	for name, cause := range map[string]param.Cause{
		"forged":   param.NewCause(param.CauseSecurity),
		"unusable": param.CookieCause(param.CauseInvalidValues, []byte("state")),
	} {
		t.Run(name, func(t *testing.T) {
			inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
				s := l.openSession(r, pooluser.SessionConfig{Cookie: []byte("state")})
				peers[0].tell(peers[0].last(), &asap.Error{Causes: param.OperationError{cause}})
				_ = peers[0].last().Close()
				_, err := s.Receive(t.Context())
				var refused *pooluser.PeerError
				if !errors.Is(err, pooluser.ErrCookieRefused) || !errors.As(err, &refused) {
					t.Errorf("error %v", err)
				}
				peers[1].want(t)
				l.wantReports(home)
			})
		})
	}
}

func TestASAP_2_2_14_02_BadControlMessagesAreReported(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		s := l.openSession(r, pooluser.SessionConfig{})
		for _, bad := range []string{"\x7e\x00\x00\x04", "\x0b\x00\x00\x0c\x00\x0d\x00\x04\xc1\x00\x00\x04"} {
			if err := peers[0].last().Send(t.Context(), transport.Message{Data: []byte(bad), PPID: transport.PPIDASAP}); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		peers[0].set(func() {
			if len(peers[0].got) != 2 || !strings.HasPrefix(peers[0].got[0], "error ") || !strings.HasPrefix(peers[0].got[1], "error ") {
				t.Errorf("got %q, want two errors", peers[0].got)
			}
			peers[0].got = nil
		})
		l.row("ASAP_2_2_14_03_NoErrorAnswersAnError", func(t *row) {
			peers[0].tell(peers[0].last(), &asap.Error{Causes: param.OperationError{{Code: param.CauseUnrecognizedMessage}}})
			if err := peers[0].last().Send(l.within(time.Second), transport.Message{Data: []byte("\x0e\x00\x00\x03"), PPID: transport.PPIDASAP}); err != nil {
				t.Error(err)
			}
			peers[0].want(t)
		})
		l.sendTo(s, "x")
		l.wantNext(s, "x from 1")
	})
}

// recorder keeps all that goes through a connection.
type recorder struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (r recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.Write(p[:n])
	return n, err
}

func (r recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.seen.Write(p)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

func TestTHR_2_16_01_CookiesAreSecuredWithTheData(t *testing.T) {
	for name, secured := range map[string]bool{"TLS": true, "in the clear": false} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.registrar(home1)
				files := authoritytest.New(t, "blue").Member("element")
				cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
				if err != nil {
					t.Fatal(err)
				}
				var peers []*peer
				for id := param.PEID(1); id <= 2; id++ {
					p := &peer{l: l, id: id, name: address(id).String(), cookie: true}
					socket, err := l.net.Host(p.name).ListenStream(t.Context(), "tcp", fmt.Sprintf("%s:%d", p.name, service))
					if err != nil {
						t.Fatal(err)
					}
					if secured {
						socket = tls.NewListener(socket, &tls.Config{Certificates: []tls.Certificate{cert}})
					}
					p.serve(framed.NewListener(socket, framed.Options{}))
					peers = append(peers, p)
				}
				l.setPool(pool, param.RoundRobin, 1, 2)
				rec := recorder{mu: new(sync.Mutex), seen: new(bytes.Buffer)}
				r := l.user(func(c *pooluser.Config) {
					c.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := l.net.Host(userAt).DialStream(ctx, network, address)
						if err != nil || !secured {
							return recorder{conn, rec.mu, rec.seen}, err
						}
						// Who the element is does not matter here.
						return tls.Client(recorder{conn, rec.mu, rec.seen}, &tls.Config{InsecureSkipVerify: true}), nil
					}
				})
				s := l.openSession(r, pooluser.SessionConfig{})
				l.sendTo(s, "x")
				l.wantNext(s, "x from 1")
				synctest.Wait()
				peers[0].kill()
				l.sendTo(s, "y")
				peers[1].want(t, "echo x at 1", "40 y")
				for _, text := range []string{"x at 1", "x from 1"} {
					if clear := bytes.Contains(rec.seen.Bytes(), []byte(text)); clear == secured {
						t.Errorf("%q is visible on the wire: %v", text, clear)
					}
				}
			})
		})
	}
}
