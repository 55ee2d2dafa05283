package selection

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"rserpool/asap/param"
)

// seed is fixed so that a run can be repeated; the statistical tests print it.
const seed = 5356

func newRand() *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// member is a pool element of a test: Value of its item is its name.
type member struct {
	name   string
	policy param.Policy
}

// fill returns a chooser with the members in this order, and their items.
func fill(t param.PolicyType, members ...member) (Chooser, map[string]*Item) {
	c := NewChooser(t, newRand())
	items := make(map[string]*Item)
	for _, m := range members {
		it := &Item{Value: m.name, Size: 1}
		items[m.name] = it
		m.policy.Type = t
		c.Put(it, m.policy)
	}
	return c, items
}

func named(names string, p param.Policy) (members []member) {
	for _, name := range names {
		members = append(members, member{string(name), p})
	}
	return members
}

func names(items []*Item) string {
	var b strings.Builder
	for _, it := range items {
		b.WriteString(it.Value.(string))
	}
	return b.String()
}

// reply makes one choice of up to n elements and returns their names.
func reply(c Chooser, n int) string { return names(c.Choose(nil, n, Unlimited)) }

// replies makes several choices and joins them with blanks.
func replies(c Chooser, times, n int) string {
	var all []string
	for range times {
		all = append(all, reply(c, n))
	}
	return strings.Join(all, " ")
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// chiSquareLimit holds the values that chi-square exceeds with probability
// 0.001, by degrees of freedom.
var chiSquareLimit = map[int]float64{
	1: 10.828, 2: 13.816, 3: 16.266, 4: 18.467, 5: 20.515, 6: 22.458, 7: 24.322, 8: 26.124, 9: 27.877,
}

const draws = 60_000

// follows draws outcomes and compares their numbers with their probabilities.
func follows(t *testing.T, want map[string]float64, draw func() string) {
	t.Helper()
	seen := make(map[string]int)
	for range draws {
		seen[draw()]++
	}
	chi, sum := 0.0, 0
	for outcome, p := range want {
		n := seen[outcome]
		sum += n
		if p == 0 && n > 0 {
			t.Errorf("%s came %d times, must not", outcome, n)
		} else if p > 0 {
			chi += math.Pow(float64(n)-p*draws, 2) / (p * draws)
		}
	}
	freedom := -1
	for _, p := range want {
		if p > 0 {
			freedom++
		}
	}
	t.Logf("seed %d, %d draws: chi-square %.2f with %d degrees of freedom", seed, draws, chi, freedom)
	if sum != draws {
		t.Errorf("outcomes other than expected: %v", seen)
	}
	if freedom > 0 && chi > chiSquareLimit[freedom] {
		t.Errorf("chi-square %.2f exceeds %.2f: got %v, want %v", chi, chiSquareLimit[freedom], seen, want)
	}
}

func TestPOL_4_1_1_01_RoundRobinIsDefault(t *testing.T) {
	c, _ := fill(param.RoundRobin, named("ABC", param.Policy{})...)
	expect(t, replies(c, 4, 1), "A B C A")
	t.Run("AMB_55_unknown types are served by Round Robin", func(t *testing.T) {
		c, _ := fill(0x80000001, named("ABC", param.Policy{})...)
		expect(t, replies(c, 4, 2), "AB BC CA AB")
	})
	t.Run("no policy in a response", func(t *testing.T) {
		u := NewUser(0, list("AB"), nil)
		expect(t, take(u, 3), "ABA")
	})
}

func TestPOL_7_1_01_StandardPoliciesAreNeitherPrivateNorWronglyAdaptive(t *testing.T) {
	for _, d := range All()[:9] {
		if !d.Type.Standard() || d.Type.Private() || d.Type.Adaptive() != d.Has(Load) {
			t.Errorf("%s: standard %v, private %v, adaptive %v", d.Name, d.Type.Standard(), d.Type.Private(), d.Type.Adaptive())
		}
	}
	for _, d := range All()[9:] {
		if d.Type.Standard() || !d.Type.Private() {
			t.Errorf("%s: standard %v, private %v", d.Name, d.Type.Standard(), d.Type.Private())
		}
	}
}

func TestPOL_4_1_2_01_CircularListWithHead(t *testing.T) {
	c, items := fill(param.RoundRobin, named("ABCD", param.Policy{})...)
	expect(t, replies(c, 2, 1), "A B")
	t.Run("a new element goes in just before the head", func(t *testing.T) {
		items["E"] = &Item{Value: "E"}
		c.Put(items["E"], param.Policy{})
		expect(t, reply(c, 9), "CDABE")
	})
	t.Run("removing the head moves it to its successor", func(t *testing.T) {
		c.Remove(items["D"])
		expect(t, reply(c, 9), "ABEC")
	})
	t.Run("removing another leaves it", func(t *testing.T) {
		c.Remove(items["A"])
		expect(t, reply(c, 9), "BEC")
	})
	t.Run("an element that registers again keeps its place", func(t *testing.T) {
		c.Put(items["C"], param.Policy{})
		expect(t, reply(c, 9), "ECB")
	})
	t.Run("to the last", func(t *testing.T) {
		for _, name := range []string{"B", "E", "C", "C"} {
			c.Remove(items[name])
		}
		expect(t, reply(c, 9), "")
		c.Put(items["C"], param.Policy{})
		expect(t, reply(c, 9), "C")
	})
}

func TestPOL_4_1_2_02_ReplyStartsAtHead(t *testing.T) {
	c, _ := fill(param.RoundRobin, named("ABCD", param.Policy{})...)
	expect(t, replies(c, 3, 3), "ABC BCD CDA")
}

func TestPOL_4_1_2_03_HeadMovesByOne(t *testing.T) {
	c, _ := fill(param.RoundRobin, named("ABCD", param.Policy{})...)
	expect(t, reply(c, 4)+reply(c, 1)+reply(c, 2)+reply(c, 1), "ABCD"+"B"+"CD"+"D")
}

func weighted(weights map[string]uint32) (members []member) {
	for _, name := range []string{"A", "B", "C", "D", "E"} {
		if w, ok := weights[name]; ok {
			members = append(members, member{name, param.Policy{Weight: w}})
		}
	}
	return members
}

func TestPOL_4_2_2_01_OccurrencesInProportionToWeight(t *testing.T) {
	for _, weights := range []map[string]uint32{
		{"A": 5, "B": 1, "C": 1},
		{"A": 1, "B": 1, "C": 1},
		{"A": 7, "B": 3, "C": 2, "D": 11},
		{"A": 1000, "B": 1, "C": 999, "D": 0},
	} {
		c, _ := fill(param.WeightedRoundRobin, weighted(weights)...)
		sum := 0
		for _, w := range weights {
			sum += int(w)
		}
		got := strings.ReplaceAll(replies(c, 3*sum, 1), " ", "")
		for from := 0; from <= 2*sum; from++ {
			for name, w := range weights {
				if n := strings.Count(got[from:from+sum], name); n != int(w) {
					t.Fatalf("weights %v: %s came %d times in replies %d to %d", weights, name, n, from, from+sum)
				}
			}
		}
	}
	t.Run("the head moves by one and each element comes once", func(t *testing.T) {
		c, _ := fill(param.WeightedRoundRobin, weighted(map[string]uint32{"A": 5, "B": 1, "C": 1})...)
		expect(t, replies(c, 7, 3), "ABC ABC BAC ACB CAB ABC ABC")
	})
	t.Run("weight 0 is not in the list", func(t *testing.T) {
		c, _ := fill(param.WeightedRoundRobin, weighted(map[string]uint32{"A": 0, "B": 1, "C": 0})...)
		expect(t, replies(c, 2, 9), "B B")
	})
	t.Run("weights that are all 0 count as 1", func(t *testing.T) {
		c, items := fill(param.WeightedRoundRobin, weighted(map[string]uint32{"A": 0, "B": 0, "C": 0})...)
		got := replies(c, 6, 1)
		for name := range items {
			if strings.Count(got, name) != 2 {
				t.Errorf("%s did not come twice: %s", name, got)
			}
		}
	})
	t.Run("the largest weights", func(t *testing.T) {
		c, items := fill(param.WeightedRoundRobin, weighted(map[string]uint32{
			"A": math.MaxUint32, "B": math.MaxUint32, "C": math.MaxUint32 / 2})...)
		got := replies(c, 500, 1)
		for name, n := range map[string]int{"A": 200, "B": 200, "C": 100} {
			if d := strings.Count(got, name) - n; d < -1 || d > 1 {
				t.Errorf("%s came %d times more than %d", name, d, n)
			}
		}
		c.Put(items["A"], param.Policy{Type: param.WeightedRoundRobin, Weight: 1})
		if got := replies(c, 300, 1); strings.Count(got, "A") > 1 {
			t.Errorf("A did not lose its weight: %s", got)
		}
	})
}

func TestPOL_4_2_2_02_OccurrencesAreSpread(t *testing.T) {
	c, _ := fill(param.WeightedRoundRobin, weighted(map[string]uint32{"A": 5, "B": 1, "C": 1})...)
	expect(t, replies(c, 14, 1), "A A B A C A A A A B A C A A")
	t.Run("half of the weight is every other place, more or less", func(t *testing.T) {
		members := append(named("A", param.Policy{Weight: 50}), named("bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ", param.Policy{Weight: 1})...)
		c, _ := fill(param.WeightedRoundRobin, members...)
		got := strings.ReplaceAll(replies(c, 300, 1), " ", "")
		if strings.Contains(got, "AAA") {
			t.Errorf("A is bunched: %s", got)
		}
		for _, gap := range strings.Split(strings.Trim(got, "A"), "A") {
			if len(gap) > 3 {
				t.Errorf("A is missing for long: %s", gap)
			}
		}
	})
}

func TestPOL_4_3_2_01_RandomPicksAtMostTheRequestedNumber(t *testing.T) {
	c, _ := fill(param.Random, named("ABCD", param.Policy{})...)
	for n := range 7 {
		if got := reply(c, n); len(got) != min(n, 4) {
			t.Errorf("asked for %d, got %q", n, got)
		}
	}
	t.Run("uniform at the first place", func(t *testing.T) {
		follows(t, map[string]float64{"A": .25, "B": .25, "C": .25, "D": .25}, func() string { return reply(c, 1) })
	})
	t.Run("uniform over ordered pairs", func(t *testing.T) {
		c, _ := fill(param.Random, named("ABC", param.Policy{})...)
		p := 1.0 / 6
		follows(t, map[string]float64{"AB": p, "AC": p, "BA": p, "BC": p, "CA": p, "CB": p}, func() string { return reply(c, 2) })
	})
}

// Of large pools what is going to be chosen is drawn beforehand, for several replies:
// elements that come and go meanwhile have the chances that they should, too.
func TestRandomOfLargePools(t *testing.T) {
	alike := map[string]float64{"A": .2, "B": .2, "C": .2, "D": .2, "E": .2}
	weighted := map[string]float64{"A": 1. / 15, "B": 2. / 15, "C": 3. / 15, "D": 4. / 15, "E": 5. / 15}
	for _, tt := range []struct {
		policy param.PolicyType
		place  int
		want   map[string]float64
	}{
		{param.Random, 0, alike}, {param.Random, 3, alike}, {param.Random, 19, alike},
		{param.WeightedRandom, 0, weighted},
	} {
		t.Run(fmt.Sprint(tt.policy, " at ", tt.place), func(t *testing.T) {
			r, c := newRand(), NewChooser(tt.policy, newRand())
			policy := func(i int) param.Policy { return param.Policy{Type: tt.policy, Weight: uint32(1 + i%5)} }
			items := make([]Item, cached+5)
			for i := range items {
				items[i] = Item{Value: string(rune('A' + i%5)), Size: 1}
				c.Put(&items[i], policy(i))
			}
			var gone *Item
			foretold := map[*Item]bool{}
			c.(Foretelling).Foretell(func(it *Item) uint64 {
				if it == gone {
					t.Fatal("told of an element that is gone")
				}
				foretold[it] = true
				return 0
			})
			for range 100 {
				for i, it := range c.Choose(nil, 12, Unlimited) {
					// Draws for the last of them may be spoilt by a change of the weights.
					if tt.policy != param.WeightedRandom && !foretold[it] {
						t.Fatalf("nothing was told of the one at %d", i)
					}
				}
			}
			for range 100 {
				if it := c.Choose(nil, 1, Unlimited)[0]; !foretold[it] {
					t.Fatal("nothing was told of the first")
				}
			}
			seen, replies := make(map[*Item]int), 0
			follows(t, tt.want, func() string {
				i := r.IntN(len(items))
				gone = &items[i]
				c.Remove(gone)
				some := c.Choose(nil, 20, Unlimited)
				c.Put(gone, policy(i))
				replies++
				for _, it := range some {
					if it == gone || seen[it] == replies {
						t.Fatal("an element that is gone, or one twice")
					}
					seen[it] = replies
				}
				return some[tt.place].Value.(string)
			})
		})
	}
}

func distinct(t *testing.T, c Chooser) {
	t.Helper()
	for range 1000 {
		seen := map[rune]bool{}
		for _, name := range reply(c, 6) {
			if seen[name] {
				t.Fatalf("%c comes twice", name)
			}
			seen[name] = true
		}
		if len(seen) != 6 {
			t.Fatalf("%d elements instead of 6", len(seen))
		}
	}
}

func TestPOL_4_3_2_02_RandomRepeatsNone(t *testing.T) {
	c, _ := fill(param.Random, named("ABCDEFG", param.Policy{})...)
	distinct(t, c)
}

func TestPOL_4_4_2_01_WeightedRandomPicksAtMostTheRequestedNumber(t *testing.T) {
	c, _ := fill(param.WeightedRandom, weighted(map[string]uint32{"A": 3, "B": 0, "C": 1, "D": 2})...)
	for n := range 7 {
		if got := reply(c, n); len(got) != min(n, 4) {
			t.Errorf("asked for %d, got %q", n, got)
		}
	}
}

func TestPOL_4_4_2_02_WeightedRandomRepeatsNone(t *testing.T) {
	c, _ := fill(param.WeightedRandom, append(named("ABCDEF", param.Policy{Weight: 7}), named("GH", param.Policy{})...)...)
	distinct(t, c)
}

func TestPOL_4_4_2_03_ChanceIsWeightOverSum(t *testing.T) {
	c, items := fill(param.WeightedRandom, weighted(map[string]uint32{"A": 3, "B": 2, "C": 1})...)
	t.Run("first element", func(t *testing.T) {
		follows(t, map[string]float64{"A": 1. / 2, "B": 1. / 3, "C": 1. / 6}, func() string { return reply(c, 1) })
	})
	pairs := map[string]float64{"AB": 1. / 3, "AC": 1. / 6, "BA": 1. / 4, "BC": 1. / 12, "CA": 1. / 10, "CB": 1. / 15}
	t.Run("ordered pairs", func(t *testing.T) {
		follows(t, pairs, func() string { return reply(c, 2) })
	})
	t.Run("weight 0 comes after all others", func(t *testing.T) {
		c.Put(&Item{Value: "Z"}, param.Policy{Type: param.WeightedRandom})
		with := map[string]float64{}
		for pair, p := range pairs {
			third := strings.NewReplacer(pair[:1], "", pair[1:], "").Replace("ABC")
			with[pair+third+"Z"] = p
		}
		follows(t, with, func() string { return reply(c, 4) })
	})
	t.Run("all of weight 0 are alike", func(t *testing.T) {
		for _, it := range items {
			c.Put(it, param.Policy{Type: param.WeightedRandom})
		}
		follows(t, map[string]float64{"A": .25, "B": .25, "C": .25, "Z": .25}, func() string { return reply(c, 1) })
	})
	t.Run("sums beyond 32 bits", func(t *testing.T) {
		c, _ := fill(param.WeightedRandom, named("ABCD", param.Policy{Weight: math.MaxUint32})...)
		follows(t, map[string]float64{"A": .25, "B": .25, "C": .25, "D": .25}, func() string { return reply(c, 1) })
	})
	t.Run("AMB_38_values of other policies", func(t *testing.T) {
		c, items := fill(param.WeightedRandom, weighted(map[string]uint32{"A": 3, "B": 2})...)
		c.Put(items["B"], param.Policy{Type: param.LeastUsed, Load: 77})
		follows(t, map[string]float64{"A": .75, "B": .25}, func() string { return reply(c, 1) })
	})
}

func prioritized(priorities ...uint32) (members []member) {
	for i, p := range priorities {
		members = append(members, member{string(rune('A' + i)), param.Policy{Priority: p}})
	}
	return members
}

func TestPOL_4_5_2_01_HighestPrioritiesAreChosen(t *testing.T) {
	c, items := fill(param.Priority, prioritized(3, 0, math.MaxUint32, 7)...)
	expect(t, replies(c, 3, 2), "CD CD CD")
	c.Put(items["B"], param.Policy{Type: param.Priority, Priority: 8})
	expect(t, reply(c, 2), "CB")
	c.Remove(items["C"])
	expect(t, reply(c, 2), "BD")
}

func TestPOL_4_5_2_02_ListedByDecreasingPriority(t *testing.T) {
	c, _ := fill(param.Priority, prioritized(3, 0, math.MaxUint32, 7)...)
	expect(t, reply(c, 9), "CDAB")
	t.Run("ties take turns", func(t *testing.T) {
		c, _ := fill(param.Priority, prioritized(1, 9, 9, 9)...)
		expect(t, replies(c, 4, 4), "BCDA CDBA DBCA BCDA")
	})
}

func loaded(loads ...uint32) (members []member) {
	for i, load := range loads {
		members = append(members, member{string(rune('A' + i)), param.Policy{Load: load}})
	}
	return members
}

func TestPOL_5_1_2_01_LowestLoadsAreChosen(t *testing.T) {
	c, items := fill(param.LeastUsed, loaded(50, 40, math.MaxUint32, 0)...)
	expect(t, replies(c, 3, 2), "DB DB DB")
	c.Put(items["D"], param.Policy{Type: param.LeastUsed, Load: 45})
	expect(t, reply(c, 3), "BDA")
}

func TestPOL_5_1_2_02_NoElementTwice(t *testing.T) {
	c, _ := fill(param.LeastUsed, loaded(0, 0, 0, 1)...)
	expect(t, reply(c, 9), "ABCD")
}

func TestPOL_5_1_2_03_EqualLoadsTakeTurns(t *testing.T) {
	for n, want := range map[int]string{
		1: "A B C A",
		2: "AB BC CA AB",
		3: "ABC BCA CAB ABC",
		4: "ABCD BCAD CABD ABCD",
	} {
		c, _ := fill(param.LeastUsed, loaded(7, 7, 7, 8)...)
		expect(t, replies(c, 4, n), want)
	}
	t.Run("also behind a lower load", func(t *testing.T) {
		c, _ := fill(param.LeastUsed, loaded(1, 7, 7, 7)...)
		expect(t, replies(c, 4, 2), "AB AC AD AB")
	})
	t.Run("registering again changes no turn", func(t *testing.T) {
		c, items := fill(param.LeastUsed, loaded(7, 7, 7)...)
		expect(t, reply(c, 1), "A")
		for _, name := range []string{"C", "A", "B"} {
			c.Put(items[name], param.Policy{Type: param.LeastUsed, Load: 7})
		}
		expect(t, replies(c, 3, 1), "B C A")
	})
}

func TestPOL_5_1_2_04_SortedByLoad(t *testing.T) {
	c, _ := fill(param.LeastUsed, loaded(9, 3, 5, 3, 0)...)
	expect(t, replies(c, 2, 9), "EBDCA EDBCA")
}

// The start of the worked examples: A, B and C with load and degradation.
func degrading() []member {
	return []member{
		{"A", param.Policy{Load: 0x40000000, Degradation: 0x20000000}},
		{"B", param.Policy{Load: 0x50000000, Degradation: 0x08000000}},
		{"C", param.Policy{Load: 0xfffffff0, Degradation: 0x20}},
	}
}

func TestPOL_5_2_2_01_CounterPerElement(t *testing.T) {
	c, items := fill(param.LeastUsedDegradation, degrading()...)
	replies(c, 7, 1)
	for name, key := range map[string]uint64{"A": 0x80000000, "B": 0x78000000, "C": 0xfffffff0} {
		if items[name].key != key {
			t.Errorf("%s has key 0x%x, want 0x%x", name, items[name].key, key)
		}
	}
}

func TestPOL_5_2_2_02_RegistrationResetsCounter(t *testing.T) {
	c, items := fill(param.LeastUsedDegradation, degrading()...)
	expect(t, replies(c, 4, 1), "A B B A")
	c.Put(items["A"], param.Policy{Type: param.LeastUsedDegradation, Load: 0x40000000, Degradation: 0x20000000})
	expect(t, replies(c, 2, 1), "A B")
	c.Remove(items["A"])
	c.Put(items["A"], param.Policy{Type: param.LeastUsedDegradation, Load: 0x40000000, Degradation: 0x20000000})
	expect(t, reply(c, 1), "A")
}

func TestPOL_5_2_2_03_EveryEntryCounts(t *testing.T) {
	c, items := fill(param.LeastUsedDegradation, degrading()...)
	for i, want := range []struct {
		reply  string
		before [2]uint64
	}{
		{"AB", [2]uint64{0x40000000, 0x50000000}},
		{"BA", [2]uint64{0x58000000, 0x60000000}},
		{"BA", [2]uint64{0x60000000, 0x80000000}},
		{"BA", [2]uint64{0x68000000, 0xa0000000}},
	} {
		before := [2]uint64{items[want.reply[:1]].key, items[want.reply[1:]].key}
		if before != want.before {
			t.Errorf("reply %d: keys %x, want %x", i+1, before, want.before)
		}
		expect(t, reply(c, 2), want.reply)
	}
	t.Run("what does not fit does not count", func(t *testing.T) {
		c, items := fill(param.LeastUsedDegradation, degrading()...)
		items["A"].Size, items["B"].Size = 40, 44
		for room, want := range map[int]string{39: "", 40: "A", 83: "A", 84: "AB"} {
			for _, m := range degrading() {
				c.Put(items[m.name], m.policy)
			}
			expect(t, names(c.Choose(nil, 2, room)), want)
			for name, it := range items {
				if served := it.served > 0; served != strings.Contains(want, name) {
					t.Errorf("room %d: %s counted %d", room, name, it.served)
				}
			}
		}
	})
}

func TestPOL_5_2_2_04_LowestDegradedLoadsAreChosen(t *testing.T) {
	c, _ := fill(param.LeastUsedDegradation, degrading()...)
	expect(t, replies(c, 8, 1), "A B B A B B B B")
	t.Run("equal ones take turns", func(t *testing.T) {
		c, _ := fill(param.LeastUsedDegradation, named("ABC", param.Policy{Degradation: 5})...)
		expect(t, replies(c, 6, 1), "A B C A B C")
		expect(t, replies(c, 3, 3), "ABC BCA CAB")
		c, _ = fill(param.LeastUsedDegradation, named("ABC", param.Policy{})...)
		expect(t, replies(c, 4, 2), "AB BC CA AB")
	})
	t.Run("sums are 64 bits wide and saturate", func(t *testing.T) {
		p := param.Policy{Load: math.MaxUint32, Degradation: math.MaxUint32}
		for served, want := range map[uint64]uint64{
			0:              math.MaxUint32,
			1:              2 * math.MaxUint32,
			1 << 31:        math.MaxUint32 + math.MaxUint32<<31,
			1<<32 + 1:      math.MaxUint64,
			math.MaxUint64: math.MaxUint64,
		} {
			it := Item{served: served}
			it.base, it.step = load(p), degradation(p)
			if got := it.sum(); got != want {
				t.Errorf("served %d: key 0x%x, want 0x%x", served, got, want)
			}
		}
	})
}

func nextLoads() []member {
	return []member{
		{"C", param.Policy{Load: 0xfffffff0, Degradation: 0x20}},
		{"B", param.Policy{Load: 0x80000000, Degradation: 0x80000000}},
		{"A", param.Policy{Load: 0x80000000, Degradation: 0x1999999a}},
	}
}

func TestPOL_5_3_2_01_LowestSumsAreChosen(t *testing.T) {
	c, _ := fill(param.PriorityLeastUsed, nextLoads()...)
	expect(t, replies(c, 3, 2), "AB AB AB")
}

func TestPOL_5_3_2_02_NoElementTwice(t *testing.T) {
	c, _ := fill(param.PriorityLeastUsed, nextLoads()...)
	expect(t, reply(c, 9), "ABC")
}

func TestPOL_5_3_2_03_EqualSumsTakeTurns(t *testing.T) {
	c, _ := fill(param.PriorityLeastUsed,
		member{"A", param.Policy{Load: 10, Degradation: 5}},
		member{"B", param.Policy{Load: 5, Degradation: 10}},
		member{"C", param.Policy{Load: 15}})
	expect(t, replies(c, 4, 1), "A B C A")
}

func TestPOL_5_3_2_04_SortedBySum(t *testing.T) {
	c, items := fill(param.PriorityLeastUsed, nextLoads()...)
	expect(t, reply(c, 3), "ABC")
	for name, key := range map[string]uint64{"A": 0x9999999a, "B": 0x100000000, "C": 0x100000010} {
		if items[name].key != key {
			t.Errorf("%s has key 0x%x, want 0x%x", name, items[name].key, key)
		}
	}
}

func TestPOL_5_4_2_01_WeightIsSpareCapacity(t *testing.T) {
	c, _ := fill(param.RandomizedLeastUsed, loaded(0, 0x7fffffff, 0xffffffff)...)
	follows(t, map[string]float64{"A": 2. / 3, "B": 1. / 3, "C": 0}, func() string { return reply(c, 1) })
	t.Run("full ones come last", func(t *testing.T) {
		follows(t, map[string]float64{"ABC": 2. / 3, "BAC": 1. / 3}, func() string { return reply(c, 3) })
	})
	t.Run("all full", func(t *testing.T) {
		c, _ := fill(param.RandomizedLeastUsed, loaded(math.MaxUint32, math.MaxUint32)...)
		follows(t, map[string]float64{"A": .5, "B": .5}, func() string { return reply(c, 1) })
	})
}

// Elements that carry another policy's parameter count as weight 1, priority 0,
// load 0 and degradation 0.
func TestAMB_38_MissingValues(t *testing.T) {
	other := param.Policy{Type: param.RoundRobin}
	for typ, c := range map[param.PolicyType]struct {
		own  param.Policy
		want string // six replies of one element
	}{
		param.WeightedRoundRobin:   {param.Policy{Weight: 2}, "B A A B A A"},
		param.Priority:             {param.Policy{Priority: 1}, "A A A A A A"},
		param.LeastUsed:            {param.Policy{Load: 1}, "B B B B B B"},
		param.LeastUsedDegradation: {param.Policy{Degradation: 1}, "A B B B B B"},
		param.PriorityLeastUsed:    {param.Policy{Degradation: 1}, "B B B B B B"},
	} {
		chooser, _ := fill(typ, member{"A", c.own})
		chooser.Put(&Item{Value: "B"}, other)
		if got := replies(chooser, 6, 1); got != c.want {
			t.Errorf("%v: %s, want %s", typ, got, c.want)
		}
	}
	chooser, _ := fill(param.RandomizedLeastUsed, member{"A", param.Policy{Load: math.MaxUint32 / 2}})
	chooser.Put(&Item{Value: "B"}, other)
	follows(t, map[string]float64{"A": 1. / 3, "B": 2. / 3}, func() string { return reply(chooser, 1) })
}

func TestAMB_35_DefaultLimits(t *testing.T) {
	limited := []string{"wrr", "wrand", "rlu", "rplu", "rlud", "rplud", "wranddpf", "p2c"}
	for _, d := range All() {
		want := Unlimited
		if slices.Contains(limited, d.Name) {
			want = 3
		}
		if d.Limit != want {
			t.Errorf("%s: %d elements in a reply, want %d", d.Name, d.Limit, want)
		}
	}
}

// Every policy stops at the first element that does not fit.
func TestRoom(t *testing.T) {
	for _, d := range All() {
		c, items := fill(d.Type, named("ABCD", param.Policy{Weight: 1})...)
		for _, it := range items {
			it.Size = 10
		}
		for room, want := range map[int]int{0: 0, 9: 0, 10: 1, 25: 2, 40: 4, 99: 4} {
			if got := names(c.Choose(nil, Unlimited, room)); len(got) != want {
				t.Errorf("%s: %q in room %d", d.Name, got, room)
			}
		}
	}
}

func TestChooseAllocatesNothing(t *testing.T) {
	for _, d := range All() {
		for _, size := range []int{1000, 2 * cached} {
			c := NewChooser(d.Type, newRand())
			for i := range size {
				c.Put(&Item{Size: 1}, param.Policy{Type: d.Type, Weight: uint32(i), Load: uint32(i % 10), Degradation: 1})
			}
			dst := make([]*Item, 0, 100)
			if n := testing.AllocsPerRun(1000, func() { c.Choose(dst, 10, Unlimited) }); n > 0 {
				t.Errorf("%s of %d: %v allocations per choice", d.Name, size, n)
			}
		}
	}
}
