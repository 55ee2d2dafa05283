package registrar

import "time"

// hearing gives others their say before their deadlines count, when this registrar
// comes late to these: its process was stopped, or its machine busy, and what they said
// in time is still to be read.
type hearing struct {
	until time.Time // zero: there is none
}

// How late the registrar may come, and how long a hearing takes.
const (
	lateBy      = 10 * time.Millisecond
	hearingTime = 100 * time.Millisecond
)

// over reports whether deadlines count now, the earliest of which is due.
func (h *hearing) over(due, now time.Time) bool {
	late := lateBy
	if !h.until.IsZero() {
		due, late = h.until, hearingTime // stopped once more
	}
	if now.Sub(due) > late {
		h.until = now.Add(hearingTime)
	}
	if now.Before(h.until) {
		return false
	}
	h.until = time.Time{}
	return true
}
