package endtoend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/internal/history"
)

// What elements and users see of a ring while its registrars are killed and frozen, and
// while they can't reach each other: each registrar of the view in which a registration
// was acknowledged has it. The histories are checked by internal/history. RING_SEED
// repeats a schedule of faults.

func TestRingKeepsWhatItAcknowledged(t *testing.T) {
	record(t, historySeed(t), 6*time.Second, 1).check()
}

func TestCutRingKeepsWhatItAcknowledged(t *testing.T) {
	recordCut(t, historySeed(t), 4*time.Second, 1).check()
}

// In long recordings faults overlap, so that registrars find themselves alone. Each
// has the seed after that of the one before.
func TestRingHistoriesForLong(t *testing.T) {
	const each = 15 * time.Second
	seed := historySeed(t)
	for i := range uint64(max(1, historyTime(t)/each/2)) {
		t.Run(fmt.Sprint("loopback/", seed+i), func(t *testing.T) { record(t, seed+i, each, 2).check() })
		t.Run(fmt.Sprint("cut/", seed+i), func(t *testing.T) { recordCut(t, seed+i, each, 2).check() })
	}
}

// Registrars that acknowledge at once break the promise, and that is seen.
func TestRecordersSeeABrokenPromise(t *testing.T) {
	historyTime(t)
	r := record(t, historySeed(t), 15*time.Second, 2, "--ack", "local")
	bad := history.Find(&r.history)
	l := history.Linearize(&r.history, time.Minute)
	t.Logf("%d violations, %d copies that no order explains", len(bad), len(l.Bad))
	if len(bad) == 0 || len(l.Bad) == 0 {
		t.Error("nothing was found")
	}
	for _, v := range bad[:min(3, len(bad))] {
		t.Log(v)
	}
}

// historyTime is how long long recordings take in all. It skips the test when nobody
// asks for them.
func historyTime(t *testing.T) time.Duration {
	text := os.Getenv("RING_HISTORY")
	if text == "" {
		t.Skip("SKIPPED: runs when RING_HISTORY says for how long, as make chaos does")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func historySeed(t *testing.T) uint64 {
	text := os.Getenv("RING_SEED")
	if text == "" {
		return uint64(time.Now().Unix())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// fault is something that happens to a registrar, or between some.
type fault struct {
	at, lasts time.Duration
	what      string // kill, freeze or cut
	member    int    // killed or frozen
	ways      []way  // cut
}

func (f fault) String() string {
	if f.what != "cut" {
		return fmt.Sprintf("%v: %s %d for %v", f.at, f.what, f.member+1, f.lasts)
	}
	text := fmt.Sprintf("%v: cut", f.at)
	for _, w := range f.ways {
		text += fmt.Sprintf(" %d>%d", w.from+1, w.to+1)
	}
	return fmt.Sprintf("%s for %v", text, f.lasts)
}

// schedule makes faults for a ring: never two of the same registrar at a time, no
// more than so many registrars at a time, and beside them no more than one cut, if
// there are cuts.
func schedule(random *rand.Rand, members, atATime int, cuts bool, d time.Duration) []fault {
	var faults []fault
	free := make([]time.Duration, members) // when each is well again
	healed := time.Duration(0)
	first := random.IntN(2)
	for at := 500 * time.Millisecond; ; at += time.Duration(200+random.IntN(1300)) * time.Millisecond {
		if cuts && (len(faults) == 0 || random.IntN(2) == 0) {
			f := fault{at: at, what: "cut", ways: someWays(random, members)}
			f.lasts = min((100*time.Millisecond<<random.IntN(6))*time.Duration(50+random.IntN(100))/100, d/3)
			if at >= healed && at+f.lasts <= d {
				healed = at + f.lasts + 100*time.Millisecond
				faults = append(faults, f)
			}
			continue
		}
		f := fault{at: at, what: "freeze", member: random.IntN(members)}
		// From less than a hop's time-out to more than a removal takes.
		f.lasts = (20 * time.Millisecond << random.IntN(7)) * time.Duration(50+random.IntN(100)) / 100
		if (first+len(faults))%2 != 0 {
			f.what, f.lasts = "kill", time.Duration(random.IntN(1000))*time.Millisecond
		}
		if f.at+f.lasts > d {
			return faults
		}
		ill := 0
		for _, until := range free {
			if until > at {
				ill++
			}
		}
		if free[f.member] > at || ill >= atATime {
			continue
		}
		free[f.member] = at + f.lasts + 100*time.Millisecond
		if f.what == "kill" {
			free[f.member] += time.Second // to come back
		}
		faults = append(faults, f)
	}
}

// someWays are one way between two members, both ways between them, or all ways
// between two sides.
func someWays(random *rand.Rand, members int) []way {
	order := random.Perm(members)
	switch random.IntN(4) {
	case 0:
		return []way{{order[0], order[1]}}
	case 1:
		return between(order[:1], order[1:2])
	}
	side := 1 + random.IntN(members/2)
	return between(order[:side], order[side:])
}

func TestScheduleOfFaultsIsThatOfItsSeed(t *testing.T) {
	for seed := range uint64(50) {
		for atATime := 1; atATime <= 2; atATime++ {
			for _, cuts := range []bool{false, true} {
				plan := func() []fault { return schedule(rand.New(rand.NewPCG(seed, 0)), 5, atATime, cuts, 10*time.Second) }
				faults := plan()
				if !reflect.DeepEqual(faults, plan()) || len(faults) < 3 {
					t.Fatalf("seed %d: %v, then %v", seed, faults, plan())
				}
				for _, f := range faults {
					ill := slices.DeleteFunc(plan(), func(g fault) bool {
						return (g.what == "cut") != (f.what == "cut") || g.at > f.at || g.at+g.lasts <= f.at
					})
					if len(ill) > atATime || f.what == "cut" && (len(ill) > 1 || !cuts) {
						t.Errorf("seed %d: %v at a time", seed, ill)
					}
				}
			}
		}
	}
}

// record records what the clients of registrars with these flags see for some time,
// while faults happen, so many at a time.
func record(t *testing.T, seed uint64, d time.Duration, atATime int, flags ...string) *recording {
	t.Helper()
	here := newWorld(t).here()
	takeStage(t)
	r := recordMembers(slices.Repeat([]*host{here}, 3), here, flags...)
	r.name = fmt.Sprint(seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r.recordFor(d, schedule(random, len(r.members), atATime, false, d), random)
	return r
}

// recordCut records what the clients of registrars on hosts of their own see, while
// these are also cut off from each other. All clients reach all of them.
func recordCut(t *testing.T, seed uint64, d time.Duration, atATime int) *recording {
	t.Helper()
	n := newNetwork(t)
	takeStage(t)
	var hosts []*host
	for i := range 5 {
		hosts = append(hosts, n.host(fmt.Sprintf("192.0.2.%d/24", i+1)))
	}
	r := recordMembers(hosts, n.host("192.0.2.100/24"))
	r.name = fmt.Sprintf("cut-%d", seed)
	r.connect = func(w way, connected bool) { n.oneWay(hosts[w.from], hosts[w.to], connected) }
	random := rand.New(rand.NewPCG(seed, 0))
	r.recordFor(d, schedule(random, len(r.members), atATime, true, d), random)
	return r
}

// recordFor records while faults happen.
func (r *recording) recordFor(d time.Duration, faults []fault, random *rand.Rand) {
	t := r.w.t
	t.Helper()
	t.Logf("recording %s", r.name)
	r.whole()

	sampling, stopSampling := context.WithCancel(context.Background())
	asking, stop := context.WithCancel(context.Background())
	serving, stopServing := context.WithCancel(context.Background())
	var samplers, clients sync.WaitGroup
	defer func() {
		for _, end := range []func(){stop, clients.Wait, stopSampling, samplers.Wait, stopServing, r.group.Wait} {
			end()
		}
	}()
	for _, m := range r.members {
		samplers.Go(func() {
			if err := r.sampleFor(sampling, m); err != nil {
				r.upset("%v", err)
			}
		})
	}
	pools := []param.PoolHandle{"one", "two", "three"}
	count := 0
	client := func(run func(id int, random *rand.Rand)) {
		count++
		id, random := count, rand.New(rand.NewPCG(random.Uint64(), 0))
		clients.Go(func() { run(id, random) })
	}
	for _, pool := range pools {
		alone, shared := &slot{pool: pool}, &slot{pool: pool}
		for _, s := range []*slot{alone, shared, shared} {
			client(func(id int, random *rand.Rand) { r.writeFor(asking, serving, id, s, random) })
		}
	}
	for _, m := range r.members {
		for range 3 {
			client(func(id int, random *rand.Rand) { r.readFor(asking, id, m, pools, random) })
		}
	}

	r.play(faults, d)
	r.whole()
	stop()
	clients.Wait()
	r.settled(pools)
	time.Sleep(50 * time.Millisecond) // each view is asked for once more
	t.Logf("faults in %v: %v", d, faults)
}

// play lets the faults happen. At the end all registrars run.
func (r *recording) play(faults []fault, d time.Duration) {
	r.w.t.Helper()
	type turn struct {
		at time.Duration
		do func()
	}
	turns := []turn{{d, func() {}}}
	for _, f := range faults {
		m := r.members[f.member]
		begin := func() { m.signal(syscall.SIGSTOP) }
		end := func() { m.signal(syscall.SIGCONT) }
		switch f.what {
		case "kill":
			begin = m.die
			end = func() { r.revive(m) }
		case "cut":
			begin = func() { r.reach(f.ways, false) }
			end = func() { r.reach(f.ways, true) }
		}
		turns = append(turns, turn{f.at, begin}, turn{f.at + f.lasts, end})
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	start := time.Now()
	for _, next := range turns {
		time.Sleep(time.Until(start.Add(next.at)))
		next.do()
	}
}

// reach cuts ways between registrars, or connects them again.
func (r *recording) reach(ways []way, connected bool) {
	for _, w := range ways {
		r.connect(w, connected)
	}
}

// revive starts a registrar again; clients find it as soon as it answers.
func (r *recording) revive(m *recordedMember) {
	m.process = r.w.start("rspd "+m.at, m.host.command("rspd", m.flags...), nil)
	done := m.process.done
	r.group.Go(func() {
		for !r.known(m) {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// settled waits until all registrars show the same of all pools.
func (r *recording) settled(pools []param.PoolHandle) {
	r.w.t.Helper()
	conns := make([]*recorder, len(r.members))
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	start := time.Now()
	r.w.within(patience, func() string {
		for _, pool := range pools {
			before := len(r.history.Ops)
			for i, m := range r.members {
				conns[i] = r.askAt(context.Background(), 0, conns[i], m, pool)
			}
			for _, o := range r.history.Ops[before:] {
				if first := r.history.Ops[before]; o.Outcome != history.Done || !maps.Equal(o.Seen, first.Seen) {
					return fmt.Sprintf("%v: %v, but %v: %v", &first, first.Seen, &o, o.Seen)
				}
			}
		}
		return ""
	})
	r.w.t.Logf("all registrars show the same after %v", time.Since(start).Round(time.Millisecond))
}

// check prints what the recording has, and fails the test when the promise is
// broken. A bad history is kept.
func (r *recording) check() {
	t, h := r.w.t, &r.history
	t.Helper()
	counts := make(map[history.Kind]int)
	unanswered := 0
	for _, o := range h.Ops {
		counts[o.Kind]++
		if o.Outcome == history.Unknown {
			unanswered++
		}
	}
	t.Logf("%d registrations, %d deregistrations, %d resolutions, %d without an answer; %d views",
		counts[history.Register], counts[history.Deregister], counts[history.Resolve], unanswered, h.Views())
	t.Logf("longest gap without an answer from anybody: %v for writers, %v for readers",
		h.Gap(history.Register, history.Deregister).Round(time.Millisecond), h.Gap(history.Resolve).Round(time.Millisecond))
	start := time.Now()
	bad := history.Find(h)
	found := time.Since(start)
	l := history.Linearize(h, 20*time.Second)
	t.Logf("%d violations (%v); %d copies of elements, %d not explained, %d undecided (%v)", len(bad), found.Round(time.Millisecond),
		l.Copies, len(l.Bad), l.Undecided, (time.Since(start) - found).Round(time.Millisecond))
	for _, text := range r.wrong {
		t.Error(text)
	}
	for _, v := range bad[:min(10, len(bad))] {
		t.Error(v)
	}
	for _, i := range l.Bad[:min(10, len(l.Bad))] {
		t.Error(i)
	}
	if counts[history.Register] < 100 || counts[history.Resolve] < 100 || h.Views() < 2 {
		t.Error("too little has happened to prove anything")
	}
	if !t.Failed() {
		return
	}
	dir := filepath.Join("..", "..", "out")
	keep := func(name string, write func(io.Writer) error) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = errors.Join(write(f), f.Close())
		}
		if err != nil {
			t.Error(err)
		}
		t.Logf("kept out/%s", name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
	}
	keep(fmt.Sprintf("history-%s.jsonl", r.name), h.Write)
	for n, i := range l.Bad[:min(3, len(l.Bad))] {
		keep(fmt.Sprintf("history-%s-%d.html", r.name, n+1), i.Visualize)
	}
}
