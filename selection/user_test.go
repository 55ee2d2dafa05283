package selection

import (
	"math"
	"testing"

	"rserpool/asap/param"
)

// list returns elements whose identifiers are the letters.
func list(ids string) (elements []param.PoolElement) {
	for _, id := range ids {
		elements = append(elements, param.PoolElement{ID: param.PEID(id)})
	}
	return elements
}

// take makes n choices and returns the letters; '-' stands for none.
func take(u *User, n int) string {
	var got []byte
	for range n {
		if e, ok := u.Next(); ok {
			got = append(got, byte(e.ID))
		} else {
			got = append(got, '-')
		}
	}
	return string(got)
}

// inListOrder checks the rule that several policies share.
func inListOrder(t *testing.T, policy param.PolicyType) {
	t.Helper()
	u := NewUser(policy, list("CAB"), nil)
	expect(t, take(u, 7), "CABCABC")
	u.Failed('B')
	expect(t, take(u, 4), "ACAC")
	u.Failed('A')
	u.Failed('C')
	u.Failed('X')
	expect(t, take(u, 2), "--")
	u.Recovered('A')
	expect(t, take(u, 2), "AA")
	expect(t, take(NewUser(policy, list("CAB"), nil), 2), "CA")
	expect(t, take(NewUser(policy, nil, nil), 1), "-")
}

func TestPOL_4_1_3_01_ListInOrder(t *testing.T) {
	expect(t, take(NewUser(param.RoundRobin, list("CAB"), nil), 3), "CAB")
}

func TestPOL_4_1_3_02_FromTheFirstAgain(t *testing.T) { inListOrder(t, param.RoundRobin) }

func TestPOL_4_2_3_01_WeightedRoundRobinUser(t *testing.T) { inListOrder(t, param.WeightedRoundRobin) }

func TestPOL_5_1_3_01_LeastUsedUser(t *testing.T) { inListOrder(t, param.LeastUsed) }

func TestPOL_5_1_3_02_BackupsAreAtHand(t *testing.T) {
	for _, policy := range []param.PolicyType{param.LeastUsed, param.LeastUsedDegradation, param.PriorityLeastUsed} {
		if d, _ := Lookup(policy); d.Limit < 2 {
			t.Errorf("%s: a reply has %d elements", d.Name, d.Limit)
		}
		u := NewUser(policy, list("AB"), nil)
		expect(t, take(u, 1), "A")
		u.Failed('A')
		expect(t, take(u, 2), "BB")
	}
}

func TestPOL_5_2_3_01_DegradationUser(t *testing.T) { inListOrder(t, param.LeastUsedDegradation) }

func TestPOL_5_3_3_01_PriorityLeastUsedUser(t *testing.T) { inListOrder(t, param.PriorityLeastUsed) }

// uniform checks the rule of the random policies: weights and loads in the list
// have had their effect at the registrar (AMB-37).
func uniform(t *testing.T, policy param.PolicyType) {
	t.Helper()
	l := list("ABCD")
	for i := range l {
		l[i].Policy = param.Policy{Type: policy, Weight: uint32(i), Load: math.MaxUint32 - uint32(i)}
	}
	u := NewUser(policy, l, newRand())
	follows(t, map[string]float64{"A": .25, "B": .25, "C": .25, "D": .25}, func() string { return take(u, 1) })
	p := 1.0 / 9
	u.Failed('B')
	u.Failed('B')
	follows(t, map[string]float64{"AA": p, "AC": p, "AD": p, "CA": p, "CC": p, "CD": p, "DA": p, "DC": p, "DD": p},
		func() string { return take(u, 2) })
	u.Failed('D')
	u.Failed('A')
	expect(t, take(u, 3), "CCC")
	u.Failed('C')
	expect(t, take(u, 2), "--")
	u.Recovered('A')
	u.Recovered('D')
	u.Recovered('D')
	follows(t, map[string]float64{"A": .5, "D": .5}, func() string { return take(u, 1) })
}

func TestPOL_4_3_3_01_RandomUser(t *testing.T) { uniform(t, param.Random) }

func TestPOL_4_4_3_01_WeightedRandomUser(t *testing.T) { uniform(t, param.WeightedRandom) }

func TestAMB_37_UserDoesNotWeightAgain(t *testing.T) { uniform(t, param.WeightedRandom) }

func TestPOL_5_4_3_01_RandomizedLeastUsedUser(t *testing.T) { uniform(t, param.RandomizedLeastUsed) }

func TestPOL_4_5_3_01_HighestUsablePriority(t *testing.T) {
	l := list("ABCD")
	for i, priority := range []uint32{1, 7, math.MaxUint32, 7} {
		l[i].Policy = param.Policy{Type: param.Priority, Priority: priority}
	}
	u := NewUser(param.Priority, l, nil)
	expect(t, take(u, 3), "CCC")
	u.Failed('C')
	expect(t, take(u, 2), "BB")
	u.Failed('B')
	expect(t, take(u, 2), "DD")
	u.Recovered('C')
	expect(t, take(u, 1), "C")
	for _, id := range "ABCD" {
		u.Failed(param.PEID(id))
	}
	expect(t, take(u, 1), "-")
	if l[0].ID != 'A' {
		t.Error("the caller's list was sorted")
	}
}
