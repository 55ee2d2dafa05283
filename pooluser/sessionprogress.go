package pooluser

import (
	"errors"
	"time"
)

// account decides what the connection that fails now was: a success, so that a failover
// begins, or another try of the failover, or opening, before.
func (m *sessionMachine) account(now time.Time, err error, v verdict) {
	oldest, stuck := m.kept.first(), m.stuck
	m.stuck = oldest
	life := m.life(now, err)
	if !m.proved && life < m.timers.Silence {
		// The hung have their Silence. What an idle connection took beyond that was no
		// part of the failover.
		m.began = m.began.Add(max(0, now.Sub(m.since)-m.timers.Silence))
		return
	}
	m.began, m.late = now, nil
	// Elements that die one by one with the same request before them may die of it.
	if v != unreachable || oldest == 0 || oldest != stuck || life >= m.long() {
		m.tries, m.attempts = 0, nil
	}
}

// life returns for how long the element has shown that it lives. Beats do not speak for one
// that leaves requests without answer, and silence speaks against those that have beats.
func (m *sessionMachine) life(now time.Time, err error) time.Duration {
	switch {
	case errors.Is(err, ErrNoAnswer):
		return m.message.Sub(m.since)
	case m.link.beats:
		return m.heard.Sub(m.since)
	}
	return now.Sub(m.since)
}

// long is how long an element lives that has not died of what it was sent.
func (m *sessionMachine) long() time.Duration {
	return time.Duration(m.timers.Tries) * m.timers.Total
}
