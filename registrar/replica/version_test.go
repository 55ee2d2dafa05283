package replica

import (
	"testing"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
)

// In all tests members with an odd identifier know the next version of payloads, which
// says the same as this one but that earlier members can't read it.

// Members write what all of the view know: the next version only among themselves. What
// they wrote before an earlier one joined counts for nobody and is written anew.
func TestAdjacentVersionsKnowTheSame(t *testing.T) {
	s, m := newScene(t, worldConfig{}, 3)
	next, old, other := m[0], m[1], m[2]
	latest := func() byte {
		t.Helper()
		for i := len(next.group.log) - 1; i >= 0; i-- {
			if data := next.group.log[i].data; data != nil && kind(data[1]) == kindRegister {
				return data[0]
			}
		}
		t.Fatal("no registration in the log")
		return 0
	}
	known := func(id param.PEID, want bool) {
		t.Helper()
		for _, m := range next.group.view.Members {
			if got := s.w.nodes[m.Member].space.Get("echo", id) != nil; got != want {
				t.Errorf("%v knows element %d: %v", m.Member, id, got)
			}
		}
	}
	s.merge(next, other)
	s.register(next, 1)
	s.run()
	if v := latest(); v != version+1 {
		t.Fatalf("two of the next version write version %d", v)
	}
	known(1, true)

	// One registration is with the ring, another comes while the old one joins, and a
	// third is ordered in that exchange.
	s.register(next, 2)
	s.register(other, 3)
	s.install(ring.CauseMerge, other, next, old)
	s.put(other, 1)
	s.register(next, 4)
	s.run()
	if waiting(next) != 0 || waiting(other) != 0 {
		t.Errorf("%d and %d calls wait", waiting(next), waiting(other))
	}
	known(1, true)
	known(2, true)
	known(3, true)
	known(4, true)
	if v := latest(); v != version {
		t.Errorf("with an old one they write version %d", v)
	}
	if n := s.w.happened["refused"]; n != 0 {
		t.Errorf("%d registrations are refused", n)
	}
	if a, b := next.replica.Stats().Dropped, old.replica.Stats().Dropped; a != 2 || b != 2 {
		t.Errorf("%d and %d payloads are counted as dropped, want 2", a, b)
	}

	// Without the old one they go on with its version, until all tell theirs again.
	s.install(ring.CauseLeave, other, next)
	s.register(next, 5)
	s.run()
	if v := latest(); v != version {
		t.Errorf("without exchange they write version %d", v)
	}
	s.install(ring.CauseNoAck, next)
	s.run()
	s.merge(next, other)
	s.register(next, 6)
	s.run()
	if v := latest(); v != version+1 {
		t.Errorf("after the next exchange they write version %d", v)
	}
	known(5, true)
	known(6, true)
}
