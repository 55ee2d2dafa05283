// Package forward gives a pool a local address, so that clients in any language
// reach it as if it were one server: each connection that comes in is connected
// to an element of the pool, chosen by its policy, and both are carried to each
// other until one ends.
//
// An element that does not answer is replaced before the client notices. One that
// is lost in mid-stream is reported, and the client's connection is reset: to go
// on with another server, which knows nothing of what was said, is the client's
// decision. An element whose kernel ends the connection in order, as Linux does
// for a killed process that has read all it got, looks like one that is done.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// Dialer is what a Forwarder needs of a *pooluser.Resolver.
type Dialer interface {
	Dial(ctx context.Context, pool param.PoolHandle) (*pooluser.Conn, error)
}

// Config describes a Forwarder. A zero field means its default.
type Config struct {
	// Pool is where connections lead. No default.
	Pool param.PoolHandle
	// Key is what the connections are about, for policies with affinity; see
	// pooluser.WithKey. Default: none.
	Key string
	// MaxConnections bounds the connections at a time, those being set up
	// included; each takes 64 KiB and two sockets. More wait in the listener's
	// backlog, that is the kernel's bound. Default 1000.
	MaxConnections int
	// ConnectTimeout bounds the time for an element to be found and
	// connected, all those tried included; then the client is reset.
	// Default 15 s.
	ConnectTimeout time.Duration
	// Idle is how long a connection may carry nothing either way before both
	// ends are reset. Default 1 h; negative: for ever.
	Idle time.Duration
	// Quiet is the same after the client has ended its direction, where the
	// element's transport can't be told that (SCTP has no half-closed state).
	// Default 10 s.
	Quiet time.Duration
	// Drain is how long connections may go on when Serve's ctx has ended,
	// before they are reset. Default 10 s; negative: not at all.
	Drain time.Duration
	// Log gets a line for each element that fails and each client that is
	// turned away; at level debug, for each connection. Default: none.
	Log logrus.FieldLogger
}

func (c Config) withDefaults() Config {
	c.MaxConnections = cmp.Or(c.MaxConnections, 1000)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 15*time.Second)
	c.Idle = cmp.Or(c.Idle, time.Hour)
	c.Quiet = cmp.Or(c.Quiet, 10*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	if c.Log == nil {
		log := logrus.New()
		log.SetOutput(io.Discard)
		c.Log = log
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Pool == "" {
		errs = append(errs, errors.New("Pool is missing"))
	}
	for _, f := range []struct {
		name string
		ok   bool
		v    any
	}{
		{"MaxConnections", c.MaxConnections > 0, c.MaxConnections},
		{"ConnectTimeout", c.ConnectTimeout > 0, c.ConnectTimeout}, {"Quiet", c.Quiet > 0, c.Quiet},
	} {
		if !f.ok {
			errs = append(errs, fmt.Errorf("%s is %v, must be positive", f.name, f.v))
		}
	}
	return errors.Join(errs...)
}

// Stats are the counters of a Forwarder. All but Active only grow.
type Stats struct {
	Active  int64  // connections that are carried or being set up
	Ended   uint64 // carried until both ends were done
	Refused uint64 // no element could be connected
	// What ended the others: the client, the element, the idle limit, or the
	// end of Serve.
	ClientLost, ElementLost, Idle, Stopped uint64
	Replaced                               uint64 // elements that failed at connect and were replaced
	Full                                   uint64 // times that MaxConnections was reached
	FromClients, ToClients                 uint64 // octets
}

// Plus returns the sums.
func (s Stats) Plus(other Stats) Stats {
	return Stats{
		Active: s.Active + other.Active, Ended: s.Ended + other.Ended, Refused: s.Refused + other.Refused,
		ClientLost: s.ClientLost + other.ClientLost, ElementLost: s.ElementLost + other.ElementLost,
		Idle: s.Idle + other.Idle, Stopped: s.Stopped + other.Stopped,
		Replaced: s.Replaced + other.Replaced, Full: s.Full + other.Full,
		FromClients: s.FromClients + other.FromClients, ToClients: s.ToClients + other.ToClients,
	}
}

// Forwarder leads connections to a pool.
type Forwarder struct {
	cfg    Config
	dialer Dialer
	log    logrus.FieldLogger

	active                 atomic.Int64
	outcomes               [outcomes]atomic.Uint64
	replaced, full         atomic.Uint64
	fromClients, toClients atomic.Uint64
}

// New returns a forwarder, which does nothing before Serve.
func New(cfg Config, dialer Dialer) (*Forwarder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	cfg = cfg.withDefaults()
	return &Forwarder{cfg: cfg, dialer: dialer, log: cfg.Log.WithField("pool", string(cfg.Pool))}, nil
}

// Stats returns the counters.
func (f *Forwarder) Stats() Stats {
	return Stats{
		Active: f.active.Load(), Ended: f.outcomes[ended].Load(), Refused: f.outcomes[refused].Load(),
		ClientLost: f.outcomes[clientLost].Load(), ElementLost: f.outcomes[elementLost].Load(),
		Idle: f.outcomes[idle].Load(), Stopped: f.outcomes[stopped].Load(),
		Replaced: f.replaced.Load(), Full: f.full.Load(),
		FromClients: f.fromClients.Load(), ToClients: f.toClients.Load(),
	}
}

// Pauses after an Accept that failed for want of something, such as descriptors.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// fullEach is how often the log tells that there is no room.
const fullEach = 10 * time.Second

// Serve carries the listener's connections until ctx ends, and those that are
// there then for at most Config.Drain more. It closes the listener and returns
// after everything it started has ended; the error is that of a listener that
// failed before.
func (f *Forwarder) Serve(ctx context.Context, l net.Listener) error {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	closed := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer closed()
	var connections sync.WaitGroup
	err := f.accept(ctx, l, func(client net.Conn, release func()) {
		connections.Go(func() {
			defer release()
			f.carry(life, client)
		})
	})
	if closeErr := l.Close(); err == nil && !errors.Is(closeErr, net.ErrClosed) {
		err = closeErr
	}
	if n := f.active.Load(); n > 0 {
		f.log.WithFields(logrus.Fields{"connections": n, "at_most": max(f.cfg.Drain, 0).String()}).Info("waiting for connections to end")
	}
	limit := time.AfterFunc(max(f.cfg.Drain, 0), func() { end(errStopped) })
	defer limit.Stop()
	connections.Wait()
	return err
}

// accept hands connections to carry while there is room; release makes room again.
func (f *Forwarder) accept(ctx context.Context, l net.Listener, carry func(c net.Conn, release func())) error {
	room := make(chan struct{}, f.cfg.MaxConnections)
	release := func() {
		f.active.Add(-1)
		<-room
	}
	pause := minPause
	var said time.Time
	for {
		select {
		case room <- struct{}{}:
		default:
			f.full.Add(1)
			if time.Since(said) > fullEach {
				said = time.Now()
				f.log.WithField("connections", f.cfg.MaxConnections).Warn("as many connections as allowed, others wait")
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
		client, err := l.Accept()
		switch {
		case err == nil:
			pause = minPause
			f.active.Add(1)
			carry(client, release)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		<-room
		f.log.WithError(err).Warn("accept a connection")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

// errTimeout: no element was connected in time.
var errTimeout = errors.New("no element in time")

// carry connects a client to an element and carries what they say.
func (f *Forwarder) carry(ctx context.Context, client net.Conn) {
	log := f.log.WithField("client", client.RemoteAddr())
	element, err := f.connect(ctx)
	if err != nil {
		abort(client)
		if errors.Is(err, errStopped) {
			f.outcomes[stopped].Add(1)
			return
		}
		f.outcomes[refused].Add(1)
		log.WithError(err).Warn("client reset: no element")
		return
	}
	log = log.WithFields(logrus.Fields{"element": element.Element.ID, "address": element.RemoteAddr()})
	for _, tried := range element.Tried {
		f.replaced.Add(1)
		log.WithError(tried.Err).WithField("instead_of", tried.Element.ID).Warn("element replaced")
	}
	log.Debug("connected")
	s := &splice{
		client: client, element: element.Conn, idle: f.cfg.Idle, quiet: f.cfg.Quiet,
		fromClient: &f.fromClients, toClient: &f.toClients, measure: element.Measure,
	}
	outcome, err := s.run(ctx)
	f.outcomes[outcome].Add(1)
	switch outcome {
	case elementLost:
		log.WithError(err).Warn("element lost, client reset")
		report, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
		defer cancel()
		if err := element.Failed(report); err != nil {
			log.WithError(err).Warn("element not reported")
		}
	case idle:
		log.WithError(err).Info("connection reset")
	default:
		log.WithError(err).Debug("connection ended")
	}
}

// reportTimeout bounds the wait for a registrar to take a report.
const reportTimeout = 5 * time.Second

func (f *Forwarder) connect(ctx context.Context) (*pooluser.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.ConnectTimeout, fmt.Errorf("%w: %v", errTimeout, f.cfg.ConnectTimeout))
	defer cancel()
	return f.dialer.Dial(pooluser.WithKey(ctx, f.cfg.Key), f.cfg.Pool)
}
