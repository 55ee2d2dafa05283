package selection

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
)

// half is 50 % on the load scale.
const half = 0x80000000

func TestRandomizedPriorityLeastUsed(t *testing.T) {
	// Left after one more session: 3/4, 1/4, nothing.
	c, _ := fill(param.RandomizedPriorityLeastUsed,
		member{"A", param.Policy{Degradation: half / 2}},
		member{"B", param.Policy{Load: half, Degradation: half / 2}},
		member{"C", param.Policy{Load: half, Degradation: math.MaxUint32}})
	follows(t, map[string]float64{"ABC": .75, "BAC": .25}, func() string { return reply(c, 3) })
}

func TestRandomizedLeastUsedDegradation(t *testing.T) {
	policies := map[string]param.Policy{"A": {Degradation: half}, "B": {}}
	c, items := fill(param.RandomizedLeastUsedDegradation, named("AB", param.Policy{})...)
	renew := func() {
		for name, p := range policies {
			c.Put(items[name], p)
		}
	}
	// A weighs 1, then 1/2 once it was handed out, then nothing; B weighs 1 for ever.
	p := 1.0 / 3
	follows(t, map[string]float64{
		"A A B": .5 * p, "A B A": .5 * 2 * p * p, "A B B": .5 * 2 * p * 2 * p,
		"B A A": .5 * .5 * p, "B A B": .5 * .5 * 2 * p, "B B A": .5 * .5 * .5, "B B B": .5 * .5 * .5,
	}, func() string { renew(); return replies(c, 3, 1) })
	t.Run("every entry of a reply counts", func(t *testing.T) {
		renew()
		if reply(c, 2); items["A"].served != 1 || items["B"].served != 1 {
			t.Errorf("counted %d and %d", items["A"].served, items["B"].served)
		}
	})
	t.Run("what does not fit does not count", func(t *testing.T) {
		renew()
		if c.Choose(nil, 2, 0); items["A"].served+items["B"].served != 0 {
			t.Error("counted")
		}
	})
}

func TestPriorityLeastUsedDegradation(t *testing.T) {
	c, _ := fill(param.PriorityLeastUsedDegradation,
		member{"A", param.Policy{Load: 10, Degradation: 10}}, // 20, 30, 40, ...
		member{"B", param.Policy{Load: 24, Degradation: 1}})  // 25, 26, ...
	expect(t, replies(c, 8, 1), "A B B B B B A B") // A 20, B 25 to 29; at 30 A has waited for longer
	c, _ = fill(param.PriorityLeastUsedDegradation,
		member{"A", param.Policy{Load: 0xfffffff0, Degradation: 0x20}},
		member{"B", param.Policy{Load: 0x80000000, Degradation: 0x80000000}})
	expect(t, reply(c, 2), "BA")
}

func TestRandomizedPriorityLeastUsedDegradation(t *testing.T) {
	policies := map[string]param.Policy{"A": {Degradation: half / 2}, "B": {Load: half, Degradation: 0}}
	c, items := fill(param.RandomizedPriorityLeastUsedDegradation, named("AB", param.Policy{})...)
	// A weighs 3/4, then 2/4; B 1/2.
	follows(t, map[string]float64{"A A": .3, "A B": .3, "B A": .24, "B B": .16}, func() string {
		for name, p := range policies {
			c.Put(items[name], p)
		}
		return replies(c, 2, 1)
	})
}

func TestWeightedRandomDPF(t *testing.T) {
	typ := param.WeightedRandomDPF
	// 10, 10 less 4 milliseconds of a whole unit each, 10 less more than it has.
	c, _ := fill(typ,
		member{"A", param.Policy{Type: typ, Weight: 10, Penalty: math.MaxUint32}},
		member{"B", param.Policy{Type: typ, Weight: 10, Penalty: math.MaxUint32, Distance: 4}},
		member{"C", param.Policy{Type: typ, Weight: 10, Penalty: math.MaxUint32, Distance: 400}})
	follows(t, map[string]float64{"ABC": 10. / 16, "BAC": 6. / 16}, func() string { return reply(c, 3) })
}

func TestLeastUsedDPF(t *testing.T) {
	c, items := fill(param.LeastUsedDPF,
		member{"A", param.Policy{Load: 1000, Penalty: 10, Distance: 50}},
		member{"B", param.Policy{Load: 1200, Penalty: 10, Distance: 20}},
		member{"C", param.Policy{Load: 0, Penalty: math.MaxUint32, Distance: math.MaxUint32}})
	expect(t, replies(c, 2, 3), "BAC BAC") // 1400, 1500
	if got, want := items["C"].key, uint64(math.MaxUint32)*math.MaxUint32; got != want {
		t.Errorf("key %#x, want %#x", got, want)
	}
	if got := distantLoad(param.Policy{Load: math.MaxUint32, Penalty: math.MaxUint32, Distance: math.MaxUint32}); got != math.MaxUint64-math.MaxUint32 {
		t.Errorf("largest sum %#x", got)
	}
}

func TestLeastUsedDegradationDPF(t *testing.T) {
	c, _ := fill(param.LeastUsedDegradationDPF,
		member{"A", param.Policy{Load: 0, Degradation: 100, Penalty: 10, Distance: 10}}, // 100, 200, 300
		member{"B", param.Policy{Load: 150, Degradation: 100}})                          // 150, 250, 350
	expect(t, replies(c, 5, 1), "A B A B A")
}

func TestPowerOfTwoChoices(t *testing.T) {
	// Of four elements the least loaded is in half of the pairs, the next in a third
	// that the first is not in, and the last wins no pair.
	members := []member{{"A", param.Policy{Load: 1}}, {"B", param.Policy{Load: 2}}, {"C", param.Policy{Load: 3}}, {"D", param.Policy{Load: 4}}}
	c, items := fill(param.PowerOfTwoChoices, members...)
	follows(t, map[string]float64{"A": 3. / 6, "B": 2. / 6, "C": 1. / 6, "D": 0}, func() string { return reply(c, 1) })
	t.Run("several in policy order", func(t *testing.T) {
		// The second place goes to a pair of those left, and so on.
		p := 1.0 / 18
		follows(t, map[string]float64{
			"ABC": 6 * p, "ACB": 3 * p, "BAC": 4 * p, "BCA": 2 * p, "CAB": 2 * p, "CBA": p,
			"ABD": 0, "ADB": 0,
		}, func() string { return reply(c, 3) })
	})
	t.Run("equal ones alike", func(t *testing.T) {
		c, _ := fill(param.PowerOfTwoChoices, named("ABC", param.Policy{Load: 7})...)
		p := 1.0 / 6
		follows(t, map[string]float64{"ABC": p, "ACB": p, "BAC": p, "BCA": p, "CAB": p, "CBA": p}, func() string { return reply(c, 3) })
	})
	t.Run("a new load counts at once", func(t *testing.T) {
		c.Put(items["D"], param.Policy{Load: 0})
		c.Remove(items["A"])
		follows(t, map[string]float64{"D": 2. / 3, "B": 1. / 3, "C": 0}, func() string { return reply(c, 1) })
	})
	t.Run("at the user of another policy's list", func(t *testing.T) {
		l := list("ABCD")
		for i := range l {
			l[i].Policy.Load = uint32(i)
		}
		u := NewUserOf(PickLessLoadedOfTwo(newRand()), l)
		follows(t, map[string]float64{"A": 3. / 6, "B": 2. / 6, "C": 1. / 6, "D": 0}, func() string { return take(u, 1) })
		u.Failed('A')
		follows(t, map[string]float64{"B": 2. / 3, "C": 1. / 3, "D": 0}, func() string { return take(u, 1) })
	})
}

// keysOf gives many keys to the elements of a list.
func keysOf(list []param.PoolElement) map[string]param.PEID {
	u := NewUser(param.RendezvousHashing, list, nil)
	owner := map[string]param.PEID{}
	for i := range 20_000 {
		key := fmt.Sprintf("key %d", i)
		e, _ := u.NextFor(Request{Key: key})
		owner[key] = e.ID
	}
	return owner
}

// weightedList returns elements of random identifiers.
func weightedList(r *rand.Rand, weights ...uint32) []param.PoolElement {
	out := make([]param.PoolElement, len(weights))
	for i, w := range weights {
		out[i] = param.PoolElement{ID: param.PEID(r.Uint32()), Policy: param.Policy{Type: param.RendezvousHashing, Weight: w}}
	}
	return out
}

// Only the keys of an element that leaves move, and only to one that comes.
func TestRendezvousMovesTheLeast(t *testing.T) {
	r := newRand()
	for range 10 {
		full := weightedList(r, 1, 3, 2, 1, 0, 5, 2, 2, 1)
		r.Shuffle(len(full), func(i, j int) { full[i], full[j] = full[j], full[i] })
		gone, rest := full[0], full[1:]
		before, after := keysOf(full), keysOf(rest)
		moved := 0
		for key, was := range before {
			if was == gone.ID {
				moved++
			} else if after[key] != was {
				t.Fatalf("%s moved from %v to %v when %v left", key, was, after[key], gone.ID)
			}
		}
		share := float64(gone.Policy.Weight) / 17
		if got := float64(moved) / float64(len(before)); math.Abs(got-share) > 4*math.Sqrt(share*(1-share)/float64(len(before))) {
			t.Errorf("%.4f of the keys moved, want %.4f", got, share)
		}
		t.Run("more weight takes keys, but moves none between others", func(t *testing.T) {
			more := append([]param.PoolElement{}, full...)
			more[0].Policy.Weight += 2
			for key, now := range keysOf(more) {
				if now != before[key] && now != gone.ID {
					t.Fatalf("%s moved from %v to %v", key, before[key], now)
				}
			}
		})
	}
}

func TestRendezvousSpreadsByWeight(t *testing.T) {
	l := list("ABCD")
	for i, w := range []uint32{1, 2, 3, 0} {
		l[i].Policy = param.Policy{Type: param.RendezvousHashing, Weight: w}
	}
	u := NewUser(param.RendezvousHashing, l, nil)
	n := 0
	follows(t, map[string]float64{"A": 1. / 6, "B": 2. / 6, "C": 3. / 6, "D": 0}, func() string {
		n++
		e, _ := u.NextFor(Request{Key: fmt.Sprint("customer ", n)})
		return string(rune(e.ID))
	})
	for _, id := range "ABC" {
		u.Failed(param.PEID(id))
	}
	expect(t, take(u, 2), "DD") // weight 0 serves when there is nobody else
	t.Run("elements of other policies weigh 1", func(t *testing.T) {
		u := NewUser(param.RendezvousHashing, list("AB"), nil)
		n := 0
		follows(t, map[string]float64{"A": .5, "B": .5}, func() string {
			n++
			e, _ := u.NextFor(Request{Key: fmt.Sprint(n)})
			return string(rune(e.ID))
		})
	})
}

// The assignment is part of the protocol between users: it must not change.
func TestRendezvousVectors(t *testing.T) {
	l := list("ABCDE")
	var got strings.Builder
	u := NewUser(param.RendezvousHashing, l, nil)
	for _, key := range []string{"a", "b", "c", "alice", "bob", "carol", "/index.html", "10.0.0.1", "漢字", "\x00"} {
		e, _ := u.NextFor(Request{Key: key})
		got.WriteByte(byte(e.ID))
	}
	expect(t, got.String(), "CDBDCAADBC")
	for key, want := range map[string]uint64{"": 0xcbf29ce484222325, "a": 0xaf63dc4c8601ec8c} {
		if h := hashKey(key); h != want {
			t.Errorf("hash of %q is %#x, want %#x", key, h, want)
		}
	}
	if h := mix(0); h != 0xe220a8397b1dcdaf { // SplitMix64's first number of seed 0
		t.Errorf("mix is %#x", h)
	}
}

func TestRendezvousReply(t *testing.T) {
	c := NewChooser(param.RendezvousHashing, nil)
	items := map[string]*Item{}
	for i, name := range []string{"C", "A", "D", "B"} {
		items[name] = &Item{Value: name, ID: param.PEID(name[0]) << 25, Size: 1}
		c.Put(items[name], param.Policy{Type: param.RendezvousHashing, Weight: uint32(i)})
	}
	expect(t, replies(c, 2, 9), "ABDC ABDC")
	c.Put(items["C"], param.Policy{Type: param.RendezvousHashing, Weight: 1})
	expect(t, replies(c, 2, 3), "ABC ABC")
}

// clocked measures requests of known response times, one after the other.
func clocked(u *User, n int, takes func(id param.PEID, now time.Time) time.Duration) map[param.PEID]int {
	now := time.Unix(1000, 0)
	seen := map[param.PEID]int{}
	for range n {
		e, _ := u.NextFor(Request{Now: now})
		u.Sent(e.ID, now)
		took := takes(e.ID, now)
		now = now.Add(took)
		u.Answered(e.ID, took, now)
		seen[e.ID]++
	}
	return seen
}

func TestPeakEWMAAvoidsSlowElements(t *testing.T) {
	u := NewUser(param.PeakEWMA, list("ABCD"), newRand())
	seen := clocked(u, 2000, func(id param.PEID, _ time.Time) time.Duration {
		return map[param.PEID]time.Duration{'A': 10, 'B': 10, 'C': 10, 'D': 500}[id] * time.Millisecond
	})
	for _, id := range "ABC" {
		if n := seen[param.PEID(id)]; n < 500 {
			t.Errorf("%c served %d of 2000", id, n)
		}
	}
	if seen['D'] == 0 || seen['D'] > 10 {
		t.Errorf("the slow one served %d of 2000", seen['D'])
	}
}

// An element that becomes slow is avoided at once, and found again when it is fast: 46
// seconds make an average of 1 s less than 10 ms, and trust comes back gradually.
func TestPeakEWMAFollowsChanges(t *testing.T) {
	u := NewUser(param.PeakEWMA, list("AB"), newRand())
	start := time.Unix(1000, 0)
	slow := func(now time.Time) bool { return now.Sub(start) > 10*time.Second && now.Sub(start) < 20*time.Second }
	during, after := 0, 0
	seen := clocked(u, 12_000, func(id param.PEID, now time.Time) time.Duration {
		switch {
		case id == 'A' && slow(now):
			during++
			return time.Second
		case id == 'A' && now.Sub(start) > 80*time.Second:
			after++
		}
		return 10 * time.Millisecond
	})
	if during == 0 || during > 2 {
		t.Errorf("the slow element got %d requests", during)
	}
	if after < 200 {
		t.Errorf("the element got %d requests when it was fast again, of %v", after, seen)
	}
}

func TestPeakEWMACountsWhatIsUnderWay(t *testing.T) {
	u := NewUser(param.PeakEWMA, list("AB"), newRand())
	now := time.Unix(1000, 0)
	for _, id := range []param.PEID{'A', 'B'} {
		u.Answered(id, 10*time.Millisecond, now)
	}
	counts := map[param.PEID]int{}
	for range 100 {
		e, _ := u.NextFor(Request{Now: now})
		u.Sent(e.ID, now)
		counts[e.ID]++
	}
	if counts['A'] != 50 || counts['B'] != 50 {
		t.Errorf("100 requests at a time: %v", counts)
	}
	t.Run("a new element gets one request at first", func(t *testing.T) {
		u.Renew(list("ABC"))
		counts := map[param.PEID]int{}
		for range 100 {
			e, _ := u.NextFor(Request{Now: now})
			u.Sent(e.ID, now)
			counts[e.ID]++
		}
		if counts['C'] != 1 {
			t.Errorf("requests: %v", counts)
		}
	})
}

// An element that fails at once is no fast one, and is tried again from time to time.
func TestPeakEWMAAvoidsWhatFails(t *testing.T) {
	u := NewUser(param.PeakEWMA, list("AB"), newRand())
	now := time.Unix(1000, 0)
	seen := map[param.PEID]int{}
	for range 10_000 { // 100 s
		e, _ := u.NextFor(Request{Now: now})
		u.Sent(e.ID, now)
		seen[e.ID]++
		if e.ID == 'A' {
			now = now.Add(time.Millisecond)
			u.Unanswered(e.ID, time.Millisecond, true, now)
			continue
		}
		now = now.Add(10 * time.Millisecond)
		u.Answered(e.ID, 10*time.Millisecond, now)
	}
	if seen['A'] < 2 || seen['A'] > 4 {
		t.Errorf("the one that fails got %d of 10000", seen['A'])
	}
}

// A request for which nobody waits any more says that the element is slow, never that it
// is fast, and is not under way any more.
func TestPeakEWMAWithoutPatience(t *testing.T) {
	p := PickPeakEWMA(newRand()).(*peakEWMA)
	now := time.Unix(1000, 0)
	p.Answered('A', 10*time.Millisecond, now)
	for _, c := range []struct{ took, want time.Duration }{
		{time.Millisecond, 10 * time.Millisecond},
		{300 * time.Millisecond, 300 * time.Millisecond},
	} {
		p.Sent('A', now)
		p.Unanswered('A', c.took, false, now)
		if x := p.of('A'); x.average != c.want.Seconds() || x.pending != 0 {
			t.Errorf("given up after %v: average %v, %d under way", c.took, x.average, x.pending)
		}
	}
}

func TestPeakEWMAWithoutMeasurements(t *testing.T) {
	u := NewUser(param.PeakEWMA, list("ABC"), newRand())
	follows(t, map[string]float64{"A": 1. / 3, "B": 1. / 3, "C": 1. / 3}, func() string { return take(u, 1) })
}

// What is remembered of elements that come and go is bounded.
func TestPeakEWMAForgets(t *testing.T) {
	p := PickPeakEWMA(newRand()).(*peakEWMA)
	now := time.Unix(1000, 0)
	for i := range 3 * ewmaKept {
		l := []param.PoolElement{{ID: param.PEID(i + 1)}, {ID: 7}}
		p.Renew(l)
		p.Sent(l[0].ID, now)
		p.Answered(l[0].ID, time.Second, now)
		p.Answered(7, time.Second, now)
		if len(p.seen) > ewmaKept+2 {
			t.Fatalf("%d elements remembered", len(p.seen))
		}
	}
	if p.seen[7] == nil {
		t.Error("forgot one that is in the list")
	}
}

// Elements that come and go do not change what the others get of each other.
func TestFairnessWhileElementsComeAndGo(t *testing.T) {
	for _, d := range All() {
		if d.Type == param.RendezvousHashing {
			continue // whose replies do not change by turns
		}
		t.Run(d.Name, func(t *testing.T) {
			r := newRand()
			c := NewChooser(d.Type, r)
			policy := param.Policy{Type: d.Type, Weight: 2, Load: 0x10000000, Degradation: 0x1000}
			steady := make([]*Item, 5)
			for i := range steady {
				steady[i] = &Item{Value: i, Size: 1, ID: param.PEID(i + 1)}
				c.Put(steady[i], policy)
			}
			guests := make([]*Item, 3)
			for i := range guests {
				guests[i] = &Item{Value: -1, Size: 1, ID: param.PEID(i + 10)}
			}
			counts := make([]int, len(steady))
			const rounds = 30_000
			for range rounds {
				guest := guests[r.IntN(len(guests))]
				if r.IntN(2) == 0 {
					c.Put(guest, policy)
				} else {
					c.Remove(guest)
				}
				for _, it := range c.Choose(nil, 1, Unlimited) {
					if i := it.Value.(int); i >= 0 {
						counts[i]++
					}
				}
			}
			total := 0
			for _, n := range counts {
				total += n
			}
			mean := float64(total) / float64(len(counts))
			chi := 0.0
			for _, n := range counts {
				chi += math.Pow(float64(n)-mean, 2) / mean
			}
			t.Logf("seed %d: %v, chi-square %.2f", seed, counts, chi)
			if chi > chiSquareLimit[len(counts)-1] {
				t.Errorf("unfair: %v, chi-square %.2f", counts, chi)
			}
		})
	}
}
