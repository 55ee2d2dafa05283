package pooluser

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Errors of connections. They come wrapped.
var (
	// ErrTransport: the element's transport is none that the call can use.
	ErrTransport = errors.New("transport not usable here")
	// ErrUnknownElement: the pool has no element with this identifier.
	ErrUnknownElement = errors.New("unknown pool element")
)

// errControlPPID: application data never carries ASAP's PPID (RFC 5352,
// section 5).
var errControlPPID = fmt.Errorf("%w: PPID %d belongs to ASAP", ErrTransport, transport.PPIDASAP)

// Attempt is one element that Dial tried in vain.
type Attempt struct {
	Element param.PoolElement
	Err     error
}

// DialError lists what Dial tried. It wraps Err and the errors of all attempts.
type DialError struct {
	Pool     param.PoolHandle
	Attempts []Attempt
	// Err is why Dial stopped: an error of Resolve, ctx's cause, or nil when
	// Config.MaxTries elements were tried.
	Err error
}

// Error names each element tried and why it failed.
func (e *DialError) Error() string {
	if e.Err != nil && len(e.Attempts) == 0 {
		return e.Err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pool %q: ", e.Pool)
	switch {
	case e.Err == nil:
		b.WriteString("no element answers")
	case ownFault(e.Err): // stands with the last attempt
		b.WriteString("no element can be reached from here")
	default:
		b.WriteString(e.Err.Error())
	}
	for i, a := range e.Attempts {
		sep := "; "
		if i == 0 {
			sep = "; tried "
		}
		fmt.Fprintf(&b, "%s%v (%v): %v", sep, a.Element.ID, a.Element.User.AddrPorts(), a.Err)
	}
	return b.String()
}

// Unwrap returns Err and the attempts' errors.
func (e *DialError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	for _, a := range e.Attempts {
		errs = append(errs, a.Err)
	}
	return errs
}

// Conn is a byte stream to an element of a pool.
type Conn struct {
	net.Conn
	// Element is the element at the other end.
	Element param.PoolElement
	// Tried are the elements that did not answer before this one.
	Tried []Attempt

	pool     param.PoolHandle
	since    time.Time // when it was selected
	resolver *Resolver
}

// Failed tells that the element does not answer any more. It closes the
// connection, reports the element and makes the next Dial avoid it; once per
// connection that is, however often it is called.
func (c *Conn) Failed(ctx context.Context) error {
	err := c.resolver.blame(ctx, c.pool, c.Element, c.since)
	return errors.Join(err, ignoreClosed(c.Close()))
}

// MessageConn carries messages to an SCTP element of a pool. Receive leaves out
// what belongs to the control channel (PPID 11).
type MessageConn struct {
	transport.Conn
	// Element is the element at the other end.
	Element param.PoolElement
	// Tried are the elements that did not answer before this one.
	Tried []Attempt

	pool     param.PoolHandle
	since    time.Time // when it was selected
	resolver *Resolver
}

// Receive waits for the next user message.
func (c *MessageConn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	for {
		m, err := c.Conn.Receive(ctx, buf)
		if err != nil || m.PPID != transport.PPIDASAP {
			return m, err
		}
	}
}

// Send sends user messages; none may have ASAP's PPID.
func (c *MessageConn) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		if m.PPID == transport.PPIDASAP {
			return errControlPPID
		}
	}
	return c.Conn.Send(ctx, msgs...)
}

// Failed does what Conn.Failed does.
func (c *MessageConn) Failed(ctx context.Context) error {
	err := c.resolver.blame(ctx, c.pool, c.Element, c.since)
	return errors.Join(err, ignoreClosed(c.Abort()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Dial connects to an element of the pool, selected by the pool's policy, and
// tries the next when one does not answer: a byte stream by TCP, or by SCTP with
// Config.PPID on everything sent. Elements that failed are reported to the
// registrar. The error is a *DialError.
func (r *Resolver) Dial(ctx context.Context, pool param.PoolHandle) (*Conn, error) {
	var conn net.Conn
	element, since, tried, err := r.connect(ctx, pool, func(ctx context.Context, e param.PoolElement) (err error) {
		conn, err = r.dialStream(ctx, e.User)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, Element: element, Tried: tried, pool: pool, since: since, resolver: r}, nil
}

// DialMessage is Dial for pools of SCTP elements whose protocol lives on message
// boundaries.
func (r *Resolver) DialMessage(ctx context.Context, pool param.PoolHandle) (*MessageConn, error) {
	var conn transport.Conn
	element, since, tried, err := r.connect(ctx, pool, func(ctx context.Context, e param.PoolElement) (err error) {
		conn, err = r.dialMessages(ctx, e.User, r.cfg.Options)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &MessageConn{Conn: conn, Element: element, Tried: tried, pool: pool, since: since, resolver: r}, nil
}

// DialElement connects to one element of the pool and to no other. An element
// that does not answer is reported. Errors wrap ErrUnknownElement, those of
// Resolve, or what the connection failed by.
func (r *Resolver) DialElement(ctx context.Context, pool param.PoolHandle, id param.PEID) (*Conn, error) {
	element, err := r.element(ctx, pool, id)
	if err != nil {
		return nil, err
	}
	return r.DialTo(ctx, pool, element)
}

// DialTo connects to an element that the caller has selected, and to no other: by
// Select, from an Answer, or otherwise. One that does not answer is reported. The
// error is a *DialError.
func (r *Resolver) DialTo(ctx context.Context, pool param.PoolHandle, element param.PoolElement) (*Conn, error) {
	r.note(pool, element.ID)
	since := time.Now()
	tryCtx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
	defer cancel()
	conn, err := r.dialStream(tryCtx, element.User)
	if err == nil {
		return &Conn{Conn: conn, Element: element, pool: pool, since: since, resolver: r}, nil
	}
	if ctx.Err() == nil && !ownFault(err) && !noWay(err) {
		err = errors.Join(err, r.blame(ctx, pool, element, since))
	}
	return nil, &DialError{Pool: pool, Attempts: []Attempt{{Element: element, Err: err}}}
}

// element finds an element by its identifier.
func (r *Resolver) element(ctx context.Context, pool param.PoolHandle, id param.PEID) (param.PoolElement, error) {
	for _, resolve := range []func(context.Context, param.PoolHandle) (Answer, error){r.Resolve, r.Renew} {
		answer, err := resolve(ctx, pool)
		if err != nil {
			return param.PoolElement{}, err
		}
		for _, e := range answer.Elements {
			if e.ID == id {
				return e, nil
			}
		}
	}
	return param.PoolElement{}, fmt.Errorf("%w: %v in pool %q", ErrUnknownElement, id, pool)
}

func (r *Resolver) dialStream(ctx context.Context, to param.Transport) (net.Conn, error) {
	switch to.Type {
	case param.TypeTCPTransport:
		var errs []error
		for _, a := range to.AddrPorts() {
			conn, err := r.cfg.DialStream(ctx, "tcp", a.String())
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	case param.TypeSCTPTransport:
		conn, err := r.dialMessages(ctx, to, r.cfg.Options)
		if err != nil {
			return nil, err
		}
		return newStream(conn, r.cfg.PPID), nil
	}
	return nil, fmt.Errorf("%w: %v is no byte stream", ErrTransport, to.Type)
}

func (r *Resolver) dialMessages(ctx context.Context, to param.Transport, opt transport.Options) (transport.Conn, error) {
	if to.Type != param.TypeSCTPTransport {
		return nil, fmt.Errorf("%w: %v does not carry messages", ErrTransport, to.Type)
	}
	network, err := r.cfg.Networks.Get(transport.SCTP)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTransport, err)
	}
	return network.Dial(ctx, nil, usable(to.AddrPorts()), opt)
}

// usable returns the addresses that can be dialled, all if there are none.
func usable(addrs []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		if ip := a.Addr(); !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	if out == nil {
		return addrs
	}
	return out
}

// connect tries elements until one works, and tells since when; tried are those that did
// not.
func (r *Resolver) connect(ctx context.Context, pool param.PoolHandle, try func(context.Context, param.PoolElement) error) (element param.PoolElement, since time.Time, tried []Attempt, err error) {
	fail := func(err error) (param.PoolElement, time.Time, []Attempt, error) {
		return param.PoolElement{}, since, nil, &DialError{Pool: pool, Attempts: tried, Err: err}
	}
	for len(tried) < r.cfg.MaxTries {
		since = time.Now()
		element, err := r.Select(ctx, pool)
		if err != nil {
			return fail(err)
		}
		tryCtx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
		err = try(tryCtx, element)
		cancel()
		if err == nil {
			return element, since, tried, nil
		}
		tried = append(tried, Attempt{Element: element, Err: err})
		if ctx.Err() != nil {
			return fail(context.Cause(ctx)) // says nothing about the element
		}
		if ownFault(err) {
			return fail(err)
		}
		if noWay(err) {
			r.avoid(pool, element.ID)
			continue
		}
		if err := r.blame(ctx, pool, element, since); err != nil {
			return fail(err)
		}
	}
	return fail(nil)
}

// blame reports an element that was tried or used since then, unless it is at another place
// now.
func (r *Resolver) blame(ctx context.Context, pool param.PoolHandle, element param.PoolElement, since time.Time) error {
	if r.moved(pool, element, since) {
		return nil
	}
	_, err := r.Report(ctx, pool, element.ID)
	return err
}

// noWay tells whether a connection failed because this machine's network does not
// lead to the element, for example for want of IPv6. Others may reach it: a report
// would count against it, and enough of them have it removed.
func noWay(err error) bool {
	for _, no := range []error{syscall.ENETUNREACH, syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// avoid does what Report does but for the report.
func (r *Resolver) avoid(pool param.PoolHandle, id param.PEID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pools[pool]; e != nil {
		e.fail(id, time.Now().Add(r.cfg.RetryPause))
	}
}

// ownFault tells whether a connection failed for a reason on this machine.
func ownFault(err error) bool {
	for _, own := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, ErrTransport, transport.ErrUnsupported} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}
