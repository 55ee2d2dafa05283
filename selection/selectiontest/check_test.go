package selectiontest

import (
	"testing"

	"rserpool/asap/param"
	"rserpool/selection"
)

// What is checked is the policy as programs have it: with its values and defaults.
func TestNewPolicyIsRegistered(t *testing.T) {
	const own param.PolicyType = 0x80526101
	Check(t, selection.Definition{Type: own, Name: "plain", Values: []selection.Value{selection.Weight}})
	if d, ok := selection.Lookup(own); !ok || d.NewChooser == nil || !own.Has(selection.Weight) {
		t.Errorf("%+v, %v", d, ok)
	}
}

func TestPoliciesKeepTheContract(t *testing.T) {
	for _, d := range selection.All() {
		t.Run(d.Name, func(t *testing.T) { Check(t, d) })
	}
}
