package ringnet

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
)

// Members ask each other what time it is, over a connection of version 2 or later,
// so that operators hear of clocks that differ: the ring itself goes by durations
// only, but what it orders may carry times. A clock frame has 16 octets: a stamp, and
// the clock in ns since 1970, which is 0 in a question. The answer repeats the stamp.

const (
	// clockVersion is the first version with clock frames.
	clockVersion version = 2
	clockLen             = 8 + 8
	// clockEvery is the time between two questions, in probe intervals. Members are
	// asked in turn: an idle ring stays cheap however many it has.
	clockEvery = 120
	// clockPause is how long the log says nothing more about a member's clock.
	clockPause = 10 * time.Minute
	// maxAnswers bounds the octets that wait on a connection to which the answer
	// to a question is added.
	maxAnswers = 64 << 10
)

// Skew is by how much a member's clock differs from this one's.
type Skew struct {
	// Ahead is its clock less this one's, right but for Error: half the round
	// trip of the question.
	Ahead, Error time.Duration
	At           time.Time // of the measurement; zero: there was none
}

// beyond reports whether clocks certainly differ by more than a bound.
func (s Skew) beyond(bound time.Duration) bool {
	return !s.At.IsZero() && s.Ahead.Abs() > bound && s.Ahead.Abs()-s.Error > bound
}

// question is what a connection was asked last, and what came of it.
type question struct {
	asked time.Time
	stamp uint64
	open  bool
	skew  Skew
}

func appendClock(dst []byte, stamp uint64, clock int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, stamp)
	return binary.BigEndian.AppendUint64(dst, uint64(clock))
}

// askClock asks the other side for its clock.
func (g *Group) askClock(c *conn, now time.Time) {
	c.mu.Lock()
	q := &c.clock
	q.asked, q.stamp, q.open = now, q.stamp+1, true
	stamp := q.stamp
	c.mu.Unlock()
	c.putFrames(appendFrame(nil, frameClock, appendClock(nil, stamp, 0)), 0)
	c.flush(g.ctx)
}

// askedClock returns when the other side was asked for its clock last.
func (c *conn) askedClock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock.asked
}

// askClocks asks those that were never asked over their connection, and if it is time to
// whoever else was not for longest. Some don't know how to answer.
func (p *peers) askClocks(now time.Time) {
	var next *conn
	var before time.Time
	for _, m := range p.members {
		if len(m.conns) == 0 || m.conns[0].version < clockVersion {
			continue
		}
		switch c, asked := m.conns[0], m.conns[0].askedClock(); {
		case asked.IsZero():
			p.g.askClock(c, now)
		case next == nil || asked.Before(before):
			next, before = c, asked
		}
	}
	// Those that come and go take nobody's turn.
	if every := clockEvery * p.g.cfg.Timers.ProbeInterval; next != nil && now.Sub(p.turn) >= every && now.Sub(before) >= every {
		p.turn = now
		p.g.askClock(next, now)
	}
}

// heardClock is called by readers.
func (g *Group) heardClock(c *conn, body []byte) error {
	if c.version < clockVersion || len(body) != clockLen {
		return fmt.Errorf("%w: clock of %d octets, version %d", errFrame, len(body), c.version)
	}
	stamp, clock := binary.BigEndian.Uint64(body), int64(binary.BigEndian.Uint64(body[8:]))
	if clock == 0 {
		if c.waiting() <= maxAnswers {
			c.putFrames(appendFrame(nil, frameClock, appendClock(nil, stamp, g.wall().UnixNano())), 0)
			c.flush(g.ctx)
		}
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q := &c.clock
	if !q.open || stamp != q.stamp {
		return nil // late, or made up
	}
	q.open = false
	trip := time.Since(q.asked)
	now := g.wall().Round(0) // no monotonic reading: it is about what the clocks show
	q.skew = Skew{Ahead: time.Unix(0, clock).Sub(now.Add(-trip / 2)), Error: trip / 2, At: now}
	return nil
}

// skew returns the latest difference between the clocks.
func (c *conn) skew() Skew {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock.skew
}

// waiting is how many octets wait to be sent.
func (c *conn) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queued)
}

// clocks asks connected members for their clocks, and says in the log whose differs
// too much.
func (p *peers) clocks(now time.Time) {
	p.askClocks(now)
	for _, m := range p.members {
		if len(m.conns) == 0 {
			continue
		}
		s := m.conns[0].skew()
		switch log := p.g.cfg.Log.WithFields(logrus.Fields{
			"member": m.node.Member.String(), "ahead": s.Ahead.Round(time.Millisecond).String(), "bound": p.g.cfg.MaxSkew.String(),
		}); {
		case s.At.IsZero():
		case !s.beyond(p.g.cfg.MaxSkew):
			if !m.skewed.IsZero() {
				m.skewed = time.Time{}
				log.Info("ring: the clock of a member is right again")
			}
		case m.skewed.IsZero() || now.Sub(m.skewed) >= clockPause:
			m.skewed = now
			log.Warn("ring: clocks differ: if members are parted, the later registration may lose when they meet; synchronise the clocks")
		}
	}
}
