// Package poolelement puts a server into a pool and keeps it there: it registers
// the server's address with a registrar, repeats the registration in time,
// answers the registrars' keep-alives, reports the load, finds another registrar
// when its own is gone, and deregisters at the end (RFC 5352, sections 3.1, 3.2,
// 3.4 and 3.6). An Element leaves the server's own traffic alone; Serve and
// ServeStreams are the server as well, with sessions that go on at another element
// (sections 3.8 and 3.9).
//
//	e, err := poolelement.New(poolelement.Config{
//		Handle:     "echo",
//		User:       param.Transport{Type: param.TypeTCPTransport, Port: 7},
//		Registrars: registrars,
//		Networks:   networks,
//	})
//	...
//	err = e.Run(ctx) // in the pool until ctx ends
package poolelement

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Element is one pool element: one service in one pool. A process may have
// several. Its methods may be called concurrently.
//
// One goroutine, the loop, owns the registration machine. Besides it there are
// one per listener, one per outstanding request, and those of the huntnet.Client.
// Stop ends and awaits all.
type Element struct {
	cfg     Config
	log     logrus.FieldLogger
	machine *machine
	client  *huntnet.Client
	status  atomic.Pointer[Status]

	listeners []transport.Listener
	control   map[string]uint16 // port by network; not changed after Start
	admit     func(transport.Listener)

	mu      sync.Mutex
	started bool
	stopped bool
	wish    wish

	wished chan struct{}        // holds one: wish has changed
	leave  chan struct{}        // closed to make the loop deregister and end
	ops    chan func(time.Time) // for the loop
	done   chan struct{}        // closed when the loop has ended
	ended  chan struct{}        // closed when everything has
	err    error                // how it ended; read after ended

	workers sync.WaitGroup
	// unanswered says that Config.KeepAlive has the answer to a keep-alive.
	unanswered atomic.Bool

	// Owned by the loop.
	granted   wish // what the machine has been told
	homeLink  hunt.Link
	besides   transport.Listener // see listenWhere
	request   uint64             // number of the outstanding request
	cancel    context.CancelFunc
	endNow    bool
	refusal   error // of the deregistration
	lastError error
}

// wish is what the application wants.
type wish struct {
	serving bool
	updates uint64 // counts policies
	policy  param.Policy
	load    uint32
	life    param.Life
}

// New makes an element that does nothing before Start or Run.
func New(cfg Config) (*Element, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pool element: %w", err)
	}
	cfg = cfg.withDefaults()
	e := &Element{
		cfg:     cfg,
		machine: newMachine(cfg, rand.Float64, drawID),
		control: map[string]uint16{},
		wish:    wish{serving: !cfg.Withdrawn, policy: cfg.Policy, load: cfg.Policy.Load, life: cfg.Life},
		wished:  make(chan struct{}, 1),
		leave:   make(chan struct{}),
		ops:     make(chan func(time.Time)),
		done:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	e.log = cfg.Log.WithField("pool", string(cfg.Handle))
	e.publish()
	return e, nil
}

// drawID returns a random identifier of good quality, never 0 (RFC 5352, section
// 3.1, R2.2; AMB-27).
func drawID() param.PEID {
	for {
		var b [4]byte
		cryptorand.Read(b[:]) // never fails
		if id := binary.BigEndian.Uint32(b[:]); id != 0 {
			return param.PEID(id)
		}
	}
}

// Run starts the element, keeps it in its pool until ctx ends, and stops it with
// what is left of Config.StopTimeout.
func (e *Element) Run(ctx context.Context) error {
	if err := e.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-e.ended:
	}
	return e.Stop(context.WithoutCancel(ctx))
}

// Start listens for registrars and begins to register; it returns before that is
// done. ctx bounds the start only. An element starts once.
func (e *Element) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		return errors.New("pool element: started twice")
	}
	listeners, err := e.cfg.Networks.Listen(ctx, e.cfg.Control, e.cfg.Transport)
	if err != nil {
		return fmt.Errorf("pool element: listen for registrars: %w", err)
	}
	local := map[string][]netip.AddrPort{}
	for _, l := range listeners {
		e.control[l.Network()] = l.Addrs()[0].Port()
		if l.Network() == transport.SCTP {
			local[transport.SCTP] = l.Addrs()
		}
	}
	e.client, err = huntnet.New(huntnet.Config{
		Registrars: e.cfg.Registrars,
		Announcers: e.cfg.Announcers,
		Networks:   e.cfg.Networks,
		Options:    e.cfg.Transport,
		Local:      local,
		Hunt:       e.cfg.Hunt,
		Handler:    e.handle,
		OnHome:     e.onHome,
		Prepare:    e.prepare,
		Log:        e.log,
	})
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return fmt.Errorf("pool element: %w", err)
	}
	e.started = true
	e.listeners = listeners
	e.client.Start()
	acceptCtx, stopAccepting := context.WithCancel(context.Background())
	e.admit = func(l transport.Listener) { e.workers.Go(func() { e.accept(acceptCtx, l) }) }
	for _, l := range listeners {
		e.admit(l)
	}
	go func() {
		defer close(e.ended)
		err := e.loop()
		close(e.done)
		stopAccepting()
		if e.besides != nil {
			listeners = append(listeners, e.besides)
		}
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		e.client.Stop()
		e.workers.Wait()
		e.err = err
	}()
	return nil
}

// Stop deregisters the element and ends it. It returns when everything the
// element started has ended: nil when the registrar has confirmed, or nothing
// was registered, else an error that wraps ErrStopTimeout, when the time allowed
// by Config.StopTimeout or ctx was over, or RejectedError.
func (e *Element) Stop(ctx context.Context) error {
	e.mu.Lock()
	if !e.started {
		e.mu.Unlock()
		return nil
	}
	if !e.stopped {
		e.stopped = true
		close(e.leave)
	}
	e.mu.Unlock()
	select {
	case <-e.ended:
		return e.err
	case <-ctx.Done():
	}
	e.post(func(time.Time) { e.endNow = true })
	<-e.ended
	return e.err
}

// SetServing makes the element join its pool, or leave it while everything else
// goes on. Done already, it changes nothing.
func (e *Element) SetServing(serving bool) {
	e.change(func(w *wish) { w.serving = serving })
}

// SetLoad sets the load, from 0 (idle) to 1 (fully used), of an adaptive policy.
// It is registered anew as LoadStep and LoadInterval allow.
func (e *Element) SetLoad(load float64) {
	e.change(func(w *wish) { w.load = LoadOf(load) })
}

// Update changes the policy and its values and registers that at once. A
// registrar refuses another type than the pool's; then the former policy stays
// and an event of type RegistrationRejected tells so.
func (e *Element) Update(p param.Policy) {
	e.change(func(w *wish) {
		w.updates++
		w.policy, w.load = p, p.Load
	})
}

// SetLife changes the registration life, 0 for its default, and registers that at
// once.
func (e *Element) SetLife(l param.Life) error {
	c := e.cfg
	c.Life = l
	if err := c.Validate(); err != nil {
		return fmt.Errorf("pool element: %w", err)
	}
	e.change(func(w *wish) { w.life = c.withDefaults().Life })
	return nil
}

// ReportUnreachable tells the home registrar, or the next one found, that
// another element does not answer (RFC 5352, section 3.5). Call it once per
// failure. It does not wait until the report is sent.
func (e *Element) ReportUnreachable(ctx context.Context, handle param.PoolHandle, id param.PEID) error {
	return e.Send(ctx, &asap.EndpointUnreachable{Handle: handle, ID: id})
}

// Do makes a handle resolution on the element's association to its home registrar
// and waits for the answer, as huntnet.Client's Do. A process that is a pool user
// too does so by way of pooluser.Config's Via (RFC 5352, section 3.3).
func (e *Element) Do(ctx context.Context, request asap.Message) (asap.Message, error) {
	if _, ok := request.(*asap.HandleResolution); !ok {
		return nil, fmt.Errorf("pool element: %w: %T", hunt.ErrNotRequest, request)
	}
	client, err := e.running()
	if err != nil {
		return nil, err
	}
	return client.Do(ctx, request)
}

// Send sends a message that has no answer to the home registrar, or the next one
// found. It does not wait until the message is sent.
func (e *Element) Send(ctx context.Context, msg asap.Message) error {
	client, err := e.running()
	if err != nil {
		return err
	}
	return client.Send(ctx, msg)
}

// Home returns the home registrar, and false while there is none.
func (e *Element) Home() (huntnet.Peer, bool) {
	client, err := e.running()
	if err != nil {
		return huntnet.Peer{}, false
	}
	return client.Home()
}

func (e *Element) running() (*huntnet.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started {
		return nil, fmt.Errorf("pool element: %w", huntnet.ErrStopped)
	}
	return e.client, nil
}

func (e *Element) change(f func(*wish)) {
	e.mu.Lock()
	f(&e.wish)
	e.mu.Unlock()
	select {
	case e.wished <- struct{}{}:
	default:
	}
}

// post hands a closure to the loop; it does nothing when that has ended.
func (e *Element) post(op func(now time.Time)) {
	select {
	case e.ops <- op:
	case <-e.done:
	}
}
