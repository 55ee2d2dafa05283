package pooluser

import (
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// A pool whose elements come and go for years must not fill the memory.
func TestMemoryOfElementsIsBounded(t *testing.T) {
	cfg := Config{}.withDefaults()
	e := newEntry("pool")
	now := time.Now()
	for i := range 10 * maxAsked {
		id := param.PEID(i + 1)
		if i%1000 == 0 {
			e.fill(&asap.HandleResolutionResponse{Elements: []param.PoolElement{{ID: id}}}, 1, now, &cfg)
		}
		e.note(id)
		if i%2 == 0 && !e.fail(id, now.Add(time.Hour)) {
			t.Fatalf("failure of %v, which was asked for, is not to be reported", id)
		}
		if len(e.asked) > maxAsked || len(e.failed) > maxAsked {
			t.Fatalf("%d asked and %d failed elements remembered, want at most %d", len(e.asked), len(e.failed), maxAsked)
		}
	}
	e.fill(&asap.HandleResolutionResponse{Elements: []param.PoolElement{{ID: 1}}}, 1, now.Add(time.Hour), &cfg)
	if len(e.failed) != 0 {
		t.Errorf("%d failures remembered after their time", len(e.failed))
	}
}
