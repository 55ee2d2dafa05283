package ring

import "time"

// queue holds own proposals that were not in a token yet.
type queue struct {
	items  [][]byte
	head   int
	octets int    // what the waiting ones count for
	next   uint64 // number of the next proposal, less one
}

func (q *queue) len() int { return len(q.items) - q.head }

// first is the number of the proposal at the front.
func (q *queue) first() uint64 { return q.next - uint64(q.len()) + 1 }

func (q *queue) push(payload []byte) uint64 {
	if q.head > 1024 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, payload)
	q.octets += cost(payload)
	q.next++
	return q.next
}

func (q *queue) pop() []byte {
	payload := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	q.octets -= cost(payload)
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return payload
}

// putBack makes proposals that were taken out wait again, before the others.
func (q *queue) putBack(payloads [][]byte) {
	q.items, q.head = append(payloads, q.items[q.head:]...), 0
	for _, p := range payloads {
		q.octets += cost(p)
	}
}

// progress follows own proposals from their first token to their report.
type progress struct {
	// marks says which proposals had been put in up to which sequence number
	// of the installed view; 0 for those of earlier views.
	marks    []mark
	stable   uint64 // last one that all members have
	reported uint64 // last one that Stable told
}

type mark struct{ seq, proposal uint64 }

func (p *progress) put(seq, proposal uint64) { p.marks = append(p.marks, mark{seq, proposal}) }

// reached notes that all members have delivered up to a sequence number.
func (p *progress) reached(seq uint64) {
	for len(p.marks) > 0 && p.marks[0].seq <= seq {
		p.stable = p.marks[0].proposal
		p.marks = p.marks[1:]
	}
}

// nextView notes that what is still open was put in before the installed view.
func (p *progress) nextView() {
	if n := len(p.marks); n > 0 {
		p.marks = []mark{{0, p.marks[n-1].proposal}}
	}
}

// Propose hands in a payload, which belongs to the machine from then on. Own
// proposals are numbered from 1 on, ordered, and become stable, in this order.
func (m *Machine) Propose(payload []byte, now time.Time) (uint64, error) {
	m.begin(now)
	defer m.end()
	switch {
	case m.leaving || m.left:
		return 0, ErrLeft
	case len(payload) > m.limits.Payload:
		return 0, ErrTooLong
	case m.queue.len() >= m.limits.QueueProposals,
		m.queue.len() > 0 && m.queue.octets+cost(payload) > m.limits.QueueOctets:
		return 0, ErrFull
	}
	number := m.queue.push(payload)
	m.hurry()
	return number, nil
}

// End orders the END of the exchange of the installed view. The coordinator of a
// view with an exchange calls it once. When the view changes before END is ordered,
// it is void.
func (m *Machine) End(now time.Time) error {
	m.begin(now)
	defer m.end()
	if m.left {
		return ErrLeft
	}
	if m.me != 0 || m.ended || m.endQueued {
		return ErrNotNeeded
	}
	m.endQueued = true
	m.endAfter = m.queue.next
	m.hurry()
	return nil
}

// hurry brings the token to what was just queued.
func (m *Machine) hurry() {
	switch {
	case m.left || m.away():
	case m.alone():
		m.visitAlone()
	case m.holding:
		m.visit()
	default:
		m.want()
	}
}

// want tells the others that this member waits for the token, unless it comes at
// full speed anyway.
func (m *Machine) want() {
	if m.Coming() {
		return
	}
	m.wanted = m.nextVisit()
	m.expectSoon()
	m.sayWant(m.view.Members)
}

// wants reports whether this member has said that it waits for the token.
func (m *Machine) wants() bool {
	return m.wanted == m.nextVisit() && !m.holding && !m.alone() && !m.away()
}

func (m *Machine) sayWant(to []Node) {
	for _, n := range to {
		if n.Member != m.self.Member {
			m.send(n, &Want{View: m.view.ID, Hop: m.wanted})
		}
	}
}

// nextVisit is the hop with which the token comes to this member the next time.
func (m *Machine) nextVisit() uint64 { return m.accepted + uint64(len(m.view.Members)) }

// Coming reports whether the token is on its way to this member at full speed, because
// somebody has asked for that or it carries something of this member's own until then.
// What is proposed meanwhile makes no difference before it is there, or the view changes.
func (m *Machine) Coming() bool {
	if m.alone() || m.away() || m.holding || m.left {
		return false
	}
	next := m.nextVisit()
	if m.wanted == next || m.rush >= next {
		return true
	}
	if m.made == nil {
		return false
	}
	n := len(m.made.Runs)
	return m.made.Rush >= next || n > 0 && m.made.Runs[n-1].From == m.self.Member
}

func (m *Machine) onWant(w *Want) {
	n := uint64(len(m.view.Members))
	i := m.index(&m.view, w.From.Member)
	switch {
	case w.View != m.view.ID || i < 0 || m.away():
		m.drop("want of another view")
	case w.Hop > m.hop+2*n || w.Hop%n != uint64(i):
		m.drop("want of the future")
	default:
		known := w.Hop <= max(m.rush, m.hop)
		m.rush = max(m.rush, w.Hop)
		switch {
		case m.holding:
			m.visit()
		case !known: // else it was lost for others, comes late, or the token takes its time
			m.expectSoon()
		}
	}
}

// expectSoon shortens the patience for a token that is wanted: it goes at full
// speed now, or is lost.
func (m *Machine) expectSoon() {
	m.patience = earlier(m.patience, m.now.Add(m.cfg.Timers.HopTimeout))
}
