package ring

import "time"

// Early reports whether a message may leave before the events of its Output are
// applied, because it says nothing of them: that a token arrived, or how this member
// is. Then a slow application is not taken for a dead member.
func (e *Envelope) Early() bool {
	switch e.Message.(type) {
	case *TokenAck, *Pong, *Hear:
		return true
	}
	return false
}

// Answer takes a message while what Ready returned is still being handled, which stays as
// it is, and returns what is to be sent for it; false: the message has to wait for Step.
// Only questions are answered, and signs of life noted, of which many come when others miss
// the token. Who applies for almost as long as Starving doesn't answer any more: the others
// can't wait for ever.
func (m *Machine) Answer(msg Message, now time.Time) ([]Envelope, bool) {
	begun, at := m.now, m.clock(now)
	if m.left || m.misled(msg.Head()) != "" || at.Sub(begun)+m.cfg.Timers.CollectWait >= m.cfg.Timers.Starving() {
		return nil, false
	}
	m.now = at // signs of life, and answers as proofs, grow old from now on
	defer func() { m.now = begun }()
	switch msg := msg.(type) {
	case *Hear:
		m.hear(msg.From.Member)
		return nil, true
	case *Ping:
		handing := m.out
		m.out = Output{}
		m.hear(msg.From.Member)
		m.onPing(msg)
		answers := m.out.Messages
		m.out = handing
		return answers, true
	}
	return nil, false
}

// Handled says when what Ready returned had been handled. If that took time, this
// member was deaf so long, and its own messages left so late: nobody is blamed for it.
func (m *Machine) Handled(now time.Time) {
	d := m.clock(now).Sub(m.now)
	if d <= 0 {
		return
	}
	m.now = m.now.Add(d)
	if d >= m.cfg.Timers.HopTimeout {
		m.leftOutAt = m.now
	}
	m.putOff(func(at time.Time) time.Time { return at.Add(d) })
	if m.passing != nil {
		m.passing.sentAt = m.passing.sentAt.Add(d)
	}
}

// excuse lets nothing that waits for others be over at once if Tick comes late, because
// this process or its machine was held up: what the others said meanwhile is still to
// be read. It does not do so twice in a row.
func (m *Machine) excuse(before time.Time) {
	slack := m.cfg.Timers.CollectWait / 2
	late := m.late(before)
	if late <= slack {
		m.excused = false
		return
	}
	m.counters.Stalls++
	m.counters.LongestStall = max(m.counters.LongestStall, late)
	if !m.excused {
		m.excused = true
		soonest := m.now.Add(slack)
		m.putOff(func(at time.Time) time.Time {
			if at.Before(soonest) {
				return soonest
			}
			return at
		})
	}
}

// late returns by how much this call comes too late: for what was due, and no longer than
// since the call before, in which something may have become due that is older.
func (m *Machine) late(before time.Time) time.Duration {
	next := m.next()
	if next.IsZero() {
		return 0
	}
	return min(m.now.Sub(next), m.now.Sub(before))
}

// noteHeldUp notes that this call comes so late that the others may have left this member
// out meanwhile.
func (m *Machine) noteHeldUp(before time.Time) {
	limit := m.cfg.Timers.HopTimeout
	if m.now.Sub(before) >= limit && m.late(before) >= limit { // looked for only after a pause
		m.leftOutAt = m.now
	}
}

// leftOut reports whether the others left this member out, or may have, a moment ago. It
// installs a view without them, if they did, within this time.
func (m *Machine) leftOut() bool {
	t := &m.cfg.Timers
	return m.now.Sub(m.leftOutAt) <= t.Starving()+t.Promise(len(m.view.Members), 0)
}

// putOff changes until when this member waits for others. Leases, and the age of the
// token that others are told, are not concerned.
func (m *Machine) putOff(later func(time.Time) time.Time) {
	put := func(at *time.Time) {
		if !at.IsZero() {
			*at = later(*at)
		}
	}
	put(&m.patience)
	put(&m.waits.at)
	if p := m.passing; p != nil {
		put(&p.resendAt)
		put(&p.until)
	}
	if a := m.ask; a != nil {
		put(&a.again)
		put(&a.until)
	}
	if c := m.call; c != nil {
		put(&c.again)
		put(&c.until)
	}
	for member, at := range m.lost {
		m.lost[member] = later(at)
	}
	if m.probe != nil {
		put(&m.probe.until)
	}
}

// timed notes how long a hop took that was acknowledged now.
func (m *Machine) timed(p *passing) {
	took := m.now.Sub(p.sentAt)
	m.counters.LongestHop = max(m.counters.LongestHop, took)
	if took > m.cfg.Timers.HopTimeout/2 {
		m.counters.LateHops++
	}
}
