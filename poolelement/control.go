package poolelement

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// Errors of sessions. They come wrapped; test with errors.Is.
var (
	// ErrHandOver, returned by a handler, sends the session's user to another
	// element of the pool, where it goes on with the state saved last.
	ErrHandOver = errors.New("session handed over")
	// ErrNoControl: the session has no control channel, which cookies and
	// business cards need (RFC 5352, sections 3.8 and 3.9).
	ErrNoControl = errors.New("session without control channel")
	// ErrNoCookies: the server was given nothing to protect cookies with.
	ErrNoCookies = errors.New("cookies are not configured")
	// ErrCookieRefused: the user brought a cookie that is forged, too old or
	// another pool's, or whose state the application can't use. The session is
	// over, and the user has been told. It wraps the reason.
	ErrCookieRefused = errors.New("cookie refused")
	// ErrDrained: the session was ended because the server stops.
	ErrDrained = errors.New("server has drained")
)

// answerTime bounds the sending of ASAP messages that nobody waits for.
const answerTime = time.Second

// Control is what sessions of both styles have: the control channel beside the
// data, and what is known of the session. Its methods may be called concurrently,
// and while the handler is busy.
type Control struct {
	server *Server
	number uint64
	conn   transport.Conn // nil: a plain byte stream
	stream net.Conn       // the plain byte stream
	on     bool           // there is a control channel
	remote []netip.AddrPort

	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc
	beat   heartbeat
	// mute makes the receiving goroutine drop what comes: the session is over,
	// but the user may not have heard so.
	mute     atomic.Bool
	expelled atomic.Bool    // the server ends the session
	carded   atomic.Bool    // the user has got a card because the server drains
	gone     chan struct{}  // closed when nothing more will be received
	leave    transport.Once // see dismiss

	// saving is of the one who saves a state: what was sent last is the newest.
	saving transport.Turn

	mu    sync.Mutex
	state []byte
	card  *asap.BusinessCard
}

// Number tells the server's sessions apart, in the log for example.
func (c *Control) Number() uint64 { return c.number }

// RemoteAddrs returns the user's addresses, primary first.
func (c *Control) RemoteAddrs() []netip.AddrPort { return c.remote }

// TLS returns what is known of a secured connection, and false for others.
func (c *Control) TLS() (tls.ConnectionState, bool) {
	stream := c.stream
	if over, ok := c.conn.(*framed.Conn); ok {
		stream = over.Stream()
	}
	secured, ok := stream.(*tls.Conn)
	if !ok {
		return tls.ConnectionState{}, false
	}
	return secured.ConnectionState(), true
}

// Draining returns a channel that is closed when the server begins to drain: the
// session should save its state and end soon, best with ErrHandOver.
func (c *Control) Draining() <-chan struct{} { return c.server.draining }

// Beat tells that the handler is alive, though busy: see ServeConfig.HandlerLimit.
func (c *Control) Beat() { c.touch() }

// State returns the newest state of the session: what was saved last, or what the
// user has brought from another element; nil if there is none. It must not be
// changed.
func (c *Control) State() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Card returns the business card that the user has sent last, as one that is also
// an element of a pool does; nil without one.
func (c *Control) Card() *asap.BusinessCard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.card
}

// SaveState gives the user a cookie with the session's state, to bring to another
// element if this one fails; it replaces an earlier one. Work done after it is lost
// at a failover. It can be called at any time (RFC 5352, section 3.8); calls at the same
// time come one after the other, and the last to be sent is the State. Errors wrap
// ErrNoControl, ErrNoCookies or what the Sealer says, such as cookie.ErrTooLong.
func (c *Control) SaveState(ctx context.Context, state []byte) error {
	defer c.give()()
	if !c.on {
		return fmt.Errorf("save state: %w", ErrNoControl)
	}
	if c.server.cfg.Cookies == nil {
		return fmt.Errorf("save state: %w", ErrNoCookies)
	}
	sealed, err := c.server.cfg.Cookies.Seal(state)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := c.saving.Take(ctx); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	defer c.saving.End()
	if err := c.sendASAP(ctx, &asap.Cookie{Cookie: sealed}); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	c.server.stats.cookiesSent.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = bytes.Clone(state)
	return nil
}

// HandOver tells the user which elements to go on at when this one fails or ends,
// in this order (RFC 5352, section 3.9); without any, the pool's others that the
// server knows, each of its pools in a card of its own. The session goes on: return
// ErrHandOver to end it. Errors wrap ErrNoControl.
func (c *Control) HandOver(ctx context.Context, elements ...param.PoolElement) error {
	defer c.give()()
	if !c.on {
		return fmt.Errorf("hand over: %w", ErrNoControl)
	}
	cards := []asap.BusinessCard{{Handle: c.server.cfg.Element.Handle, Elements: elements}}
	if len(elements) == 0 {
		cards = c.server.cards.get(c.number)
	}
	for i := range cards {
		if err := c.sendASAP(ctx, &cards[i]); err != nil {
			return fmt.Errorf("hand over: %w", err)
		}
		c.server.stats.cardsSent.Add(1)
	}
	return nil
}

// sendASAP sends on the control channel.
func (c *Control) sendASAP(ctx context.Context, msg asap.Message) error {
	data, err := msg.Append(nil)
	if err != nil {
		return err
	}
	return c.conn.Send(ctx, transport.Message{Data: data, PPID: transport.PPIDASAP})
}

// tell sends what the session does not depend on, within answerTime.
func (c *Control) tell(msgs ...asap.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	for _, msg := range msgs {
		if err := c.sendASAP(ctx, msg); err != nil {
			c.server.log.WithError(err).WithField("session", c.number).Debugf("%v not sent", msg.Type())
			return err
		}
	}
	return nil
}

// greet sends the business cards with which communication begins (RFC 5352, section 3.9).
func (c *Control) greet() error {
	var cards []asap.Message
	for _, card := range c.server.cards.get(c.number) {
		cards = append(cards, &card)
	}
	if err := c.tell(cards...); err != nil {
		return err
	}
	c.server.stats.cardsSent.Add(uint64(len(cards)))
	return nil
}

// receiveASAP handles a message of the control channel. ok says that the event is
// for the handler; an error ends the session.
func (c *Control) receiveASAP(data []byte) (event Incoming, ok bool, err error) {
	msg, report, err := asap.Decode(data)
	if bad, wrong := errors.AsType[*param.Error](err); wrong {
		report = bad.Report
	}
	if len(report) > 0 {
		_ = c.tell(&asap.Error{Causes: report}) // which logs it
	}
	if err != nil {
		c.server.stats.ignored.Add(1)
		c.server.warn("malformed", c, err, "ASAP message not understood")
		return Incoming{}, false, nil
	}
	switch msg := msg.(type) {
	case *asap.CookieEcho:
		state, err := c.resume(msg.Cookie)
		if err != nil {
			return Incoming{}, false, err
		}
		return Incoming{Kind: Resumed, State: state}, true, nil
	case *asap.BusinessCard:
		c.mu.Lock()
		c.card = msg
		c.mu.Unlock()
		return Incoming{Kind: CardReceived, Card: msg}, true, nil
	case *asap.Error:
		c.server.warn("error", c, errors.New(msg.Causes.String()), "the user reports an error")
	default:
		c.server.stats.ignored.Add(1)
		c.server.log.WithField("session", c.number).Debugf("%v ignored", msg.Type())
	}
	return Incoming{}, false, nil
}

// resume opens the cookie that a user has brought.
func (c *Control) resume(echoed []byte) ([]byte, error) {
	if c.server.cfg.Cookies == nil {
		return nil, c.refuse(param.NewCause(param.CauseSecurity), ErrNoCookies)
	}
	state, err := c.server.cfg.Cookies.Open(echoed)
	if err != nil {
		return nil, c.refuse(param.NewCause(param.CauseSecurity), err)
	}
	if err := c.askApplication(state); err != nil {
		return nil, c.refuse(param.CookieCause(param.CauseInvalidValues, echoed), err)
	}
	c.mu.Lock()
	c.state = state
	c.mu.Unlock()
	c.server.stats.resumed.Add(1)
	return state, nil
}

// askApplication calls Config.OnResume; a panic refuses the state.
func (c *Control) askApplication(state []byte) (err error) {
	if c.server.cfg.OnResume == nil {
		return nil
	}
	defer c.server.recovered(c, "OnResume", &err)
	return c.server.cfg.OnResume(c.ctx, c, state)
}

// refuse tells the user that its cookie won't do.
func (c *Control) refuse(cause param.Cause, why error) error {
	c.server.stats.cookiesRefused.Add(1)
	c.server.warn("cookie", c, why, "cookie refused")
	c.mute.Store(true)
	_ = c.tell(&asap.Error{Causes: param.OperationError{cause}}) // which logs it
	return fmt.Errorf("%w: %w", ErrCookieRefused, why)
}

// dismiss asks the user to go on at another element.
func (c *Control) dismiss() {
	c.leave.Do(context.Background(), func() {
		c.mute.Store(true)
		if c.on {
			if !c.server.cfg.NoCards && !c.carded.Load() && c.greet() != nil {
				return // nor would it take more
			}
			_ = c.sendAway() // which logs it
		}
	})
}

// sendAway says that there is no place here, for which the element is not to blame.
func (c *Control) sendAway() error {
	return c.tell(&asap.Error{Causes: param.OperationError{param.NewCause(param.CauseLackOfResources)}})
}

// close ends the session's connection. An orderly end waits until the user has
// closed it too, for a short time: what it sends meanwhile would make the kernel
// reset a closed connection, and what was sent last would be lost.
func (c *Control) close(orderly bool) error {
	if c.conn == nil {
		end := c.stream.Close
		if !orderly {
			end = func() error { return transport.Reset(c.stream) }
		}
		if err := end(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
	if !orderly {
		return c.conn.Abort()
	}
	if conn, ok := c.conn.(framed.Lingerer); ok {
		c.mute.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), answerTime)
		defer cancel()
		if conn.Finish(ctx) {
			select {
			case <-c.gone:
			case <-ctx.Done():
			}
		}
	}
	return c.conn.Close()
}
