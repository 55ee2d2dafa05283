package ringtest

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	// Schedules make much garbage and hold little.
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// keepList reads which actions to keep: "1,4-7".
func keepList(t *testing.T) []int {
	text := os.Getenv("KEEP")
	if text == "" {
		return nil
	}
	keep := []int{}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if part != "none" && (err != nil || err2 != nil) {
			t.Fatalf("KEEP: %q is no list of numbers", text)
		}
		for i := a; part != "none" && i <= b; i++ {
			keep = append(keep, i)
		}
	}
	return keep
}

func formatKeep(keep []int) string {
	if len(keep) == 0 {
		return "none"
	}
	var parts []string
	for i := 0; i < len(keep); {
		j := i
		for j+1 < len(keep) && keep[j+1] == keep[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, strconv.Itoa(keep[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", keep[i], keep[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// minSteps and minFaults are the least that each schedule must have. Fewer schedules
// than minSeeds say nothing of what is rare.
const (
	minSteps  = 300
	minFaults = 3
	minSeeds  = 500
)

// TestSimulation runs schedules. In the environment: SEEDS, how many; FROM, the
// first; PROFILE, of one kind only; SEED, just this one, with TRACE=1 line by line,
// with KEEP only some of its actions.
func TestSimulation(t *testing.T) {
	opt := Options{Profile: os.Getenv("PROFILE"), Keep: keepList(t)}
	if seed := number(t, "SEED", 0); seed != 0 {
		if os.Getenv("TRACE") != "" {
			opt.Trace = os.Stdout
		}
		r := Run(seed, opt)
		t.Logf("%v\n%d steps, settled after %v\n%v", r.Schedule, r.Steps, r.Settle, r.Coverage)
		if r.Err != nil {
			t.Error(r.Err)
		}
		return
	}
	seeds := uint64(1500)
	if raceEnabled {
		seeds = 100
	}
	seeds, from := number(t, "SEEDS", seeds), number(t, "FROM", 1)
	start := time.Now()
	var mu sync.Mutex
	var sum Coverage
	var slowest, settle time.Duration
	failed := map[uint64]error{}
	each(from, seeds, func(seed uint64) bool {
		begin := time.Now()
		r := Run(seed, opt)
		took := time.Since(begin)
		mu.Lock()
		defer mu.Unlock()
		sum.Add(r.Coverage)
		slowest, settle = max(slowest, took), max(settle, r.Settle)
		switch {
		case r.Err != nil:
			failed[seed] = r.Err
		case r.Steps < minSteps || r.Faults < minFaults:
			failed[seed] = fmt.Errorf("only %d steps and %d faults", r.Steps, r.Faults)
		}
		return len(failed) < 20
	})
	took := time.Since(start)
	t.Logf("%d schedules in %v, %.0f/s with %d at a time, %.1f ms of one processor each, the slowest %v; settled after %v at most\n%v",
		sum.Schedules, took.Round(time.Millisecond), float64(sum.Schedules)/took.Seconds(), workers(),
		took.Seconds()*1000*float64(workers())/float64(max(sum.Schedules, 1)), slowest.Round(time.Millisecond), settle, sum)
	report(t, failed, opt)
	if len(failed) == 0 && opt.Profile == "" && seeds >= minSeeds {
		for _, missing := range sum.Missing() {
			t.Errorf("too rare: %s", missing)
		}
	}
}

// report shows failed seeds, and the shortest schedule that still fails for a few.
func report(t *testing.T, failed map[uint64]error, opt Options) {
	t.Helper()
	seeds := []uint64{}
	for seed := range failed {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	checks := map[string]bool{}
	for _, seed := range seeds {
		t.Errorf("seed %d: %v", seed, failed[seed])
		v, ok := failed[seed].(*Violation)
		if !ok || checks[v.Check] || len(checks) >= 3 {
			continue
		}
		checks[v.Check] = true
		keep := Shrink(seed, opt)
		short := opt
		short.Keep = keep
		r := Run(seed, short)
		lines := ""
		for _, i := range keep {
			lines += fmt.Sprintf("\n  %v", r.Schedule.Actions[i])
		}
		profile := ""
		if opt.Profile != "" {
			profile = " PROFILE=" + opt.Profile
		}
		t.Logf("seed %d, profile %s, %d members, shrunk: %v%s\nreplay: make sim SEED=%d%s KEEP=%s TRACE=1",
			seed, r.Schedule.Profile, r.Schedule.Members, r.Err, lines, seed, profile, formatKeep(keep))
	}
}

func workers() int { return runtime.GOMAXPROCS(0) }

// each runs f for so many seeds, several at a time, until one returns false.
func each(from, seeds uint64, f func(seed uint64) bool) {
	var next atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range workers() {
		wg.Go(func() {
			for !stop.Load() {
				n := next.Add(1) - 1
				if n >= seeds {
					return
				}
				if !f(from + n) {
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
}

// A schedule runs the same way each time.
func TestScheduleIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= 30; seed++ {
		var a, b strings.Builder
		Run(seed, Options{Trace: &a})
		Run(seed, Options{Trace: &b})
		if a.String() != b.String() {
			x, y := strings.Split(a.String(), "\n"), strings.Split(b.String(), "\n")
			for i := range min(len(x), len(y)) {
				if x[i] != y[i] {
					t.Fatalf("seed %d, line %d: %q, then %q", seed, i, x[i], y[i])
				}
			}
			t.Fatalf("seed %d: %d lines, then %d", seed, len(x), len(y))
		}
	}
}
