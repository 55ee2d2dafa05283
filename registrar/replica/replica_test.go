package replica

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// scene is an order whose members do only what a test has them do.
type scene struct {
	*order
	t *testing.T
}

func newScene(t *testing.T, cfg worldConfig, n int) (scene, []*member) {
	w := newWorld(cfg)
	s := scene{newOrder(1, w), t}
	var members []*member
	for i := range n {
		members = append(members, s.start(ring.NodeID(i+1), false))
	}
	return s, members
}

// merge brings members into one view and to its END.
func (s scene) merge(members ...*member) {
	s.t.Helper()
	s.install(ring.CauseMerge, members...)
	s.run()
	for _, m := range members {
		if !m.ended || !m.ready.Negative {
			s.t.Fatalf("%v did not see END", m.self)
		}
	}
}

// run has all members order and deliver all there is.
func (s scene) run() {
	s.t.Helper()
	s.spoilt(func(*member) {})
	if s.w.violation != nil {
		s.t.Fatal(s.w.violation)
	}
}

// spoilt is run with members who break promises: it spoils what one proposes before that
// is ordered.
func (s scene) spoilt(spoil func(m *member)) {
	for quiet := false; !quiet; {
		quiet = true
		for _, m := range s.members {
			s.pump(m)
			spoil(m)
			quiet = quiet && len(m.queue) == 0
			s.put(m, len(m.queue))
			s.pump(m)
		}
		for _, m := range s.members {
			quiet = quiet && m.at == len(m.group.log)
			s.deliver(m, len(m.group.log))
		}
		for _, m := range s.members {
			s.stable(m)
		}
	}
}

func key(id param.PEID) handlespace.Key { return handlespace.Key{Handle: "echo", ID: id} }

// register has elements register at a member, without delivering anything.
func (s scene) register(m *member, ids ...param.PEID) {
	for _, id := range ids {
		m.now = s.now
		m.node.register(key(id), s.now)
	}
	m.drain()
	s.pump(m)
}

func (s scene) deregister(m *member, id param.PEID) {
	m.propose(handlespace.Deregister{Handle: "echo", ID: id, Raiser: param.RegistrarID(m.self.ID), Incarnation: uint64(m.self.Incarnation), Now: s.now}, key(id), 0)
	m.drain()
	s.pump(m)
}

func (s scene) has(m *member, id param.PEID) *handlespace.Record { return m.space.Get("echo", id) }

func (s scene) pass(d time.Duration) {
	s.now = s.now.Add(d)
	for _, m := range s.members {
		s.pump(m)
	}
}

// answers returns how many calls of a member wait.
func waiting(m *member) int { return len(m.calls) }

func TestAppliedWhenAgreedAnsweredWhenStable(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	s.register(m[0], 1)
	s.put(m[0], 1)
	if s.has(m[0], 1) == nil || s.has(m[1], 1) != nil || waiting(m[0]) != 1 {
		t.Fatal("not applied in order, or answered too early")
	}
	s.deliver(m[1], len(m[1].group.log))
	if s.has(m[1], 1) == nil || waiting(m[0]) != 1 {
		t.Fatal("not applied, or answered before it is known to be stable")
	}
	s.stable(m[0])
	if waiting(m[0]) != 0 {
		t.Error("not answered")
	}
}

func TestLocalAcknowledgementWaitsForNobody(t *testing.T) {
	s, m := newScene(t, worldConfig{ack: Ack{Local: true}}, 2)
	s.merge(m...)
	s.register(m[0], 1)
	s.put(m[0], 1)
	if waiting(m[0]) != 0 {
		t.Error("not answered")
	}
}

func TestAnswerWaitsForEnoughMembers(t *testing.T) {
	s, m := newScene(t, worldConfig{ack: Ack{MinMembers: 2}}, 2)
	s.pass(time.Second)
	s.run()
	s.register(m[0], 1)
	s.run()
	if s.has(m[0], 1) == nil || waiting(m[0]) != 1 || m[0].replica.Stats().TooFew != 1 {
		t.Fatal("not applied, or answered alone")
	}
	s.install(ring.CauseNoAck, m[0]) // a change that brings nobody
	s.run()
	if waiting(m[0]) != 1 {
		t.Fatal("answered alone")
	}
	s.merge(m...)
	if waiting(m[0]) != 0 || s.has(m[1], 1) == nil {
		t.Error("not answered when there were enough")
	}
}

func TestStartingMember(t *testing.T) {
	t.Run("waits for others", func(t *testing.T) {
		s, m := newScene(t, worldConfig{}, 1)
		s.pass(99 * time.Millisecond)
		if m[0].ready.Serve || !m[0].Next().Equal(s.now.Add(time.Millisecond)) {
			t.Fatal("serves at once")
		}
		s.pass(time.Millisecond)
		s.run()
		if !m[0].ready.Serve || !m[0].ready.Negative {
			t.Error("does not begin alone")
		}
	})
	t.Run("has nobody to wait for", func(t *testing.T) {
		o := newOrder(1, newWorld(worldConfig{}))
		if m := o.start(1, true); !m.ready.Serve || !m.ready.Negative {
			t.Error("does not serve")
		}
	})
	t.Run("serves when it has seen END", func(t *testing.T) {
		s, m := newScene(t, worldConfig{}, 2)
		s.pass(time.Second)
		s.run()
		joiner := s.start(3, false)
		s.install(ring.CauseMerge, m[0], joiner)
		if joiner.ready.Serve || m[0].ready != (Readiness{Serve: true}) {
			t.Errorf("%+v, %+v", joiner.ready, m[0].ready)
		}
		s.run()
		if !joiner.ready.Negative || !m[0].ready.Negative {
			t.Errorf("%+v, %+v", joiner.ready, m[0].ready)
		}
	})
	t.Run("what it is asked before waits", func(t *testing.T) {
		s, m := newScene(t, worldConfig{}, 1)
		s.register(m[0], 1)
		s.run()
		if s.has(m[0], 1) != nil {
			t.Fatal("applied before END")
		}
		s.pass(time.Second)
		s.run()
		if s.has(m[0], 1) == nil || waiting(m[0]) != 0 {
			t.Error("lost")
		}
	})
}

func TestUpdatesDuringAnExchangeAreAppliedAtEnd(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 3)
	s.merge(m[:2]...)
	s.register(m[0], 1) // handed to the ring, but not yet in a token
	s.install(ring.CauseMerge, m...)
	s.put(m[0], 1)
	s.deliver(m[1], 1)
	if s.has(m[0], 1) != nil || s.has(m[1], 1) != nil || m[0].replica.Stats().Queued != 1 {
		t.Fatal("applied before END")
	}
	s.run()
	for _, m := range m {
		if s.has(m, 1) == nil {
			t.Errorf("lost at %v", m.self)
		}
	}
	if waiting(m[0]) != 0 {
		t.Error("not answered")
	}
}

// What was ordered in an exchange that was interrupted is part of what is exchanged
// next, even if the only ones that had it meet others again in another view.
func TestInterruptedExchangeLosesNothing(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 4)
	s.merge(m[0], m[1])
	s.merge(m[2], m[3])
	s.register(m[2], 7)
	s.run()
	s.register(m[0], 1)
	s.install(ring.CauseMerge, m[0], m[2])
	s.put(m[0], 1)
	s.install(ring.CauseNoAck, m[0])
	s.install(ring.CauseMerge, m[1], m[0], m[3], m[2])
	s.run()
	for _, m := range m {
		if s.has(m, 1) == nil || s.has(m, 7) == nil {
			t.Errorf("lost at %v:\n%s", m.self, m.dump())
		}
	}
	if waiting(m[0])+waiting(m[2]) != 0 {
		t.Error("not answered")
	}
}

func TestOnlyDifferencesTravel(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	for id := range param.PEID(2000) {
		s.register(m[id%2], id+1)
	}
	s.run()
	s.install(ring.CauseNoAck, m[0])
	s.run()
	s.install(ring.CauseNoAck, m[1])
	s.run()
	s.pass(time.Second)
	s.deregister(m[1], 5)
	s.register(m[0], 6)
	s.run()
	var reports []Merged
	debug = func(_ *node, e any) {
		if r, ok := e.(Merged); ok {
			reports = append(reports, r)
		}
	}
	defer func() { debug = nil }()
	s.merge(m...)
	if s.has(m[0], 5) != nil || s.has(m[1], 6) == nil {
		t.Error("not merged")
	}
	if len(reports) != 2 || !reflect.DeepEqual(reports[0], reports[1]) {
		t.Fatalf("%d reports", len(reports))
	}
	r := reports[0]
	// Takeovers made all elements differ; only what is confirmed there is not.
	if len(r.Sides) != 2 || r.Octets == 0 {
		t.Errorf("%+v", r)
	}
	i := slices.IndexFunc(r.Entries, func(e handlespace.MergeEntry) bool { return e.Key == key(5) })
	if i < 0 || !r.Entries[i].Removed || r.Entries[i].LostHome != homeOf(m[0].self) {
		t.Errorf("no report of the removal: %+v", r.Entries[:min(9, len(r.Entries))])
	}
	t.Run("of equal sides nothing", func(t *testing.T) {
		reports = nil
		s.run()
		s.install(ring.CauseNoAck, m[0])
		s.install(ring.CauseNoAck, m[1])
		s.install(ring.CauseMerge, m...)
		s.run()
		if len(reports) != 2 || reports[0].Octets > 2*(16*handlespace.Ranges+64) || len(reports[0].Entries) != 0 {
			t.Errorf("%d octets, %d entries", reports[0].Octets, len(reports[0].Entries))
		}
	})
}

func TestTakeoverIsNotLostWithItsProposer(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 3)
	s.merge(m...)
	s.register(m[2], 1, 2, 3, 4)
	s.run()
	s.crash(m[2])
	s.install(ring.CauseNoAck, m[0], m[1]) // m[0] proposes, and dies before that is ordered
	s.crash(m[0])
	s.install(ring.CauseNoAck, m[1])
	s.run()
	for id := range param.PEID(4) {
		if r := s.has(m[1], id+1); r == nil || r.Home() != homeOf(m[1].self) || r.Confirmed {
			t.Errorf("%+v", r)
		}
	}
	if !m[1].space.HeldBack().After(s.now) {
		t.Error("removals are not held back")
	}
}

// Who may have been left out takes nothing over before it had time to meet those that go
// on without it.
func TestWhoWasLeftOutWaitsForTheOthers(t *testing.T) {
	for others, want := range map[string]int{"come back": 0, "come back one by one": 1, "are dead": 2} {
		t.Run(others, func(t *testing.T) {
			s, m := newScene(t, worldConfig{}, 3)
			s.merge(m...)
			for i, m := range m {
				s.register(m, param.PEID(i+1))
			}
			s.run()
			m[2].apart = true
			homes := func() (moved int) {
				for i, at := range m {
					if s.has(m[2], param.PEID(i+1)).Home() != homeOf(at.self) {
						moved++
					}
				}
				return moved
			}
			s.install(ring.CauseNoAck, m[2])
			s.run()
			if others == "come back one by one" {
				s.merge(m[2], m[1])
			}
			s.pass(meetWait - time.Millisecond)
			s.run()
			if n := homes(); n != 0 {
				t.Fatalf("it took %d over at once", n)
			}
			if others == "come back" {
				s.merge(m...)
			}
			s.pass(2 * time.Millisecond)
			s.run()
			if n := homes(); n != want {
				t.Errorf("%d have another home, not %d", n, want)
			}
		})
	}
}

// One that leaves politely does not come back: nobody waits for it.
func TestNobodyWaitsForOneThatLeft(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	s.register(m[1], 1)
	s.run()
	m[0].apart = true
	s.install(ring.CauseLeave, m[0])
	s.run()
	if e := s.has(m[0], 1); e.Home() != homeOf(m[0].self) {
		t.Errorf("%+v", e)
	}
}

// A part of an exchange that makes no sense tells as little as one that is empty, and is
// counted. It holds nobody up: not those who would learn from it, nor those who wait for
// these.
func TestPartThatMakesNoSenseHoldsNobodyUp(t *testing.T) {
	for name, many := range map[string]bool{"few items": false, "many items": true} {
		t.Run(name, func(t *testing.T) {
			b := standard
			if many {
				b.merge = 2
			}
			s, m := newScene(t, worldConfig{bounds: b}, 3)
			s.merge(m[0], m[1])
			for id := range param.PEID(6) {
				s.register(m[id%2], id+1)
			}
			s.run()
			s.install(ring.CauseMerge, m[1], m[0], m[2]) // the last one knows nothing
			s.spoilt(func(from *member) {
				for i, payload := range from.queue {
					if from != m[0] || kind(payload[1]) != kindPart {
						continue
					}
					p, err := decode(version+1, payload)
					if err != nil {
						t.Fatal(err)
					}
					p.part.octets[0] ^= 0xff
					from.queue[i] = encodePart(p.version, p.view, &p.part, p.last)
				}
			})
			for i, at := range m {
				if at.replica.Stats().Exchanging {
					t.Errorf("%v waits for END", at.self)
				}
				if n := at.replica.Stats().Dropped; (n == 1) != (i == 2) || n > 1 {
					t.Errorf("%v counts %d", at.self, n)
				}
			}
			if n := m[2].space.Counts().Elements; n != 3 {
				t.Errorf("%v knows %d elements, not the other's 3", m[2].self, n)
			}
		})
	}
}

func TestLossBeforeTheEndHoldsRemovalsBack(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 3)
	s.merge(m...)
	s.register(m[2], 1)
	s.run()
	s.crash(m[2])
	joiner := s.start(4, false)
	s.install(ring.CauseNoAck, m[0], m[1], joiner)
	s.install(ring.CauseNoAck, m[0], m[1], joiner) // before END, and it says nothing of the loss
	s.run()
	s.run() // what END brought about
	for _, m := range []*member{m[0], m[1], joiner} {
		if !m.space.HeldBack().After(s.now) {
			t.Errorf("removals are not held back at %v", m.self)
		}
	}
	// It is said once.
	until := m[0].space.HeldBack()
	s.pass(time.Second)
	s.run()
	s.crash(m[0])
	s.install(ring.CauseLeave, m[1], joiner)
	s.pass(time.Second)
	s.run()
	if got := m[1].space.HeldBack(); !got.Equal(until) {
		t.Errorf("held back until %v, and then until %v", until, got)
	}
}

func TestRestartedMemberIsNotTheHome(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	s.register(m[1], 1)
	s.run()
	s.crash(m[1])
	again := s.start(2, false)
	s.merge(m[0], again)
	s.run()
	if r := s.has(m[0], 1); r == nil || r.Confirmed || r.HomeIncarnation == uint64(m[1].self.Incarnation) && r.Element().Home == 2 {
		t.Errorf("%+v", r)
	}
}

func TestDeadForeignRegistrarIsTakenOver(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	foreign := handlespace.HomeID{ID: 0xf0000001}
	for id := range param.PEID(3) {
		e, _ := m[1].element(key(id+1), foreign.ID)
		m[1].replica.Propose(0, handlespace.Import{Handle: "echo", Element: e, Now: s.now}, s.now)
	}
	m[1].drain()
	s.run()
	if s.has(m[0], 1).Home() != foreign {
		t.Fatal("not imported")
	}
	s.w.foreign[foreign] = false
	for _, m := range m {
		m.replica.ForeignDied(foreign, s.now)
		m.drain()
	}
	s.run()
	if n := m[1].space.Home(foreign.ID).Elements; n != 0 {
		t.Errorf("%d elements are left", n)
	}
}

func TestTombstonesAreSwept(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 2)
	s.merge(m...)
	s.register(m[0], 1)
	s.run()
	s.deregister(m[0], 1)
	s.run()
	until, ok := m[0].space.NextSweep()
	if !ok || !m[0].Next().Equal(s.now.Add(dutyInterval)) {
		t.Fatalf("%v, %v", until, m[0].Next())
	}
	s.pass(until.Sub(s.now))
	s.run()
	for _, m := range m {
		if m.space.Counts().Tombstones != 0 {
			t.Errorf("%v keeps them", m.self)
		}
	}
}

// A takeover that is ordered in another view than it was meant for does nothing:
// who was missing may be back.
func TestTakeoverCountsInItsViewOnly(t *testing.T) {
	r := New(Config{Space: handlespace.New(handlespace.Config{}), Self: ring.Member{ID: 1, Incarnation: 1}, Alone: true}, wireTime)
	e := wireElement()
	r.cfg.Space.Apply(handlespace.Register{Handle: "echo", Element: e, Raiser: e.Home, Incarnation: 3, Now: wireTime})
	payload, err := encodeCommand(version, handlespace.Takeover{From: handlespace.HomeID{ID: e.Home, Incarnation: 3}, To: []handlespace.HomeID{{ID: 1, Incarnation: 1}}}, wireView)
	if err != nil {
		t.Fatal(err)
	}
	other := wireView
	other.Counter++
	for _, view := range []ring.ViewID{other, wireView} {
		r.Handle(ring.Delivered{View: view, Entries: []ring.Entry{{Payload: payload}}}, wireTime)
		if moved := r.cfg.Space.Get("echo", e.ID).Element().Home == 1; moved != (view == wireView) {
			t.Errorf("moved %v in %v", moved, view)
		}
	}
}

func TestGarbageIsCountedAndDoesNothing(t *testing.T) {
	r := New(Config{Space: handlespace.New(handlespace.Config{}), Self: ring.Member{ID: 1, Incarnation: 1}}, wireTime)
	for _, payload := range []string{"", "\x01", "\x02\x01", "\x01\xff", "\x01\x01\xff\xff"} {
		r.Handle(ring.Delivered{Entries: []ring.Entry{{Payload: []byte(payload)}}}, wireTime)
	}
	if out, ok := r.Ready(); ok || r.Stats().Dropped != 5 {
		t.Errorf("%+v, %+v", out, r.Stats())
	}
}

func TestNotDeliveredIsRefused(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 1)
	s.pass(time.Second)
	s.run()
	s.register(m[0], 1, 2)
	m[0].Handle(ring.NotDelivered{First: m[0].own + 1, Last: m[0].own + 2}, s.now)
	if waiting(m[0]) != 0 || s.w.happened["refused"] != 2 {
		t.Errorf("%d wait, %v", waiting(m[0]), s.w.happened)
	}
}

// A joiner gets everything in parts of bounded size.
func TestJoinerGetsEverythingInParts(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 1)
	s.pass(time.Second)
	s.run()
	const n = 5000
	for id := range param.PEID(n) {
		s.register(m[0], id+1)
	}
	s.run()
	joiner := s.start(2, false)
	s.install(ring.CauseMerge, m[0], joiner)
	parts := 0
	for !joiner.ended {
		for _, m := range s.members {
			s.pump(m)
			if len(m.queue) > standard.window+1 {
				t.Fatalf("%d messages at once", len(m.queue))
			}
			for _, p := range m.queue {
				if len(p) > standard.chunk+1024 {
					t.Fatalf("%d octets in a message", len(p))
				}
				parts++
			}
			s.put(m, len(m.queue))
		}
		for _, m := range s.members {
			s.deliver(m, len(m.group.log))
		}
	}
	if joiner.space.Counts().Elements != n || parts < 10 {
		t.Errorf("%+v in %d messages", joiner.space.Counts(), parts)
	}
	if s.w.violation != nil {
		t.Error(s.w.violation)
	}
}

// What END has left to do does not grow with the number of pools.
func TestPoolsAreSettledBeforeTheEnd(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 1)
	s.pass(time.Second)
	s.run()
	const n = 5000
	for i := range n {
		m[0].node.register(handlespace.Key{Handle: param.PoolHandle(fmt.Sprint(i)), ID: 1}, s.now)
	}
	s.pump(m[0])
	s.run()
	joiner := s.start(2, false)
	s.install(ring.CauseMerge, m[0], joiner)
	most, left := 0, 0
	for !joiner.ended {
		for _, m := range s.members {
			s.pump(m)
			s.put(m, len(m.queue))
		}
		for _, m := range s.members {
			before := m.space.Unsettled()
			s.deliver(m, len(m.group.log))
			most = max(most, before-m.space.Unsettled())
			if !joiner.ended {
				left = joiner.space.Unsettled()
			}
		}
	}
	if c := joiner.space.Counts(); c.Pools != n || c.Elements != n {
		t.Errorf("%+v", c)
	}
	if left > 0 || most > standard.merge {
		t.Errorf("%d pools were left for END, %d settled at once", left, most)
	}
	if joiner.space.Digest() != m[0].space.Digest() {
		t.Error("they differ")
	}
}

// Nor does it with the number of removals that are remembered.
func TestTombstonesAreForgottenBeforeTheEnd(t *testing.T) {
	const n = 5000
	s, m := newScene(t, worldConfig{tombstones: n}, 2)
	s.merge(m...)
	for i, m := range m {
		s.install(ring.CauseNoAck, m)
		s.run()
		s.pass(time.Second)
		s.run()
		for id := range param.PEID(n) {
			s.register(m, param.PEID(i*n)+id+1)
			s.deregister(m, param.PEID(i*n)+id+1)
		}
		s.run()
	}
	joiner := s.start(9, false)
	all := append(m, joiner)
	s.install(ring.CauseMerge, all...)
	most, ended := uint64(0), 0
	for ended < len(all) {
		for _, m := range all {
			for _, step := range []func(){
				func() { s.pump(m) },
				func() { s.put(m, len(m.queue)) },
				func() { s.deliver(m, len(m.group.log)) },
			} {
				was, before := m.ended, m.space.Counts().Forgotten
				if step(); m.ended && !was {
					most = max(most, m.space.Counts().Forgotten-before)
					ended++
				}
			}
		}
	}
	if most > uint64(standard.merge) {
		t.Errorf("%d are forgotten at END", most)
	}
	for _, m := range all {
		if m.space.Counts().Tombstones != n || m.space.Digest() != all[0].space.Digest() {
			t.Errorf("%v: %+v", m.self, m.space.Counts())
		}
	}
}
