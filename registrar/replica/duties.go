package replica

import (
	"slices"
	"time"

	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica/internal/fault"
)

// duties are what a coordinator proposes by itself. Whoever is coordinator does
// them from what it sees, so none is lost with a proposer.
type duties struct {
	at       time.Time // of the next look
	swept    time.Time
	sweeping bool
	moving   map[handlespace.HomeID]bool // takeovers under way
	lost     bool                        // members, and nobody said so yet
	holding  bool                        // it is being said
	patience time.Time                   // until when lost members may come back, and nothing is taken over
	left     []ring.Member               // only with fault.TakeoverOnce
}

func newDuties() duties { return duties{moving: make(map[handlespace.HomeID]bool)} }

// installed begins a view.
func (d *duties) installed(r *Replica, e *ring.Installed, now time.Time) {
	clear(d.moving) // those under way are for the former view
	d.left = nil
	for _, n := range e.Left {
		d.left = append(d.left, n.Member)
	}
	lost := len(e.Left) > 0 && e.Cause != ring.CauseLeave
	d.lost = d.lost || lost
	if lost && e.LeftOut {
		d.patience = now.Add(r.cfg.MeetWait)
	}
	d.at = now
}

// next returns when to look; zero: when something happens.
func (d *duties) next(r *Replica) time.Time {
	if !r.coordinates() {
		return time.Time{}
	}
	return d.at
}

// coordinates reports whether this member does the duties now.
func (r *Replica) coordinates() bool {
	return r.exchange == nil && len(r.view.Members) > 0 && r.view.Members[0].Member == r.cfg.Self
}

// check proposes what there is to do.
func (d *duties) check(r *Replica, now time.Time) {
	if !r.coordinates() {
		return
	}
	d.at = now.Add(dutyInterval)
	d.holdBack(r, now)
	d.takeOver(r, now)
	if at, ok := r.cfg.Space.NextSweep(); ok && !d.sweeping && !at.After(now) && !now.Before(d.swept.Add(sweepInterval)) {
		d.sweeping, d.swept = true, now
		d.propose(r, handlespace.Sweep{Now: now}, ring.ViewID{})
	}
}

// holdBack says that members were lost. After an exchange all do who know of that: it
// may be that the coordinator does not.
func (d *duties) holdBack(r *Replica, now time.Time) {
	if d.lost && !d.holding {
		d.holding = true
		d.propose(r, handlespace.HoldBack{Now: now}, ring.ViewID{})
	}
}

func (d *duties) propose(r *Replica, cmd handlespace.Command, only ring.ViewID) {
	r.propose(proposal{duty: cmd}, cmd, only)
}

// takeOver proposes new homes for the elements of registrars that are neither
// members nor alive outside the ring. Who was left out itself waits: those that it lost
// most likely go on without it, and each element that it takes over meanwhile would
// have to be told so, and told otherwise when they have met.
func (d *duties) takeOver(r *Replica, now time.Time) {
	if now.Before(d.patience) {
		d.at = d.patience
		return
	}
	for _, home := range r.cfg.Space.HomeIDs() {
		if !r.cfg.Faults.Has(fault.TakeoverOnce) || slices.Contains(d.left, memberOf(home)) {
			d.move(r, home, now)
		}
	}
}

// move proposes new homes for the elements of one that is gone. Each command moves
// some; the next follows when it was applied.
func (d *duties) move(r *Replica, home handlespace.HomeID, now time.Time) {
	if r.alive(home) || d.moving[home] {
		return
	}
	d.moving[home] = true
	var to []handlespace.HomeID
	for _, n := range r.view.Members {
		to = append(to, homeOf(n.Member))
	}
	slices.SortFunc(to, handlespace.HomeID.Compare)
	d.propose(r, handlespace.Takeover{From: home, To: to, Limit: takeoverBatch, Now: now}, r.view.ID)
}

func (r *Replica) alive(home handlespace.HomeID) bool {
	if home.Incarnation == 0 {
		return r.cfg.Foreign != nil && r.cfg.Foreign(home)
	}
	if r.cfg.Faults.Has(fault.HomeWithoutIncarnation) {
		return slices.ContainsFunc(r.view.Members, func(n ring.Node) bool { return n.ID == memberOf(home).ID })
	}
	return r.view.Has(memberOf(home))
}

// done notes that an own command was delivered, or never will be, and reports
// whether it was one that may have to be repeated.
func (d *duties) done(cmd handlespace.Command) bool {
	switch c := cmd.(type) {
	case handlespace.Takeover:
		delete(d.moving, c.From)
		return true
	case handlespace.Sweep:
		d.sweeping = false
	case handlespace.HoldBack:
		d.holding = false
	}
	return false
}
