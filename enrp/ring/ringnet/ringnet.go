// Package ringnet drives a ring.Machine over the transports of asap/transport.
//
// One goroutine owns the machine and the table of connections. Each connection
// has a reader, which decodes, and a writer, which waits where the network makes
// it wait; listening, dialling and looking up names have goroutines of their own.
// Stop waits for all of them.
package ringnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// Handler is the application of a Group.
type Handler interface {
	// Handle applies events, in order. The token is not passed on before it
	// returns. It is called by the group's goroutine, one call at a time, and
	// must not call methods of the Group that wait for that (Stop, Status);
	// Propose, End, Lock and Unlock are fine.
	Handle(events []ring.Event)
}

// Starter is a Handler that need not be waited for. While it is slow, the group answers
// those who ask how this member is, so that it isn't taken for a dead one.
type Starter interface {
	Handler
	// Start has events applied, in order, and returns a channel that then receives a
	// value. There is no other call before. Or it applies them itself and returns nil,
	// and what is to be called when the token has gone on, by the group's goroutine.
	Start(events []ring.Event) (applied <-chan struct{}, then func())
}

// ErrNotRunning says that the group was not started, or has ended.
var ErrNotRunning = errors.New("ringnet: not running")

// Group is one member of a ring at work. Its methods may be called concurrently.
type Group struct {
	cfg      Config
	self     ring.Node // complete after Start
	versions versionRange
	wall     func() time.Time // the clock that others are compared with

	ctx       context.Context // ends the goroutines
	cancel    context.CancelFunc
	workers   sync.WaitGroup
	listeners []transport.Listener
	addrs     []netip.AddrPort

	// For the one who has the turn; see loop.go and peers.go.
	loop loop

	inbox        chan received
	turn         chan struct{} // holds a value while somebody has the loop
	more         chan struct{} // tells run of messages that wait
	ops          chan func(now time.Time)
	proposals    queue
	arrivals     chan arrival
	unidentified crowd
	refusals     refusals
	memory       allowance
	done         chan struct{} // closed when run has ended

	company atomic.Bool // as of the latest maintenance

	mu      sync.Mutex
	started bool
	err     error // why the group ended by itself
}

// New checks a configuration and makes a Group of it, which does nothing yet.
func New(cfg Config) (*Group, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ringnet: %w", err)
	}
	g := &Group{
		cfg:          cfg,
		self:         ring.Node{Member: ring.Member{ID: cfg.ID}},
		versions:     spoken,
		wall:         time.Now,
		inbox:        make(chan received, inboxLen),
		turn:         make(chan struct{}, 1),
		more:         make(chan struct{}, 1),
		ops:          make(chan func(time.Time), inboxLen),
		arrivals:     make(chan arrival),
		unidentified: crowd{limit: cfg.MaxUnidentified},
		done:         make(chan struct{}),
	}
	g.proposals.init(cfg.Limits)
	g.memory.left.Store(strangersMemory)
	g.refusals.log = cfg.Log
	return g, nil
}

// Start listens and joins. ctx bounds the start only. A group that failed to start,
// or was stopped, can't be started again.
func (g *Group) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started {
		return errors.New("ringnet: started before")
	}
	g.started = true
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.start(ctx); err != nil {
		g.cancel()
		g.closeListeners()
		close(g.done)
		return fmt.Errorf("ringnet: %w", err)
	}
	return nil
}

func (g *Group) start(ctx context.Context) error {
	store, err := openStore(g.cfg.StateDir, g.cfg.ID)
	if err != nil {
		return err
	}
	for _, e := range g.cfg.Listen {
		listeners, err := g.cfg.Networks.Listen(ctx, e, g.options())
		if err != nil {
			return err
		}
		g.listeners = append(g.listeners, listeners...)
		for _, l := range listeners {
			g.addrs = append(g.addrs, l.Addrs()...)
		}
	}
	contact, err := g.contact()
	if err != nil {
		return err
	}
	now := time.Now()
	incarnation, err := store.begin(ring.Incarnation(now.UnixNano()))
	if err != nil {
		return err
	}
	g.self.Incarnation, g.self.Contact = incarnation, contact
	machineConfig := g.cfg.machine(g.self)
	machineConfig.Durable = store.durable()
	machine, err := ring.New(machineConfig, now)
	if err != nil {
		return err
	}
	g.loop.init(g, machine, store)
	for _, l := range g.listeners {
		g.workers.Go(func() { g.accept(l) })
	}
	g.turn <- struct{}{} // until the loop runs
	go g.run()
	return nil
}

func (g *Group) options() transport.Options {
	return transport.Options{DefaultPPID: ppid}
}

func (g *Group) closeListeners() {
	for _, l := range g.listeners {
		if err := l.Close(); err != nil {
			g.cfg.Log.WithError(err).Debug("close a listener of the ring")
		}
	}
}

// Stop leaves politely, as long as ctx allows, and waits until all has ended.
// Its error says that there was not time enough to leave.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	running := g.started && g.cancel != nil
	g.started = true // for good
	g.mu.Unlock()
	if !running {
		return nil
	}
	g.proposals.close()
	left := true
	if g.post(g.leave) == nil {
		select {
		case <-g.done:
		case <-ctx.Done():
			left = false
		}
	}
	g.cancel()
	<-g.done
	if !left {
		return fmt.Errorf("ringnet: stopped before the ring was left: %w", context.Cause(ctx))
	}
	return nil
}

// Done is closed when the group has ended: it was stopped, or Err says why.
func (g *Group) Done() <-chan struct{} { return g.done }

// Err returns why a group ended that nobody stopped, such as that its state could
// not be made durable.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Self returns this member; its incarnation and contact are known after Start.
func (g *Group) Self() ring.Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self
}

// Addrs returns where the group listens, after Start.
func (g *Group) Addrs() []netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addrs
}

// Company reports whether another member was connected when that was looked at last,
// each ProbeInterval.
func (g *Group) Company() bool { return g.company.Load() }

// Propose hands in a payload, which belongs to the group from then on, and
// returns its number (see ring.Stable). It never waits: ring.ErrFull when there is
// no room, ring.ErrTooLong, ring.ErrLeft.
func (g *Group) Propose(payload []byte) (uint64, error) { return g.proposals.put(payload) }

// Room receives a value when there is room again after ErrFull.
func (g *Group) Room() <-chan struct{} { return g.proposals.room }

// End orders the END of the exchange of a view, after the proposals handed in
// before; see ring.Machine. It has no effect when that view is over, or when there
// is nothing to end.
func (g *Group) End(view ring.ViewID) { g.proposals.end(view) }

// Lock asks for a lock, Unlock gives it or the place in its queue back; see
// ring.Machine. What was asked first is done first.
func (g *Group) Lock(name string) error { return g.proposals.lock(name, true) }

// Unlock is explained at Lock.
func (g *Group) Unlock(name string) error { return g.proposals.lock(name, false) }

// Status returns a snapshot, and how the connections are.
func (g *Group) Status(ctx context.Context) (Status, error) {
	result := make(chan Status, 1)
	if err := g.post(func(time.Time) { result <- g.status() }); err != nil {
		return Status{}, err
	}
	select {
	case s := <-result:
		return s, nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	case <-g.done:
		return Status{}, ErrNotRunning
	}
}

// post hands an operation to run, which does it unless it ends before.
func (g *Group) post(op func(now time.Time)) error {
	g.mu.Lock()
	running := g.started && g.cancel != nil
	g.mu.Unlock()
	if !running {
		return ErrNotRunning
	}
	select {
	case g.ops <- op:
		return nil
	case <-g.ctx.Done():
		return ErrNotRunning
	}
}
