//go:build !race

package ringtest

import (
	"sync"
	"testing"

	"rserpool/enrp/ring/internal/fault"
)

// TestMutation switches on one fault of the machine at a time: each must be found
// within the schedules that continuous integration runs.
func TestMutation(t *testing.T) {
	// SEEDS may ask for far more schedules than continuous integration has.
	limit := min(number(t, "SEEDS", 10000), 10000)
	for _, f := range fault.All() {
		t.Run(f.String(), func(t *testing.T) {
			var mu sync.Mutex
			found := map[uint64]error{}
			each(1, limit, func(seed uint64) bool {
				r := Run(seed, Options{Faults: f})
				if r.Err != nil {
					mu.Lock()
					found[seed] = r.Err
					mu.Unlock()
					return false
				}
				return true
			})
			if len(found) == 0 {
				t.Fatalf("not found by %d schedules", limit)
			}
			for seed, err := range found {
				t.Logf("found by seed %d: %v", seed, err)
			}
		})
	}
}
