package poolelement

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Handler serves sessions in message style: whole messages, and beside them the
// events of the session.
type Handler interface {
	// ServeSession serves one session, in a goroutine of its own. It ends when
	// the handler returns:
	//   - with nil the session is over, and the user is told so;
	//   - with ErrHandOver it goes on at another element, with the state that
	//     was saved last;
	//   - with another error, or a panic, the connection is aborted: the user
	//     takes that for a failure and goes on at another element. Errors that
	//     are not about the connection are logged, once a second at most.
	//
	// ctx ends with the session: when its connection is lost, and when the
	// server has drained for long enough.
	ServeSession(ctx context.Context, s *Session) error
}

// HandlerFunc is a Handler.
type HandlerFunc func(ctx context.Context, s *Session) error

// ServeSession calls f.
func (f HandlerFunc) ServeSession(ctx context.Context, s *Session) error { return f(ctx, s) }

// StreamHandler serves sessions in stream style, each as a net.Conn.
type StreamHandler interface {
	// ServeStream serves one session as Handler.ServeSession does.
	ServeStream(ctx context.Context, s *StreamSession) error
}

// StreamHandlerFunc is a StreamHandler.
type StreamHandlerFunc func(ctx context.Context, s *StreamSession) error

// ServeStream calls f.
func (f StreamHandlerFunc) ServeStream(ctx context.Context, s *StreamSession) error { return f(ctx, s) }

// Sealer makes cookies of session states and back, safe for concurrent use:
// *cookie.Sealer, or cookie.Raw where other programs' cookies are read.
type Sealer interface {
	Seal(state []byte) (cookie []byte, err error)
	Open(cookie []byte) (state []byte, err error)
}

// ServeConfig describes a server that is one pool element, or several. Element and
// Listen are required; another zero field means its default.
type ServeConfig struct {
	// Element is what the registrations have in common, Handle the pool to
	// join. Of Element.User, what is left open is filled in: the type and the
	// port are those listened on, and so are the addresses unless these are
	// all of the machine. An ID is counted up for each further entry of Listen.
	// Element.Log is the server's as well. With Health, Withdrawn has no effect.
	Element Config
	// Pools are further pools to join with the same service.
	Pools []param.PoolHandle
	// Listen is where users reach the service: network sctp, tcp or mem, the
	// hosts ("" for all addresses, IPv4 and IPv6), and the port, 0 for a free
	// one. On SCTP the hosts of one entry are one multi-homed endpoint. Each
	// entry is registered as an element of each pool; as all elements of a pool
	// need the same transport type, all entries have the same network.
	Listen []transport.Endpoint
	// ListenStream makes the listeners for TCP. Default: net.ListenConfig.Listen.
	ListenStream func(ctx context.Context, network, address string) (net.Listener, error)
	// TLS, if set, secures TCP.
	TLS *tls.Config
	// Options adjust the users' connections: MaxMessage bounds a message
	// received (default 65536 octets), DefaultPPID is the PPID of messages sent
	// with 0 and of byte streams over SCTP.
	Options transport.Options
	// Handshake bounds the session framing's opening over TCP, TLS's
	// included. Default 5 s.
	Handshake time.Duration
	// Control gives byte streams a control channel, for cookies and business
	// cards: by session framing over TCP, which the users need as well, by
	// payload protocol identifier over SCTP. In message style there is always one.
	Control bool

	// Cookies protects the state that users keep. nil, the default: there are
	// no cookies, SaveState fails and cookies of users are refused.
	Cookies Sealer
	// OnResume, if set, looks at the state that a user has brought from another
	// element, before the handler hears of it. It is called by the goroutine
	// that receives for the session. After an error the state is refused and
	// the session ends.
	OnResume func(ctx context.Context, c *Control, state []byte) error
	// NoCards leaves out the business cards that name the pool's other
	// elements. Compat Rsplib leaves them out, too.
	NoCards bool

	// MaxSessions bounds the sessions at one time. More are refused, the users
	// told to try another element, and the load is 1. Default 10000.
	MaxSessions int
	// MaxPerAddress bounds the sessions from one address at one time, an IPv6
	// network of 64 bits counting as one, so that one host can't take all there
	// are. Many users may share one (rsppu --listen, address translation). More
	// are refused as with MaxSessions. Default 0: no bound.
	MaxPerAddress int
	// Queue bounds the messages of a session that wait for its handler, in
	// octets; then nothing is received until it takes one. Default 131072.
	Queue int
	// HandlerLimit is how long a handler may be busy without a call of one of
	// its session's methods (Beat, if there is nothing else). After it the
	// session's heartbeats are not answered, so that its user goes on at
	// another element; and when no handler of the server gets on either,
	// neither are the registrars' keep-alives. Default 60 s, negative: none.
	HandlerLimit time.Duration

	// Load, if set, tells the load from 0 (idle) to 1 (fully used), for a
	// policy that has one; Element.LoadStep and LoadInterval say when a change
	// is registered. It must not block. Default: the share of MaxSessions in
	// use.
	Load func() float64
	// Health, if set, is called every HealthInterval. While it returns an
	// error, and until it has returned nil for the first time, the server is
	// not in its pools. While a call takes longer than HealthTimeout the
	// server is taken to hang: keep-alives are not answered.
	Health func(ctx context.Context) error
	// HealthInterval is the time from one call of Health to the next. Default 2 s.
	HealthInterval time.Duration
	// HealthTimeout is how long a call of Health may take, at most
	// HealthInterval. Default 1 s, or HealthInterval if that is shorter.
	HealthTimeout time.Duration

	// HandOver makes the server send each session a business card with the
	// pool's other elements when it drains. Handlers hear of draining in either
	// case, see Draining; they can return ErrHandOver to send their users on.
	HandOver bool
	// DrainTimeout is how long sessions may go on after the end of Serve's
	// context; then their users are sent on to other elements. Default 30 s.
	DrainTimeout time.Duration
}

// Defaults and limits of ServeConfig.
const (
	defaultMaxSessions    = 10000
	defaultQueue          = 128 << 10
	defaultHandlerLimit   = time.Minute
	defaultHealthInterval = 2 * time.Second
	defaultHealthTimeout  = time.Second
	defaultDrain          = 30 * time.Second
	defaultHandshake      = 5 * time.Second
)

func (c ServeConfig) withDefaults() ServeConfig {
	c.Element = c.Element.withDefaults()
	c.MaxSessions = cmp.Or(c.MaxSessions, defaultMaxSessions)
	c.Queue = cmp.Or(c.Queue, defaultQueue)
	c.HandlerLimit = cmp.Or(c.HandlerLimit, defaultHandlerLimit)
	c.HealthInterval = cmp.Or(c.HealthInterval, defaultHealthInterval)
	c.HealthTimeout = cmp.Or(c.HealthTimeout, min(defaultHealthTimeout, c.HealthInterval))
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrain)
	c.Handshake = cmp.Or(c.Handshake, defaultHandshake)
	c.Options = c.Options.WithDefaults()
	c.NoCards = c.NoCards || c.Element.Compat == Rsplib
	if c.ListenStream == nil {
		c.ListenStream = new(net.ListenConfig).Listen
	}
	return c
}

// transportTypes are what users see of the networks. Connections in memory are
// like SCTP's.
var transportTypes = map[string]param.Type{
	transport.SCTP: param.TypeSCTPTransport,
	transport.Mem:  param.TypeSCTPTransport,
	transport.TCP:  param.TypeTCPTransport,
}

// Validate names everything that is wrong with the configuration.
func (c ServeConfig) Validate() error { return c.validate(true) }

// validate checks the configuration of a server in message style, or of one in
// stream style.
func (c ServeConfig) validate(messages bool) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c = c.withDefaults()
	for i, at := range c.Listen {
		switch {
		case transportTypes[at.Network] == 0:
			wrong("Listen[%d]: network %q, must be sctp, tcp or mem", i, at.Network)
		case at.Network != c.Listen[0].Network:
			wrong("Listen[%d]: network %s, but %s before: a pool has one type of transport", i, at.Network, c.Listen[0].Network)
		}
	}
	if len(c.Listen) == 0 {
		wrong("Listen is empty")
	} else if c.TLS != nil && c.Listen[0].Network != transport.TCP {
		wrong("TLS is for TCP only")
	}
	pools := c.pools()
	for i, pool := range pools {
		if slices.Contains(pools[:i], pool) {
			wrong("pool %q twice", pool)
		}
		element := c.Element
		element.Handle = pool
		element.User = param.Transport{Type: param.TypeTCPTransport, Port: 1}
		if err := element.Validate(); err != nil {
			wrong("Element, pool %q: %w", pool, err)
		}
	}
	if len(pools)*len(c.Listen) > 1 && c.Element.Control.Port != 0 {
		wrong("Element.Control.Port is %d, must be 0 with several elements", c.Element.Control.Port)
	}
	if !messages && !c.Control && (c.Cookies != nil || c.OnResume != nil) {
		wrong("Cookies and OnResume need Control")
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"MaxSessions", int64(c.MaxSessions)}, {"MaxPerAddress", int64(c.MaxPerAddress)}, {"Queue", int64(c.Queue)}, {"Handshake", int64(c.Handshake)},
		{"HealthInterval", int64(c.HealthInterval)}, {"HealthTimeout", int64(c.HealthTimeout)}, {"DrainTimeout", int64(c.DrainTimeout)},
	} {
		if f.v < 0 {
			wrong("%s must not be negative", f.name)
		}
	}
	if c.HealthTimeout > c.HealthInterval {
		wrong("HealthTimeout is %v, must be at most HealthInterval, which is %v", c.HealthTimeout, c.HealthInterval)
	}
	return errors.Join(errs...)
}

func (c *ServeConfig) pools() []param.PoolHandle {
	return append([]param.PoolHandle{c.Element.Handle}, c.Pools...)
}

// Serve serves sessions in message style: it listens, joins the pools, gives each
// session to the handler, and drains when ctx ends. See Server.Run.
func Serve(ctx context.Context, cfg ServeConfig, handler Handler) error {
	s, err := NewServer(cfg, handler)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// ServeStreams is Serve in stream style.
func ServeStreams(ctx context.Context, cfg ServeConfig, handler StreamHandler) error {
	s, err := NewStreamServer(cfg, handler)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
