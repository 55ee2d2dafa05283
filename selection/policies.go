package selection

import (
	"math/rand/v2"
	"strings"

	"rserpool/asap/param"
)

// Value names one of the values of a policy parameter.
type Value int

// The values that RFC 5356 knows.
const (
	Weight Value = iota
	PriorityValue
	Degradation
	Load
)

// Definition describes a policy.
type Definition struct {
	Type param.PolicyType
	// Name is the short name of command lines and displays: "wrr".
	Name string
	// Title is the RFC's name: "Weighted Round Robin".
	Title string
	// Values are those of the policy's parameter in the order of the command
	// line notation.
	Values []Value
	// Limit is the number of elements a reply holds unless configured
	// otherwise, Unlimited for the whole pool (AMB-35).
	Limit int

	newChooser func(*rand.Rand) Chooser
	userMode   userMode
}

// sampled is the default size of replies whose shares are exact for the first
// element only (AMB-35, AMB-37): enough backups, little distortion.
const sampled = 3

var definitions = []Definition{
	{param.RoundRobin, "rr", "Round Robin", nil, Unlimited, newRing, inOrder},
	{param.WeightedRoundRobin, "wrr", "Weighted Round Robin", []Value{Weight}, sampled, newWheel, inOrder},
	{param.Random, "rand", "Random", nil, Unlimited, newShuffle, atRandom},
	{param.WeightedRandom, "wrand", "Weighted Random", []Value{Weight}, sampled, newWeightedRandom, atRandom},
	{param.Priority, "prio", "Priority", []Value{PriorityValue}, Unlimited, newOrdered(byPriority, false), highestPriority},
	{param.LeastUsed, "lu", "Least Used", []Value{Load}, Unlimited, newOrdered(byLoad, false), inOrder},
	{param.LeastUsedDegradation, "lud", "Least Used with Degradation", []Value{Degradation, Load}, Unlimited, newOrdered(byDegradedLoad, true), inOrder},
	{param.PriorityLeastUsed, "plu", "Priority Least Used", []Value{Degradation, Load}, Unlimited, newOrdered(byNextLoad, false), inOrder},
	{param.RandomizedLeastUsed, "rlu", "Randomized Least Used", []Value{Load}, sampled, newRandomizedLeastUsed, atRandom},
}

// All returns the policies in the order of RFC 5356.
func All() []Definition { return append([]Definition(nil), definitions...) }

// Lookup finds a policy by type.
func Lookup(t param.PolicyType) (Definition, bool) {
	for _, d := range definitions {
		if d.Type == t {
			return d, true
		}
	}
	return Definition{}, false
}

// ByName finds a policy by its short name, the RFC's name ("Least Used with
// Degradation") or rsplib's spelling ("LeastUsedDegradation"). Case, blanks,
// hyphens and underscores do not matter.
func ByName(name string) (Definition, bool) {
	name = fold(name)
	for _, d := range definitions {
		if name == d.Name || name == fold(d.Title) || name == strings.Replace(fold(d.Title), "with", "", 1) {
			return d, true
		}
	}
	return Definition{}, false
}

var folder = strings.NewReplacer(" ", "", "-", "", "_", "")

func fold(name string) string { return folder.Replace(strings.ToLower(name)) }

// Neutral returns the parameter of the given type with neutral values, which a
// pool's policy has where elements have theirs (AMB-56): weight 1, all others 0.
func Neutral(t param.PolicyType) param.Policy {
	p := param.Policy{Type: t}
	if d, ok := Lookup(t); ok && len(d.Values) > 0 && d.Values[0] == Weight {
		p.Weight = 1
	}
	return p
}
