package pooluser_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/selection"
)

// A key keeps its element, whoever asks and after new answers, until that fails.
func TestKeysKeepTheirElements(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RendezvousHashing, 1, 2, 3, 4)
		users := []*pooluser.Resolver{l.user(nil), l.user(func(c *pooluser.Config) { c.Rand = rand.New(rand.NewPCG(3, 4)) })}
		choose := func(r *pooluser.Resolver, key string) param.PEID {
			e, err := r.Select(pooluser.WithKey(t.Context(), key), pool)
			if err != nil {
				t.Fatal(err)
			}
			return e.ID
		}
		owner := map[string]param.PEID{}
		keys := map[param.PEID]int{}
		for i := range 100 {
			key := fmt.Sprint("customer ", i)
			owner[key] = choose(users[0], key)
			keys[owner[key]]++
		}
		if len(keys) != 4 {
			t.Errorf("keys by element: %v", keys)
		}
		l.setPool(pool, param.RendezvousHashing, 4, 2, 3, 1) // another order
		sleep(31 * time.Second)
		for range 2 { // the first finds the old answer
			for key, want := range owner {
				for i, r := range users {
					if got := choose(r, key); got != want {
						t.Fatalf("user %d: %q went from %v to %v", i, key, want, got)
					}
				}
			}
			sleep(time.Second)
		}
		if sent, err := users[0].Report(t.Context(), pool, 3); !sent || err != nil {
			t.Fatal(sent, err)
		}
		for key, want := range owner {
			if got := choose(users[0], key); want != 3 && got != want || got == 3 {
				t.Errorf("%q went from %v to %v", key, want, got)
			}
		}
		// Without a key a user stays with one element.
		first := l.selectN(users[1], 20)
		for _, id := range first {
			if id != first[0] {
				t.Errorf("without a key: %v", first)
				break
			}
		}
	})
}

// The user's own policy is used in place of the pool's, and remembers elements beyond
// the next answer.
func TestPickByResponseTimes(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		var made []param.PolicyType // one Picker for each
		r := l.user(func(c *pooluser.Config) {
			c.Pick = func(handle param.PoolHandle, policy param.PolicyType) func(*rand.Rand) selection.Picker {
				if handle != pool {
					t.Errorf("asked for %q", handle)
				}
				made = append(made, policy)
				return selection.PickPeakEWMA
			}
		})
		takes := map[param.PEID]time.Duration{1: 10 * time.Millisecond, 2: 200 * time.Millisecond, 3: 20 * time.Millisecond}
		run := func(n int) map[param.PEID]int {
			seen := map[param.PEID]int{}
			for range n {
				conn, err := r.Dial(t.Context(), pool)
				if err != nil {
					t.Fatal(err)
				}
				done := conn.Measure()
				time.Sleep(takes[conn.Element.ID])
				done(nil)
				seen[conn.Element.ID]++
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
			return seen
		}
		if seen := run(300); seen[2] > 4 || seen[1] < seen[3] || seen[3] == 0 {
			t.Errorf("requests by element: %v", seen)
		}
		r.Measure("other", 1)(nil) // not in the cache: nothing
		sleep(31 * time.Second)
		l.wantAnswer(r, 1, 2, 3)
		sleep(time.Second)
		if seen := run(50); seen[2] > 4 {
			t.Errorf("after a new answer: %v", seen)
		}
		if !slices.Equal(made, []param.PolicyType{param.RoundRobin}) {
			t.Errorf("pickers made for %v: what they remember is lost", made)
		}
		l.setPool(pool, param.Random, 1, 2, 3)
		sleep(31 * time.Second)
		l.wantAnswer(r, 1, 2, 3) // the old one, and the new one
		sleep(time.Second)
		l.wantAnswer(r, 1, 2, 3)
		if !slices.Equal(made, []param.PolicyType{param.RoundRobin, param.Random}) {
			t.Errorf("pickers made for %v", made)
		}
	})
}

func TestPoolPolicyWithoutPick(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		r := l.user(func(c *pooluser.Config) {
			c.Pick = func(param.PoolHandle, param.PolicyType) func(*rand.Rand) selection.Picker { return nil }
		})
		if got := fmt.Sprint(l.selectN(r, 4)); got != fmt.Sprint([]param.PEID{1, 2, 3, 1}) {
			t.Errorf("selected %v", got)
		}
	})
}
