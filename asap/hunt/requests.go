package hunt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// Why a request failed. They come wrapped; test with errors.Is.
var (
	// ErrNoRegistrar: no registrar could be reached in time, or each one
	// that was reached was lost before it answered.
	ErrNoRegistrar = errors.New("no registrar reachable")
	// ErrTimeout: a registrar was there but didn't answer in time.
	ErrTimeout = errors.New("registrar does not answer")
	// ErrTooMany: the table of requests is full.
	ErrTooMany = errors.New("too many requests")
	// ErrNotRequest: the message is none that a registrar answers.
	ErrNotRequest = errors.New("message is not a request")
)

// RequestID names a request within its Machine.
type RequestID uint64

// key is what a response is matched on: there are no transaction identifiers,
// so one request per key is outstanding at a time (AMB-11).
type key struct {
	kind   kind
	handle param.PoolHandle
	id     param.PEID
}

type kind uint8

const (
	resolution kind = iota + 1
	registration
	deregistration
)

func (k kind) String() string {
	return [...]string{"", "handle resolution", "registration", "deregistration"}[k]
}

// requestKey returns the key of a request, and false for all other messages.
func requestKey(msg asap.Message) (key, bool) {
	switch m := msg.(type) {
	case *asap.HandleResolution:
		return key{kind: resolution, handle: m.Handle}, true
	case *asap.Registration:
		return key{kind: registration, handle: m.Handle, id: m.Element.ID}, true
	case *asap.Deregistration:
		return key{kind: deregistration, handle: m.Handle, id: m.ID}, true
	}
	return key{}, false
}

// responseKey returns the key of the request that msg answers, and false for
// messages that are no responses.
func responseKey(msg asap.Message) (key, bool) {
	switch m := msg.(type) {
	case *asap.HandleResolutionResponse:
		return key{kind: resolution, handle: m.Handle}, true
	case *asap.RegistrationResponse:
		return key{kind: registration, handle: m.Handle, id: m.ID}, true
	case *asap.DeregistrationResponse:
		return key{kind: deregistration, handle: m.Handle, id: m.ID}, true
	}
	return key{}, false
}

// request is one request from the call to its result.
type request struct {
	id  RequestID
	key key
	msg asap.Message
	// link is the connection it was last sent on, 0 while it waits.
	link Link
	// sent is the number of its latest transmission among all requests.
	sent uint64
	// failures counts time-outs and lost connections since it was made.
	failures int
	// due is when T1, T2 or T3 ends or, while it waits for a registrar,
	// NoRegistrar; zero for never.
	due time.Time
}

// timer returns the request's response timer and how many failures end it.
func (c *Config) timer(k kind) (time.Duration, int) {
	switch k {
	case registration:
		return c.T2, c.MaxRegAttempts
	case deregistration:
		return c.T3, c.MaxRegAttempts
	}
	return c.T1, 1 + max(c.MaxRequestRetransmit, 0)
}

// Request makes a request: a HandleResolution, Registration or Deregistration.
// It is sent to the home registrar at once or when there is one, behind earlier
// requests of the same type, handle and PE identifier. The result comes in
// Ready. msg must not be changed until then.
func (m *Machine) Request(msg asap.Message, now time.Time) (RequestID, error) {
	k, ok := requestKey(msg)
	if !ok {
		return 0, fmt.Errorf("%w: %T", ErrNotRequest, msg)
	}
	if len(m.requests) >= m.cfg.MaxRequests {
		return 0, fmt.Errorf("%w: %d", ErrTooMany, len(m.requests))
	}
	m.lastRequest++
	r := &request{id: m.lastRequest, key: k, msg: msg}
	m.requests[r.id] = r
	m.queues[k] = append(m.queues[k], r)
	if m.queues[k][0] == r {
		m.dispatch(r, now)
	}
	return r.id, nil
}

// Cancel forgets a request; no result will come. An answer that arrives later
// is unsolicited. It reports whether the request was waiting for a registrar.
func (m *Machine) Cancel(id RequestID, now time.Time) bool {
	r := m.requests[id]
	if r == nil {
		return false
	}
	m.remove(r, now)
	return m.home == nil && r.link == 0
}

// Receive takes a message that came on a connection and reports whether it was
// the answer to a request; its result is then in Ready. All other messages are
// the caller's business: a surplus response is a refresh or nothing (AMB-11).
func (m *Machine) Receive(id Link, msg asap.Message, now time.Time) bool {
	r := m.answered(id, msg)
	if r == nil {
		return false
	}
	if m.home != nil && m.home.id == id {
		m.stopHunt() // the home is alive after all
	}
	m.out.Results = append(m.out.Results, Result{Request: r.id, Answer: msg})
	m.remove(r, now)
	return true
}

// answered finds the request that msg answers.
func (m *Machine) answered(id Link, msg asap.Message) *request {
	if k, ok := responseKey(msg); ok {
		if q := m.queues[k]; len(q) > 0 && q[0].link == id {
			return q[0]
		}
		return nil
	}
	if _, ok := msg.(*asap.Error); !ok || !m.cfg.Ordered {
		return nil
	}
	var oldest *request
	for _, q := range m.queues {
		if r := q[0]; r.link == id && (oldest == nil || r.sent < oldest.sent) {
			oldest = r
		}
	}
	return oldest
}

// dispatch sends the request to the home registrar, or makes it wait for one.
func (m *Machine) dispatch(r *request, now time.Time) {
	if m.home == nil {
		r.link, r.due = 0, time.Time{}
		if m.cfg.NoRegistrar > 0 {
			r.due = now.Add(m.cfg.NoRegistrar)
		}
		return
	}
	timer, _ := m.cfg.timer(r.key.kind)
	m.transmissions++
	r.link, r.sent, r.due = m.home.id, m.transmissions, now.Add(timer)
	m.out.Sends = append(m.out.Sends, Send{Link: r.link, Message: r.msg})
}

// remove forgets the request and sends the next one of its key.
func (m *Machine) remove(r *request, now time.Time) {
	delete(m.requests, r.id)
	q := m.queues[r.key]
	for i, other := range q {
		if other != r {
			continue
		}
		q = append(q[:i:i], q[i+1:]...)
		if len(q) == 0 {
			delete(m.queues, r.key)
			return
		}
		m.queues[r.key] = q
		if i == 0 {
			m.dispatch(q[0], now)
		}
		return
	}
}

func (m *Machine) fail(r *request, err error, now time.Time) {
	m.out.Results = append(m.out.Results, Result{
		Request: r.id,
		Err:     fmt.Errorf("%v for pool %q: %w", r.key.kind, r.key.handle, err),
	})
	m.remove(r, now)
}

// expireRequests ends what waited too long and sends again what may be.
func (m *Machine) expireRequests(now time.Time) {
	for _, r := range m.outstanding() {
		if r.due.IsZero() || r.due.After(now) || m.requests[r.id] != r {
			continue
		}
		if r.link == 0 {
			m.fail(r, ErrNoRegistrar, now)
			continue
		}
		r.failures++
		_, limit := m.cfg.timer(r.key.kind)
		atHome := m.home != nil && m.home.id == r.link
		switch {
		case r.failures >= limit:
			m.fail(r, ErrTimeout, now)
			if atHome {
				m.Abandon(now)
			}
		case !atHome:
			m.dispatch(r, now)
		case r.key.kind == resolution:
			// Section 3.7.2: send again, and hunt beside it.
			m.dispatch(r, now)
			m.startHunt(now)
		default:
			// T2 and T3: hunt, then send to what it finds.
			m.Abandon(now)
		}
	}
}

// release takes the requests off a connection that was given up.
func (m *Machine) release(id Link, now time.Time) {
	for _, r := range m.outstanding() {
		if r.link == id {
			m.dispatch(r, now)
		}
	}
}

// lostLink takes the requests off a connection that failed. Each has failed
// once more; those with attempts left go to the next home.
func (m *Machine) lostLink(id Link, now time.Time) {
	for _, r := range m.outstanding() {
		if r.link != id {
			continue
		}
		r.failures++
		if _, limit := m.cfg.timer(r.key.kind); r.failures >= limit {
			m.fail(r, fmt.Errorf("%w: connection lost before the answer", ErrNoRegistrar), now)
			continue
		}
		m.dispatch(r, now)
	}
}

// outstanding returns the first request of each key, oldest first.
func (m *Machine) outstanding() []*request {
	out := make([]*request, 0, len(m.queues))
	for _, q := range m.queues {
		out = append(out, q[0])
	}
	sortRequests(out)
	return out
}

func sortRequests(rs []*request) {
	slices.SortFunc(rs, func(a, b *request) int { return cmp.Compare(a.id, b.id) })
}
