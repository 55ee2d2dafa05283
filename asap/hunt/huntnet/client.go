package huntnet

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Client keeps a home registrar and exchanges messages with it. Its methods may
// be called concurrently.
//
// One goroutine, the loop, owns the hunt.Machine and all tables; others hand it
// closures. Besides it there are one goroutine per connection attempt, a reader
// and a writer per connection, one that calls Handler and OnHome, one per
// announcer and those that look up names, at most one per static registrar. Stop ends and awaits all.
type Client struct {
	cfg  Config
	log  logrus.FieldLogger
	home atomic.Pointer[Peer]

	ops     chan func(now time.Time)
	done    chan struct{} // closed when the loop has ended
	ctx     context.Context
	cancel  context.CancelCauseFunc
	loopEnd context.CancelFunc
	start   sync.Once
	workers sync.WaitGroup

	// Owned by the loop.
	machine   *hunt.Machine
	attempts  map[hunt.Link]context.CancelFunc
	conns     map[hunt.Link]*connection
	incoming  int
	waiting   map[hunt.RequestID]chan hunt.Result
	callbacks []func()                // waiting for the goroutine that calls them
	looking   map[int]bool            // by index in cfg.Registrars
	resolved  map[int][]hunt.Endpoint // by index in cfg.Registrars
	dropped   atomic.Uint64
	unreached atomic.Pointer[error] // see Unreached
}

// New returns a client that is not running yet.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("registrar client: %w", err)
	}
	for _, f := range []struct {
		field *int
		def   int
	}{{&cfg.MaxIncoming, defaultMaxIncoming}, {&cfg.SendQueue, defaultSendQueue}, {&cfg.InboundQueue, defaultInboundQueue}} {
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if cfg.Hunt.Rand == nil {
		cfg.Hunt.Rand = rand.Float64
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	c := &Client{
		cfg: cfg, log: cfg.Log,
		ops: make(chan func(time.Time)), done: make(chan struct{}),
		machine:  hunt.New(cfg.Hunt),
		attempts: map[hunt.Link]context.CancelFunc{},
		conns:    map[hunt.Link]*connection{},
		waiting:  map[hunt.RequestID]chan hunt.Result{},
		looking:  map[int]bool{},
		resolved: map[int][]hunt.Endpoint{},
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c, nil
}

// Start begins the hunt and returns at once. A client starts once.
func (c *Client) Start() {
	c.start.Do(func() {
		loopCtx, end := context.WithCancel(c.ctx)
		c.loopEnd = end
		calls := make(chan func())
		c.workers.Go(func() {
			for call := range calls {
				call()
			}
		})
		for _, a := range c.cfg.Announcers {
			c.workers.Go(func() { c.listen(loopCtx, a) })
		}
		c.workers.Go(func() { c.loop(loopCtx, calls) })
	})
}

// Stop ends all connections, after what is queued on them was written or a
// second has passed, and waits for all goroutines. Outstanding calls return
// ErrStopped. It must not be called from Handler or OnHome.
func (c *Client) Stop() {
	c.start.Do(func() { close(c.done) }) // never started
	if c.loopEnd != nil {
		c.loopEnd()
		abort := time.AfterFunc(flushTime, func() { c.cancel(ErrStopped) })
		defer abort.Stop()
	}
	c.workers.Wait()
	c.cancel(ErrStopped)
}

// Run starts the client and stops it when ctx ends; it returns ctx's cause.
func (c *Client) Run(ctx context.Context) error {
	c.Start()
	<-ctx.Done()
	c.Stop()
	return context.Cause(ctx)
}

// Unreached returns why the registrar that was dialled last could not be reached, nil if
// none was dialled in vain since there was a home registrar.
func (c *Client) Unreached() error {
	if err := c.unreached.Load(); err != nil {
		return *err
	}
	return nil
}

// noRegistrar adds why to an error that says that there is none.
func (c *Client) noRegistrar(err error) error {
	if why := c.Unreached(); why != nil {
		return fmt.Errorf("%w; %w", err, why)
	}
	return err
}

// Do sends a request (asap.HandleResolution, Registration or Deregistration) to
// the home registrar, or to the first that can be found, and waits for the
// answer. A rejection is an answer. An *asap.Error is one only with Hunt.Ordered.
//
// It fails with hunt.ErrNoRegistrar or hunt.ErrTimeout when the timers of
// hunt.Config have run out, with ErrStopped, or with ctx's cause, which wraps
// hunt.ErrNoRegistrar too when the request was still waiting for a registrar.
// request must not be changed before Do returns.
func (c *Client) Do(ctx context.Context, request asap.Message) (asap.Message, error) {
	if _, err := request.Append(nil); err != nil {
		return nil, fmt.Errorf("encode %T: %w", request, err)
	}
	result := make(chan hunt.Result, 1)
	var id hunt.RequestID // written and read by the loop
	err := c.post(func(now time.Time) {
		var err error
		if id, err = c.machine.Request(request, now); err != nil {
			result <- hunt.Result{Err: err}
			return
		}
		c.waiting[id] = result
	})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-result:
		return r.Answer, r.Err
	case <-c.done:
		return nil, ErrStopped
	case <-ctx.Done():
	}
	waited := make(chan bool, 1)
	err = c.post(func(now time.Time) {
		delete(c.waiting, id)
		waited <- c.machine.Cancel(id, now)
	})
	if err != nil {
		return nil, err
	}
	select {
	case w := <-waited:
		if w {
			return nil, c.noRegistrar(fmt.Errorf("%w: %w", hunt.ErrNoRegistrar, context.Cause(ctx)))
		}
	case <-c.done:
	}
	return nil, context.Cause(ctx)
}

// Send sends a message that has no answer, such as ENDPOINT_UNREACHABLE, to the
// home registrar. Without one it is kept for the next, up to
// hunt.Config.MaxNotices messages. Send does not wait until the message is sent.
func (c *Client) Send(_ context.Context, msg asap.Message) error {
	if _, err := msg.Append(nil); err != nil {
		return fmt.Errorf("encode %T: %w", msg, err)
	}
	return c.post(func(time.Time) { c.machine.Notify(msg) })
}

// Home returns the home registrar, and false while there is none.
func (c *Client) Home() (Peer, bool) {
	if p := c.home.Load(); p != nil {
		return *p, true
	}
	return Peer{}, false
}

// Known returns the registrars known now, static and announced.
func (c *Client) Known(ctx context.Context) ([]hunt.Endpoint, error) {
	known := make(chan []hunt.Endpoint, 1)
	if err := c.post(func(time.Time) { known <- c.machine.Known() }); err != nil {
		return nil, err
	}
	select {
	case k := <-known:
		return k, nil
	case <-c.done:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Dropped returns how many inbound messages were dropped because Handler was
// too slow.
func (c *Client) Dropped() uint64 { return c.dropped.Load() }

// Abandon gives up the home registrar and hunts for another, for example when
// it refuses what others accept.
func (c *Client) Abandon() error {
	return c.post(func(now time.Time) { c.machine.Abandon(now) })
}

// Attach takes over a connection that a registrar opened: its messages go to
// Handler, and it may become the home by Adopt. With MaxIncoming of them already
// the one that has been silent for longest is closed, but never the home: anybody
// can open connections and say nothing, and a takeover must not wait for them.
// When Attach fails, conn is closed.
func (c *Client) Attach(conn transport.Conn) error {
	full := make(chan bool, 1)
	err := c.post(func(now time.Time) {
		room := c.incoming < c.cfg.MaxIncoming || c.dropSilent(now)
		full <- !room
		if room {
			c.incoming++
			c.open(c.machine.Incoming(), conn, true, now)
		}
	})
	if err == nil {
		select {
		case f := <-full:
			if !f {
				return nil
			}
			err = fmt.Errorf("%w: %d", ErrTooManyConnections, c.cfg.MaxIncoming)
		case <-c.done:
			err = ErrStopped
		}
	}
	if closeErr := conn.Close(); closeErr != nil {
		c.log.WithError(closeErr).Debug("close refused connection")
	}
	return err
}

// Adopt makes the registrar at the other end of the connection the home and
// reports whether that changed anything.
func (c *Client) Adopt(link hunt.Link, id param.RegistrarID) (bool, error) {
	changed := make(chan bool, 1)
	err := c.post(func(now time.Time) {
		p := c.conns[link]
		if p == nil {
			changed <- false
			return
		}
		var peers []netip.Addr
		for _, a := range p.conn.RemoteAddrs() {
			peers = append(peers, a.Addr())
		}
		changed <- c.machine.Adopt(link, id, peers, p.conn.Network(), now)
	})
	if err != nil {
		return false, err
	}
	select {
	case ch := <-changed:
		return ch, nil
	case <-c.done:
		return false, ErrStopped
	}
}

// SendTo queues a message on one connection, home or not. It does not wait until
// it is sent, and fails with ErrGone when the connection is closed.
func (c *Client) SendTo(link hunt.Link, msg asap.Message) error {
	result := make(chan error, 1)
	err := c.post(func(now time.Time) {
		if c.conns[link] == nil {
			result <- ErrGone
			return
		}
		result <- c.write(link, msg, now)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-c.done:
		return ErrStopped
	}
}

// post hands a closure to the loop.
func (c *Client) post(op func(now time.Time)) error {
	select {
	case c.ops <- op:
		return nil
	case <-c.done:
		return ErrStopped
	}
}
