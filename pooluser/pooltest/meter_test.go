package pooltest

import (
	"math/rand/v2"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/selection"
)

// meter is a policy that goes by response times, and counts what sessions tell it: of
// each request that was sent, once what became of it.
type meter struct {
	selection.Meter
	h *history

	mu      sync.Mutex
	pending map[param.PEID]int
}

func (m *meter) install(cfg *pooluser.Config) {
	m.Meter = selection.PickPeakEWMA(cfg.Rand).(selection.Meter)
	m.pending = map[param.PEID]int{}
	cfg.Pick = func(param.PoolHandle, param.PolicyType) func(*rand.Rand) selection.Picker {
		return func(*rand.Rand) selection.Picker { return m }
	}
}

func (m *meter) count(id param.PEID, n int, what string) {
	m.h.count(what)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending[id] += n; m.pending[id] < 0 {
		m.h.locked(func() { m.h.violate("%s at %v, and none was sent", what, id) })
	}
}

func (m *meter) Sent(id param.PEID, now time.Time) {
	m.count(id, 1, "measured")
	m.Meter.Sent(id, now)
}

func (m *meter) Answered(id param.PEID, took time.Duration, now time.Time) {
	m.count(id, -1, "measured an answer")
	m.Meter.Answered(id, took, now)
}

func (m *meter) Unanswered(id param.PEID, took time.Duration, failed bool, now time.Time) {
	m.count(id, -1, "measured no answer")
	m.Meter.Unanswered(id, took, failed, now)
}

// conclude looks at what is left when the session is closed.
func (m *meter) conclude() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, n := range m.pending {
		if n != 0 {
			m.h.locked(func() {
				m.h.violate("%d requests at %v are under way for the policy, and the session has ended", n, id)
			})
		}
	}
}
