package sim

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rserpool/selection"
)

// Runs of a point. All comparisons are at a level of 99.9 % over these seeds, which
// are fixed: a test that passes once passes always, until something changes.
const (
	seeds = 8
	level = 0.999
)

func elements(capacities ...float64) []Element {
	list := make([]Element, len(capacities))
	for i, c := range capacities {
		list[i] = Element{Capacity: c, Full: c}
	}
	return list
}

func equal(n int) []Element {
	list := make([]Element, n)
	for i := range list {
		list[i] = Element{Capacity: 10}
	}
	return list
}

// at is a simulation of a pool that is asked for a share of its capacity, with so
// many measured requests.
func at(policy string, list []Element, load float64, requests int) Config {
	capacity := 0.0
	for _, e := range list {
		capacity += e.Capacity
	}
	duration := float64(requests) / (load * capacity)
	return Config{
		Policy: policy, Elements: list, Users: 20, Rate: load * capacity,
		LoadStep: 0.02, Warmup: 0.2 * duration, Duration: duration,
	}
}

func wait(r *Result) float64     { return r.Wait.Mean }
func response(r *Result) float64 { return r.Response.Mean }

func run(t *testing.T, c Config) *Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func values(t *testing.T, c Config, what func(*Result) float64) []float64 {
	t.Helper()
	list := make([]float64, seeds)
	for i := range list {
		c.Seed = uint64(i + 1)
		list[i] = what(run(t, c))
	}
	return list
}

// expect fails unless a known mean is in the confidence interval, and that is
// narrow.
func expect(t *testing.T, c Config, what func(*Result) float64, want, narrow float64) {
	t.Helper()
	got := EstimatedAt(values(t, c, what), level)
	if math.Abs(got.Mean-want) > got.Half {
		t.Errorf("%.4g ± %.2g, theory says %.4g", got.Mean, got.Half, want)
	}
	if got.Half > narrow*want {
		t.Errorf("%.4g ± %.2g says nothing of %.4g", got.Mean, got.Half, want)
	}
}

func TestQueueingTheory(t *testing.T) {
	const load, n = 0.6, 4
	shared := Element{Capacity: 10, Slots: math.MaxInt32, Shared: true}
	uniform := at("rr", []Element{shared}, load, 3000)
	uniform.Sizes = Uniform
	constant := at("rr", []Element{{Capacity: 10}}, load, 3000)
	constant.Sizes = Constant
	for name, c := range map[string]struct {
		config Config
		what   func(*Result) float64
		want   float64
	}{
		"M/M/1":                   {at("rr", equal(1), load, 3000), wait, WaitMM1(6, 10)},
		"M/M/4":                   {at("rr", []Element{{Capacity: 40, Slots: 4}}, load, 3000), wait, WaitMMc(24, 10, 4)},
		"M/D/1":                   {constant, wait, WaitMM1(6, 10) / 2},
		"M/M/1-PS":                {at("rr", []Element{shared}, load, 3000), response, 1 / (10.0 - 6)},
		"M/G/1-PS":                {uniform, response, 1 / (10.0 - 6)}, // whatever the distribution of sizes
		"Random is n times M/M/1": {at("rand", equal(n), load, 4500), wait, WaitMM1(6, 10)},
		"Round Robin is E_n/M/1":  {at("rr", equal(n), load, 4500), wait, WaitRoundRobin(6*n, 10, n)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, c.config, c.what, c.want, 0.4)
		})
	}
}

// No policy can wait less than one queue before all servers; Least Used that knows
// all comes near.
func TestOneQueueIsTheBound(t *testing.T) {
	t.Parallel()
	const n = 4
	bound := WaitMMc(0.8*10*n, 10, n)
	got := EstimatedAt(values(t, at("lu", equal(n), 0.8, 2500), wait), level)
	if got.Mean+got.Half < bound || got.Mean-got.Half > 2*bound {
		t.Errorf("Least Used waits %.4g ± %.2g s, one queue %.4g s", got.Mean, got.Half, bound)
	}
}

func TestTheoryOfKnownValues(t *testing.T) {
	for name, c := range map[string]struct{ got, want float64 }{
		"M/M/1 is M/M/c of one":             {WaitMMc(6, 10, 1), WaitMM1(6, 10)},
		"M/M/1 is Round Robin of one":       {WaitRoundRobin(6, 10, 1), WaitMM1(6, 10)},
		"M/M/2 at 50 %: a third of M/M/1's": {WaitMMc(10, 10, 2), 1.0 / 30},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

// ranked compares simulations that meet the same requests: one that is named before
// another must have a lower value, by what they differ in each run.
func ranked(t *testing.T, what func(*Result) float64, of map[string]Config, orders ...[]string) {
	t.Helper()
	measured := map[string][]float64{}
	for name, c := range of {
		measured[name] = values(t, c, what)
	}
	for _, order := range orders {
		for i, better := range order[:len(order)-1] {
			worse := order[i+1]
			more := make([]float64, seeds)
			for k := range more {
				more[k] = measured[worse][k] - measured[better][k]
			}
			if d := EstimatedAt(more, level); d.Mean-d.Half <= 0 {
				t.Errorf("%s: %.4g s, %s: %.4g s: the difference is %.4g ± %.2g", better, measured[better], worse, measured[worse], d.Mean, d.Half)
			}
		}
	}
}

func TestEqualServers(t *testing.T) {
	t.Parallel()
	of := map[string]Config{}
	for _, policy := range []string{"rand", "rr", "lu", "rlu", "p2c"} {
		of[policy] = at(policy, equal(6), 0.7, 2000)
	}
	ranked(t, wait, of, []string{"lu", "rr", "rand"}, []string{"lu", "p2c", "rlu", "rand"})
}

func TestUnequalServers(t *testing.T) {
	t.Parallel()
	of := map[string]Config{}
	for _, policy := range []string{"rand", "rr", "wrand", "wrr", "lu", "lud", "plu"} {
		c := at(policy, elements(5, 5, 20, 20), 0.45, 1800)
		c.Results = 1
		of[policy] = c
	}
	ranked(t, response, of, []string{"plu", "lu", "rr"}, []string{"lud", "rr"}, []string{"wrr", "wrand", "rr"}, []string{"wrand", "rand"})
}

func TestOldLoads(t *testing.T) {
	t.Parallel()
	of := map[string]Config{}
	for name, interval := range map[string]float64{"fresh": 0, "old": 2} {
		for _, policy := range []string{"rr", "lu", "lud", "rlu", "p2c"} {
			c := at(policy, equal(6), 0.7, 2000)
			c.LoadInterval, c.Results = interval, 1
			of[name+" "+policy] = c
		}
	}
	ranked(t, wait, of,
		[]string{"fresh lu", "old rr", "old lu"}, // loads are worse than nothing when they are old
		[]string{"old rlu", "old lu"}, []string{"old lud", "old lu"}, []string{"old p2c", "old lu"},
		[]string{"fresh lud", "old rr"})
}

// Little's law without statistics: the requests at the servers, summed over time,
// are the times of the requests, summed.
func TestLittle(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"rr", "lu", "wrand"} {
		c := at(policy, elements(5, 10, 20), 0.4, 3000)
		var area, last, times float64
		present := make([]int, len(c.Elements))
		c.OnChange = func(now float64, element, n int) {
			for _, k := range present {
				area += float64(k) * (now - last)
			}
			last = now
			present[element] = n
		}
		c.OnDone = func(d Done) { times += d.Answered - d.Sent }
		r := run(t, c)
		if math.Abs(area-times) > 1e-6*times {
			t.Errorf("%s: %v request seconds at the servers, %v of the requests", policy, area, times)
		}
		if n := float64(r.Measured) / c.Duration * r.Response.Mean; math.Abs(r.Present-n) > 0.03*n {
			t.Errorf("%s: %v requests present, rate times response time is %v", policy, r.Present, n)
		}
	}
}

func TestEveryRequestIsServedOnce(t *testing.T) {
	t.Parallel()
	for _, d := range selection.All() {
		policy := d.Name
		for _, shared := range []bool{false, true} {
			c := at(policy, elements(5, 10, 20), 0.6, 600)
			c.Keys = 50
			for i := range c.Elements {
				c.Elements[i].Slots, c.Elements[i].Shared = i+1, shared
			}
			c.LoadInterval, c.Stale, c.Startup, c.Warmup, c.Results = 0.3, 0.5, 0.01, 0, 2
			c.Changes = []Change{{At: 10, Element: 2, What: Leave}, {At: 20, Element: 1, What: Slow, Factor: 0.5}, {At: 30, Element: 2, What: Return}}
			type key struct {
				user int
				sent float64
			}
			done := map[key]int{}
			work := make([]float64, len(c.Elements))
			c.OnDone = func(d Done) {
				done[key{d.User, d.Sent}]++
				work[d.Element] += d.Size
				if least := d.Size / c.Elements[d.Element].Capacity; d.Answered-d.Sent < least {
					t.Errorf("%s: %+v is answered within %v s", policy, d, least)
				}
			}
			r := run(t, c)
			if r.Sent == 0 || r.Served != r.Sent || r.Measured != r.Sent || len(done) != r.Sent {
				t.Errorf("%s: %d sent, %d served, %d measured, %d different", policy, r.Sent, r.Served, r.Measured, len(done))
			}
			served := 0
			for i, e := range r.Elements {
				served += e.Served
				if e.Utilisation > 1+1e-9 || e.Utilisation*c.Elements[i].Capacity*c.Duration > work[i]+1e-6 {
					t.Errorf("%s: element %d is used to %v, and did %v units", policy, i, e.Utilisation, work[i])
				}
			}
			if served != r.Sent {
				t.Errorf("%s: %d sent, elements served %d", policy, r.Sent, served)
			}
		}
	}
}

func TestSameSeedSameResult(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"rr", "wrand", "lu", "rlu", "p2c", "ewma"} {
		c := at(policy, elements(5, 10, 20), 0.7, 800)
		c.Seed, c.LoadInterval, c.Stale = 7, 0.2, 0.1
		first, second := run(t, c), run(t, c)
		if !reflect.DeepEqual(first, second) {
			t.Errorf("%s: %+v, then %+v", policy, first, second)
		}
		c.Seed++
		if third := run(t, c); reflect.DeepEqual(first, third) {
			t.Errorf("%s: another seed gives %+v too", policy, third)
		}
	}
}

// All policies meet the same requests.
func TestRequestsDoNotDependOnThePolicy(t *testing.T) {
	t.Parallel()
	type sent struct{ at, size float64 }
	var lists []map[sent]bool
	for _, policy := range []string{"rr", "lu", "wrand"} {
		list := map[sent]bool{}
		c := at(policy, equal(3), 0.5, 500)
		c.OnDone = func(d Done) { list[sent{d.Sent, d.Size}] = true }
		run(t, c)
		lists = append(lists, list)
	}
	if !reflect.DeepEqual(lists[0], lists[1]) || !reflect.DeepEqual(lists[0], lists[2]) {
		t.Error("the requests differ")
	}
}

func TestLoadReports(t *testing.T) {
	t.Parallel()
	c := at("lu", equal(2), 0.5, 400)
	c.Warmup = 0
	every := run(t, c)
	if every.Registrations < every.Served { // most changes are registered: arrivals and ends
		t.Errorf("%d registrations at %d requests without an interval", every.Registrations, every.Served)
	}
	c.LoadInterval = 1
	some := run(t, c)
	if most := 2 * (2 + int(c.Duration)); some.Registrations > most+2 || some.Registrations < most/4 {
		t.Errorf("%d registrations of 2 elements in %v s, one a second at most", some.Registrations, c.Duration)
	}
	c.LoadInterval, c.LoadStep = 0, 0.25
	if large := run(t, c); large.Registrations >= every.Registrations/2 {
		t.Errorf("%d registrations of large steps, %d of all", large.Registrations, every.Registrations)
	}
	c.Policy = "wrr"
	if once := run(t, c); once.Registrations != 2 {
		t.Errorf("%d registrations of two elements that report no load", once.Registrations)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	c := at("prio", equal(3), 0.2, 400)
	for i := range c.Elements {
		c.Elements[i].Priority = uint32(3 - i)
	}
	const left, back = 20, 40
	c.Changes = []Change{{At: left, Element: 0, What: Leave}, {At: back, Element: 0, What: Return}}
	c.OnDone = func(d Done) {
		want := 0
		if d.Sent > left && d.Sent < back {
			want = 1
		}
		if d.Element != want {
			t.Errorf("the request of %.3f s went to element %d, want %d", d.Sent, d.Element, want)
		}
	}
	run(t, c)

	c = at("rr", equal(1), 0.3, 300)
	c.Changes = []Change{{At: 0, Element: 0, What: Slow, Factor: 0.5}}
	slow := run(t, c)
	c.Changes, c.Elements = nil, []Element{{Capacity: 5}}
	if want := run(t, c); math.Abs(slow.Response.Mean-want.Response.Mean) > 1e-9 {
		t.Errorf("%v s at half the speed, %v s at half the capacity", slow.Response.Mean, want.Response.Mean)
	}
}

// A change of pace counts for what is in service, from then on.
func TestSlowInService(t *testing.T) {
	for factor, want := range map[float64]float64{0.5: 11.5, 1: 11, 2: 10.75} {
		c := Config{
			Policy: "rr", Elements: []Element{{Capacity: 1}}, Users: 1, Rate: 0.1, Duration: 15, Gaps: Constant, Sizes: Constant,
			Changes: []Change{{At: 10.5, What: Slow, Factor: factor}},
		}
		c.OnDone = func(d Done) {
			if d.Sent != 10 || math.Abs(d.Answered-want) > 1e-9 {
				t.Errorf("factor %v: sent at %v s, answered at %v s, want %v s", factor, d.Sent, d.Answered, want)
			}
		}
		if r := run(t, c); r.Served != 1 {
			t.Errorf("factor %v: %d requests served", factor, r.Served)
		}
	}
}

// The request handling speed is that of the server, less what queues take.
func TestSpeed(t *testing.T) {
	c := Config{Policy: "rr", Elements: elements(5), Users: 2, Rate: 1, Duration: 100, Gaps: Constant, Sizes: Constant}
	// Both ask at the same time, and one waits for the other: 0.2 s and 0.4 s.
	if r := run(t, c); math.Abs(r.Speed-(5+2.5)/2) > 1e-9 {
		t.Errorf("%v units per second", r.Speed)
	}
	c.Users = 1
	if r := run(t, c); math.Abs(r.Speed-5) > 1e-9 {
		t.Errorf("%v units per second, alone", r.Speed)
	}
}

// With Rendezvous Hashing a key changes its element only when that leaves, and when it
// returns.
func TestKeysStayAtTheirElements(t *testing.T) {
	t.Parallel()
	c := at("hrw", equal(5), 0.4, 1200)
	c.Keys = 40
	const left, back = 20, 40
	c.Changes = []Change{{At: left, Element: 3, What: Leave}, {At: back, Element: 3, What: Return}}
	at, before, moved := map[string]int{}, map[string]int{}, 0
	type change struct {
		sent float64
		key  string
		to   int
	}
	var sent []change
	c.OnDone = func(d Done) { sent = append(sent, change{d.Sent, d.Key, d.Element}) }
	run(t, c)
	slices.SortFunc(sent, func(a, b change) int { return cmp.Compare(a.sent, b.sent) })
	for _, s := range sent {
		was, known := at[s.key]
		switch {
		case !known || was == s.to:
		case was == 3 && s.sent > left && s.sent < back:
			moved++
		case s.to == 3 && s.sent > back && before[s.key] == 3:
		default:
			t.Fatalf("at %.3f s key %s moved from element %d to %d", s.sent, s.key, was, s.to)
		}
		if s.sent < left {
			before[s.key] = s.to
		}
		at[s.key] = s.to
	}
	if moved == 0 {
		t.Error("no key moved when an element left")
	}
}

// Users that measure avoid a server that works slowly, which nobody reports.
func TestMeasuringUsersAvoidSlowServers(t *testing.T) {
	t.Parallel()
	of := map[string]Config{}
	for _, policy := range []string{"rr", "rand", "ewma"} {
		c := at(policy, equal(4), 0.5, 1500)
		c.Users = 5
		c.Changes = []Change{{At: 0, Element: 1, What: Slow, Factor: 0.2}}
		of[policy] = c
	}
	ranked(t, response, of, []string{"ewma", "rr"}, []string{"ewma", "rand"})
}

// A penalty keeps requests near.
func TestDistance(t *testing.T) {
	t.Parallel()
	list := equal(4)
	for i := range list {
		list[i].Distance, list[i].Penalty = 0.001, 0.004
	}
	list[2].Distance, list[3].Distance = 0.05, 0.05
	of := map[string]Config{"lu": at("lu", list, 0.4, 1500), "ludpf": at("ludpf", list, 0.4, 1500)}
	ranked(t, response, of, []string{"ludpf", "lu"})
}

func TestUsersKeepAnswers(t *testing.T) {
	t.Parallel()
	c := at("rr", equal(3), 0.5, 600)
	if r := run(t, c); r.Resolutions != r.Sent {
		t.Errorf("%d resolutions for %d requests", r.Resolutions, r.Sent)
	}
	c.Stale = 5
	r := run(t, c)
	if most := c.Users * (1 + int((c.Warmup+c.Duration)/c.Stale)); r.Resolutions > most || r.Resolutions < c.Users {
		t.Errorf("%d resolutions of %d users in %v s", r.Resolutions, c.Users, c.Warmup+c.Duration)
	}
}

func TestClosedUsersWaitForTheirAnswers(t *testing.T) {
	t.Parallel()
	c := at("lu", equal(2), 5, 1000) // far more than there is
	c.Closed, c.Users = true, 5
	inside, most := 0, 0
	present := make([]int, 2)
	c.OnChange = func(_ float64, element, n int) {
		inside += n - present[element]
		present[element] = n
		most = max(most, inside)
	}
	r := run(t, c)
	if most != c.Users || r.Served != r.Sent {
		t.Errorf("%d requests of %d users at a time, %d sent, %d served", most, c.Users, r.Sent, r.Served)
	}
}

func TestValidateNamesAllThatIsWrong(t *testing.T) {
	_, err := Run(Config{
		Policy: "none", Elements: []Element{{Capacity: -1, Full: 0.5}},
		Changes: []Change{{Element: 4}, {What: Slow}}, Stale: -1, LoadInterval: math.NaN(),
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{`"none"`, "Elements[0].Capacity", "Elements[0].Full", "Changes[0]", "Changes[1].Factor", "Users", "Rate", "Duration", "Stale", "LoadInterval"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
	c := at("rr", equal(1), 0.5, 100)
	c.Changes = []Change{{At: 1, What: Leave}}
	if _, err := Run(c); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty pool gives %v", err)
	}
}
