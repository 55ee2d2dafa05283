package poolelement

import (
	"fmt"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// State is the state of one element's registration.
type State int

// The states. In Hunting the element may still be registered at its former
// home.
const (
	Unregistered  State = iota // no registrar knows the element
	Hunting                    // something is to be sent, and no registrar is there
	Registering                // first registration sent; T2 runs
	Registered                 // accepted; T4 runs
	Reregistering              // registration repeated, the old one stands; T2 runs
	Deregistering              // deregistration sent; T3 runs
	Failed                     // gave up, for good or until the back-off has passed
)

var stateNames = [...]string{
	"unregistered", "hunting", "registering", "registered", "re-registering", "deregistering", "failed",
}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// machine is the registration procedure of one pool element (RFC 5352, sections
// 3.1, 3.2 and 3.4) without clock, sockets and goroutines: calls, messages and
// the time go in, output comes out of take. The server hunt and the way of a
// request from registrar to registrar, with T2, T3 and MAX-REG-ATTEMPT, are
// package hunt's; the machine is told of homes found and lost and of results.
// It is not safe for concurrent use.
//
// Invariants: at most one request is outstanding, in Registering,
// Reregistering, Deregistering or Hunting; home is nil in Hunting and not nil in
// Registered.
type machine struct {
	cfg    Config            // complete and valid
	random func() float64    // 0 <= x < 1, for jitter
	newID  func() param.PEID // draws an identifier

	state  State
	wanted bool // the application wants to be in the pool
	id     param.PEID
	policy param.Policy // as the application wants it
	life   param.Life

	home *link
	// outstanding is what the present request does once a registrar is
	// there: Registering, Reregistering or Deregistering; Unregistered for
	// none.
	outstanding State

	// claimed says that some registrar may hold the element: a registration
	// was sent, and neither refused nor ended since. Only then are keep-alives
	// about this element at all.
	claimed bool
	// identifiers counts those drawn since the last success, because the one
	// before was in use.
	identifiers int

	sent     param.PoolElement // last registration
	sentAt   time.Time
	refused  bool              // it was refused, and is not to be repeated
	accepted param.PoolElement // last accepted one; ID 0 = none stands
	expires  time.Time         // when that one ends; zero = never

	t4      time.Time     // next re-registration; zero = none
	retry   time.Time     // when to begin again, in Unregistered and Failed
	backoff time.Duration // the last pause, 0 after a success

	watch silence // of the home

	ignored uint64 // messages that are not for this element
	outputs []output
}

// maxIdentifiers bounds how many identifiers in a row may be in use already.
const maxIdentifiers = 8

// output is what the machine wants done, in this order.
type output interface{ output() }

// requestOutput: make this request, by way of any registrar, and report the
// result. It replaces an earlier one, whose result is void.
type requestOutput struct{ msg asap.Message }

// cancelOutput: the outstanding request is void.
type cancelOutput struct{}

// replyOutput: answer the message just received.
type replyOutput struct{ msg asap.Message }

// adoptOutput: the sender of the message just received, with this identifier,
// becomes the home registrar, unless it is already.
type adoptOutput struct{ id param.RegistrarID }

// abandonOutput: the home registrar does not answer, look for another.
type abandonOutput struct{}

// eventOutput: tell the application.
type eventOutput struct{ event Event }

func (requestOutput) output() {}
func (cancelOutput) output()  {}
func (replyOutput) output()   {}
func (adoptOutput) output()   {}
func (abandonOutput) output() {}
func (eventOutput) output()   {}

// newMachine makes a machine in state Unregistered.
func newMachine(cfg Config, random func() float64, newID func() param.PEID) *machine {
	m := &machine{cfg: cfg, random: random, newID: newID, id: cfg.ID, policy: cfg.Policy, life: cfg.Life}
	if m.id == 0 {
		m.id = newID()
	}
	return m
}

// take returns the outputs since the last call.
func (m *machine) take() []output {
	out := m.outputs
	m.outputs = nil
	return out
}

func (m *machine) put(o output) { m.outputs = append(m.outputs, o) }

func (m *machine) report(t EventType, err error) {
	e := Event{Type: t, State: m.state, Handle: m.cfg.Handle, ID: m.id, Retry: m.retry, Err: err}
	if m.home != nil {
		e.Registrar = m.home.name()
	}
	m.put(eventOutput{e})
}

// register makes the element join its pool and stay in it.
func (m *machine) register(now time.Time) {
	m.wanted = true
	if m.state == Unregistered || m.state == Failed {
		m.begin(now)
	}
}

// deregister makes it leave. The end is Unregistered, or Registered again when
// the registrar refuses.
func (m *machine) deregister(now time.Time) {
	m.wanted = false
	m.retry = time.Time{}
	switch {
	case m.state == Unregistered, m.outstanding == Deregistering:
	case m.claimed:
		m.leave()
	default:
		m.left(Deregistered, nil)
	}
}

// leave asks for the deregistration, as soon as there is a home.
func (m *machine) leave() {
	m.request(Deregistering, &asap.Deregistration{Handle: m.cfg.Handle, ID: m.id})
}

// setPolicy changes the policy to register with.
func (m *machine) setPolicy(now time.Time, p param.Policy) {
	changed := p != m.policy
	m.policy = p
	// A corrected registration may follow a refused one at once.
	if changed && m.refused && m.state == Failed && m.wanted {
		m.begin(now)
	}
}

// setLoad changes the load in the policy.
func (m *machine) setLoad(load uint32) { m.policy.Load = load }

// setLife changes the registration life to register with.
func (m *machine) setLife(l param.Life) { m.life = l }

// homeFound reports the home registrar, found by the hunt or adopted.
func (m *machine) homeFound(now time.Time, l *link) {
	found := HomeFound
	if m.home != nil {
		found = HomeChanged
	}
	m.home = l
	m.watch = silence{}
	switch {
	case m.state == Hunting && m.outstanding != Unregistered:
		m.state = m.outstanding // package hunt has sent it again
		m.report(found, nil)
		return
	case m.state == Hunting:
		m.report(found, nil)
		m.begin(now)
		return
	}
	m.report(found, nil)
	switch {
	case m.state == Registered && m.cfg.Compat == Rsplib:
		m.sendRegistration(now) // rsplib tells its peers only then
	case m.state == Failed && m.wanted && !m.retry.IsZero() && !m.refused && found == HomeChanged:
		m.begin(now)
	}
}

// homeLost reports that the association to the home is gone, or that it did not
// answer in time.
func (m *machine) homeLost() {
	if m.home == nil {
		return
	}
	m.report(HomeLost, nil)
	m.home = nil
	if m.state == Registered || m.outstanding != Unregistered {
		m.state = Hunting
	}
}

// tick does what is due at now.
func (m *machine) tick(now time.Time) {
	switch m.state {
	case Registered:
		switch {
		case due(m.t4, now) || due(m.updateAt(), now) || due(m.watch.limit, now):
			m.sendRegistration(now)
		case due(m.expires, now):
			m.lost(now)
		}
	case Unregistered, Failed:
		if due(m.retry, now) {
			m.begin(now)
		}
	}
}

// deadline returns when tick is to be called next, zero for never.
func (m *machine) deadline() time.Time {
	switch m.state {
	case Registered:
		return earliest(earliest(m.t4, m.updateAt()), earliest(m.expires, m.watch.limit))
	case Unregistered, Failed:
		return m.retry
	}
	return time.Time{}
}

// due reports whether the time t is set and has come.
func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// earliest returns the earlier of two times, where zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// receive handles a message that answers no request; fromHome says whether it
// came on the association to the home.
func (m *machine) receive(now time.Time, msg asap.Message, fromHome bool) {
	switch msg := msg.(type) {
	case *asap.EndpointKeepAlive:
		m.keepAlive(now, msg, fromHome)
	case *asap.DeregistrationResponse:
		if !fromHome || !m.mine(msg.Handle, msg.ID) || len(msg.Error) > 0 ||
			m.state != Registered && m.state != Reregistering {
			m.ignored++
			return
		}
		if m.outstanding != Unregistered {
			m.outstanding = Unregistered
			m.put(cancelOutput{})
		}
		m.lost(now)
	default:
		m.ignored++
	}
}

func (m *machine) mine(handle param.PoolHandle, id param.PEID) bool {
	return handle == m.cfg.Handle && id == m.id
}

// keepAlive follows RFC 5352, section 3.4, and the reading AMB-07. rsplib says
// which element it means.
func (m *machine) keepAlive(now time.Time, msg *asap.EndpointKeepAlive, fromHome bool) {
	if !m.claimed || msg.Handle != m.cfg.Handle || msg.ID != 0 && msg.ID != m.id {
		m.ignored++
		return
	}
	m.put(replyOutput{&asap.EndpointKeepAliveAck{Handle: m.cfg.Handle, ID: m.id}})
	if fromHome {
		m.watch.heard(now, m.cfg.Silence)
	}
	if msg.Home && msg.Registrar != 0 {
		m.put(adoptOutput{msg.Registrar})
	}
}

// begin starts a registration from nothing: RFC 5352, section 3.1, R1.
func (m *machine) begin(now time.Time) {
	m.retry = time.Time{}
	if m.home == nil {
		m.state = Hunting
		return
	}
	m.sendRegistration(now)
}

func (m *machine) sendRegistration(now time.Time) {
	user, asapTransport, err := m.cfg.transports(m.home)
	if err != nil {
		m.fail(now, err)
		return
	}
	m.sent = param.PoolElement{ID: m.id, Life: m.life, User: user, Policy: m.policy, ASAP: asapTransport}
	m.sentAt, m.refused = now, false
	m.watch = silence{}
	m.claimed = true
	next := Reregistering
	if m.accepted.ID == 0 || due(m.expires, now) {
		next = Registering
		m.accepted = param.PoolElement{}
	}
	wire := m.sent
	wire.Life = m.cfg.wireLife(wire.Life)
	m.request(next, &asap.Registration{Handle: m.cfg.Handle, Element: wire})
}

// request makes a request; next is the state while it runs.
func (m *machine) request(next State, msg asap.Message) {
	m.outstanding = next
	m.state = next
	if m.home == nil {
		m.state = Hunting
	}
	m.put(requestOutput{msg})
}

// result takes the result of the outstanding request: the answer, or why there
// is none.
func (m *machine) result(now time.Time, answer asap.Message, err error) {
	was := m.outstanding
	m.outstanding = Unregistered
	switch answer := answer.(type) {
	case *asap.RegistrationResponse:
		// rsplib knows no warnings: there an error without R is a refusal.
		if answer.Reject || len(answer.Error) > 0 && m.cfg.Compat == Rsplib {
			m.rejected(now, was, &RejectedError{Causes: answer.Error})
			return
		}
		m.registered(now, was, answer.Error)
	case *asap.DeregistrationResponse:
		m.deregistered(now, answer.Error)
	case *asap.Error:
		if was == Deregistering {
			m.deregistered(now, answer.Causes)
			return
		}
		m.rejected(now, was, &RejectedError{Causes: answer.Causes})
	default:
		if was == Deregistering {
			if m.wanted || due(m.expires, now) {
				m.deregistered(now, nil)
				return
			}
			m.leave()
			return
		}
		m.fail(now, err)
	}
}

func (m *machine) registered(now time.Time, was State, warnings param.OperationError) {
	m.accepted = m.sent
	m.backoff, m.identifiers = 0, 0
	m.startT4(now)
	m.stay()
	var warning error
	if len(warnings) > 0 {
		warning = &WarningError{Causes: warnings}
	}
	if was == Registering {
		m.report(RegistrationAccepted, warning)
		return
	}
	m.report(RegistrationRefreshed, warning)
}

// stay enters Registered, or Hunting if the home went while the answer came.
func (m *machine) stay() {
	m.state = Registered
	if m.home == nil {
		m.state = Hunting
	}
}

// startT4 starts the re-registration timer and counts the registration life
// from now.
func (m *machine) startT4(now time.Time) {
	m.t4 = now.Add(m.cfg.reregisterAfter(m.accepted.Life))
	m.expires = time.Time{}
	if life, finite := m.accepted.Life.Duration(); finite {
		m.expires = now.Add(life)
	}
}

// rejected handles a refused registration: it is sent again only when
// something in it can be corrected (RFC 5352, section 3.1).
func (m *machine) rejected(now time.Time, was State, err *RejectedError) {
	m.refused = true
	if was == Registering {
		m.claimed = false
		if err.Causes.Has(param.CauseNonUniquePEID) && m.cfg.ID == 0 && m.identifiers < maxIdentifiers {
			m.identifiers++
			m.id = m.newID()
			m.begin(now)
			return
		}
		m.fail(now, err)
		return
	}
	// The old registration stands until its life ends. When it was a change
	// that was refused, what was accepted before keeps the element in.
	m.stay()
	switch {
	case !sameButLoad(m.sent, m.accepted):
		m.policy, m.life, m.sent, m.refused = m.accepted.Policy, m.accepted.Life, m.accepted, false
	case m.cfg.RetryRejected > 0:
		m.t4 = now.Add(m.cfg.RetryRejected)
	default:
		m.t4 = time.Time{}
	}
	m.report(RegistrationRejected, err)
}

// sameButLoad reports whether two registrations differ in the load at most.
func sameButLoad(a, b param.PoolElement) bool {
	a.Policy.Load = b.Policy.Load
	return a.Policy == b.Policy && a.Life == b.Life
}

// fail reports a failure upward and waits: for the back-off when the registrars
// did not answer, for RetryRejected when one refused, for ever when the
// configuration says so.
func (m *machine) fail(now time.Time, err error) {
	m.state = Failed
	m.t4 = time.Time{}
	switch {
	case !m.refused:
		m.startBackoff(now)
		if m.home != nil {
			m.put(abandonOutput{})
		}
	case m.cfg.RetryRejected > 0:
		m.retry = now.Add(m.cfg.RetryRejected)
	}
	m.report(RegistrationFailed, err)
}

// startBackoff plans the next beginning, unless the application is to decide.
func (m *machine) startBackoff(now time.Time) {
	if m.cfg.GiveUp {
		return
	}
	m.backoff = min(max(2*m.backoff, m.cfg.RetryMin), m.cfg.RetryMax)
	// Jitter keeps the elements of a registrar that died from coming back
	// all at once.
	m.retry = now.Add(m.backoff/2 + time.Duration(m.random()*float64(m.backoff/2)))
}

func (m *machine) deregistered(now time.Time, refusal param.OperationError) {
	if len(refusal) > 0 {
		// The entry is still there: keep it alive until told otherwise.
		m.wanted = true
		m.accepted = m.sent
		m.startT4(now)
		m.stay()
		m.report(DeregistrationRejected, &RejectedError{Causes: refusal})
		return
	}
	m.left(Deregistered, nil)
	if m.wanted {
		m.begin(now)
	}
}

// lost handles the end of a registration that the application still wants.
func (m *machine) lost(now time.Time) {
	if !m.refused {
		m.startBackoff(now)
	}
	m.left(RegistrationLost, ErrExpired)
}

// left enters Unregistered.
func (m *machine) left(t EventType, err error) {
	m.state = Unregistered
	m.t4, m.expires = time.Time{}, time.Time{}
	m.claimed = false
	m.accepted = param.PoolElement{}
	m.report(t, err)
}

// updateAt returns when changed values are to be registered, zero for never. A
// changed load waits until it differs enough and the last registration is old
// enough; anything else goes at once.
func (m *machine) updateAt() time.Time {
	want := m.sent
	want.Policy, want.Life = m.policy, m.life
	switch {
	case !sameButLoad(want, m.sent):
		return m.sentAt
	case !m.refused && loadDistance(want.Policy.Load, m.sent.Policy.Load) >= m.cfg.loadStep():
		return m.sentAt.Add(m.cfg.LoadInterval)
	}
	return time.Time{}
}

func loadDistance(a, b uint32) uint32 {
	if a > b {
		return a - b
	}
	return b - a
}
