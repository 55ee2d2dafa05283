package pooluser_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

// told is what a watcher heard.
type told struct {
	ids []param.PEID
	why error // Answer.Unconfirmed
	err error
	at  time.Time
}

// watch watches the pool until the test ends, or stop is called.
func (l *lab) watch(r *pooluser.Resolver) (heard func() []told, stop func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var all []told
	heard = func() []told {
		synctest.Wait()
		return all
	}
	go func() {
		defer close(ended)
		for a, err := range r.Watch(ctx, pool) {
			n := told{why: a.Unconfirmed, err: err, at: time.Now()}
			for _, e := range a.Elements {
				n.ids = append(n.ids, e.ID)
			}
			all = append(all, n)
		}
	}()
	stop = func() { cancel(); <-ended }
	l.t.Cleanup(stop)
	synctest.Wait()
	return heard, stop
}

func (l *lab) wantTold(heard func() []told, want ...[]param.PEID) {
	l.t.Helper()
	var got [][]param.PEID
	for _, n := range heard() {
		got = append(got, n.ids)
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		l.t.Errorf("told %v, want %v", got, want)
	}
}

func TestWatchTellsChanges(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		heard, stop := l.watch(r)
		l.wantTold(heard, []param.PEID{1})
		sleep(10 * time.Minute)
		l.wantTold(heard, []param.PEID{1})
		l.wantRequests(home, 1+600/27)
		l.setPool(pool, param.RoundRobin, 1, 2)
		sleep(28 * time.Second)
		l.wantTold(heard, []param.PEID{1}, []param.PEID{1, 2})
		l.row("OneThatRenewsTellsWatchers", func(t *row) {
			l.setPool(pool, param.RoundRobin, 3)
			if _, err := r.Renew(l.t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			l.wantTold(heard, []param.PEID{1}, []param.PEID{1, 2}, []param.PEID{3})
		})
		l.row("PurgeIsNoChange", func(t *row) {
			r.Purge(pool)
			l.setPool(pool, param.RoundRobin, 4)
			sleep(time.Second)
			if n := heard()[len(heard())-1]; !slices.Equal(n.ids, []param.PEID{4}) {
				t.Errorf("told %+v, want the answer after the purge", n)
			}
		})
		stop()
		l.row("NothingIsAskedForWhenItHasEnded", func(t *row) {
			before := r.Stats().Requests
			sleep(time.Hour)
			if after := r.Stats().Requests; after != before {
				t.Errorf("%d requests", after-before)
			}
		})
	})
}

func TestWatchOfAPoolThatComesAndGoes(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		r := l.user(nil)
		heard, _ := l.watch(r)
		sleep(2 * time.Minute) // the grace of the first home has passed
		if len(heard()) != 1 || !errors.Is(heard()[0].err, pooluser.ErrUnknownPool) {
			t.Fatalf("told %+v, want ErrUnknownPool once", heard())
		}
		start := time.Now()
		l.setPool(pool, param.RoundRobin, 1)
		sleep(2 * time.Second)
		l.wantTold(heard, nil, []param.PEID{1})
		if took := heard()[1].at.Sub(start); took > time.Second {
			t.Errorf("found after %v, want Negative", took)
		}
		l.setPool(pool, param.RoundRobin)
		sleep(30 * time.Second)
		l.wantTold(heard, nil, []param.PEID{1}, nil)
	})
}

func TestWatchTellsThatNoRegistrarAnswers(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		heard, _ := l.watch(r)
		home.Stop()
		sleep(10 * time.Minute)
		l.wantTold(heard, []param.PEID{1}, []param.PEID{1})
		if why := heard()[1].why; !errors.Is(why, hunt.ErrNoRegistrar) {
			t.Errorf("unconfirmed for %v, want ErrNoRegistrar", why)
		}
		l.registrar(home1)
		sleep(2 * time.Minute)
		l.wantTold(heard, []param.PEID{1}, []param.PEID{1}, []param.PEID{1})
		if why := heard()[2].why; why != nil {
			t.Errorf("still unconfirmed: %v", why)
		}
	})
}

// A user that starts before the registrars do hears nothing but failures of the hunt.
func TestWatchWaitsForTheFirstRegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		heard, _ := l.watch(r)
		sleep(3 * time.Second)
		l.wantTold(heard)
		l.registrar(home2)
		sleep(10 * time.Second)
		l.wantTold(heard, []param.PEID{1})
	})
}

func TestWatchWithSubscriptionHearsAtOnce(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Subscribe = true })
		heard, _ := l.watch(r)
		update := response(param.RoundRobin, 1, 2)
		update.AcceptUpdates = true
		if err := home.Send(update); err != nil {
			t.Fatal(err)
		}
		l.wantTold(heard, []param.PEID{1}, []param.PEID{1, 2})
	})
}

func TestWatchedPoolsStayInAFullCache(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		l.setPool("a", param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.MaxPools = 1 })
		l.watch(r)
		if _, err := r.Resolve(t.Context(), "a"); !errors.Is(err, pooluser.ErrTooManyPools) {
			t.Errorf("error %v, want ErrTooManyPools", err)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		heard, _ := l.watch(r)
		for range r.Watch(t.Context(), pool) {
			break // the loop's body ends it
		}
		for _, err := range r.Watch(t.Context(), "") {
			if !errors.Is(err, pooluser.ErrHandle) {
				t.Errorf("error %v, want ErrHandle", err)
			}
		}
		r.Stop()
		if last := heard()[len(heard())-1]; !errors.Is(last.err, huntnet.ErrStopped) {
			t.Errorf("last told %+v, want ErrStopped", last)
		}
	})
}

// away is whoever keeps a registrar, but does not run.
type away struct{ asked int }

func (a *away) Do(context.Context, asap.Message) (asap.Message, error) {
	a.asked++
	return nil, huntnet.ErrStopped
}
func (*away) Send(context.Context, asap.Message) error { return huntnet.ErrStopped }
func (*away) Home() (huntnet.Peer, bool)               { return huntnet.Peer{}, false }

func TestWatchIsPatientWithWhoeverKeepsTheRegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		via := &away{}
		r := l.user(func(c *pooluser.Config) { c.Via = via })
		heard, _ := l.watch(r)
		sleep(time.Minute)
		if all := heard(); len(all) != 1 || !errors.Is(all[0].err, huntnet.ErrStopped) {
			t.Errorf("told %+v, want ErrStopped once", all)
		}
		if via.asked > 62 {
			t.Errorf("asked %d times in a minute, want once each Negative", via.asked)
		}
	})
}
