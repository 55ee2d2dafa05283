package replica

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringtest"
	"rserpool/registrar/replica/internal/fault"
)

// simulate runs a schedule of the ring's simulator with replicas on top.
func simulate(seed uint64, cfg worldConfig, opt ringtest.Options) (*world, ringtest.Result) {
	w := newWorld(cfg)
	opt.NewApp = func(self ring.Node, now time.Time) ringtest.App {
		for m := range w.nodes {
			if m.ID == self.ID {
				delete(w.nodes, m)
			}
		}
		return w.newNode(self.Member, false, now)
	}
	opt.Event = func(ringtest.App, ring.Event, time.Time) error { return w.violation }
	opt.Settled = func(app ringtest.App) bool { return app.(*node).settled() }
	opt.Final = func(apps []ringtest.App, _ time.Time) error {
		clear(w.nodes)
		var nodes []*node
		for _, app := range apps {
			n := app.(*node)
			nodes, w.nodes[n.self] = append(nodes, n), n
		}
		slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.self.ID, b.self.ID) })
		return w.final(nodes)
	}
	return w, ringtest.Run(seed, opt)
}

// each calls f for n seeds on all processors, until it returns false.
func each(n uint64, f func(seed uint64) bool) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	next, stopped := uint64(1), false
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed, stop := next, stopped || next > n
				next++
				mu.Unlock()
				if stop {
					return
				}
				if !f(seed) {
					mu.Lock()
					stopped = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

// seeds is how many schedules to run: SEEDS in the environment, or so many.
func seeds(t *testing.T, otherwise uint64) uint64 {
	text := os.Getenv("SEEDS")
	if text == "" {
		if raceEnabled {
			otherwise /= 10
		}
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEEDS: %v", err)
	}
	return n
}

// TestSimulation runs replicas over a simulated ring, with all its faults. In the
// environment: SEEDS, how many; SEED, just this one, with TRACE=1 line by line.
func TestSimulation(t *testing.T) {
	if seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		opt := ringtest.Options{}
		if os.Getenv("TRACE") != "" {
			opt.Trace = os.Stdout
			debug = func(n *node, what any) { fmt.Printf("    %v %T %+v\n", n.self, what, what) }
			defer func() { debug = nil }()
		}
		if _, r := simulate(seed, configOf(seed, 0), opt); r.Err != nil {
			t.Error(r.Err)
		}
		return
	}
	var mu sync.Mutex
	happened := map[string]int{}
	failed := 0
	n := seeds(t, 375)
	each(n, func(seed uint64) bool {
		w, r := simulate(seed, configOf(seed, 0), ringtest.Options{})
		mu.Lock()
		defer mu.Unlock()
		for k, n := range w.happened {
			happened[k] += n
		}
		happened["interrupted exchange"] += int(r.Coverage.Interrupted)
		happened["restart"] += int(r.Coverage.Restarts)
		if r.Err != nil {
			failed++
			t.Errorf("seed %d: %.600s", seed, fmt.Sprint(r.Err))
		}
		return failed < 5
	})
	t.Log(n, happened)
	if failed > 0 {
		return
	}
	for _, what := range []string{"exchange", "conflict", "answered", "Registered", "Removed", "Adopted", "Rehomed",
		"Confirmed", "Suspected", "interrupted exchange", "restart"} {
		if uint64(happened[what]) < n/10 {
			t.Errorf("%s: only %d", what, happened[what])
		}
	}
}

var allFaults = map[string]fault.Set{
	"apply at stable": fault.ApplyAtStable, "removal without generation": fault.RemovalWithoutGeneration,
	"merge by registrar": fault.MergeByRegistrar, "response before END": fault.ResponseBeforeEnd,
	"exchange skipped": fault.ExchangeSkipped, "queue dropped": fault.QueueDropped,
	"apply before END": fault.ApplyBeforeEnd, "home without incarnation": fault.HomeWithoutIncarnation,
	"negative before END": fault.NegativeBeforeEnd, "takeover once": fault.TakeoverOnce,
	"without tombstones": fault.WithoutTombstones, "min-members ignored": fault.MinMembersIgnored,
	"homes only": fault.HomesOnly, "absent forgotten": fault.AbsentForgotten,
}

// TestFaultsAreFound breaks a rule at a time. The simulated ring, or the freer order
// of the stories, must show it; some schedules are rare in one of them.
func TestFaultsAreFound(t *testing.T) {
	find := func(n uint64, run func(seed uint64) error) (found string) {
		var mu sync.Mutex
		each(n, func(seed uint64) bool {
			err := run(seed)
			if err == nil {
				return true
			}
			mu.Lock()
			defer mu.Unlock()
			found = fmt.Sprintf("seed %d: %.150q", seed, err.Error())
			return false
		})
		return found
	}
	for name, f := range allFaults {
		t.Run(name, func(t *testing.T) {
			simulated := find(seeds(t, 125), func(seed uint64) error {
				_, r := simulate(seed, configOf(seed, f), ringtest.Options{})
				return r.Err
			})
			told := find(seeds(t, 2500), func(seed uint64) error {
				_, err := story(seed, configOf(seed, f))
				return err
			})
			if t.Logf("simulated: %s\ntold: %s", simulated, told); simulated == "" && told == "" {
				t.Error("not found")
			}
		})
	}
}
