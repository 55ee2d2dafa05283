package pooluser_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

func TestAnswersInUseAreRenewedAheadOfTime(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		for range 600 {
			if a := l.wantAnswer(r, 1); a.Stale {
				t.Errorf("stale after %v", a.Age)
			}
			sleep(time.Second)
		}
		// The first at once, then each 27 s: a tenth of 30 s earlier.
		l.wantRequests(home, 1+600/27)
	})
}

func TestAnswersNotInUseAreNotRenewed(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		sleep(time.Hour)
		l.wantRequests(home, 1)
		l.wantAnswer(r, 1) // an hour old: a new one
		l.wantAnswer(r, 1) // in use
		sleep(time.Hour)
		l.wantRequests(home, 3) // renewed once, and not used since
	})
}

func TestPurgedAndEvictedPoolsAreNotRenewed(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		r := l.user(func(c *pooluser.Config) { c.MaxPools = 1 })
		for _, handle := range []param.PoolHandle{"a", "b", pool} {
			l.setPool(handle, param.RoundRobin, 1)
			for range 2 {
				if _, err := r.Resolve(t.Context(), handle); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.Purge(pool)
		sleep(time.Minute)
		l.wantRequests(home, 3)
	})
}

func TestAheadMustBeBelowStale(t *testing.T) {
	err := pooluser.Config{Stale: time.Second, Ahead: time.Second}.Validate()
	if err == nil || !strings.Contains(err.Error(), "Ahead is 1s") {
		t.Errorf("error %v, want Ahead refused", err)
	}
}

// No registrar, for long: the last known answer serves, says why, and the log says so
// once; when a registrar is there again it does too.
func TestLastKnownAnswersSayWhy(t *testing.T) {
	for name, stale := range map[string]time.Duration{"cache": 0, "no cache": -1} {
		inLab(t, func(t *testing.T, l *lab) {
			home := l.registrar(home1)
			l.setPool(pool, param.RoundRobin, 1, 2)
			log, lines := test.NewNullLogger()
			log.SetLevel(logrus.InfoLevel)
			var told []error
			r := l.user(func(c *pooluser.Config) {
				c.Stale, c.Log = stale, log
				c.OnOutage = func(why error) { told = append(told, why) }
			})
			if a := l.wantAnswer(r, 1, 2); a.Unconfirmed != nil {
				t.Errorf("%s: unconfirmed with a registrar: %v", name, a.Unconfirmed)
			}
			home.Stop()
			synctest.Wait()
			sleep(40 * time.Second)
			for range 5 {
				a := l.wantAnswer(r, 1, 2)
				if !errors.Is(a.Unconfirmed, hunt.ErrNoRegistrar) || a.Age < 40*time.Second {
					t.Errorf("%s: %v of age %v, want ErrNoRegistrar", name, a.Unconfirmed, a.Age)
				}
				l.dialOK(r)
				sleep(time.Second)
			}
			if len(told) != 1 || !errors.Is(told[0], hunt.ErrNoRegistrar) {
				t.Errorf("%s: told %v, want the outage once", name, told)
			}
			if s := r.Stats(); s.LastKnown < 5 {
				t.Errorf("%s: stats %+v", name, s)
			}
			l.registrar(home1)
			sleep(65 * time.Second)
			l.wantAnswer(r, 1, 2)
			synctest.Wait()
			if a := l.wantAnswer(r, 1, 2); a.Unconfirmed != nil || a.Stale {
				t.Errorf("%s: answer %+v after the outage", name, a)
			}
			if len(told) != 2 || told[1] != nil {
				t.Errorf("%s: told %v, want the end of the outage", name, told)
			}
			var said []string
			for _, line := range lines.AllEntries() {
				if strings.Contains(line.Message, "answer") {
					said = append(said, line.Message)
				}
			}
			if !slices.Equal(said, []string{"no answer from registrars: going on with what they said last", "registrars answer again"}) {
				t.Errorf("%s: logged %q", name, said)
			}
		})
	}
}

// A registrar that is connected but silent costs a request without cache its time-out,
// no more.
func TestLastKnownAnswersServeBesideASilentRegistrar(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(func(c *pooluser.Config) { c.Stale = -1 })
		l.wantAnswer(r, 1, 2)
		l.setMute(true)
		if a := l.wantAnswer(r, 1, 2); !errors.Is(a.Unconfirmed, hunt.ErrTimeout) || a.Age < 45*time.Second {
			t.Errorf("%v of age %v, want ErrTimeout", a.Unconfirmed, a.Age)
		}
	})
}

func TestAvoidedElementsAreLeftOutForATime(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(func(c *pooluser.Config) { c.Stale, c.Ahead = time.Second, -1 })
		use := func(n int) map[param.PEID]int {
			seen := map[param.PEID]int{}
			for range n {
				for _, id := range l.selectN(r, 2) {
					seen[id]++
				}
				sleep(time.Second)
			}
			return seen
		}
		l.wantAnswer(r, 1, 2)
		r.Avoid(pool, 1, 10*time.Second)
		if seen := use(9); seen[1] != 0 {
			t.Errorf("selected %v, want 1 left out for 10 s of new answers", seen)
		}
		sleep(2 * time.Second)
		l.selectN(r, 1)
		synctest.Wait()
		if seen := use(5); seen[1] != 5 {
			t.Errorf("selected %v, want both again", seen)
		}
		r.Avoid(pool, 1, time.Hour)
		r.Recovered(pool, 1)
		if seen := use(5); seen[1] != 5 {
			t.Errorf("selected %v, want both: 1 has recovered", seen)
		}
		r.Avoid(pool, 1, time.Hour)
		r.Avoid(pool, 2, time.Hour)
		if _, err := r.Select(t.Context(), pool); err != nil {
			t.Errorf("nobody left: %v, want to begin anew", err)
		}
		l.wantReports(home)
	})
}
