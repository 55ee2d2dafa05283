package poolelement

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Stats counts what a server does. All but Sessions count since its start.
type Stats struct {
	Sessions       int64  // at present
	Opened         uint64 // sessions begun
	Refused        uint64 // sessions refused: MaxSessions or MaxPerAddress reached, or draining
	Handshakes     uint64 // connections over TCP without the session framing
	Finished       uint64 // sessions whose handler returned nil
	HandedOver     uint64 // sessions that ended with ErrHandOver, or by the drain's end
	Failed         uint64 // sessions whose handler returned another error or panicked
	Panics         uint64 // of handlers and of OnResume
	Overdue        uint64 // handlers that were busy for longer than HandlerLimit
	Expelled       uint64 // sessions that were left at the drain's end
	CookiesSent    uint64
	Resumed        uint64 // cookies brought by users and accepted
	CookiesRefused uint64 // cookies brought by users and refused
	CardsSent      uint64
	Ignored        uint64 // ASAP messages of users that were not understood, or not for an element
	KeepAlivesHeld uint64 // keep-alives not answered at once, because the service hung
}

type counters struct {
	sessions                                                  atomic.Int64
	opened, refused, handshakes, finished, handedOver, failed atomic.Uint64
	panics, overdue, expelled, cookiesSent, resumed           atomic.Uint64
	cookiesRefused, cardsSent, ignored, keepAlivesHeld        atomic.Uint64
}

// Stats returns the counters. It never waits.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Sessions: c.sessions.Load(), Opened: c.opened.Load(), Refused: c.refused.Load(),
		Handshakes: c.handshakes.Load(), Finished: c.finished.Load(), HandedOver: c.handedOver.Load(),
		Failed: c.failed.Load(), Panics: c.panics.Load(), Overdue: c.overdue.Load(), Expelled: c.expelled.Load(),
		CookiesSent: c.cookiesSent.Load(), Resumed: c.resumed.Load(), CookiesRefused: c.cookiesRefused.Load(),
		CardsSent: c.cardsSent.Load(), Ignored: c.ignored.Load(), KeepAlivesHeld: c.keepAlivesHeld.Load(),
	}
}

// linePause is the time between two lines of the log of one kind that users can
// cause at will.
const linePause = time.Second

// lines limits them.
type lines struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *lines) allow(kind string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.last[kind]; ok && now.Sub(last) < linePause {
		return false
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[kind] = now
	return true
}

// warn logs what a user has caused, once a second for each kind; the counters tell
// the rest.
func (s *Server) warn(kind string, c *Control, err error, text string) {
	if !s.lines.allow(kind) {
		return
	}
	log := s.log
	if c != nil {
		log = log.WithFields(logrus.Fields{"session": c.number, "user": c.remote})
	}
	if err != nil {
		log = log.WithError(err)
	}
	log.Warn(text)
}
