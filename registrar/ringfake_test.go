package registrar

import (
	"context"
	"slices"
	"sync"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
)

// fakeRing is a ring without token, network and time: one goroutine orders what is
// proposed and hands it to one member after the other. Tests say who sees whom, and
// can hold back what a real ring does at times of its own.
type fakeRing struct {
	mu      sync.Mutex
	queue   []func()
	wake    chan struct{}
	stop    chan struct{}
	done    chan struct{}
	counter uint64
	// room is how many proposals the queue of a member takes; held: nothing is
	// ordered; unstable: nothing becomes stable; leftOut: members say so in their views.
	room                    int
	held, unstable, leftOut bool
}

func newFakeRing() *fakeRing {
	f := &fakeRing{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), room: 1 << 16}
	go f.run()
	return f
}

func (f *fakeRing) close() {
	close(f.stop)
	<-f.done
}

func (f *fakeRing) run() {
	defer close(f.done)
	for {
		f.mu.Lock()
		var do func()
		if len(f.queue) > 0 && !f.held {
			do, f.queue = f.queue[0], f.queue[1:]
		}
		f.mu.Unlock()
		if do != nil {
			do()
			continue
		}
		select {
		case <-f.wake:
		case <-f.stop:
			return
		}
	}
}

// do has something done by the ring's goroutine.
func (f *fakeRing) do(op func()) {
	f.mu.Lock()
	f.queue = append(f.queue, op)
	f.mu.Unlock()
	f.poke()
}

func (f *fakeRing) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// set changes what is held back.
func (f *fakeRing) set(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.poke()
}

// side is one view.
type side struct {
	view     ring.View
	members  []*fakeGroup
	exchange bool // END is not ordered yet
}

// fakeGroup is one member.
type fakeGroup struct {
	f       *fakeRing
	cfg     ringnet.Config
	self    ring.Node
	side    *side
	synced  ring.ViewID
	dead    bool
	leaving bool   // Stop was called
	last    uint64 // proposal
	waiting int    // proposals not ordered yet
	stable  uint64 // proposal that is to become stable
	room    chan struct{}
}

// group makes a member, for Registrar.newGroup.
func (f *fakeRing) group(cfg ringnet.Config) (ringGroup, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counter++
	return &fakeGroup{f: f, cfg: cfg, room: make(chan struct{}, 1),
		self: ring.Node{Member: ring.Member{ID: cfg.ID, Incarnation: ring.Incarnation(f.counter)}}}, nil
}

func (g *fakeGroup) Start(context.Context) error {
	g.f.do(func() { g.f.install(ring.CauseStart, g) })
	return nil
}

func (g *fakeGroup) Self() ring.Node       { return g.self }
func (g *fakeGroup) Room() <-chan struct{} { return g.room }
func (g *fakeGroup) Done() <-chan struct{} { return nil }
func (g *fakeGroup) Err() error            { return nil }
func (g *fakeGroup) Company() bool         { return false }

func (g *fakeGroup) Status(context.Context) (ringnet.Status, error) {
	return ringnet.Status{Cluster: g.cfg.Cluster, Status: ring.Status{Self: g.self}}, nil
}

// Stop leaves.
func (g *fakeGroup) Stop(context.Context) error {
	g.f.set(func() { g.leaving = true })
	left := make(chan struct{})
	g.f.do(func() {
		if !g.dead {
			g.f.lose(ring.CauseLeave, g)
		}
		close(left)
	})
	<-left
	return nil
}

func (g *fakeGroup) Propose(payload []byte) (uint64, error) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	if g.dead {
		return 0, ring.ErrLeft
	}
	if g.waiting >= g.f.room {
		return 0, ring.ErrFull
	}
	g.last++
	g.waiting++
	number := g.last
	g.f.queue = append(g.f.queue, func() { g.order(number, payload) })
	g.f.poke()
	return number, nil
}

func (g *fakeGroup) order(number uint64, payload []byte) {
	g.f.mu.Lock()
	dead := g.dead
	g.waiting--
	g.f.mu.Unlock()
	if dead {
		return
	}
	g.side.tell(ring.Delivered{View: g.side.view.ID, Entries: []ring.Entry{{From: g.self.Member, Proposal: number, Payload: payload}}})
	g.stable = number
	g.settle()
	select {
	case g.room <- struct{}{}:
	default:
	}
}

// settle reports what has become stable.
func (g *fakeGroup) settle() {
	g.f.mu.Lock()
	unstable := g.f.unstable
	g.f.mu.Unlock()
	if g.stable > 0 && !g.side.exchange && !unstable {
		g.cfg.Handler.Handle([]ring.Event{ring.Stable{Proposal: g.stable}})
		g.stable = 0
	}
}

// End closes the exchange of a view.
func (g *fakeGroup) End(view ring.ViewID) {
	g.f.do(func() {
		s := g.side
		if g.dead || s.view.ID != view || !s.exchange || s.members[0] != g {
			return
		}
		s.tell(ring.Ended{View: s.view.ID})
		for _, m := range s.members {
			m.synced = s.view.ID
		}
		s.exchange = false
		s.tell(ring.EndStable{View: s.view.ID})
		for _, m := range s.members {
			m.settle()
		}
	})
}

func (s *side) tell(e ring.Event) {
	for _, m := range s.members {
		m.cfg.Handler.Handle([]ring.Event{e})
	}
}

// install makes a view of these members.
func (f *fakeRing) install(cause ring.Cause, members ...*fakeGroup) {
	f.counter++
	s := &side{members: members, view: ring.View{ID: ring.ViewID{Counter: f.counter, Coordinator: members[0].self.Member}}}
	var origins []ring.Origin
	for _, m := range members {
		s.view.Members = append(s.view.Members, m.self)
		o := ring.Origin{Member: m.self.Member, Synced: m.synced}
		if m.side != nil {
			o.Installed = m.side.view.ID
		}
		origins = append(origins, o)
		s.exchange = s.exchange || o.Installed != origins[0].Installed || o.Synced.IsZero() || o.Synced != origins[0].Synced
	}
	for _, m := range members {
		var left []ring.Node
		if m.side != nil {
			for _, n := range m.side.view.Members {
				if !s.view.Has(n.Member) {
					left = append(left, n)
				}
			}
		}
		m.side = s
		m.cfg.Handler.Handle([]ring.Event{ring.Installed{View: s.view, Cause: cause, Exchange: s.exchange, Origins: origins, Left: left, LeftOut: f.leftOut}})
		if !s.exchange {
			m.synced = s.view.ID
		}
	}
	for _, m := range members {
		m.settle()
	}
}

// lose takes members out of their views.
func (f *fakeRing) lose(cause ring.Cause, lost ...*fakeGroup) {
	for _, g := range lost {
		f.mu.Lock()
		g.dead = true
		f.mu.Unlock()
	}
	stay := slices.DeleteFunc(slices.Clone(lost[0].side.members), func(m *fakeGroup) bool { return m.dead })
	if len(stay) > 0 {
		f.install(cause, stay...)
	}
}
