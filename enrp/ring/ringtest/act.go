package ringtest

import (
	"slices"
	"time"

	"rserpool/enrp/ring"
)

// act does one action of a schedule. Faults end at heal at the latest.
func (w *world) act(a Action, heal time.Duration) {
	w.printf("* %s", a)
	if a.Kind.Fault() {
		w.cov.Faults++
	}
	if a.Kind == Trap {
		w.traps = append(w.traps, a)
		return
	}
	n := w.nodes[a.A]
	l := n.life
	undo := func(f func()) {
		w.after(max(min(a.For, heal-w.now), 0), func() {
			w.printf("* end of %s", a)
			f()
		})
	}
	switch a.Kind {
	case Propose:
		w.actPropose(l, a)
	case Lock, Unlock:
		w.actLock(l, a)
	case Leave:
		w.actLeave(l, a, heal)
	case Crash:
		w.actCrash(l, a, heal)
	case Pause:
		w.cov.Pauses++
		w.pause(n)
		undo(func() { w.resume(n) })
	case Jump:
		w.cov.Jumps++
		n.offset += a.For
		n.ahead += max(a.For, 0)
		if l != nil {
			w.call(l, (*ring.Machine).Tick)
		}
	case Cut:
		w.cov.OneWay++
		w.cut(a.A, a.B, a.Silent, undo)
	case Full:
		w.cut(a.A, a.B, true, undo)
	case Deaf, Mute:
		for i := range w.nodes {
			if i != a.A && a.Kind == Deaf {
				w.cut(i, a.A, a.Silent, undo)
			} else if i != a.A {
				w.cut(a.A, i, a.Silent, undo)
			}
		}
		if a.Kind == Deaf {
			w.cov.Deaf++
		} else {
			w.cov.Mute++
		}
	case Split:
		w.cov.Splits++
		for i := range w.nodes {
			for j := range w.nodes {
				if a.N>>i&1 != a.N>>j&1 {
					w.cut(i, j, a.Silent, undo)
				}
			}
		}
	case Slow:
		lag := w.timers.HopTimeout * time.Duration(a.N) / 1000
		n.lag += lag
		undo(func() { n.lag -= lag })
	case Busy:
		took := w.timers.HopTimeout * time.Duration(a.N) / 1000
		n.busy += took
		undo(func() { n.busy -= took })
	case Large:
		k := &w.links[a.A][a.B]
		k.large = append(k.large, a.N)
		undo(func() { k.large = slices.Delete(k.large, slices.Index(k.large, a.N), slices.Index(k.large, a.N)+1) })
	case Storm:
		w.storms += a.N
		undo(func() { w.storms -= a.N })
	case Hint:
		if other := w.nodes[a.B].life; l != nil && other != nil && other != l {
			w.call(l, func(m *ring.Machine, now time.Time) { m.Lost(other.self.Member, now) })
		}
	}
}

func (w *world) actPropose(l *life, a Action) {
	if l == nil || l.node.pauses > 0 || l.leaving {
		return
	}
	for range a.N {
		if actor, ok := l.app.(Actor); ok {
			actor.Act(w.rng, w.clock(l))
			continue
		}
		w.keys++
		l.offer = append(l.offer, keyPayload(w.keys, a.Size))
	}
	w.pump(l)
}

func (w *world) actLock(l *life, a Action) {
	lock := lockName(a.N)
	if l == nil || l.node.pauses > 0 || l.leaving || l.claims[lock] == (a.Kind == Lock) {
		return
	}
	l.claims[lock] = a.Kind == Lock
	var err error
	if a.Kind == Lock {
		err = l.machine.Lock(lock, w.clock(l))
	} else {
		err = l.machine.Unlock(lock, w.clock(l))
	}
	if err != nil {
		w.fail("api", "%s: %s %s: %v", name(l.self.Member), actionNames[a.Kind], lock, err)
	}
	w.pump(l)
}

func (w *world) actLeave(l *life, a Action, heal time.Duration) {
	if l == nil || l.node.pauses > 0 || l.leaving || len(l.offer) > 0 {
		return
	}
	w.cov.Leaves++
	l.leaving = true
	w.call(l, (*ring.Machine).Leave)
	w.restart(l.node, a.For, heal)
}

func (w *world) actCrash(l *life, a Action, heal time.Duration) {
	if l == nil {
		return
	}
	if l.crash = a.N; a.N == crashNow {
		w.crash(l, a.Silent)
	}
	w.restart(l.node, a.For, heal)
	// One that has nothing to put out crashes all the same.
	w.after(max(min(a.For, heal-w.now), 0), func() { w.crashNow(l) })
}

func (w *world) crashNow(l *life) {
	if l.crash != crashNow {
		w.crash(l, false)
	}
}

// restart starts a node again after a while, at heal at the latest, and when its
// former life has ended. After 0 it does not.
func (w *world) restart(n *node, after, heal time.Duration) {
	if after == 0 {
		return
	}
	w.starts++
	w.after(max(min(after, heal-w.now), 0), func() {
		w.starts--
		if n.life == nil {
			w.start(n)
		} else if n.life.leaving || n.life.crash != crashNow {
			w.restart(n, w.timers.HopRetry, w.now+w.timers.HopRetry)
		}
	})
}

// cut lets nothing pass from one node to another.
func (w *world) cut(from, to int, silent bool, undo func(func())) {
	k := &w.links[from][to]
	if k.cuts++; k.cuts == 1 {
		k.since = w.now
	}
	undo(func() { k.cuts-- })
	if silent {
		return
	}
	w.after(w.net.Delay+time.Duration(w.rng.Int64N(int64(w.timers.HopTimeout))), func() {
		a, b := w.nodes[from].life, w.nodes[to].life
		if k.cuts > 0 && a != nil && b != nil {
			w.lose(a, b)
			w.lose(b, a)
		}
	})
}

// sprung springs the traps that waited for a message: whether it is lost, and what
// is to be done after it was sent.
func (w *world) sprung(l *life, to int, msg ring.Message) (lost bool, then func()) {
	for i, t := range w.traps {
		coordinator, ok := matches(t, msg)
		if !ok {
			continue
		}
		w.traps = append(w.traps[:i:i], w.traps[i+1:]...)
		w.cov.Traps++
		victim := w.nodes[to].life
		switch t.A {
		case theSender:
			victim = l
		case theCoordinator:
			if n := w.nodes[int(coordinator.ID)-1]; n.life != nil && n.life.self.Member == coordinator {
				victim = n.life
			}
		}
		w.printf("* trap: %s", t)
		undo := func(f func()) { w.after(min(t.For, w.heal-w.now), f) }
		switch t.B {
		case doLose:
			w.cut(l.node.index, to, t.Silent, undo)
			return true, nil
		case doCrash, doCrashTo:
			return t.B == doCrashTo, func() {
				if victim != nil {
					w.crash(victim, t.Silent)
					w.restart(victim.node, t.For, w.heal)
				}
			}
		case doPause, doPauseTo:
			return t.B == doPauseTo, func() {
				if victim != nil {
					w.cov.Pauses++
					w.pause(victim.node)
					undo(func() { w.resume(victim.node) })
				}
			}
		case doMute, doDeaf:
			if victim == nil {
				return false, nil
			}
			for i := range w.nodes {
				if v := victim.node.index; i != v && t.B == doMute {
					w.cut(v, i, t.Silent, undo)
				} else if i != v {
					w.cut(i, v, t.Silent, undo)
				}
			}
			if t.B == doMute {
				w.cov.Mute++
			} else {
				w.cov.Deaf++
			}
		}
		return false, nil
	}
	return false, nil
}

// matches reports whether a trap waits for a message, and the coordinator of its
// view.
func matches(t Action, msg ring.Message) (coordinator ring.Member, ok bool) {
	switch m := msg.(type) {
	case *ring.Token:
		coordinator = m.View.Coordinator
		switch t.N {
		case onFirstToken:
			ok = m.Install != nil && (m.Hop == uint64(t.Size) || t.Size >= len(m.Install.View.Members))
		case onToken:
			ok = true
		case onEntries, onEnd:
			for i := range m.Runs {
				ok = ok || t.N == onEntries || m.Runs[i].Kind == ring.KindEnd
			}
		}
	case *ring.Call:
		coordinator = m.View.ID.Coordinator
		ok = t.N == onCall || t.N == onMergeCall && m.Cause == ring.CauseMerge
	case *ring.Promise:
		coordinator = m.View.Coordinator
		ok = t.N == onPromise
	}
	return coordinator, ok
}
