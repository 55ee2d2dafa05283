package pooluser_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

// 'Unknown pool' from a registrar that is the home for some time means that the
// pool is gone; so it does at once from the one that knew it.
func TestGraceIsForNewRegistrarsAndEnds(t *testing.T) {
	wantGone := func(t *testing.T, r *pooluser.Resolver) {
		t.Helper()
		if _, err := r.Renew(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("renewed: %v, want ErrUnknownPool", err)
		}
		if a, err := r.Resolve(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("resolved: %+v, %v; want ErrUnknownPool", a, err)
		}
	}
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin)
		wantGone(t, r)
	})
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Stale = time.Hour })
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin)
		home.Stop()
		l.registrar(home2)
		sleep(30 * time.Second)
		second, ok := r.Home()
		if !ok {
			t.Fatal("the second registrar is not found")
		}
		sleep(time.Until(second.Since.Add(59 * time.Second)))
		if _, err := r.Renew(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("%v, want ErrUnknownPool", err)
		}
		if _, err := r.Resolve(t.Context(), pool); err != nil {
			t.Errorf("within the grace: %v, want the former answer", err)
		}
		sleep(2 * time.Second)
		wantGone(t, r)
	})
}

func TestASAP_2_2_5_01_SubscriptionBringsUpdates(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Subscribe = true })
		if a := l.wantAnswer(r, 1); !a.Updates {
			t.Error("no updates promised")
		}
		if q := received[*asap.HandleResolution](home); !q[0].SendUpdates {
			t.Error("S is not set")
		}
		push := func(msg *asap.HandleResolutionResponse) {
			msg.AcceptUpdates = msg.Error == nil
			if err := home.Send(msg); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		l.row("SM_PU_11_UpdateReplacesTheEntry", func(t *row) {
			sleep(20 * time.Second)
			push(response(param.RoundRobin, 1, 2))
			sleep(20 * time.Second) // the timer was restarted
			if a := l.wantAnswer(r, 1, 2); a.Stale || a.Age != 20*time.Second {
				t.Errorf("answer %+v", a)
			}
			l.wantRequests(home, 1)
		})
		l.row("AMB_54_NegativeUpdateEndsIt", func(t *row) {
			sleep(time.Minute)
			push(unknown(pool))
			if _, err := r.Resolve(l.t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
				t.Errorf("error %v, want ErrUnknownPool", err)
			}
		})
		l.row("UpdatesOfOtherPoolsAreIgnored", func(t *row) {
			other := response(param.RoundRobin, 9)
			other.Handle = "other"
			push(other)
			if s := r.Stats(); s.Updates != 2 {
				t.Errorf("%d updates counted, want 2", s.Updates)
			}
		})
	})
}

func TestASAP_2_2_5_03_SubscribesAgainAtANewHome(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		first := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Subscribe = true })
		l.wantAnswer(r, 1)
		second := l.registrar(home2)
		first.Stop()
		sleep(time.Second)
		if q := received[*asap.HandleResolution](second); len(q) != 1 || !q[0].SendUpdates {
			t.Errorf("new home got %+v", q)
		}
		l.row("SM_PU_09_SubscribeAgain", func(t *row) { l.wantRequests(second, 1) })
	})
}

// A registrar that has just started does not know the pool, so that nobody
// subscribes to it there. The user asks again until it does.
func TestSubscribesAgainWhenARestartedRegistrarLearnsOfThePool(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		first := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Subscribe, c.Stale = true, time.Hour })
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin)
		second := l.registrar(home2)
		first.Stop()
		sleep(1500 * time.Millisecond)
		if a := l.wantAnswer(r, 1); !a.Stale || a.Updates {
			t.Errorf("answer %+v, want a stale one without updates", a)
		}
		l.setPool(pool, param.RoundRobin, 1, 2)
		sleep(1500 * time.Millisecond)
		l.wantAnswer(r, 1) // and ask meanwhile
		synctest.Wait()
		if a := l.wantAnswer(r, 1, 2); a.Stale || !a.Updates {
			t.Errorf("answer %+v, want a fresh one with updates", a)
		}
		asked := len(received[*asap.HandleResolution](second))
		sleep(time.Minute)
		l.wantAnswer(r, 1, 2)
		l.wantRequests(second, asked)
	})
}

func TestASAP_2_2_6_02_WithoutUpdatesTheTimerRules(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		if a := l.wantAnswer(r, 1); a.Updates {
			t.Error("updates expected with A=0")
		}
		sleep(30 * time.Second)
		l.wantAnswer(r, 1)
		l.wantRequests(home, 2)
	})
}
