package peer

import (
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// mentor is a configured registrar.
type mentor struct {
	id      param.RegistrarID // 0: not known yet
	link    Link
	dial    uint64 // under way
	cluster bool   // it is this registrar itself or of its cluster: of no use
	refused bool   // in this round: it is starting itself
}

// startRounds is how often all mentors are asked before one of several registrars
// that start together, and refuse each other, begins.
const startRounds = 3

type phase int

const (
	serving phase = iota
	waiting       // for Begin or Serve
	reaching
	listing
	loading
	pausing
)

// start is the way to the first handlespace (section 3.2).
type start struct {
	phase    phase
	mentor   int // asked now
	link     Link
	deadline time.Time
	began    time.Time
	rounds   int // in which all mentors were asked in vain
	load     *download
}

// next returns when the start has something to do; zero: never.
func (s *start) next(t Timers) time.Time {
	if s.phase == serving || s.phase == waiting {
		return time.Time{}
	}
	if end := s.began.Add(t.Patience); end.Before(s.deadline) {
		return end
	}
	return s.deadline
}

// Serving reports whether the handlespace is here.
func (m *Machine) Serving() bool { return m.start.phase == serving }

// begin starts, with the first mentor.
func (m *Machine) begin(now time.Time) {
	m.start = start{phase: pausing, began: now, mentor: -1}
	m.nextMentor(now)
}

// Begin has the machine ask its mentors, where that was put off by Config.Wait.
func (m *Machine) Begin(now time.Time) {
	if m.start.phase == waiting {
		m.begin(now)
	}
}

// Serve says that the handlespace came another way: from the cluster.
func (m *Machine) Serve(now time.Time) {
	if !m.Serving() {
		m.serve(false, now)
	}
}

func (m *Machine) serve(alone bool, now time.Time) {
	m.start = start{}
	m.do(Serve{Alone: alone})
	m.seekMentors()
	if m.arbiter {
		m.Arbitrate(true, now) // those that died meanwhile
	}
}

// nextMentor turns to the next mentor. When all have been asked it waits; without
// any it serves.
func (m *Machine) nextMentor(now time.Time) {
	s := &m.start
	for s.mentor++; s.mentor < len(m.mentors); s.mentor++ {
		if !m.mentors[s.mentor].cluster {
			m.turnTo(s.mentor, now)
			return
		}
	}
	usable, highest := 0, true
	for i := range m.mentors {
		c := &m.mentors[i]
		if c.cluster {
			continue
		}
		usable++
		if c.refused && c.id > m.self {
			highest = false
		}
	}
	switch s.rounds++; {
	case usable == 0:
		m.serve(false, now)
	case highest && s.rounds >= startRounds && m.refusals() > 0:
		// All others that are there are starting, too. One has to begin.
		m.serve(true, now)
	default:
		s.phase, s.mentor, s.link, s.load = pausing, -1, 0, nil
		s.deadline = now.Add(m.cfg.Timers.Pause)
	}
}

// refusals returns how many mentors have refused in this round.
func (m *Machine) refusals() int {
	n := 0
	for _, c := range m.mentors {
		if c.refused {
			n++
		}
	}
	return n
}

// turnTo asks a mentor.
func (m *Machine) turnTo(i int, now time.Time) {
	s, c := &m.start, &m.mentors[i]
	c.refused = false
	s.phase, s.link, s.load = reaching, 0, nil
	s.deadline = now.Add(m.cfg.Timers.NoResponse)
	if c.link != 0 {
		m.askList(c.link, c.id, now)
	} else {
		m.dialMentor(i)
	}
}

func (m *Machine) dialMentor(i int) {
	if c := &m.mentors[i]; c.dial == 0 {
		c.dial = m.dialTo(Dial{Mentor: i}, dialled{mentor: i})
	}
}

// askList asks a mentor for the list of registrars.
func (m *Machine) askList(l Link, id param.RegistrarID, now time.Time) {
	m.start.phase, m.start.link = listing, l
	m.start.deadline = now.Add(m.cfg.Timers.NoResponse)
	m.send(l, &enrp.ListRequest{Servers: m.to(id)})
}

func (m *Machine) mentorUp(i int, l Link, now time.Time) {
	c := &m.mentors[i]
	c.dial, c.link = 0, l
	// Some answer only those that they know.
	m.send(l, m.presence(0, true))
	if m.Serving() {
		m.send(l, &enrp.ListRequest{Servers: m.to(0)})
	} else if m.start.phase == reaching && m.start.mentor == i {
		m.askList(l, 0, now)
	}
}

func (m *Machine) mentorFailed(i int, dial uint64, now time.Time) {
	if c := &m.mentors[i]; c.dial == dial {
		c.dial = 0
	}
	if m.start.phase == reaching && m.start.mentor == i {
		m.nextMentor(now)
	}
}

func (m *Machine) mentorDown(i int, l Link, now time.Time) {
	if c := &m.mentors[i]; c.link == l {
		c.link = 0
	}
	if s := &m.start; (s.phase == listing || s.phase == loading) && s.link == l {
		m.nextMentor(now)
	}
}

// mentorInCluster passes over a mentor that turns out to be a member of the
// cluster.
func (m *Machine) mentorInCluster(i int, now time.Time) {
	c := &m.mentors[i]
	if c.cluster {
		return
	}
	c.cluster = true
	if !m.Serving() && m.start.mentor == i {
		m.nextMentor(now)
	}
}

// MentorIsSelf says that a configured mentor is this registrar.
func (m *Machine) MentorIsSelf(dial uint64, now time.Time) {
	d, ok := m.dials[dial]
	if !ok || d.peer != 0 {
		return
	}
	delete(m.dials, dial)
	m.mentors[d.mentor].dial = 0
	m.mentorInCluster(d.mentor, now)
}

// seekMentors goes on looking for configured registrars that are no peers.
func (m *Machine) seekMentors() {
	for i := range m.mentors {
		c := &m.mentors[i]
		if p := m.peers[c.id]; c.cluster || c.link != 0 || p != nil && (p.link != 0 || p.dial != 0) {
			continue
		}
		m.dialMentor(i)
	}
}

// tickStart goes on when a mentor does not answer, or after the pause.
func (m *Machine) tickStart(now time.Time) {
	s := &m.start
	switch {
	case m.Serving() || s.phase == waiting:
	case !now.Before(s.began.Add(m.cfg.Timers.Patience)):
		m.serve(true, now) // AMB-45
	case now.Before(s.deadline):
	default:
		m.nextMentor(now)
	}
}

// listed takes a list of registrars (section 3.2.2.2).
func (m *Machine) listed(from *peer, l Link, msg *enrp.ListResponse, now time.Time) {
	if m.links[l].mentor < 0 {
		return // nobody asked
	}
	for _, s := range msg.Peers {
		if !s.Transport.IsZero() {
			m.hearsay(s.ID, s.Transport, now)
		}
	}
	if s := &m.start; s.phase == listing && s.link == l {
		if msg.Reject {
			m.refusedBy(from, now)
			return
		}
		s.load = newDownload(false)
		s.phase = loading
		m.askTable(l, from.id, s.load, now)
		s.deadline = s.load.deadline
	}
}

// refusedBy turns to another mentor because this one has refused.
func (m *Machine) refusedBy(p *peer, now time.Time) {
	m.mentors[m.start.mentor].refused = true
	m.nextMentor(now)
}

// failed takes an error report: what was asked for on that link won't come.
func (m *Machine) failed(from *peer, l Link, now time.Time) {
	from.sync = nil
	if s := &m.start; (s.phase == listing || s.phase == loading) && s.link == l {
		m.nextMentor(now)
	}
}
