package selectiontest

import (
	"testing"

	"rserpool/selection"
)

func TestPoliciesKeepTheContract(t *testing.T) {
	for _, d := range selection.All() {
		t.Run(d.Name, func(t *testing.T) { Check(t, d) })
	}
}
