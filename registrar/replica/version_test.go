package replica

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
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

// Each payload says in which version it is. One of the next version means nothing to an
// earlier member, and one of the version before the same as ever to a later one; but a
// hello, which tells what to write, is read by all.
func TestEachPayloadHasAVersion(t *testing.T) {
	type form func(v uint8) []byte
	forms := map[string]form{"done": func(v uint8) []byte { return encodeDone(v, wireView) }}
	for _, cmd := range wireCommands() {
		forms[fmt.Sprintf("%T", cmd)] = func(v uint8) []byte {
			payload, err := encodeCommand(v, cmd, wireView)
			if err != nil {
				t.Fatal(err)
			}
			return payload
		}
	}
	for _, item := range wireItems(t) {
		forms[fmt.Sprintf("part with %v", item.Key())] = func(v uint8) []byte { return encodePart(v, wireView, partOf(item), true) }
	}
	for name, encode := range forms {
		t.Run(name, func(t *testing.T) {
			for v := uint8(version); v <= version+1; v++ {
				payload := encode(v)
				_, err := decode(version, payload)
				if wanted := v > version; (err == errVersion) != wanted || !wanted && err != nil {
					t.Errorf("version %d at an earlier member: %v", v, err)
				}
				m, err := decode(version+1, payload)
				if err != nil || m.version != v {
					t.Errorf("version %d at a later member: version %d, %v", v, m.version, err)
				}
				before, err := decode(version, encode(version))
				if m.version = before.version; err != nil || !reflect.DeepEqual(m, before) {
					t.Errorf("version %d says %+v, version %d %+v, %v", v, m, version, before, err)
				}
			}
		})
	}
	hello := encodeHello(version+1, wireView, new(handlespace.Digest), handlespace.Marks{})
	if m, err := decode(version, hello); err != nil || m.highest != version+1 {
		t.Errorf("the hello of a later member: %+v, %v", m, err)
	}
	if m, err := decode(version+1, encodeHello(version, wireView, new(handlespace.Digest), handlespace.Marks{})); err != nil || m.highest != version {
		t.Errorf("the hello of an earlier member: %+v, %v", m, err)
	}
}

// Elements and removals that only one side knows, more than fit into a part, are told in
// the version that all of the new view know, and so is what follows the last of them.
func TestExchangeIsWrittenInTheVersionThatAllKnow(t *testing.T) {
	for _, test := range []struct {
		name    string
		members [2]int // odd identifiers know the next version
		want    byte
	}{
		{"next and next", [2]int{1, 3}, version + 1}, {"next and old", [2]int{1, 2}, version}, {"old and next", [2]int{2, 3}, version}, {"old and old", [2]int{2, 4}, version},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := standard
			b.chunk, b.window, b.scan, b.merge = 300, 2, 5, 2
			s, all := newScene(t, worldConfig{bounds: b}, 4)
			m := []*member{all[test.members[0]-1], all[test.members[1]-1]}
			s.pass(time.Second) // each begins alone
			s.run()
			for i := range m {
				for id := param.PEID(10*i + 1); id < param.PEID(10*i+8); id++ {
					s.register(m[i], id)
					s.run()
				}
				s.deregister(m[i], param.PEID(10*i+1))
				s.deregister(m[i], param.PEID(10*i+2))
				s.run()
			}
			s.install(ring.CauseMerge, m...)
			for range 20 { // some steps each
				s.run()
			}
			if !m[0].ended || !m[1].ended {
				t.Fatal("no END")
			}
			forms := map[kind]int{}
			for _, entry := range m[0].group.log {
				if len(entry.data) < 2 {
					continue
				}
				k, want := kind(entry.data[1]), test.want
				if k == kindHello {
					want = 1
				}
				if forms[k]++; entry.data[0] != want {
					t.Errorf("kind %#x is written in version %d, not %d", k, entry.data[0], want)
				}
			}
			if forms[kindHello] != 2 || forms[kindPart] < 4 || forms[kindDone] != 2 {
				t.Errorf("payloads by kind: %v", forms)
			}
			if a, b := m[0].space.Digest(), m[1].space.Digest(); a != b {
				t.Error("they know different things")
			}
			if n := m[0].space.Counts().Tombstones; n != 4 {
				t.Errorf("%d removals are remembered, not 4", n)
			}
			if a, b := m[0].replica.Stats().Dropped, m[1].replica.Stats().Dropped; a+b != 0 {
				t.Errorf("%d and %d payloads are dropped", a, b)
			}
		})
	}
}
