package replica

import (
	"fmt"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// own returns a key in a pool of its own.
func ownPool(i int) handlespace.Key {
	return handlespace.Key{Handle: param.PoolHandle(fmt.Sprintf("pool-%06d", i)), ID: 1}
}

// grown returns a member that begins alone and knows n elements, each in a pool of its
// own.
func (s scene) grown(m *member, n int) {
	s.t.Helper()
	s.pass(time.Second)
	s.run()
	for i := range n {
		m.now = s.now
		m.node.register(ownPool(i), s.now)
	}
	m.drain()
	s.pump(m)
	s.run()
}

// tell has members order and deliver until one of them has been told so many items.
func (s scene) tell(to *member, items int) {
	s.t.Helper()
	for range 1000 {
		for _, m := range s.members {
			s.pump(m)
			s.put(m, 1)
		}
		for _, m := range s.members {
			s.deliver(m, len(m.group.log))
		}
		if x := to.replica.exchange; x == nil || x.items >= items {
			return
		}
	}
	s.t.Fatal("nothing is told")
}

// What a member was told in an exchange is not lost when the one that told it dies
// before END.
func TestInterruptedExchangeKeepsWhatWasTold(t *testing.T) {
	const n = 5000
	s, m := newScene(t, worldConfig{}, 2)
	s.grown(m[0], n) // acknowledged by m[0] alone
	s.install(ring.CauseMerge, m[1], m[0])
	s.tell(m[1], n/2)
	x := m[1].replica.exchange
	if x == nil {
		t.Fatal("the exchange is over")
	}
	told := x.items
	s.crash(m[0])
	s.install(ring.CauseNoAck, m[1])
	s.run()
	// Each element has a pool, which is told before.
	if got := m[1].space.Counts().Elements; got != told/2 {
		t.Errorf("%d elements are left of %d elements and pools that it was told", got, told)
	}
	if s.has(m[1], 1) != nil {
		t.Error("it knows what nobody registered")
	}
}

// To take that over goes step by step, and so do the pools, and what was ordered; only
// then it says hello.
func TestInterruptedExchangeIsDoneInSteps(t *testing.T) {
	const n = 1000
	b := standard
	b.merge = 100
	s, m := newScene(t, worldConfig{bounds: b}, 2)
	s.grown(m[0], n)
	s.register(m[1], 77) // under way
	s.install(ring.CauseMerge, m[1], m[0])
	s.tell(m[1], n/2)
	told := m[1].replica.exchange.items
	s.put(m[1], len(m[1].queue))
	s.crash(m[0])

	// Handle alone, without the steps that follow.
	before := m[1].space.Counts().Elements
	view := ring.View{ID: ring.ViewID{Counter: 99, Coordinator: m[1].self}, Members: []ring.Node{{Member: m[1].self}}}
	m[1].replica.Handle(ring.Installed{View: view, Cause: ring.CauseNoAck, Exchange: true,
		Origins: []ring.Origin{{Member: m[1].self, Installed: m[1].group.view.ID, Synced: m[1].synced}}}, s.now)
	steps := 0
	for !m[1].replica.exchange.begun {
		if after := m[1].space.Counts().Elements; after-before > b.merge {
			t.Fatalf("%d elements in one step", after-before)
		} else {
			before = after
		}
		if at := m[1].replica.Next(); at.After(s.now) {
			t.Fatalf("it waits until %v", at)
		}
		m[1].replica.Tick(s.now)
		if steps++; steps > n {
			t.Fatal("no end")
		}
	}
	if c := m[1].space.Counts(); c.Elements != told/2+1 || steps < c.Elements/b.merge || m[1].space.Unsettled() != 0 {
		t.Errorf("%+v after %d steps, %d unsettled", c, steps, m[1].space.Unsettled())
	}
}

// One that starts, was told a part of what others know, and lost them, does not begin
// with that as soon as it would have without others.
func TestTornJoinerWaitsForOthers(t *testing.T) {
	const n, part = 3000, 1000
	torn := func(t *testing.T, joiners int, company func() bool) (scene, []*member) {
		s, m := newScene(t, worldConfig{}, 1)
		s.grown(m[0], n)
		all := []*member{m[0]}
		for i := range joiners {
			j := s.start(ring.NodeID(i+2), false)
			j.replica.cfg.Company = company
			all = append(all, j)
		}
		s.install(ring.CauseMerge, all...)
		s.tell(all[1], part)
		s.pass(time.Second) // longer than JoinWait
		s.crash(m[0])
		s.install(ring.CauseNoAck, all[1:]...)
		s.run()
		return s, all[1:]
	}
	for joiners := 1; joiners <= 2; joiners++ {
		t.Run(fmt.Sprint(joiners), func(t *testing.T) {
			s, j := torn(t, joiners, nil)
			if j[0].space.Counts().Elements == 0 {
				t.Fatal("it was not told anything")
			}
			s.pass(99 * time.Millisecond)
			s.run()
			if j[0].ready.Serve {
				t.Fatal("serves at once")
			}
			s.pass(time.Millisecond)
			s.run()
			for _, j := range j {
				if !j.ready.Serve {
					t.Error("does not begin")
				}
			}
		})
	}
	t.Run("that can be reached", func(t *testing.T) {
		near := true
		s, j := torn(t, 1, func() bool { return near })
		for range 20 {
			s.pass(time.Second)
			s.run()
		}
		if j[0].ready.Serve {
			t.Fatal("serves although others can be reached")
		}
		near = false
		s.pass(time.Second)
		s.run()
		if !j[0].ready.Serve {
			t.Error("does not begin alone")
		}
	})
	t.Run("that never come", func(t *testing.T) {
		s, j := torn(t, 1, func() bool { return true })
		for range int(companyWait/time.Second) + 2 {
			s.pass(time.Second)
			s.run()
		}
		if !j[0].ready.Serve {
			t.Error("waits for ever")
		}
	})
}

// While an exchange does not end nobody hands the ring anything new, so no more waits
// for END than was under way.
func TestCommandsDuringAnEndlessExchange(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	for id := range param.PEID(50) {
		s.register(m[id%2], id+1) // under way
	}
	s.install(ring.CauseMerge, m[1])
	s.run()
	s.install(ring.CauseMerge, m[0], m[1])
	m[0].replica.exchange.ending = true // so its coordinator never ends it
	for round := range 20 {
		for id := range param.PEID(50) {
			s.register(m[id%2], param.PEID(round*50)+id+1)
		}
		for _, m := range m {
			proposals, _ := m.Outbox(s.now)
			m.queue = append(m.queue, proposals...)
			s.put(m, len(m.queue))
		}
		for _, m := range m {
			s.deliver(m, len(m.group.log))
		}
	}
	for _, m := range m {
		if st := m.replica.Stats(); !st.Exchanging || st.Queued > 50 || st.Waiting < 500 {
			t.Errorf("%v: %+v", m.self, st)
		}
	}
}

// One that does so nevertheless fills nobody's memory; all refuse the same.
func TestQueueOfAnExchangeIsBounded(t *testing.T) {
	b := standard
	b.queue = 10
	s, m := newScene(t, worldConfig{bounds: b}, 2)
	s.merge(m...)
	s.install(ring.CauseNoAck, m[1])
	s.run()
	for id := range param.PEID(25) {
		s.register(m[0], id+1)
	}
	s.install(ring.CauseMerge, m...)
	s.run()
	for _, m := range m {
		if st := m.replica.Stats(); st.Overflown != 15 || m.space.Counts().Elements != 10 {
			t.Errorf("%v: %+v, %+v", m.self, st, m.space.Counts())
		}
	}
	if s.w.happened["refused"] != 15 || waiting(m[0]) != 0 {
		t.Errorf("%v, %d wait", s.w.happened, waiting(m[0]))
	}
}

// What sides remember of removals is more than one of them may. Until END it is not
// forgotten: a starting member, which takes what it is told at once, would take over an
// older copy that another side tells last.
func TestSidesMergeAtTheBoundOfTombstones(t *testing.T) {
	s, m := newScene(t, worldConfig{tombstones: 1}, 4)
	s.merge(m...)
	s.register(m[3], 1, 2, 3)
	s.run()
	for i, m := range m {
		s.install(ring.CauseNoAck, m)
		s.run()
		if i < 3 {
			s.pass(time.Second)
			s.deregister(m, param.PEID(i+1))
			s.run()
		}
	}
	joiner := s.start(9, false)
	s.merge(append(m, joiner)...)
	for _, m := range append(m, joiner) {
		for id := range param.PEID(3) {
			if s.has(m, id+1) != nil {
				t.Errorf("%d is back at %v", id+1, m.self)
			}
		}
	}
}
