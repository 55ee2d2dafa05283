package poolelement

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Status is what an element knows of itself.
type Status struct {
	State  State
	Handle param.PoolHandle
	ID     param.PEID
	// Registrar is the home registrar's address as "network://host:port",
	// empty without a home.
	Registrar string
	// Policy is the one that was last sent, or will be.
	Policy param.Policy
	// Next is when the element will register again by itself; zero for never.
	Next time.Time
	// Expires is when the present registration ends unless it is repeated;
	// zero for never, and without one.
	Expires time.Time
	// Control is where registrars reach the element, by network.
	Control map[string]uint16
	// LastError is the last failure, nil since the last accepted
	// registration.
	LastError error
	// Ignored counts messages that were not for this element, or came at the
	// wrong time.
	Ignored uint64
}

// Status returns the present status. It never waits.
func (e *Element) Status() Status { return *e.status.Load() }

func (e *Element) publish() {
	m := e.machine
	s := Status{
		State: m.state, Handle: e.cfg.Handle, ID: m.id, Policy: m.policy,
		Next: earliest(m.t4, m.retry), Expires: m.expires,
		Control: e.control, LastError: e.lastError, Ignored: m.ignored,
	}
	if m.home != nil {
		s.Registrar = m.home.name()
	}
	e.status.Store(&s)
}

// loop owns the machine until the element is to end and has left its pool.
func (e *Element) loop() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	leave := e.leave
	var tooLate <-chan time.Time
	defer func() {
		if e.cancel != nil {
			e.cancel()
		}
	}()
	e.granted = wish{policy: e.cfg.Policy, load: e.cfg.Policy.Load, life: e.cfg.Life}
	e.grant(time.Now())
	for {
		e.act(nil)
		e.publish()
		switch {
		case leave == nil && e.machine.state == Unregistered:
			return nil
		case leave == nil && e.refusal != nil:
			return fmt.Errorf("pool element: deregister from pool %q: %w", e.cfg.Handle, e.refusal)
		case e.endNow:
			return fmt.Errorf("pool element: leave pool %q: %w", e.cfg.Handle, ErrStopTimeout)
		}
		if at := e.machine.deadline(); !at.IsZero() && !e.unanswered.Load() {
			timer.Reset(time.Until(at))
		} else {
			timer.Stop()
		}
		select {
		case <-leave:
			leave = nil
			e.machine.deregister(time.Now())
			limit := time.NewTimer(e.cfg.StopTimeout)
			defer limit.Stop()
			tooLate = limit.C
		case <-tooLate:
			e.endNow = true
		case <-e.wished:
			if leave != nil {
				e.grant(time.Now())
			}
		case op := <-e.ops:
			op(time.Now())
		case <-timer.C:
			e.machine.tick(time.Now())
		}
	}
}

// grant tells the machine what of the application's wish is new.
func (e *Element) grant(now time.Time) {
	e.mu.Lock()
	w := e.wish
	e.mu.Unlock()
	was := e.granted
	e.granted = w
	if w.updates != was.updates {
		e.machine.setPolicy(now, w.policy)
	}
	if w.load != was.load {
		e.machine.setLoad(w.load)
	}
	if w.life != was.life {
		e.machine.setLife(w.life)
	}
	switch {
	case w.serving && !was.serving:
		e.machine.register(now)
	case !w.serving && was.serving:
		e.machine.deregister(now)
	}
}

// act does what the machine wants; in is the message it answers, if any.
func (e *Element) act(in *huntnet.Inbound) {
	for _, o := range e.machine.take() {
		switch o := o.(type) {
		case requestOutput:
			e.do(o.msg)
		case cancelOutput:
			e.cancelRequest()
		case replyOutput:
			e.reply(in, o.msg)
		case adoptOutput:
			if _, err := in.Adopt(o.id); err != nil {
				e.log.WithError(err).Debug("registrar not adopted")
			}
		case abandonOutput:
			if err := e.client.Abandon(); err != nil {
				e.log.WithError(err).Debug("registrar not abandoned")
			}
		case eventOutput:
			e.tell(o.event)
		}
	}
}

// reply answers a keep-alive, when the service is alive.
func (e *Element) reply(in *huntnet.Inbound, msg asap.Message) {
	answer := func() {
		if err := in.Reply(msg); err != nil {
			e.log.WithError(err).Debug("keep-alive not answered")
		}
	}
	if e.cfg.KeepAlive == nil {
		answer()
		return
	}
	e.unanswered.Store(true)
	e.cfg.KeepAlive(func() {
		answer()
		e.unanswered.Store(false)
		e.change(func(*wish) {}) // so that the loop looks at its deadlines again
	})
}

func (e *Element) cancelRequest() {
	e.request++
	if e.cancel != nil {
		e.cancel()
		e.cancel = nil
	}
}

// do makes a request in the place of the outstanding one.
func (e *Element) do(msg asap.Message) {
	e.cancelRequest()
	number := e.request
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.workers.Go(func() {
		defer cancel()
		answer, err := e.client.Do(ctx, msg)
		e.post(func(now time.Time) {
			if number == e.request {
				e.machine.result(now, answer, err)
			}
		})
	})
}

// tell logs an event and passes it on.
func (e *Element) tell(ev Event) {
	switch ev.Type {
	case RegistrationAccepted, Deregistered:
		e.lastError = nil
	case RegistrationRefreshed, HomeFound, HomeChanged, HomeLost:
	default:
		e.lastError = ev.Err
	}
	if ev.Type == DeregistrationRejected {
		e.refusal = ev.Err
	}
	log := e.log.WithFields(logrus.Fields{"element": ev.ID, "registrar": ev.Registrar, "state": ev.State})
	if ev.Err != nil {
		log = log.WithError(ev.Err)
	}
	switch {
	case ev.Type == HomeFound || ev.Type == HomeChanged || ev.Type == HomeLost:
		// The client has said so.
	case ev.Err == nil && (ev.Type == RegistrationRefreshed || ev.Type == Deregistered && ev.Registrar == ""):
		log.Debug(ev.Type) // as before, or as it was never registered
	case ev.Err != nil:
		log.Warn(ev.Type)
	default:
		log.Info(ev.Type)
	}
	if e.cfg.OnEvent != nil {
		e.cfg.OnEvent(ev)
	}
}

// handle takes messages that answer no request, from the client's goroutine.
func (e *Element) handle(in huntnet.Inbound) {
	e.post(func(now time.Time) {
		before := e.machine.ignored
		e.machine.receive(now, in.Message, in.From.Link == e.homeLink)
		e.act(&in)
		if e.machine.ignored != before {
			e.log.WithFields(logrus.Fields{"registrar": in.From.String(), "message": fmt.Sprintf("%T", in.Message)}).
				Debug("message ignored")
		}
	})
}

// onHome takes news of the home registrar, from the client's goroutine.
func (e *Element) onHome(h huntnet.HomeEvent) {
	e.post(func(now time.Time) {
		if !h.Found {
			e.homeLink = 0
			e.machine.homeLost()
			return
		}
		e.homeLink = h.Peer.Link
		if err := e.listenWhere(h.Peer); err != nil {
			e.log.WithError(err).Warn("registrars that take over will not reach this element")
		}
		e.machine.homeFound(now, e.link(h.Peer))
	})
}

// listenWhere makes registrars reach the element where its association to the home
// registrar leaves from, which is all that they know on SCTP (ASAP-3.1-33). That is not
// where it listens already when the kernel has an older association between the two
// ends that is not over yet: then it leaves from another port.
func (e *Element) listenWhere(home huntnet.Peer) error {
	if home.Network != transport.SCTP || len(home.Local) == 0 {
		return nil
	}
	port := home.Local[0].Port()
	if port == e.control[transport.SCTP] || e.besides != nil && port == e.besides.Addrs()[0].Port() {
		return nil
	}
	network, err := e.cfg.Networks.Get(transport.SCTP)
	if err != nil {
		return err
	}
	for _, l := range e.listeners {
		if l.Network() != transport.SCTP {
			continue
		}
		var at []netip.AddrPort
		for _, a := range l.Addrs() {
			at = append(at, netip.AddrPortFrom(a.Addr(), port))
		}
		besides, err := network.Listen(context.Background(), at, e.cfg.Transport)
		if err != nil {
			return fmt.Errorf("listen where the association leaves from: %w", err)
		}
		if e.besides != nil {
			err = e.besides.Close()
		}
		e.besides = besides
		e.admit(besides)
		return err
	}
	return nil // it listens nowhere
}

func (e *Element) link(p huntnet.Peer) *link {
	return &link{network: p.Network, local: p.Local, remote: p.Remote, control: e.control[p.Network]}
}

// prepare fills a registration in for the association it goes out on; it is
// called by the client's goroutine and uses nothing that changes.
func (e *Element) prepare(msg asap.Message, via huntnet.Peer) asap.Message {
	reg, ok := msg.(*asap.Registration)
	if !ok {
		return msg
	}
	user, control, err := e.cfg.transports(e.link(via))
	if err != nil {
		return msg // was right for the home when the request was made
	}
	filled := *reg
	filled.Element.Home, filled.Element.User, filled.Element.ASAP = via.Registrar, user, control
	return &filled
}

// accept takes associations that registrars open, until ctx ends.
func (e *Element) accept(ctx context.Context, l transport.Listener) {
	for {
		conn, err := l.Accept(ctx)
		switch {
		case err == nil:
			if err := e.client.Attach(conn); err != nil {
				e.log.WithError(err).WithField("from", conn.RemoteAddrs()).Warn("association refused")
			}
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			e.log.WithError(err).Warn("accept an association from a registrar")
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		}
	}
}

// acceptPause is how long accept waits after an error such as a lack of file
// descriptors.
const acceptPause = time.Second
