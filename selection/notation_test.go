package selection

import (
	"errors"
	"math/rand/v2"
	"testing"

	"rserpool/asap/param"
)

func TestByName(t *testing.T) {
	for want, spellings := range map[param.PolicyType][]string{
		param.RoundRobin:           {"rr", "RR", "Round Robin", "RoundRobin", "round-robin"},
		param.WeightedRoundRobin:   {"wrr", "WeightedRoundRobin", "Weighted Round Robin"},
		param.Random:               {"rand", "Random"},
		param.WeightedRandom:       {"wrand", "WeightedRandom", "weighted_random"},
		param.Priority:             {"prio", "Priority"},
		param.LeastUsed:            {"lu", "LeastUsed"},
		param.LeastUsedDegradation: {"lud", "LeastUsedDegradation", "Least Used with Degradation"},
		param.PriorityLeastUsed:    {"plu", "PriorityLeastUsed"},
		param.RandomizedLeastUsed:  {"rlu", "RandomizedLeastUsed"},

		param.RandomizedPriorityLeastUsed:            {"rplu", "RandomizedPriorityLeastUsed"},
		param.RandomizedLeastUsedDegradation:         {"rlud", "RandomizedLeastUsedDegradation"},
		param.PriorityLeastUsedDegradation:           {"plud", "PriorityLeastUsedDegradation"},
		param.RandomizedPriorityLeastUsedDegradation: {"rplud", "RandomizedPriorityLeastUsedDegradation"},
		param.WeightedRandomDPF:                      {"wranddpf", "WeightedRandomDPF"},
		param.LeastUsedDPF:                           {"ludpf", "LeastUsedDPF"},
		param.LeastUsedDegradationDPF:                {"luddpf", "LeastUsedDegradationDPF"},

		param.PowerOfTwoChoices: {"p2c", "power of two choices"},
		param.RendezvousHashing: {"hrw", "rendezvous-hashing"},
		param.PeakEWMA:          {"ewma", "PeakEWMA"},
	} {
		for _, name := range spellings {
			if d, ok := ByName(name); !ok || d.Type != want {
				t.Errorf("%q is %v, want %v", name, d.Type, want)
			}
		}
		if d, _ := Lookup(want); d.Title != want.String() {
			t.Errorf("title %q, but %v", d.Title, want)
		}
	}
	if d, ok := ByName("PriorityLeastUsedDPF"); ok {
		t.Errorf("PriorityLeastUsedDPF is %v", d.Type)
	}
}

func TestNotation(t *testing.T) {
	for text, want := range map[string]param.Policy{
		"rr":                       {Type: param.RoundRobin},
		"rand":                     {Type: param.Random},
		"wrr:5":                    {Type: param.WeightedRoundRobin, Weight: 5},
		"wrand:0":                  {Type: param.WeightedRandom},
		"prio:4294967295":          {Type: param.Priority, Priority: 4294967295},
		"lu":                       {Type: param.LeastUsed},
		"lu:0.5":                   {Type: param.LeastUsed, Load: 0x80000000},
		"rlu:1":                    {Type: param.RandomizedLeastUsed, Load: 0xffffffff},
		"lud:0.1":                  {Type: param.LeastUsedDegradation, Degradation: 0x1999999a},
		"ludpf:0.001:100":          {Type: param.LeastUsedDPF, Penalty: 0x00418937, Distance: 100},
		"luddpf:0.5:0:7:0.25":      {Type: param.LeastUsedDegradationDPF, Degradation: 0x80000000, Distance: 7, Load: 0x40000000},
		"wranddpf:7:0.25:100":      {Type: param.WeightedRandomDPF, Weight: 7, Penalty: 0x40000000, Distance: 100},
		"wranddpf":                 {Type: param.WeightedRandomDPF, Weight: 1},
		"rplud:0.5":                {Type: param.RandomizedPriorityLeastUsedDegradation, Degradation: 0x80000000},
		"p2c:0.5":                  {Type: param.PowerOfTwoChoices, Load: 0x80000000},
		"hrw":                      {Type: param.RendezvousHashing, Weight: 1},
		"ewma":                     {Type: param.PeakEWMA},
		"plu:0:0.25":               {Type: param.PriorityLeastUsed, Load: 0x40000000},
		"LeastUsedDegradation:0.1": {Type: param.LeastUsedDegradation, Degradation: 0x1999999a},
		" WeightedRoundRobin : 2 ": {Type: param.WeightedRoundRobin, Weight: 2},
		"wrr":                      {Type: param.WeightedRoundRobin, Weight: 1},
		"prio":                     {Type: param.Priority},
		"lud":                      {Type: param.LeastUsedDegradation},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", text, got, err, want)
			continue
		}
		if back, err := Parse(Format(got)); err != nil || back != want {
			t.Errorf("%q formats as %q, which reads as %+v, %v", text, Format(got), back, err)
		}
	}
	for text, want := range map[string]error{
		"":               ErrUnknownPolicy,
		"fair":           ErrUnknownPolicy,
		"rr:1":           ErrPolicyValue,
		"wrr:-1":         ErrPolicyValue,
		"wrr:4294967296": ErrPolicyValue,
		"wrr:":           ErrPolicyValue,
		"prio:high":      ErrPolicyValue,
		"lu:1.1":         ErrPolicyValue,
		"lu:NaN":         ErrPolicyValue,
		"lud:-0.1":       ErrPolicyValue,
		"lud:0.1:0.2:0":  ErrPolicyValue,
		"ludpf:0:0.5":    ErrPolicyValue,
		"ewma:1":         ErrPolicyValue,
	} {
		if p, err := Parse(text); !errors.Is(err, want) {
			t.Errorf("Parse(%q) = %+v, %v, want %v", text, p, err, want)
		}
	}
	expect(t, Format(param.Policy{Type: 0xb0002004}), "0xb0002004")
	expect(t, Format(param.Policy{Type: param.LeastUsedDPF, Misfit: true, Data: "load"}), "0xb0002002")
}

func TestPOL_3_1_01_LoadScale(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "0.5": 0x80000000, "1": 0xffffffff, "0.1": 0x1999999a, "1e-9": 4} {
		if got, err := ParseFraction(text); err != nil || got != want {
			t.Errorf("%s is 0x%x, %v, want 0x%x", text, got, err, want)
		}
	}
	for v, want := range map[uint32]string{0: "0", 0xffffffff: "1", 0x80000000: "0.5", 0x1999999a: "0.1", 1: "0.0000000002"} {
		expect(t, FormatFraction(v), want)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range 10_000 {
		v := r.Uint32()
		if back, err := ParseFraction(FormatFraction(v)); err != nil || back != v {
			t.Fatalf("0x%x formats as %s and reads as 0x%x, %v", v, FormatFraction(v), back, err)
		}
	}
}

func TestPOL_3_2_01_WeightIsRelative(t *testing.T) {
	for _, factor := range []uint32{1, 1000, 1_000_000} {
		c, _ := fill(param.WeightedRoundRobin, weighted(map[string]uint32{"A": 2 * factor, "B": factor, "C": 0})...)
		if got := replies(c, 4, 1); got != "B A A B" && got != "A B A A" && got != "A A B A" {
			t.Errorf("factor %d: %s", factor, got)
		}
	}
}

func TestAMB_56_NeutralValues(t *testing.T) {
	for _, d := range All() {
		want := param.Policy{Type: d.Type}
		switch d.Type {
		case param.WeightedRoundRobin, param.WeightedRandom, param.WeightedRandomDPF, param.RendezvousHashing:
			want.Weight = 1
		}
		if got := Neutral(d.Type); got != want {
			t.Errorf("%s: %+v, want %+v", d.Name, got, want)
		}
	}
}
