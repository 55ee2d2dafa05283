package poolelement

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement/cookie"
)

// counting counts the messages of its user, tells the count, and saves it.
func counting(ctx context.Context, s *Session) error {
	count := 0
	for {
		in, err := s.Receive(ctx)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case in.Kind == Resumed:
			count = len(in.State)
		case in.Kind == Data:
			count++
			if err := s.SaveState(ctx, bytes.Repeat([]byte{'x'}, count)); err != nil {
				return err
			}
			if err := s.Send(ctx, transport.Message{Data: bytes.Repeat([]byte{'x'}, count), PPID: 7}); err != nil {
				return err
			}
		}
	}
}

func TestASAP_3_8_05_StateGoesOnAtAnotherElement(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, counting)
		u := w.dial(network)
		u.send("one")
		expectASAP[*asap.Cookie](u)
		u.expect("x")
		u.send("two")
		kept := expectASAP[*asap.Cookie](u).Cookie
		u.expect("xx")
		u.conn.Abort()

		again := w.dial(network)
		again.sendASAP(&asap.CookieEcho{Cookie: kept})
		again.send("three")
		expectASAP[*asap.Cookie](again)
		again.expect("xxx")
		synctest.Wait()
		if got := s.server.Stats(); got.CookiesSent != 3 || got.Resumed != 1 || got.CookiesRefused != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestASAP_3_8_01_CookieAtAnyTime(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.serve(network, nil, func(ctx context.Context, s *Session) error {
			for _, state := range []string{"at once", "again", ""} {
				if err := s.SaveState(ctx, []byte(state)); err != nil || string(s.State()) != state {
					return err
				}
			}
			_, err := s.Receive(ctx)
			return err
		})
		u := w.dial(network)
		open := sealer(t, pool)
		for _, want := range []string{"at once", "again", ""} {
			state, err := open.Open(expectASAP[*asap.Cookie](u).Cookie)
			if err != nil || string(state) != want {
				t.Errorf("%q, %v, want %q", state, err, want)
			}
		}
	})
}

func TestASAP_3_8_05_CookiesThatAreRefused(t *testing.T) {
	seal := func(t *testing.T, change func(*cookie.Config)) []byte {
		cfg := cookie.Config{Keys: []cookie.Key{{ID: 1, Secret: make([]byte, 32)}}, Pool: pool}
		if change != nil {
			change(&cfg)
		}
		s, err := cookie.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := s.Seal([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	for _, c := range []struct {
		name   string
		cookie func(t *testing.T) []byte
		want   error
	}{
		{"Forged", func(t *testing.T) []byte {
			return seal(t, func(c *cookie.Config) { c.Keys[0].Secret = bytes.Repeat([]byte{1}, 32) })
		}, cookie.ErrForged},
		{"OneBitFlipped", func(t *testing.T) []byte {
			sealed := seal(t, nil)
			sealed[len(sealed)-1] ^= 1
			return sealed
		}, cookie.ErrForged},
		{"OtherPool", func(t *testing.T) []byte {
			return seal(t, func(c *cookie.Config) { c.Pool = "other" })
		}, cookie.ErrForeign},
		{"NotOurs", func(*testing.T) []byte { return []byte("<PP-TD1>12345678") }, cookie.ErrForeign},
		{"TooOld", func(t *testing.T) []byte {
			sealed := seal(t, nil)
			time.Sleep(cookie.DefaultMaxAge + time.Second)
			return sealed
		}, cookie.ErrTooOld},
	} {
		t.Run(c.name, func(t *testing.T) {
			overAll(t, func(t *testing.T, w *world, network string) {
				bad := c.cookie(t)
				var got []error
				s := w.serve(network, nil, func(ctx context.Context, s *Session) error {
					in, err := s.Receive(ctx)
					if err == nil {
						t.Errorf("the handler got %v %q", in.Kind, in.Data)
					}
					got = append(got, err)
					return err
				})
				u := w.dial(network)
				u.sendASAP(&asap.CookieEcho{Cookie: bad}, "work that must not be done")
				if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseSecurity) || len(causes) != 1 {
					t.Errorf("causes %v", causes)
				}
				u.expectEnd(io.EOF)
				synctest.Wait()
				if len(got) != 1 || !errors.Is(got[0], ErrCookieRefused) || !errors.Is(got[0], c.want) {
					t.Errorf("the handler got %v, want %v", got, c.want)
				}
				if got := s.server.Stats(); got.CookiesRefused != 1 || got.Resumed != 0 {
					t.Errorf("%+v", got)
				}
				if !strings.Contains(s.log.String(), "cookie refused") {
					t.Errorf("nothing in the log: %s", s.log)
				}
			})
		})
	}
}

func TestTheApplicationMayRefuseAState(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		var brought string
		w.serve(network, func(c *ServeConfig) {
			c.Cookies = cookie.Raw{}
			c.OnResume = func(_ context.Context, c *Control, state []byte) error {
				if brought != "" {
					panic("again")
				}
				brought = string(state)
				return cookie.ErrVersion
			}
		}, func(ctx context.Context, s *Session) error {
			_, err := s.Receive(ctx)
			return err
		})
		u := w.dial(network)
		u.sendASAP(&asap.CookieEcho{Cookie: []byte("<PP-TD1>")})
		causes := expectASAP[*asap.Error](u).Causes
		if len(causes) != 1 || causes[0].Code != param.CauseInvalidValues || !bytes.Contains(causes[0].Data, []byte("<PP-TD1>")) {
			t.Errorf("causes %+v", causes)
		}
		u.expectEnd(io.EOF)
		if brought != "<PP-TD1>" {
			t.Errorf("the application saw %q", brought)
		}
		u = w.dial(network) // the application panics
		u.sendASAP(&asap.CookieEcho{Cookie: []byte("<PP-TD1>")})
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseInvalidValues) {
			t.Errorf("causes %v", causes)
		}
		u.expectEnd(io.EOF)
	})
}

func TestRawCookiesAreThoseOfOtherPrograms(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.serve(network, func(c *ServeConfig) { c.Cookies = cookie.Raw{} }, func(ctx context.Context, s *Session) error {
			in, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			return errors.Join(s.SaveState(ctx, append(in.State, '!')), ErrHandOver)
		})
		u := w.dial(network)
		u.sendASAP(&asap.CookieEcho{Cookie: []byte("<PP-TD1>")})
		if got := expectASAP[*asap.Cookie](u).Cookie; string(got) != "<PP-TD1>!" {
			t.Errorf("cookie %q", got)
		}
	})
}

func TestSaveStateFails(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		var tooLong error
		w.serve(network, nil, func(ctx context.Context, s *Session) error {
			tooLong = s.SaveState(ctx, make([]byte, cookie.DefaultMaxState+1))
			return nil
		})
		w.dial(network).expectEnd(io.EOF)
		if !errors.Is(tooLong, cookie.ErrTooLong) {
			t.Errorf("a long state: %v", tooLong)
		}
	})
	inWorld(t, func(t *testing.T, w *world) {
		var without error
		w.serve(transport.TCP, func(c *ServeConfig) { c.Cookies = nil }, func(ctx context.Context, s *Session) error {
			without = s.SaveState(ctx, nil)
			_, err := s.Receive(ctx)
			return err
		})
		u := w.dial(transport.TCP)
		synctest.Wait()
		if !errors.Is(without, ErrNoCookies) {
			t.Errorf("without cookies: %v", without)
		}
		u.sendASAP(&asap.CookieEcho{Cookie: []byte("x")})
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseSecurity) {
			t.Errorf("causes %v", causes)
		}
	})
}

func TestASAP_4_04_ElementHandlesTheMessagesOfSessions(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		kinds := []Kind{}
		var card *asap.BusinessCard
		w.serve(network, nil, func(ctx context.Context, s *Session) error {
			if err := s.SaveState(ctx, []byte("x")); err != nil {
				return err
			}
			for {
				in, err := s.Receive(ctx)
				if err != nil {
					card = s.Card()
					return nil
				}
				kinds = append(kinds, in.Kind)
			}
		})
		u := w.dial(network)
		u.sendASAP(&asap.CookieEcho{Cookie: expectASAP[*asap.Cookie](u).Cookie})
		u.sendASAP(&asap.BusinessCard{Handle: "callers", Elements: []param.PoolElement{element(1), element(2)}})
		u.conn.Close()
		synctest.Wait()
		if len(kinds) != 2 || kinds[0] != Resumed || kinds[1] != CardReceived {
			t.Errorf("events %v", kinds)
		}
		if card == nil || card.Handle != "callers" || len(card.Elements) != 2 || card.Elements[0].ID != 1 {
			t.Errorf("card %+v", card)
		}
	})
}

// raw sends octets on the control channel.
func (u *user) raw(data ...byte) {
	u.t.Helper()
	if err := u.conn.Send(context.Background(), transport.Message{Data: data, PPID: transport.PPIDASAP}); err != nil {
		u.t.Fatal(err)
	}
}

func TestASAP_2_2_14_01_UnknownMessageInSession(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.serve(network, nil, echo)
		u := w.dial(network)
		u.raw(0x3f, 0, 0, 4) // not to be reported
		u.raw(0x40, 0, 0, 4)
		if causes := expectASAP[*asap.Error](u).Causes; !causes.Has(param.CauseUnrecognizedMessage) {
			t.Errorf("causes %v", causes)
		}
		u.send("still there")
		u.expect("still there")
	})
}

func TestASAP_2_2_14_03_ErrorsInSessionsAreNotAnswered(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serve(network, nil, echo)
		u := w.dial(network)
		u.sendASAP(&asap.Error{Causes: param.OperationError{param.NewCause(param.CauseUnspecified)}})
		u.raw(0x0e, 0, 0, 3)                                  // malformed
		u.sendASAP(&asap.Deregistration{Handle: pool, ID: 1}) // not for an element
		u.send("still there")
		u.expect("still there")
		if got := s.server.Stats(); got.Ignored != 2 {
			t.Errorf("%+v", got)
		}
	})
}

func TestASAP_5_03_ControlChannelOfSessions(t *testing.T) {
	// PPID 11 is ASAP's, and what comes with it never reaches the handler.
	overAll(t, func(t *testing.T, w *world, network string) {
		var refused error
		w.serve(network, nil, func(ctx context.Context, s *Session) error {
			refused = s.Send(ctx, transport.Message{Data: []byte("x"), PPID: transport.PPIDASAP})
			if err := s.SaveState(ctx, []byte("x")); err != nil {
				return err
			}
			return echo(ctx, s)
		})
		u := w.dial(network)
		m, err := u.next()
		if err != nil || m.PPID != transport.PPIDASAP || m.Stream != 0 {
			t.Errorf("a cookie came as %+v, %v", m, err)
		}
		u.raw(0x0f, 0, 0, 4) // some later ASAP message
		u.send("data")
		u.expect("data")
		if refused == nil {
			t.Error("ASAP_5_04: application data may have ASAP's PPID")
		}
	})
}

// lateConn takes a message at once but says so later, the first the latest.
type lateConn struct {
	transport.Conn // nil
	mu             sync.Mutex
	sent           [][]byte
}

func (c *lateConn) RemoteAddrs() []netip.AddrPort { return nil }

func (c *lateConn) Send(_ context.Context, msgs ...transport.Message) error {
	c.mu.Lock()
	c.sent = append(c.sent, msgs[0].Data)
	late := time.Minute / time.Duration(len(c.sent))
	c.mu.Unlock()
	time.Sleep(late)
	return nil
}

// Whatever calls run at the same time, State is what the user has got last.
func TestASAP_3_8_01_TheStateSentLastIsTheNewest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		server, err := NewServer(w.serveConfig(transport.TCP), HandlerFunc(echo))
		if err != nil {
			t.Fatal(err)
		}
		conn := &lateConn{}
		session := server.session(arrival{conn: conn})
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				if err := session.SaveState(t.Context(), []byte{byte('a' + i)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		last, _, err := asap.Decode(conn.sent[4])
		if err != nil {
			t.Fatal(err)
		}
		got, err := sealer(t, pool).Open(last.(*asap.Cookie).Cookie)
		if err != nil || string(got) != string(session.State()) {
			t.Errorf("the user's newest state is %q, %v; the session's %q", got, err, session.State())
		}
	})
}

func TestSaveStateWaitsNoLongerThanItsContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		got := make(chan error, 1)
		w.serve(transport.TCP, nil, func(ctx context.Context, s *Session) error {
			go func() { // to a user that does not read
				for s.SaveState(ctx, make([]byte, 1000)) == nil {
				}
			}()
			time.Sleep(time.Second)
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			got <- s.SaveState(short, []byte("x"))
			return nil
		})
		w.dial(transport.TCP)
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's end", err)
		}
	})
}
