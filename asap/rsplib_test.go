package asap

import (
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

func TestRsplib(t *testing.T) { paramtest.Rsplib(t, Decode) }

// What rspserver registered with -policy=WeightedRandomDPF:9:0.5, LeastUsedDPF:0.6 and
// LeastUsedDegradationDPF:0.7:0.8.
func TestRsplibDelayAwarePolicies(t *testing.T) {
	want := map[param.PoolHandle]param.Policy{
		"Pool-WeightedRandomDPF":       {Type: param.WeightedRandomDPF, Weight: 9, Penalty: 0x80000000},
		"Pool-LeastUsedDPF":            {Type: param.LeastUsedDPF, Penalty: 0x99999999},
		"Pool-LeastUsedDegradationDPF": {Type: param.LeastUsedDegradationDPF, Degradation: 0xb3333332, Penalty: 0xcccccccc},
	}
	seen := map[param.PoolHandle]bool{}
	for _, v := range paramtest.ReadVectors(t, "testdata/rsplib/captured.hex") {
		m, _, _ := Decode(v.Data) // what else is in the file is not of interest
		r, ok := m.(*Registration)
		if !ok {
			continue
		}
		if p, ok := want[r.Handle]; ok {
			seen[r.Handle] = true
			if r.Element.Policy != p {
				t.Errorf("%s: %+v, want %+v", r.Handle, r.Element.Policy, p)
			}
		}
	}
	if len(seen) != len(want) {
		t.Errorf("found %v only", seen)
	}
}
