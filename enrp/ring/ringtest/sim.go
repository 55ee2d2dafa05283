package ringtest

import (
	"io"
	"slices"
	"time"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/internal/fault"
)

// Options vary a simulation. The zero value is the simulator's own set
// application under the profile and network that the seed names.
type Options struct {
	// NewApp makes the application of a member that starts; each life gets a new
	// one. Default: a set of all that was delivered, which the members exchange.
	NewApp func(self ring.Node, now time.Time) App
	// Event is called after an App handled an event, Output after it handled
	// all events of one output, Final once at the end, when all live members
	// are in one view and nothing is pending. An error is a violation. May be nil.
	Event  func(app App, e ring.Event, now time.Time) error
	Output func(app App, now time.Time) error
	Final  func(apps []App, now time.Time) error
	// Settled says whether an App has nothing left to do, for apps that go on
	// proposing after the last fault. The run ends when all are, and the ring
	// is. May be nil.
	Settled func(app App) bool
	// Profile is the kind of schedule, one of Profiles. Default: by the seed.
	Profile string
	// Keep lists the actions of the schedule that are to be run; nil: all.
	Keep []int
	// Trace receives one line for each thing that happens. May be nil.
	Trace io.Writer
	// Faults break the machines on purpose.
	Faults fault.Set
}

// Result is what became of one run.
type Result struct {
	// Err is the first violation of a promise, nil if all were kept. It is a
	// *Violation.
	Err error
	// Schedule is what was run, Kept how many of its actions.
	Schedule Schedule
	Coverage Coverage
	// Steps are messages, timers and actions handled, Actions and Faults those
	// of the schedule.
	Steps, Actions, Faults int
	// Settle is how long after the last fault all was well again.
	Settle time.Duration
	// Swing is how many views each member installed in the second half of the
	// time in which a link stayed broken, on average.
	Swing float64
}

// Violation is a promise that was not kept.
type Violation struct {
	Check  string // name of the check, one word
	At     time.Duration
	Detail string
}

func (v *Violation) Error() string { return v.Check + " at " + v.At.String() + ": " + v.Detail }

// Run runs the schedule of a seed.
func Run(seed uint64, opt Options) Result {
	return RunSchedule(NewSchedule(seed, opt.Profile), opt)
}

// RunSchedule runs a schedule.
func RunSchedule(s Schedule, opt Options) Result {
	w := newWorld(s.Members, s.Timers, s.Limits, s.Primary, s.Network, s.Seed, opt)
	w.heal = s.Heal
	r := Result{Schedule: s}
	for _, n := range w.nodes {
		w.after(time.Duration(w.rng.Int64N(int64(s.Timers.IdleRotation))), func() { w.start(n) })
	}
	for i, a := range s.Actions {
		if opt.Keep != nil && !slices.Contains(opt.Keep, i) {
			continue
		}
		r.Actions++
		if a.Kind.Fault() {
			r.Faults++
		}
		heal := s.Heal
		if (a.Kind == Cut || a.Kind == Large) && a.For == forever && s.Standing == [2]int{a.A, a.B} && s.Standing[0] != s.Standing[1] {
			heal = s.Heal + standing(s.Timers)
		}
		w.after(a.At, func() { w.act(a, heal) })
	}
	w.run(s.Heal)
	w.traps = nil
	w.net.Loss, w.net.Late = 0, 0
	if s.Standing[0] != s.Standing[1] {
		w.stand(s)
	}
	r.Settle = w.settle()
	w.finish()
	r.Swing = w.swing
	r.Coverage, r.Steps = w.coverage(), w.steps
	if w.err != nil {
		r.Err = w.err
	}
	return r
}

// standing is how long a one-way link is left alone after all else is well.
func standing(t ring.Timers) time.Duration { return 4*t.FlapWindow + 10*t.HoldOffMax }

// stand lets time pass with a one-way link: views may change now and then, when an
// unsteady member is forgiven, but not all the time.
func (w *world) stand(s Schedule) {
	window := standing(s.Timers)
	w.run(s.Heal + window/2)
	before := w.cov.ViewChanges
	w.run(s.Heal + window)
	// A member that can't be kept comes and goes, but ever more seldom: three
	// views each time.
	limit := uint64(s.Members) * 3 * uint64(window/2/s.Timers.HoldOffMax+1)
	w.swing = float64(w.cov.ViewChanges-before) / float64(s.Members)
	if got := w.cov.ViewChanges - before; got > limit {
		w.fail("swing", "%d installs within %v under a standing one-way link, more than %d", got, window/2, limit)
	}
}

// Bound is how long after the last fault all members that live must be in one
// view, know the same, and have nothing pending: until nobody is held off any more,
// drivers have dialled, coordinators have probed, promises have run out, and in
// primary mode leases have. What waits in queues comes on top.
func Bound(members int, t ring.Timers) time.Duration {
	return t.HoldOffMax + 6*t.ProbeInterval + 2*t.Starving() + 2*t.Promise(members, 1) + t.Lease + t.Lease/10
}

// backlog is how long what waits in small queues may take: two rotations for each
// proposal.
func (w *world) backlog() time.Duration {
	waiting := 0
	for _, n := range w.nodes {
		if n.life != nil && w.limits.Token > 0 {
			waiting += len(n.life.offer) + n.life.machine.Status().Queue
		}
	}
	return time.Duration(2*waiting*len(w.nodes)) * (w.net.Delay + w.net.Jitter)
}

// settle lets time pass until all is well, at most as long as it may take.
func (w *world) settle() time.Duration {
	start := w.now
	live := 0
	for _, n := range w.nodes {
		if n.life != nil {
			live++
		}
	}
	for _, n := range w.nodes {
		if live == 0 {
			w.start(n)
		}
		w.actPropose(n.life, Action{Kind: Propose, A: n.index, N: 1, Size: 10})
	}
	bound := Bound(len(w.nodes), w.timers) + w.backlog()
	for w.err == nil {
		w.run(w.now + w.timers.CollectWait/2)
		unwell := w.unwell()
		if unwell == "" {
			break
		}
		if w.now-start > bound {
			w.fail("progress", "%v after the last fault: %s", w.now-start, unwell)
		}
	}
	return w.now - start
}

// unwell says what is still to come until all live members are in one view, know
// the same, and have nothing pending.
func (w *world) unwell() string {
	if w.starts > 0 {
		return "somebody starts again"
	}
	var first *life
	var records []*record
	for _, n := range w.nodes {
		l := n.life
		if l == nil {
			continue
		}
		who := name(l.self.Member)
		switch {
		case n.pauses > 0 || l.leaving || l.crash > 0:
			return who + " is about to go"
		case len(l.offer) > 0:
			return who + " has more to propose"
		case w.opt.Settled != nil && !w.opt.Settled(l.app):
			return who + " is not settled"
		}
		if first == nil {
			first = l
		}
		if l.record.view != first.record.view {
			return who + " is in " + viewName(l.record.view.id) + ", " + name(first.self.Member) + " in " + viewName(first.record.view.id)
		}
		if l.record.view.event.Exchange && !l.record.endedOK {
			return who + " waits for END"
		}
		records = append(records, l.record)
	}
	if first == nil {
		return ""
	}
	if v := first.record.view; len(v.event.View.Members) != len(records) {
		return describeView(v.event.View) + " has more members than live"
	}
	if !w.check.same(records) {
		return "they differ, or something is pending: " + w.check.pending(records)
	}
	for _, n := range w.nodes {
		if n.life == nil {
			continue
		}
		s := n.life.machine.Status()
		if s.State != ring.Hungry && s.State != ring.Eating {
			return name(n.life.self.Member) + " is " + s.State.String()
		}
		for lock, claimed := range n.life.claims {
			if _, held := n.life.record.locks[lock]; claimed && !held {
				return lock + " is held by nobody"
			}
		}
	}
	return ""
}

// idleRotations is how long a ring is watched with nothing to do.
const idleRotations = 6

// finish checks what must hold when all is well.
func (w *world) finish() {
	if w.err != nil {
		return
	}
	var apps []App
	var live []*life
	for _, n := range w.nodes {
		l := n.life
		if l == nil {
			continue
		}
		live, apps = append(live, l), append(apps, l.app)
		if s, ok := l.app.(*set); ok {
			w.check.compareSet(l.record, s)
		}
		if r := l.record; r.own != r.proposed {
			w.fail("own", "%s: what became of %d to %d?", name(l.self.Member), r.own+1, r.proposed)
		}
		status := l.machine.Status()
		w.check.status(l.record, &status)
	}
	if w.opt.Final != nil && w.err == nil {
		if err := w.opt.Final(apps, w.clock(live[0])); err != nil {
			w.fail("app", "%v", err)
		}
	}
	if !w.ownApps() || w.err != nil || len(live) == 0 {
		return
	}
	w.idle(live)
	w.rush(live[int(w.rng.Uint64N(uint64(len(live))))], len(live))
}

// idle checks that a ring with nothing to do stays as it is and is cheap.
func (w *world) idle(live []*life) {
	view := live[0].record.view
	w.run(w.now + w.timers.IdleRotation)
	w.sent = 0
	w.run(w.now + idleRotations*w.timers.IdleRotation)
	// LAN is 4 messages per second and member, with an IdleRotation of 780 ms.
	if limit := (4*78*idleRotations/100 + 1) * len(live); w.sent > limit {
		w.fail("idle", "%d messages in %d idle rotations of %d members, more than %d", w.sent, idleRotations, len(live), limit)
	}
	if live[0].record.view != view {
		w.fail("idle", "%s was left without a fault", viewName(view.id))
	}
}

// rush checks that an idle ring brings the token at full speed to one who wants
// it, whatever it was told of connections, and that what it says then is stable two
// rotations later.
func (w *world) rush(l *life, members int) {
	hop := w.net.Delay + w.net.Jitter
	w.act(Action{Kind: Hint, A: l.node.index, B: w.rng.IntN(len(w.nodes))}, 0)
	w.actPropose(l, Action{Kind: Propose, A: l.node.index, N: 1, Size: 20})
	want := l.record.proposed
	start := w.now
	w.run(start + time.Duration(members+2)*hop)
	if l.record.own < want {
		w.fail("rush", "%s has no token %v after it wanted one", name(l.self.Member), w.now-start)
	}
	w.run(start + time.Duration(3*members+4)*hop)
	if l.record.stable < want {
		w.fail("rush", "%s: not stable %v after it was proposed", name(l.self.Member), w.now-start)
	}
}

func (w *world) ownApps() bool {
	for _, l := range w.lives {
		if _, ok := l.app.(*set); !ok {
			return false
		}
	}
	return true
}

func (w *world) coverage() Coverage {
	c := w.cov
	c.Schedules, c.Steps = 1, uint64(w.steps)
	for _, v := range w.check.views {
		if len(v.installed) < len(v.event.View.Members) {
			c.Torn++
		}
	}
	for _, l := range w.lives {
		s := l.machine.Status()
		for i, n := range s.Counters.TokenLost {
			c.TokenLost[i] += n
		}
		c.HeldOff += s.Counters.HeldOff
	}
	return c
}
