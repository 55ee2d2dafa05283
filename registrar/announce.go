package registrar

import (
	"time"

	"rserpool/asap/param"
)

// announceMachine decides when this registrar announces itself to the multicast
// group: every (N+1) x T6 where N is how many others it hears, so that the group
// hears about one announcement each T6 (RFC 5352, section 3.6). It is a pure
// machine.
type announceMachine struct {
	own    param.RegistrarID
	t6     time.Duration
	limit  int // how many registrars are remembered
	others map[param.RegistrarID]*heard
	due    time.Time
	looked time.Time // for outdated ones
}

// heard is one other registrar.
type heard struct {
	last    time.Time
	longest time.Duration // longest interval between two announcements
}

// outdated is how long an announcement counts: T7-ENRPoutdate, or three of the
// registrar's own intervals where they are long because the group is large
// (AMB-53).
func (h *heard) outdated() time.Duration { return max(5*time.Second, 3*h.longest) }

func newAnnounceMachine(own param.RegistrarID, t6 time.Duration, limit int, now time.Time) *announceMachine {
	return &announceMachine{own: own, t6: t6, limit: limit, others: make(map[param.RegistrarID]*heard), due: now}
}

// hear takes another registrar's announcement.
func (a *announceMachine) hear(id param.RegistrarID, now time.Time) {
	if id == 0 || id == a.own {
		return
	}
	if h := a.others[id]; h != nil {
		h.longest = max(h.longest, now.Sub(h.last))
		h.last = now
		return
	}
	if len(a.others) >= a.limit && now.Sub(a.looked) >= time.Second {
		a.expire(now)
	}
	if len(a.others) < a.limit {
		a.others[id] = &heard{last: now}
	}
}

// tick reports whether an announcement is due, and schedules the next one.
func (a *announceMachine) tick(now time.Time) bool {
	if now.Before(a.due) {
		return false
	}
	a.expire(now)
	a.due = now.Add(time.Duration(len(a.others)+1) * a.t6)
	return true
}

func (a *announceMachine) expire(now time.Time) {
	a.looked = now
	for id, h := range a.others {
		if now.Sub(h.last) > h.outdated() {
			delete(a.others, id)
		}
	}
}
