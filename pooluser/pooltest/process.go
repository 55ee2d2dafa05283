package pooltest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"

	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
)

// Causes of the end of a process's context.
var (
	errKilled  = errors.New("killed")
	errStopped = errors.New("stopped")
)

// process is what runs, or ran, on the machine of its name. World.mu guards it.
type process struct {
	name   string
	number int // of the machine
	run    func(ctx context.Context, m *Machine) error
	starts int
	hung   bool
	life   *life // of the latest start

	// settled tells whether the process is where its role wants it; nil for
	// those of Start. It is called without World.mu.
	settled   func() bool
	registrar *registrarRole // of registrars
	replaced  string         // why Restart can't start it again, and what does
}

// life is one run of a process.
type life struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	done   chan struct{}
}

// alive tells whether the process runs and nobody has asked it to end.
func (p *process) alive() bool { return p.life != nil && p.life.ctx.Err() == nil }

// end cancels the context of the process.
func (p *process) end(cause error) {
	p.hung = false
	if p.life != nil {
		p.life.cancel(cause)
	}
}

// Machine is what a process sees of the machine that it runs on. After the end of the
// process nothing can be done with it.
type Machine struct {
	w    *World
	p    *process
	host *mem.Host
	addr netip.Addr
	log  *logrus.Logger
	rand *rand.Rand
	peID param.PEID

	mu sync.Mutex // guards hunting
	// hunting is the random source of hunts for registrars.
	hunting *rand.Rand
}

// Name returns the name of the process.
func (m *Machine) Name() string { return m.p.name }

// Addr returns the machine's first address.
func (m *Machine) Addr() netip.Addr { return m.addr }

// Networks returns the networks of the machine that carry messages: SCTP.
func (m *Machine) Networks() *transport.Networks {
	return transport.NewNetworks(m.host.As(transport.SCTP))
}

// DialStream connects by TCP to an address, or to a machine by its name, as "e1:80". It
// has the form of (*net.Dialer).DialContext.
func (m *Machine) DialStream(ctx context.Context, network, address string) (net.Conn, error) {
	return m.host.DialStream(ctx, network, address)
}

// ListenStream listens by TCP. It has the form of (*net.ListenConfig).Listen.
func (m *Machine) ListenStream(ctx context.Context, network, address string) (net.Listener, error) {
	return m.host.ListenStream(ctx, network, address)
}

// Registrars returns where the registrars of the World are.
func (m *Machine) Registrars() []transport.Endpoint { return m.w.endpoints(asapPort) }

// Log returns the logger of the process. What it gets is shown when the test fails.
func (m *Machine) Log() logrus.FieldLogger { return m.log }

// Rand returns a random source of the seed, the same for each same start of the process.
// It is for one goroutine at a time.
func (m *Machine) Rand() *rand.Rand { return m.rand }

// PEID returns a PE identifier that the process has for itself. World.Who knows it.
func (m *Machine) PEID() param.PEID { return m.peID }

// Hunt returns the default timers of hunts for registrars, with a random source.
func (m *Machine) Hunt() hunt.Config {
	cfg := hunt.Default()
	cfg.Jitter = 0.2
	cfg.Rand = func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.hunting.Float64()
	}
	return cfg
}

// Machine gives a machine its IP addresses before a process is started on it. Without,
// it gets one of 10.0.0.0/8.
func (w *World) Machine(name string, addrs ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(name, addrs...)
}

// add returns the process of this name, after making its machine if there is none.
func (w *World) add(name string, addrs ...string) *process {
	if p := w.find(name); p != nil {
		return p
	}
	p := &process{name: name, number: len(w.processes) + 1}
	w.net.Host(name, addrs...)
	if lo, hi := w.cfg.MinDelay, max(w.cfg.MinDelay, w.cfg.MaxDelay); lo >= 0 {
		for _, other := range w.processes {
			w.net.Delay(name, other.name, lo, hi)
		}
	}
	w.processes = append(w.processes, p)
	return p
}

func (w *World) find(name string) *process {
	if i := slices.IndexFunc(w.processes, func(p *process) bool { return p.name == name }); i >= 0 {
		return w.processes[i]
	}
	return nil
}

// Start starts a process of the application's own on the machine of this name, such as
// a server with several pools. run returns when ctx ends: at once when its cause is a
// kill, else after it has put its things in order. An earlier return with an error fails
// the test. Restart calls run again.
func (w *World) Start(name string, run func(ctx context.Context, m *Machine) error) {
	w.t.Helper()
	w.start(name, process{run: run})
}

// start starts a process of a role, and tells whether it could.
func (w *World) start(name string, role process) bool {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.add(name)
	if p.alive() {
		w.t.Errorf("pooltest: %s runs already", name)
		return false
	}
	p.run, p.settled, p.registrar, p.replaced = role.run, role.settled, role.registrar, role.replaced
	w.launch(p)
	return true
}

// launch lets a process run, once more maybe.
func (w *World) launch(p *process) {
	if w.closed {
		return
	}
	if p.life != nil {
		w.net.Kill(p.name) // one that was stopped and has not ended
	}
	p.starts++
	m := w.machine(p)
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &life{cancel: cancel, ctx: ctx, done: make(chan struct{})}
	p.life = l
	w.diary.note(p.name, "START")
	run := p.run
	w.work.Go(func() {
		defer close(l.done)
		err := run(ctx, m)
		switch {
		case ctx.Err() == nil && err != nil:
			w.t.Errorf("pooltest: %s ended by itself: %v", p.name, err)
		case err != nil && !errors.Is(context.Cause(ctx), errKilled):
			w.diary.note(p.name, fmt.Sprintf("ended: %v", err))
		}
	})
}

// machine returns what the next life of a process sees.
func (w *World) machine(p *process) *Machine {
	name := fmt.Sprintf("%s#%d", p.name, p.starts)
	m := &Machine{
		w: w, p: p, host: w.net.Host(p.name), log: w.diary.log(p.name),
		rand: w.random(name), hunting: w.random(name + " hunts"),
		peID: param.PEID(p.number<<16 | p.starts&0xffff),
	}
	w.elements[m.peID] = p.name
	addrs, err := m.host.LookupNetIP(context.Background(), "ip", p.name)
	if err != nil {
		panic(err) // the machine was just made
	}
	m.addr = addrs[0]
	return m
}

// Who returns the name of the element that has an identifier, of the present start or
// an earlier one, and "" for one that no element has.
func (w *World) Who(id param.PEID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.elements[id]
}

// registrarID returns a registrar's identifier, which it keeps.
func registrarID(name string) param.RegistrarID {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return param.RegistrarID(h.Sum32() | 1)
}
