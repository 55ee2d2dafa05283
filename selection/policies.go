package selection

import (
	"math/rand/v2"
	"slices"
	"strings"

	"rserpool/asap/param"
)

// Value names one of the values of a policy parameter.
type Value = param.PolicyField

// The values of policy parameters.
const (
	Weight        = param.FieldWeight
	PriorityValue = param.FieldPriority
	Degradation   = param.FieldDegradation
	Load          = param.FieldLoad
	Penalty       = param.FieldPenalty
	Distance      = param.FieldDistance
)

// Definition describes a policy.
type Definition struct {
	Type param.PolicyType
	// Name is the short name of command lines and displays: "wrr".
	Name string
	// Title is the name in full: "Weighted Round Robin".
	Title string
	// Values are those of the policy's parameter in the order of the command
	// line notation.
	Values []Value
	// Limit is the number of elements a reply holds unless configured
	// otherwise, Unlimited for the whole pool (AMB-35).
	Limit int
	// NewChooser makes the registrar's half, for one pool; the source is that
	// pool's.
	NewChooser func(*rand.Rand) Chooser
	// NewPicker makes the pool user's half, for one pool.
	NewPicker func(*rand.Rand) Picker
}

// Has reports whether the policy's parameter has the value.
func (d Definition) Has(v Value) bool { return slices.Contains(d.Values, v) }

// sampled is the default size of replies whose shares are exact for the first
// element only (AMB-35, AMB-37): enough backups, little distortion.
const sampled = 3

// standard are the policies of RFC 5356, rsplib's further ones, and ours.
var standard = []Definition{
	{param.RoundRobin, "rr", "Round Robin", nil, Unlimited, newRing, PickInOrder},
	{param.WeightedRoundRobin, "wrr", "Weighted Round Robin", []Value{Weight}, sampled, newWheel, PickInOrder},
	{param.Random, "rand", "Random", nil, Unlimited, newShuffle, PickAtRandom},
	{param.WeightedRandom, "wrand", "Weighted Random", []Value{Weight}, sampled, Drawn(weightOf), PickAtRandom},
	{param.Priority, "prio", "Priority", []Value{PriorityValue}, Unlimited, Sorted(byPriority, nil), PickByPriority},
	{param.LeastUsed, "lu", "Least Used", []Value{Load}, Unlimited, Sorted(load, nil), PickInOrder},
	{param.LeastUsedDegradation, "lud", "Least Used with Degradation", []Value{Degradation, Load}, Unlimited, Sorted(load, degradation), PickInOrder},
	{param.PriorityLeastUsed, "plu", "Priority Least Used", []Value{Degradation, Load}, Unlimited, Sorted(nextLoad, nil), PickInOrder},
	{param.RandomizedLeastUsed, "rlu", "Randomized Least Used", []Value{Load}, sampled, drawnBySpare(load, nil), PickAtRandom},

	{param.RandomizedPriorityLeastUsed, "rplu", "Randomized Priority Least Used", []Value{Degradation, Load}, sampled, drawnBySpare(nextLoad, nil), PickAtRandom},
	{param.RandomizedLeastUsedDegradation, "rlud", "Randomized Least Used with Degradation", []Value{Degradation, Load}, sampled, drawnBySpare(load, degradation), PickAtRandom},
	{param.PriorityLeastUsedDegradation, "plud", "Priority Least Used with Degradation", []Value{Degradation, Load}, Unlimited, Sorted(nextLoad, degradation), PickInOrder},
	{param.RandomizedPriorityLeastUsedDegradation, "rplud", "Randomized Priority Least Used with Degradation", []Value{Degradation, Load}, sampled, drawnBySpare(nextLoad, degradation), PickAtRandom},
	{param.WeightedRandomDPF, "wranddpf", "Weighted Random DPF", []Value{Weight, Penalty, Distance}, sampled, Drawn(distantWeight), PickAtRandom},
	{param.LeastUsedDPF, "ludpf", "Least Used DPF", []Value{Penalty, Distance, Load}, Unlimited, Sorted(distantLoad, nil), PickInOrder},
	{param.LeastUsedDegradationDPF, "luddpf", "Least Used with Degradation DPF", []Value{Degradation, Penalty, Distance, Load}, Unlimited, Sorted(distantLoad, degradation), PickInOrder},

	{param.PowerOfTwoChoices, "p2c", "Power of Two Choices", []Value{Load}, sampled, newTwoChoices, PickInOrder},
	{param.RendezvousHashing, "hrw", "Rendezvous Hashing", []Value{Weight}, Unlimited, newListed, PickRendezvous},
	{param.PeakEWMA, "ewma", "Peak EWMA", nil, Unlimited, newShuffle, PickPeakEWMA},
}

// All returns the policies: those of RFC 5356 in its order, rsplib's, ours, and the
// registered ones.
func All() []Definition { return slices.Clone(registry.Load().all) }

// Lookup finds a policy by type.
func Lookup(t param.PolicyType) (Definition, bool) {
	d, ok := registry.Load().byType[t]
	if !ok {
		return Definition{}, false
	}
	return *d, true
}

// ByName finds a policy by its short name, its name in full ("Least Used with
// Degradation") or rsplib's spelling ("LeastUsedDegradation"). Case, blanks,
// hyphens and underscores do not matter.
func ByName(name string) (Definition, bool) {
	name = fold(name)
	for _, d := range registry.Load().all {
		if slices.Contains(d.spellings(), name) {
			return d, true
		}
	}
	return Definition{}, false
}

// spellings are the names that stand for the policy, folded.
func (d Definition) spellings() []string {
	return []string{fold(d.Name), fold(d.Title), strings.Replace(fold(d.Title), "with", "", 1)}
}

var folder = strings.NewReplacer(" ", "", "-", "", "_", "")

func fold(name string) string { return folder.Replace(strings.ToLower(name)) }

// Neutral returns the parameter of the given type with neutral values, which a
// pool's policy has where elements have theirs (AMB-56): weight 1, all others 0.
func Neutral(t param.PolicyType) param.Policy {
	p := param.Policy{Type: t}
	if t.Has(param.FieldWeight) {
		p.Weight = 1
	}
	return p
}
