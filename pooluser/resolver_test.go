package pooluser_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

func TestASAP_3_3_13_FreshHitSendsNothing(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(func(c *pooluser.Config) { c.Ahead = -1 })
		l.wantAnswer(r, 1, 2)
		for range 10 {
			sleep(2900 * time.Millisecond)
			if a := l.wantAnswer(r, 1, 2); a.Stale {
				t.Error("answer is stale before 30 s")
			}
		}
		l.wantRequests(home, 1)
		l.row("ASAP_3_3_09_AnswerFeedsTheCache", func(t *row) { l.wantRequests(home, 1) })
		l.row("ASAP_3_3_10_CacheIsConsultedFirst", func(t *row) { l.wantRequests(home, 1) })
		l.row("SM_PU_01_SelectFromTheCache", func(t *row) {
			l.selectN(r, 4)
			l.wantRequests(home, 1)
		})
		if s := r.Stats(); s.Requests != 1 || s.Hits != 14 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestASAP_3_3_11_StaleHitTriggersARequest(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin, 2)
		sleep(30 * time.Second) // AMB-17
		a := l.wantAnswer(r, 1)
		if !a.Stale || a.Age != 30*time.Second {
			t.Errorf("answer %+v, want a stale one of 30 s", a)
		}
		l.wantRequests(home, 2)
		l.row("ASAP_3_3_12_AnsweredAtOnceAndRefreshedBeside", func(t *row) {
			if a := l.wantAnswer(r, 2); a.Stale {
				t.Error("not refreshed")
			}
		})
		l.row("SM_PU_03_StaleSendsAResolution", func(t *row) { l.wantRequests(home, 2) })
		l.row("AMB_17_ThirtySeconds", func(t *row) {
			sleep(29999 * time.Millisecond)
			if a := l.wantAnswer(r, 2); a.Stale {
				t.Error("stale too early")
			}
		})
	})
}

func TestAMB_17_ZeroMeansNoCache(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) { c.Stale = -1 })
		for range 5 {
			if a := l.wantAnswer(r, 1); a.Stale {
				t.Error("an answer just given is stale")
			}
		}
		l.wantRequests(home, 5)
	})
}

func TestOldAnswersWaitForNewOnes(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin, 2)
		sleep(time.Hour)
		l.wantAnswer(r, 2) // not the one of an hour ago
		l.net.Freeze(home1)
		sleep(time.Hour)
		start := time.Now()
		l.wantAnswer(r, 2)
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("waited %v, want StaleWait", took)
		}
		l.net.Thaw(home1)
	})
}

func TestASAP_6_5_1_03_OneRequestHoweverManyCallers(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.net.Freeze(home1)
		var callers sync.WaitGroup
		errs := make(chan error, 50)
		for range 50 {
			callers.Go(func() {
				_, err := r.Resolve(t.Context(), pool)
				errs <- err
			})
		}
		synctest.Wait()
		l.row("ASAP_6_5_1_02_HeldUntilTheAnswer", func(t *row) {
			if len(errs) != 0 {
				t.Error("a caller did not wait")
			}
		})
		l.net.Thaw(home1)
		callers.Wait()
		for range 50 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		l.wantRequests(home, 1)
		l.row("SM_PU_04_QueueOnly", func(t *row) { l.wantRequests(home, 1) })
		l.row("SM_PU_05_AnswerForAll", func(t *row) { l.wantAnswer(r, 1) })
		l.row("ASAP_6_5_1_01_SendResolvesFirst", func(t *row) { l.wantRequests(home, 1) })
	})
}

func TestASAP_2_2_6_07_ErrorMeansNegative(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		r := l.user(nil)
		_, err := r.Resolve(t.Context(), pool)
		var refused *pooluser.RefusedError
		if !errors.Is(err, pooluser.ErrUnknownPool) || !errors.As(err, &refused) || refused.Pool != pool {
			t.Errorf("error %v, want ErrUnknownPool", err)
		}
		l.row("SM_PU_06_FailWithTheCause", func(t *row) {
			if refused == nil || refused.Causes[0].Code != param.CauseUnknownPoolHandle {
				t.Errorf("causes %v", refused)
			}
		})
		l.row("RememberedBriefly", func(t *row) {
			for range 5 {
				if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
					t.Error(err)
				}
			}
			l.wantRequests(home, 1)
			l.setPool(pool, param.RoundRobin, 1)
			sleep(time.Second)
			l.wantAnswer(r, 1)
		})
	})
}

func TestOtherRefusalsAreErrors(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.pools[pool] = &asap.HandleResolutionResponse{Error: param.OperationError{{Code: param.CauseLackOfResources}}}
		r := l.user(nil)
		_, err := r.Resolve(t.Context(), pool)
		var refused *pooluser.RefusedError
		if !errors.As(err, &refused) || errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("error %v, want a refusal other than unknown pool", err)
		}
		l.row("TheLastAnswerStands", func(t *row) {
			l.setPool(pool, param.RoundRobin, 1)
			sleep(2 * time.Second)
			l.wantAnswer(r, 1)
			l.pools[pool] = &asap.HandleResolutionResponse{Error: param.OperationError{{Code: param.CauseLackOfResources}}}
			sleep(40 * time.Second)
			l.wantAnswer(r, 1)
			synctest.Wait()
			if a := l.wantAnswer(r, 1); !a.Stale {
				t.Error("refused answer counts as new")
			}
		})
	})
}

func TestASAP_2_2_6_03_NoPolicyMeansRoundRobin(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, 0, 1, 2)
		for i := range l.pools[pool].Elements {
			l.pools[pool].Elements[i].Policy = param.Policy{Type: param.Priority, Priority: uint32(10 * i)}
		}
		r := l.user(nil)
		if a := l.wantAnswer(r, 1, 2); a.Policy != param.RoundRobin {
			t.Errorf("policy %#x, want round robin", a.Policy)
		}
		l.row("ASAP_2_2_6_05_ElementsPolicyIsIgnored", func(t *row) {
			if got := l.selectN(r, 4); !slices.Equal(got, []param.PEID{1, 2, 1, 2}) {
				t.Errorf("selected %v, want turns", got)
			}
		})
	})
}

func TestASAP_6_5_2_1_01_RoundRobinReachesEachOnce(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 3, 1, 2)
		r := l.user(nil)
		got := l.selectN(r, 7)
		if !slices.Equal(got, []param.PEID{3, 1, 2, 3, 1, 2, 3}) {
			t.Errorf("selected %v", got)
		}
		l.row("POL_4_1_3_01_FromTheFirst", func(t *row) {
			if got[0] != 3 {
				t.Errorf("began with %v", got[0])
			}
		})
		l.row("POL_4_1_3_02_AgainFromTheFirst", func(t *row) {
			if got[3] != 3 {
				t.Errorf("went on with %v", got[3])
			}
			sleep(31 * time.Second)
			l.wantAnswer(r, 3, 1, 2)
			synctest.Wait() // a new answer is there
			if got := l.selectN(r, 1); got[0] != 3 {
				t.Errorf("new list begun with %v", got[0])
			}
		})
	})
}

func TestASAP_6_5_2_01_SelectsByThePoolsPolicy(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		r := l.user(nil)
		l.row("POL_4_5_3_01_HighestPriority", func(t *row) {
			l.setPool("prio", param.Priority, 1, 2, 3)
			for i := range l.pools["prio"].Elements {
				l.pools["prio"].Elements[i].Policy = param.Policy{Type: param.Priority, Priority: uint32(i % 2)}
			}
			for range 3 {
				if e, err := r.Select(l.t.Context(), "prio"); err != nil || e.ID != 2 {
					t.Errorf("selected %v, %v, want 2", e.ID, err)
				}
			}
		})
		l.row("POL_4_3_3_01_RandomEachTime", func(t *row) {
			l.setPool("rand", param.Random, 1, 2, 3)
			seen := map[param.PEID]int{}
			for range 600 {
				e, err := r.Select(l.t.Context(), "rand")
				if err != nil {
					t.Fatal(err)
				}
				seen[e.ID]++
			}
			for id, n := range seen {
				if n < 140 || n > 260 {
					t.Errorf("element %v selected %d times of 600", id, n)
				}
			}
		})
		l.row("POL_5_1_3_01_LeastUsedInListOrder", func(t *row) {
			l.setPool("lu", param.LeastUsed, 5, 4)
			for _, want := range []param.PEID{5, 4, 5} {
				if e, err := r.Select(l.t.Context(), "lu"); err != nil || e.ID != want {
					t.Errorf("selected %v, %v, want %v", e.ID, err, want)
				}
			}
		})
	})
}

func TestLastAnswerServesWhileNoRegistrarIsThere(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		r := l.user(nil)
		l.wantAnswer(r, 1, 2)
		home.Stop()
		sleep(10 * time.Minute)
		start := time.Now()
		for range 10 {
			if a := l.wantAnswer(r, 1, 2); !a.Stale || a.Age < 10*time.Minute {
				t.Errorf("answer %+v does not say how old it is", a)
			}
			l.dialOK(r)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v", took)
		}
		l.row("ARestartedRegistrarKnowsNothingYet", func(t *row) {
			l.setPool(pool, param.RoundRobin)
			again := l.registrar(home1)
			sleep(65 * time.Second) // it is found
			for range 20 {
				l.wantAnswer(r, 1, 2)
				sleep(100 * time.Millisecond)
			}
			if len(received[*asap.HandleResolution](again)) == 0 {
				t.Error("the new registrar was not asked")
			}
			l.setPool(pool, param.RoundRobin, 2)
			sleep(2 * time.Second)
			l.wantAnswer(r, 2)
		})
	})
}

func TestUnknownPoolReplacesAnAnswer(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		sleep(2 * time.Minute) // the grace of the first home has passed
		l.wantAnswer(r, 1)
		l.setPool(pool, param.RoundRobin)
		sleep(30 * time.Second)
		l.wantAnswer(r, 1)
		synctest.Wait()
		if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("error %v, want ErrUnknownPool", err)
		}
	})
}

func TestSM_PU_02_MissWithoutRegistrarHuntsFirst(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		go func() {
			sleep(3 * time.Second)
			l.registrar(home2)
		}()
		start := time.Now()
		l.wantAnswer(r, 1)
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("answered after %v, want at the second round", took)
		}
	})
}

func TestResolveWithoutRegistrarFails(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		r := l.user(nil)
		if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, hunt.ErrNoRegistrar) {
			t.Errorf("error %v, want ErrNoRegistrar", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Resolve(ctx, pool); !errors.Is(err, hunt.ErrNoRegistrar) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not reached") {
			t.Errorf("error %v, want the deadline, for want of a registrar", err)
		}
	})
}

func TestASAP_3_7_2_02_SilentRegistrarIsAnError(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		r := l.user(nil)
		l.setMute(true)
		start := time.Now()
		if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, hunt.ErrTimeout) || time.Since(start) != 45*time.Second {
			t.Errorf("error %v after %v, want ErrTimeout after 45 s", err, time.Since(start))
		}
		l.wantRequests(home, 3)
		l.row("SM_PU_08_ErrorReport", func(t *row) {
			if r.Stats().Requests != 1 {
				t.Errorf("stats %+v", r.Stats())
			}
		})
	})
}

func TestSM_PU_10_ConnectionLostWithTheRequest(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		first := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.net.Freeze(home1)
		second := l.registrar(home2)
		go func() {
			sleep(time.Second)
			l.net.Thaw(home1)
			first.Stop()
		}()
		l.wantAnswer(r, 1)
		l.wantAnswer(r, 1)
		if n := len(received[*asap.HandleResolution](second)); n > 1 {
			t.Errorf("%d resolutions at the second registrar", n)
		}
	})
}

func TestAMB_11_SurplusAnswerIsARefresh(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		if err := home.Send(response(param.RoundRobin, 7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		l.wantAnswer(r, 7)
	})
}

func TestAMB_70_KeepAliveIsDropped(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		r := l.user(nil)
		before, _ := r.Home()
		if err := home.Send(&asap.EndpointKeepAlive{Home: true, Registrar: 9, Handle: pool}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if after, _ := r.Home(); after.Link != before.Link {
			t.Error("home changed")
		}
		if got := home.Received(); len(got) != 0 {
			t.Errorf("keep-alive answered: %+v", got)
		}
	})
}

func TestASAP_2_2_14_03_NoErrorAnswersAnError(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		if err := home.Send(&asap.Error{Causes: param.OperationError{{Code: param.CauseUnspecified}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := home.Received(); len(got) != 0 {
			t.Errorf("ASAP_ERROR answered: %+v", got)
		}
		l.row("ASAP_4_01_UserHandlesAnswersAndErrors", func(t *row) { l.wantAnswer(r, 1) })
	})
}

func TestASAP_6_3_01_PopulateAndPurge(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		if _, err := r.Renew(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		l.wantAnswer(r, 1)
		l.wantRequests(home, 1)
		r.Purge(pool)
		l.wantAnswer(r, 1)
		l.wantRequests(home, 2)
	})
}

func TestASAP_6_9_1_01_TranslationGivesTransports(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		a := l.wantAnswer(l.user(nil), 1)
		if u := a.Elements[0].User; u.Type != param.TypeTCPTransport || u.Port != service || u.Addrs[0] != address(1) {
			t.Errorf("transport %+v", u)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		r := l.user(func(c *pooluser.Config) { c.MaxPools = 3 })
		ask := func(i int) {
			t.Helper()
			handle := param.PoolHandle(fmt.Sprint("pool", i))
			l.setPool(handle, param.RoundRobin, 1)
			if _, err := r.Resolve(t.Context(), handle); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			ask(i)
			ask(0) // always in use
		}
		if s := r.Stats(); s.Evicted != 2 || s.Requests != 5 {
			t.Errorf("stats %+v, want 2 evicted after 5 requests", s)
		}
		l.net.Freeze(home1)
		var waiting sync.WaitGroup
		for i := range 3 {
			waiting.Go(func() {
				// All that matters is that it waits.
				_, _ = r.Resolve(t.Context(), param.PoolHandle(fmt.Sprint("wait", i)))
			})
		}
		synctest.Wait()
		if _, err := r.Resolve(t.Context(), "more"); !errors.Is(err, pooluser.ErrTooManyPools) {
			t.Errorf("error %v, want ErrTooManyPools", err)
		}
		l.net.Thaw(home1)
		waiting.Wait()
		_ = home
	})
}

func TestRsplibMode(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(func(c *pooluser.Config) {
			c.RSPLib, c.Stale, c.Hunt = true, -1, hunt.RSPLib()
		})
		l.wantAnswer(r, 1)
		q := received[*asap.HandleResolution](home)
		if len(q) != 1 || q[0].Items != 1 || q[0].SendUpdates {
			t.Errorf("request %+v, want one item and no updates", q)
		}
		if _, err := r.Resolve(t.Context(), param.PoolHandle(strings.Repeat("x", 33))); !errors.Is(err, pooluser.ErrHandle) {
			t.Errorf("error %v, want ErrHandle: 33 octets kill rsplib's registrar", err)
		}
		l.row("ErrorAnswersTheRequest", func(t *row) {
			l.setMute(true)
			failed := make(chan error, 1)
			go func() {
				_, err := r.Resolve(l.t.Context(), pool)
				failed <- err
			}()
			synctest.Wait()
			if err := home.Send(&asap.Error{Causes: param.OperationError{{Code: 0x10}}}); err != nil {
				t.Fatal(err)
			}
			var refused *pooluser.RefusedError
			if err := <-failed; !errors.As(err, &refused) {
				t.Errorf("error %v, want a refusal", err)
			}
		})
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := pooluser.New(pooluser.Config{RSPLib: true, Subscribe: true, MaxPools: -1, Negative: -1})
	if err == nil {
		t.Fatal("bad configuration accepted")
	}
	for _, part := range []string{"networks", "registrars", "Subscribe", "MaxPools", "Negative"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestStoppedResolver(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.net.Freeze(home1)
		failed := make(chan error, 1)
		go func() {
			_, err := r.Resolve(l.t.Context(), pool)
			failed <- err
		}()
		synctest.Wait()
		r.Stop()
		if err := <-failed; !errors.Is(err, huntnet.ErrStopped) {
			t.Errorf("waiting call: %v, want ErrStopped", err)
		}
		if _, err := r.Resolve(t.Context(), pool); !errors.Is(err, huntnet.ErrStopped) {
			t.Errorf("later call: %v, want ErrStopped", err)
		}
		l.net.Thaw(home1)
	})
}
