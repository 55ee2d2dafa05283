package ringtest

import (
	"math/rand/v2"
	"slices"
	"time"

	"rserpool/enrp/ring"
)

// start begins a new life of a node, unless one is there.
func (w *world) start(n *node) {
	if n.life != nil {
		return
	}
	n.incarnation++
	self := ring.Node{Member: ring.Member{ID: ring.NodeID(n.index + 1), Incarnation: n.incarnation}, Contact: letter(n.index)}
	l := &life{node: n, self: self, up: true, timer: -1, claims: map[string]bool{}}
	n.life = l
	w.lives = append(w.lives, l)
	w.printf("%s starts", name(self.Member))
	if w.remembered(n) {
		w.cov.Restarts++
	}
	size := 0
	if w.primary {
		size = len(w.nodes)
	}
	m, err := ring.New(ring.Config{
		Self: self, Timers: w.timers, Limits: w.limits, Size: size, Durable: n.durable,
		Rand: rand.New(rand.NewPCG(w.rng.Uint64(), 3)), Faults: w.faults,
	}, w.clock(l))
	if err != nil {
		w.fail("config", "%v", err)
		return
	}
	l.machine, l.app, l.record = m, w.opt.NewApp(self, w.clock(l)), w.check.start(self)
	w.pump(l)
	w.dial(l)
}

// remembered reports whether a former life of a node is a member of the view of
// somebody who lives.
func (w *world) remembered(n *node) bool {
	for _, l := range w.lives {
		if l.up && l.record != nil && l.record.view != nil {
			for _, member := range l.record.view.event.View.Members {
				if int(member.ID) == n.index+1 && n.incarnation > member.Incarnation {
					return true
				}
			}
		}
	}
	return false
}

// dialEvery is how often a driver dials whom it has no connection with.
func (w *world) dialEvery() time.Duration { return 2 * w.timers.ProbeInterval }

// dial is a driver's loop that sets up connections.
func (w *world) dial(l *life) {
	if !l.up || w.err != nil {
		return
	}
	if l.node.pauses == 0 {
		for _, other := range w.nodes {
			if other != l.node && other.life != nil {
				w.connect(l, other.life)
			} else if other != l.node {
				w.disconnected(l, other)
			}
		}
	}
	if l.up {
		w.after(w.dialEvery()-w.timers.ProbeInterval/4+time.Duration(w.rng.Int64N(int64(w.timers.ProbeInterval/2))), func() { w.dial(l) })
	}
}

// reachable reports whether two nodes can talk both ways.
func (w *world) reachable(a, b int) bool { return w.links[a][b].cuts == 0 && w.links[b][a].cuts == 0 }

func (w *world) connect(l, other *life) {
	w.disconnected(l, other.node)
	if w.reachable(l.node.index, other.node.index) {
		if other.node.pauses == 0 {
			l.connected(other)
			other.connected(l)
			w.call(l, func(m *ring.Machine, now time.Time) { m.Found(other.self, now) })
			if other.up {
				w.call(other, func(m *ring.Machine, now time.Time) { m.Found(l.self, now) })
			}
		}
		return
	}
	w.lose(l, other)
}

// disconnected tells a driver of connections to former lives of a node.
func (w *world) disconnected(l *life, n *node) {
	for _, other := range slices.Clone(l.dialed) {
		if other.node == n && other != n.life {
			w.lose(l, other)
		}
	}
}

func (l *life) connected(other *life) {
	if !slices.Contains(l.dialed, other) {
		l.dialed = append(l.dialed, other)
	}
}

// lose ends a connection at one side.
func (w *world) lose(l, other *life) {
	if i := slices.Index(l.dialed, other); l.up && i >= 0 {
		l.dialed = slices.Delete(l.dialed, i, i+1)
		w.printf("%s: connection to %s fell", name(l.self.Member), name(other.self.Member))
		w.call(l, func(m *ring.Machine, now time.Time) { m.Lost(other.self.Member, now) })
	}
}
