package handlespace

import (
	"testing"
	"time"

	"rserpool/asap/param"
)

// Many elements that registered again come up when they would have been due without,
// some at a time, and are filed anew.
func TestDeadlinesThatCameUpTooEarly(t *testing.T) {
	const n = 10 * refiled
	s := fresh()
	for _, now := range []float64{0, 50} {
		for id := range param.PEID(n) {
			s.Apply(register("echo", id+1, at(now), life(60)))
		}
	}
	calls := 0
	for {
		next, ok := s.NextDeadline(here)
		if !ok || next.Before(at(60).Add(-grain)) {
			t.Fatalf("next deadline %v, %v", next, ok)
		}
		if due := s.Due(nil, here, at(61), 1<<30); len(due) > 0 {
			t.Fatalf("%v is due", due[0])
		}
		if calls++; next.Equal(at(110)) {
			break
		}
	}
	if calls < n/(4*refiled) || calls > n/refiled+1 {
		t.Errorf("%d calls", calls)
	}
	if due := s.Due(nil, here, at(110), 1<<30); len(due) != n {
		t.Errorf("%d are due", len(due))
	}
}

// More elements are due at the same time than a deadline has numbers for.
func TestDeadlinesAtTheSameTime(t *testing.T) {
	if testing.Short() {
		t.Skip("many elements")
	}
	const n = grain + 1000
	s := space(Config{RemovalShare: 1, MaxElements: n})
	for id := range param.PEID(n) {
		s.Apply(register("echo", id+1, at(0), life(60)))
	}
	late := at(60).Add(time.Millisecond)
	seen := map[param.PEID]bool{}
	for _, c := range s.Due(nil, here, late, 1<<30) {
		seen[c.(Remove).ID] = true
		s.Apply(c)
	}
	if _, ok := s.NextDeadline(here); len(seen) != n || ok || s.Counts().Elements > 0 {
		t.Errorf("%d of %d were due, %d are left", len(seen), n, s.Counts().Elements)
	}
}
