package sidecar

// Health is what the checks say about a service.
type Health int

// The states of health.
const (
	Unknown Health = iota // not checked yet
	Up
	Down
)

func (h Health) String() string {
	return [...]string{"unknown", "up", "down"}[h]
}

// hysteresis turns check results into health: Rise passes in a row bring a
// service up, Fall failures in a row take it down. Before the first change one
// pass is enough, so that a service that runs is in its pool at once.
type hysteresis struct {
	rise, fall int

	health Health
	run    int // results in a row that speak against health
}

// observe takes one result and reports whether the health changed.
func (h *hysteresis) observe(pass bool) bool {
	next, need := Down, h.fall
	if pass {
		next, need = Up, h.rise
		if h.health == Unknown {
			need = 1
		}
	}
	if next == h.health {
		h.run = 0
		return false
	}
	if h.health == Unknown && pass {
		h.run = 0
	}
	if h.run++; h.run < need {
		return false
	}
	h.health, h.run = next, 0
	return true
}
