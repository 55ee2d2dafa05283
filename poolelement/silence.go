package poolelement

import "time"

// silence notices that a home registrar has stopped to send keep-alives. Either
// it is gone without a word, or it has removed the element, of which no message
// would tell: because too many users reported it, or because it did not answer
// while its process was stopped. A registration clears that up; an element may
// make one at any time (RFC 5352, section 3.1).
//
// It starts anew with each registration and each home.
type silence struct {
	heardFrom int           // keep-alives so far
	last      time.Time     // the latest
	longest   time.Duration // between two of them
	limit     time.Time     // when the silence is too long; zero = unknown yet
}

const (
	// regular is how many keep-alives show that the registrar sends them by
	// itself.
	regular = 3
	// shortestSilence bounds the cost with registrars that send keep-alives in
	// quick succession.
	shortestSilence = 5 * time.Second
)

// heard takes a keep-alive. A silence that was too long stays so: the element's
// own process may have been stopped.
func (s *silence) heard(now time.Time, factor int) {
	if due(s.limit, now) || factor < 0 {
		return
	}
	if s.heardFrom > 0 {
		s.longest = max(s.longest, now.Sub(s.last))
	}
	s.heardFrom++
	s.last = now
	if s.heardFrom >= regular {
		s.limit = now.Add(max(time.Duration(factor)*s.longest, shortestSilence))
	}
}
