package pooltest

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/pooluser"
	"rserpool/registrar"
)

// Ports of the World's services.
const (
	asapPort    = asap.Port
	ringPort    = 9902
	servicePort = 8000
)

// endpoints returns a port of all registrars.
func (w *World) endpoints(port uint16) []transport.Endpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []transport.Endpoint
	for _, name := range w.registrars {
		out = append(out, transport.Endpoint{Network: transport.SCTP, Hosts: []string{name}, Port: port})
	}
	return out
}

// Registrar starts a registrar. For several, see Registrars.
func (w *World) Registrar(name string) {
	w.t.Helper()
	w.Registrars(name)
}

// Registrars starts registrars; several are a ring, with one handlespace. A World has
// one lone registrar or one ring. Elements and users that are started later know them
// all.
func (w *World) Registrars(names ...string) {
	w.t.Helper()
	w.mu.Lock()
	again := len(w.registrars) > 0
	if !again {
		w.registrars = names
	}
	w.mu.Unlock()
	if again {
		w.t.Error("pooltest: there are registrars already; start those of a ring by one call of Registrars")
		return
	}
	for _, name := range names {
		r := &registrarRole{w: w}
		w.start(name, process{run: r.run, registrar: r, settled: func() bool { return r.get() != nil }})
	}
}

// registrarRole runs a registrar.
type registrarRole struct {
	w  *World
	mu sync.Mutex
	r  *registrar.Registrar // nil before the first start and after each end
}

func (role *registrarRole) run(ctx context.Context, m *Machine) error {
	w := role.w
	at := func(port uint16) []transport.Endpoint {
		return []transport.Endpoint{{Network: transport.SCTP, Hosts: []string{m.Name()}, Port: port}}
	}
	cfg := registrar.Config{
		ID: registrarID(m.Name()), Networks: m.Networks(), ASAP: at(asapPort), Log: m.log,
		Limits: registrar.Limits{Connections: 1000}, // more than that needs descriptors, in its opinion
	}
	if peers := w.endpoints(ringPort); len(peers) > 1 {
		cfg.Ring = registrar.RingConfig{Networks: cfg.Networks, Listen: at(ringPort), Peers: peers}
	}
	if w.cfg.Registrar != nil {
		w.cfg.Registrar(m.Name(), &cfg)
	}
	r, err := registrar.New(cfg)
	if err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return ended(ctx, err)
	}
	role.set(ctx, r)
	select {
	case <-ctx.Done():
	case err = <-r.Failed():
	}
	role.unset(r)
	leave, cancel := leaving(ctx)
	defer cancel()
	return errors.Join(err, r.Stop(leave))
}

func (role *registrarRole) set(ctx context.Context, r *registrar.Registrar) {
	role.mu.Lock()
	defer role.mu.Unlock()
	if ctx.Err() == nil {
		role.r = r
	}
}

// unset forgets a registrar that ends, unless the next is there already.
func (role *registrarRole) unset(r *registrar.Registrar) {
	role.mu.Lock()
	defer role.mu.Unlock()
	if role.r == r {
		role.r = nil
	}
}

// get returns the registrar if it serves.
func (role *registrarRole) get() *registrar.Registrar {
	role.mu.Lock()
	defer role.mu.Unlock()
	if role.r != nil {
		select {
		case <-role.r.Serving():
			return role.r
		default:
		}
	}
	return nil
}

// leaving returns the context to end a process with: one that has ended already if it
// was killed.
func leaving(ctx context.Context) (context.Context, context.CancelFunc) {
	if errors.Is(context.Cause(ctx), errKilled) {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

// ended leaves out an error of a process that was killed as it started.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Server starts a TCP server that knows nothing of pools, with an element beside it
// that has it in a pool, as the side-car rsppe does. serve is called for each connection,
// in a goroutine of its own; the connection is closed when it returns. ctx ends with the
// process.
func (w *World) Server(name string, pool param.PoolHandle, serve func(ctx context.Context, conn net.Conn), change ...func(*poolelement.Config)) {
	w.t.Helper()
	role := &elementRole{w: w}
	w.start(name, process{settled: role.settled, run: func(ctx context.Context, m *Machine) error {
		l, err := m.ListenStream(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(servicePort)))
		if err != nil {
			return ended(ctx, err)
		}
		var work sync.WaitGroup
		serving, cut := context.WithCancel(context.WithoutCancel(ctx)) // until the element has left its pool
		work.Go(func() { acceptAll(serving, l, &work, serve) })
		defer func() { _ = l.Close(); cut(); work.Wait() }()

		cfg := poolelement.Config{
			Handle: pool, ID: m.peID, User: param.Transport{Type: param.TypeTCPTransport, Port: servicePort},
			Registrars: m.Registrars(), Networks: m.Networks(), Hunt: m.Hunt(), Log: m.log,
		}
		for _, f := range change {
			f(&cfg)
		}
		e, err := poolelement.New(cfg)
		if err != nil {
			return err
		}
		if err := e.Start(ctx); err != nil {
			return ended(ctx, err)
		}
		role.set(ctx, cfg.Handle, cfg.ID)
		<-ctx.Done()
		role.unset(cfg.ID)
		leave, stop := leaving(ctx)
		defer stop()
		return e.Stop(leave)
	}})
}

// acceptAll serves connections until the listener is closed and ctx has ended.
func acceptAll(ctx context.Context, l net.Listener, work *sync.WaitGroup, serve func(context.Context, net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // the listener is closed
		}
		work.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			serve(ctx, conn)
			if stop() {
				_ = conn.Close()
			}
		})
	}
}

// elementRole knows under which identifier the element of a process is in its pool.
type elementRole struct {
	w    *World
	mu   sync.Mutex
	pool param.PoolHandle
	id   param.PEID // 0 while there is none
}

// set notes the element of a process that lives until ctx ends: one that was told to end
// before it began may be late, and the next be there already.
func (role *elementRole) set(ctx context.Context, pool param.PoolHandle, id param.PEID) {
	role.mu.Lock()
	defer role.mu.Unlock()
	if ctx.Err() == nil {
		role.pool, role.id = pool, id
	}
}

// unset forgets an element that ends, unless the next is there already.
func (role *elementRole) unset(id param.PEID) {
	role.mu.Lock()
	defer role.mu.Unlock()
	if role.id == id {
		role.id = 0
	}
}

// settled tells whether all registrars that serve know the element.
func (role *elementRole) settled() bool {
	role.mu.Lock()
	defer role.mu.Unlock()
	return role.id != 0 && role.w.known(role.pool, role.id)
}

// User starts a pool user and returns it. After Kill it is stopped, and User makes
// another.
func (w *World) User(name string, change ...func(*pooluser.Config)) *pooluser.Resolver {
	w.t.Helper()
	ready := make(chan *pooluser.Resolver, 1)
	var r *pooluser.Resolver
	started := w.start(name, process{
		replaced: "the test has the user; call User again",
		settled:  func() bool { _, ok := r.Home(); return ok },
		run: func(ctx context.Context, m *Machine) error {
			cfg := pooluser.Config{
				Registrars: m.Registrars(), Networks: m.Networks(), Hunt: m.Hunt(), Rand: m.rand, Log: m.log,
				DialStream: m.DialStream,
			}
			for _, f := range change {
				f(&cfg)
			}
			r, err := pooluser.New(cfg)
			if err != nil {
				close(ready)
				return err
			}
			r.Start()
			ready <- r
			<-ctx.Done()
			r.Stop()
			return nil
		},
	})
	if started {
		r = <-ready
	}
	if r == nil {
		w.t.FailNow() // the reason has been told
	}
	return r
}
