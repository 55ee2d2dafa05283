package ring

import (
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// steadiness remembers, for each identifier, how it dropped out of views without
// leaving.
type steadiness map[NodeID]drops

type drops struct {
	count int
	until time.Time // held off until then
	last  time.Time // the latest of dropping out and being held off
}

// dropped notes that a member dropped out. From the second time on it is held off,
// for twice as long each time, and forgiven when it was steady for FlapWindow.
func (s steadiness) dropped(id NodeID, now time.Time, t Timers) {
	for other, d := range s {
		if now.Sub(d.last) > t.FlapWindow {
			delete(s, other)
		}
	}
	if _, known := s[id]; !known && len(s) >= maxMembers {
		return
	}
	d := s[id]
	d.count++
	d.last = now
	if d.count > 1 {
		wait := t.HoldOff
		for i := 2; i < d.count && wait < t.HoldOffMax; i++ {
			wait *= 2
		}
		d.until = now.Add(min(wait, t.HoldOffMax))
		d.last = d.until
	}
	s[id] = d
}

// anybody stands for all callers of merges.
const anybody NodeID = 0

// maxPromisedInVain is how many merges called and not installed in a row are nothing
// special.
const maxPromisedInVain = 3

// blame notes that a merge which this member promised was not installed. Who calls
// merges again and again, and lets all wait, is held off; and if they are many, or one
// who changes his name, all are.
func (m *Machine) blame() {
	if a := m.answerTo; a != nil && a.Cause == CauseMerge && m.blamed != a.View.ID {
		m.blamed = a.View.ID
		m.steady.dropped(a.From.ID, m.now, m.cfg.Timers)
		m.steady.dropped(anybody, m.now, m.cfg.Timers)
	}
}

// holdOff returns for how long this member refuses to merge with one of the nodes,
// members of its own view aside.
func (m *Machine) holdOff(nodes []Node) time.Duration {
	var wait time.Duration
	if m.faults.Has(fault.HoldOffIgnored) {
		return 0
	}
	for _, n := range nodes {
		if m.index(&m.view, n.Member) >= 0 {
			continue
		}
		if d, ok := m.steady[n.ID]; ok {
			wait = max(wait, d.until.Sub(m.now))
		}
		if d := m.steady[anybody]; d.count > maxPromisedInVain {
			wait = max(wait, d.until.Sub(m.now))
		}
	}
	return wait
}
