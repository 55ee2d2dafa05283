// Package pooltest lets tests see how an application behaves when its servers fail. It
// starts registrars, pool elements and pool users, the real ones, on machines in memory
// and in virtual time, and kills, hangs and cuts them by name:
//
//	func TestFailover(t *testing.T) {
//		pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
//			w.Registrar("r1")
//			w.Server("e1", "squares", serve) // serve is what the application is made of
//			w.Server("e2", "squares", serve)
//			user := w.User("u1")
//			w.Settle()
//
//			conn, err := user.Dial(t.Context(), "squares")
//			...
//			w.Kill(w.Who(conn.Element.ID))
//			...
//		})
//	}
//
// Everything runs in a bubble of package testing/synctest: sleeps and time-outs, of the
// application as of the library, cost no time, and a minute of outage is over within
// milliseconds. What runs in it must wait by channels, timers and the World's networks
// only, not by sockets or files, and end when its context does.
//
// A seed fixes the delays of the network, identifiers, and what policies and timers draw.
// Seeds runs a test for many of them. When a test fails, its seed, what was done to the
// World and the log of its processes are printed; the same test runs again with the
// environment variable SEED. Of what happens within one instant of virtual time Go's
// scheduler chooses the order, so a failure that hangs on that may need several runs.
package pooltest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport/mem"
	"rserpool/registrar"
)

// Config describes a World. A zero field means its default.
type Config struct {
	// Seed is where all randomness comes from. Default: the environment
	// variable SEED, else 1.
	Seed uint64
	// MinDelay and MaxDelay bound how long a message takes from machine to
	// machine. Defaults 100 µs and 500 µs; negative: none.
	MinDelay, MaxDelay time.Duration
	// FailureTime is how long a connection lives without a way between its
	// ends before both see it fail, by Isolate, Cut or Crash. Default 10 s.
	FailureTime time.Duration
	// SCTP makes Element and StreamElement serve over SCTP, in place of TCP.
	SCTP bool
	// Registrar changes the configuration that registrars start with, which
	// is the registrar package's default.
	Registrar func(name string, cfg *registrar.Config)
}

// World is the machines of a test and the network between them. A process of one kind
// runs on each: a registrar, a pool element, a pool user, or what Start was given. Its
// methods may be called concurrently, by the goroutines of its bubble. Those that take
// the name of a process fail the test when there is none of that name.
//
// It ends with its test: all processes are killed and awaited.
type World struct {
	t     testing.TB
	cfg   Config
	net   *mem.Network
	diary *diary
	work  sync.WaitGroup // a goroutine for each process
	over  chan struct{}  // closed at the end

	mu         sync.Mutex // guards what follows, and all of the processes
	rand       *rand.Rand
	processes  []*process // in the order of their first start
	registrars []string   // names of those that were announced, see Registrars
	cuts       [][2]string
	isolated   map[string]bool
	elements   map[param.PEID]string
	closed     bool
}

// Run runs f in a bubble of virtual time with an empty World.
func Run(t *testing.T, f func(t *testing.T, w *World), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var cfg Config
		for _, c := range change {
			c(&cfg)
		}
		f(t, New(t, cfg))
	})
}

// Seeds runs f with n seeds, from 1 on, each as a subtest in a World of its own. The
// environment variable SEEDS gives another number, SEED the only seed.
func Seeds(t *testing.T, n int, f func(t *testing.T, w *World), change ...func(*Config)) {
	t.Helper()
	first := uint64(1)
	if seed, ok := number(t, "SEED"); ok {
		first, n = seed, 1
	} else if seeds, ok := number(t, "SEEDS"); ok {
		n = int(seeds)
	}
	for i := range n {
		seed := first + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			Run(t, f, append(change[:len(change):len(change)], func(cfg *Config) { cfg.Seed = seed })...)
		})
	}
}

// number reads a positive number from the environment.
func number(t testing.TB, name string) (uint64, bool) {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("pooltest: environment variable %s is %q, not a positive number", name, s)
	}
	return n, true
}

// New makes an empty World in the bubble of testing/synctest that the caller runs in.
func New(t testing.TB, cfg Config) *World {
	t.Helper()
	if cfg.Seed == 0 {
		cfg.Seed = 1
		if seed, ok := number(t, "SEED"); ok {
			cfg.Seed = seed
		}
	}
	if cfg.MinDelay == 0 {
		cfg.MinDelay = 100 * time.Microsecond
	}
	if cfg.MaxDelay == 0 {
		cfg.MaxDelay = 500 * time.Microsecond
	}
	if !inBubble() {
		t.Fatal("pooltest: New must be called in a bubble of testing/synctest; Run makes one")
	}
	w := &World{
		t: t, cfg: cfg, net: mem.NewNetwork(cfg.Seed), diary: newDiary(),
		isolated: map[string]bool{}, elements: map[param.PEID]string{}, over: make(chan struct{}),
	}
	if cfg.FailureTime > 0 {
		w.net.FailureTime = cfg.FailureTime
	}
	w.rand = w.random("test")
	t.Cleanup(w.close)
	return w
}

func inBubble() (in bool) {
	defer func() { in = recover() == nil }()
	synctest.Wait()
	return
}

// random returns a source of its own for each name.
func (w *World) random(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(w.cfg.Seed, h.Sum64()))
}

// Seed returns the seed.
func (w *World) Seed() uint64 { return w.cfg.Seed }

// Rand returns a random source for the test, of the seed. It is for one goroutine at a
// time.
func (w *World) Rand() *rand.Rand { return w.rand }

// Network returns the network in memory, for faults that World has no method for: paths
// of multi-homed machines, one-way cuts, single lost messages, delays.
func (w *World) Network() *mem.Network { return w.net }

// close ends the processes, and tells what happened if the test has failed.
func (w *World) close() {
	failed := w.t.Failed() // not by what processes say of their end
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.over)
	}
	for _, p := range w.processes {
		w.net.Kill(p.name)
		p.end(errKilled)
	}
	w.mu.Unlock()
	w.work.Wait()
	if failed || w.t.Failed() {
		root, sub, _ := strings.Cut(w.t.Name(), "/")
		if sub != "" {
			sub = "/^" + strings.ReplaceAll(sub, "/", "$/^") + "$"
		}
		w.t.Logf("pooltest: seed %d; again: SEED=%d go test -run '^%s$%s'\n%s", w.cfg.Seed, w.cfg.Seed, root, sub, w.diary)
	}
}
