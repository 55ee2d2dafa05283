// Package example is the policy of docs/write-a-policy.md: Most Spare Capacity, for
// pools of unequal servers that report their load.
package example

import (
	"math"
	"math/rand/v2"
	"slices"

	"rserpool/asap/param"
	"rserpool/selection"
)

// MostSpare is the policy's type: private (bit 31), adaptive (bit 30), and a number
// of our choice.
const MostSpare param.PolicyType = 0xc0004d53

// Policy prefers the element of most spare capacity: weight x (1 - load). Where
// several have as much they take turns. It is Least Used for servers of unequal size.
var Policy = selection.Definition{
	Type:   MostSpare,
	Name:   "spare",
	Title:  "Most Spare Capacity",
	Values: []selection.Value{selection.Weight, selection.Load}, // "spare:WEIGHT:LOAD"
	// The registrar's half: the smallest number comes first.
	NewChooser: selection.Sorted(func(p param.Policy) uint64 {
		return math.MaxUint64 - uint64(p.Weight)*uint64(param.MaxLoad-p.Load)
	}, nil),
	// The user's half.
	NewPicker: PickSticky,
}

// sticky stays with one element until that fails or leaves the list.
type sticky struct {
	list []param.PoolElement
	at   param.PEID
}

// PickSticky makes a Picker that stays with the first element it took for as long as
// that can be used.
func PickSticky(*rand.Rand) selection.Picker { return &sticky{} }

// Renew implements selection.Picker.
func (p *sticky) Renew(list []param.PoolElement) { p.list = list }

// Pick implements selection.Picker.
func (p *sticky) Pick(usable []int, _ selection.Request) int {
	k := slices.IndexFunc(usable, func(i int) bool { return p.list[i].ID == p.at })
	place := usable[max(k, 0)]
	p.at = p.list[place].ID
	return place
}
