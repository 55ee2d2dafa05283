package pingpong

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
	"rserpool/pooluser"
	"rserpool/pooluser/pooltest"
)

// raw are the cookies of rsplib.
func raw(cfg *poolelement.ServeConfig) {
	cfg.Cookies, cfg.OnResume = cookie.Raw{}, CheckState
}

// TestRepliesGoOnCounting: of three elements the one that serves is killed, then the
// next hangs.
func TestRepliesGoOnCounting(t *testing.T) {
	for name, sctp := range map[string]bool{"TCP": false, "SCTP": true} {
		t.Run(name, func(t *testing.T) {
			pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
				w.Registrar("r1")
				for _, e := range []string{"e1", "e2", "e3"} {
					w.Element(e, Pool, Element{}, raw)
				}
				r := w.User("u1")
				w.Settle()
				var mu sync.Mutex
				var pongs []Pong
				var at string
				var begin time.Time
				ctx, cancel := context.WithCancel(t.Context())
				gone := make(chan error, 1)
				begin = time.Now()
				go func() {
					gone <- User{Interval: 10 * time.Millisecond, OnPong: func(p Pong, from param.PEID) {
						mu.Lock()
						defer mu.Unlock()
						pongs, at = append(pongs, p), w.Who(from)
					}}.Run(ctx, r, Pool, pooluser.SessionConfig{Timers: pooluser.Fast, SCTPHeartbeats: true})
				}()
				for _, fault := range []func(string){w.Kill, w.Hang} {
					w.Pass(time.Second)
					mu.Lock()
					victim := at
					mu.Unlock()
					fault(victim)
				}
				w.Pass(time.Second)
				cancel()
				if err := <-gone; !errors.Is(err, context.Canceled) {
					t.Errorf("ended with %v", err)
				}
				sent := int(time.Since(begin) / (10 * time.Millisecond))
				if len(pongs) < sent-2 {
					t.Errorf("%d pongs in %v", len(pongs), time.Since(begin))
				}
				// Each ping has its pong; a reply may repeat a number whose cookie
				// was lost with the element, or skip one whose pong was.
				for i, p := range pongs[1:] {
					last := pongs[i]
					if p.Number != last.Number && p.Number != last.Number+1 {
						t.Errorf("pong of ping %d after that of %d", p.Number, last.Number)
					}
					if p.Reply < last.Reply || p.Reply > last.Reply+2 {
						t.Errorf("reply %d after %d", p.Reply, last.Reply)
					}
				}
			}, func(cfg *pooltest.Config) { cfg.SCTP = sctp })
		})
	}
}

func TestForeignStateIsRefused(t *testing.T) {
	pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
		w.Registrar("r1")
		w.Element("e1", Pool, Element{}, raw)
		r := w.User("u1")
		w.Settle()
		err := User{}.Run(t.Context(), r, Pool, pooluser.SessionConfig{Cookie: []byte("<FG-TD1>12345678")})
		if !errors.Is(err, pooluser.ErrCookieRefused) {
			t.Errorf("a cookie of another service: %v", err)
		}
	})
}
