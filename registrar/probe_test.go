package registrar

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// hooked is a network whose dials and accepted connections a test changes.
type hooked struct {
	transport.Network
	dial   func() error
	late   func(context.Context, transport.Conn) transport.Conn // after a dial
	accept func(transport.Conn) transport.Conn
}

func (n hooked) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	if n.dial != nil {
		if err := n.dial(); err != nil {
			return nil, err
		}
	}
	c, err := n.Network.Dial(ctx, local, remote, opt)
	if err == nil && n.late != nil {
		c = n.late(ctx, c)
	}
	return c, err
}

func (n hooked) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Network.Listen(ctx, local, opt)
	return hookedListener{l, n.accept}, err
}

type hookedListener struct {
	transport.Listener
	accept func(transport.Conn) transport.Conn
}

func (l hookedListener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err == nil && l.accept != nil {
		c = l.accept(c)
	}
	return c, err
}

func hook(h hooked) func(*Config) {
	return func(c *Config) {
		h.Network, _ = c.Networks.Get(transport.Mem)
		c.Networks = transport.NewNetworks(h)
	}
}

// hookTCP does it to what passes for TCP.
func hookTCP(h hooked) func(*Config) {
	return func(c *Config) {
		overTCP(c)
		h.Network, _ = c.Networks.Get(transport.TCP)
		c.Networks = transport.NewNetworks(h)
	}
}

// TestDials shows that the registrar's own troubles and the slowness of some dials
// cost no element its registration.
func TestDials(t *testing.T) {
	t.Run("a dial that fails for want of descriptors says nothing of the element", func(t *testing.T) {
		var outcome atomic.Value
		outcome.Store(error(syscall.EMFILE))
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.leave()
			w.after(10 * time.Second)
			w.wantStored(pool, 1, true)
			outcome.Store(error(syscall.ECONNREFUSED))
			w.after(2 * time.Second)
			w.wantStored(pool, 1, false)
		}, hook(hooked{dial: func() error {
			return &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", outcome.Load().(error))}
		}}))
	})
	t.Run("a dial from before does not harm an element that has registered again", func(t *testing.T) {
		var hold chan struct{}
		inWorld(t, func(w *world) {
			hold = make(chan struct{})
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort() // the dial hangs now
			w.after(time.Second)
			again := pe.sibling(50001)
			again.join(pool, again.element(1))
			again.answerFor(pool) // slowly
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			w.after(time.Second)
			if _, ok := one[asap.Message](again).(*asap.EndpointKeepAlive); !ok {
				t.Error("not asked")
			}
			close(hold) // the dial fails
			w.after(time.Second)
			w.wantStored(pool, 1, true)
			again.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
			w.after(10 * time.Second)
			w.wantStored(pool, 1, true)
		}, hook(hooked{dial: func() error { <-hold; return syscall.ECONNREFUSED }}))
	})
	t.Run("nor does it when the element has the same control port as before", func(t *testing.T) {
		var hold chan struct{}
		inWorld(t, func(w *world) {
			hold = make(chan struct{})
			pe, pu := w.peer(), w.peer()
			e := pe.element(1)
			e.ASAP = param.Transport{Type: param.TypeTCPTransport, Port: 6000, Addrs: e.User.Addrs}
			pe.join(pool, e)
			pe.conn.Abort()
			w.after(time.Second)
			again := pe.sibling(50001)
			again.join(pool, e)
			again.answerFor(pool)
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			w.after(time.Second)
			close(hold)
			w.after(time.Second)
			w.wantStored(pool, 1, true)
		}, hookTCP(hooked{dial: func() error { <-hold; return syscall.ECONNREFUSED }}))
	})
	t.Run("nor does it when the element is being dialled elsewhere", func(t *testing.T) {
		var dials chan chan struct{}
		inWorld(t, func(w *world) {
			dials = make(chan chan struct{}, 9)
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort()
			w.after(time.Second)
			first := <-dials
			again := pe.sibling(50001)
			again.join(pool, again.element(1))
			again.conn.Abort()
			w.after(2 * time.Second)
			second := <-dials
			close(first)
			w.after(time.Second)
			w.wantStored(pool, 1, true)
			close(second)
			w.after(time.Second)
			w.wantStored(pool, 1, false)
		}, hook(hooked{dial: func() error {
			hold := make(chan struct{})
			dials <- hold
			<-hold
			return syscall.ECONNREFUSED
		}}))
	})
	t.Run("not more at a time than allowed", func(t *testing.T) {
		var now, most int // in one bubble one goroutine runs at a time, but not by the race detector's rules
		var mu sync.Mutex
		inWorld(t, func(w *world) {
			pe := w.peer()
			for id := range param.PEID(9) {
				e := pe.element(id + 1)
				e.ASAP = param.Transport{Type: param.TypeTCPTransport, Port: uint16(6000 + id), Addrs: e.User.Addrs}
				pe.join(pool, e)
			}
			pe.conn.Abort()
			w.after(20 * time.Second)
			if n := w.r.space.Counts().Elements; most != 2 || n != 0 {
				t.Errorf("%d at a time, %d elements left", most, n)
			}
		}, limits(func(l *Limits) { l.Dials = 2 }), hookTCP(hooked{dial: func() error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return syscall.ECONNREFUSED
		}}))
	})
	t.Run("a connection to an element that falls is made anew", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.calm = true
			pe.join(pool, pe.element(1))
			pe.conn.Abort()
			w.after(3 * time.Second)
			for n := range 3 {
				pe.mu.Lock()
				latest := pe.incoming[len(pe.incoming)-1]
				pe.mu.Unlock()
				if len(pe.incoming) != n+1 {
					t.Fatalf("%d connections made", len(pe.incoming))
				}
				latest.Abort()
				w.after(3 * time.Second)
			}
			w.after(10 * time.Second)
			w.wantStored(pool, 1, true)
		})
	})
	t.Run("an element that speaks up while its dial waits stays", func(t *testing.T) {
		var hold chan struct{}
		inWorld(t, func(w *world) {
			hold = make(chan struct{})
			other, pe := w.peer(), w.peer()
			other.join(pool, other.element(1))
			pe.join(pool, pe.element(2))
			other.conn.Abort() // takes the only dial
			w.after(time.Millisecond)
			pe.conn.Abort() // has to wait
			w.after(time.Millisecond)
			again := pe.sibling(50001)
			again.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 2})
			w.after(time.Second)
			close(hold)
			w.after(20 * time.Second) // no keep-alive is due before 15 s
			w.wantStored(pool, 1, false)
			again.answerFor(pool, 2)
			w.wantStored(pool, 2, true)
		}, limits(func(l *Limits) { l.Dials = 1 }),
			timers(func(t *Timers) { t.KeepAlive.Interval = time.Hour }),
			hook(hooked{dial: func() error { <-hold; return syscall.ECONNREFUSED }}))
	})
	t.Run("connections to elements count like others", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.calm = true
			for id := range param.PEID(3) {
				e := pe.element(id + 1)
				e.ASAP = param.Transport{Type: param.TypeTCPTransport, Port: uint16(6000 + id), Addrs: e.User.Addrs}
				pe.join(param.PoolHandle(fmt.Sprint("pool", id)), e)
				l, err := pe.host.Listen(pe.ctx, []netip.AddrPort{netip.AddrPortFrom(e.User.Addrs[0], e.ASAP.Port)}, transport.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				pe.group.Go(func() {
					if c, err := l.Accept(pe.ctx); err == nil {
						pe.group.Go(func() { pe.receive(c) })
					}
				})
			}
			pe.conn.Abort()
			w.after(4 * time.Second)
			if n := w.r.census.len(); n != 2 || w.exceeded("connections_per_address") == 0 {
				t.Errorf("%d connections, %d refused", n, w.exceeded("connections_per_address"))
			}
			for id := range param.PEID(3) { // whoever has to wait
				w.wantStored(param.PoolHandle(fmt.Sprint("pool", id)), id+1, true)
			}
		}, overTCP, limits(func(l *Limits) { l.ConnectionsPerAddress, l.Dials = 2, 1 }))
	})
	t.Run("clients take turns", func(t *testing.T) {
		var l lines
		target := func(name string) *target { return &target{name: name} }
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		for n := range 4 {
			l.push(a, target(fmt.Sprint("a", n)))
		}
		l.push(b, target("b0"))
		var got []string
		for next := l.pop(); next != nil; next = l.pop() {
			got = append(got, next.name)
		}
		if want := []string{"a0", "b0", "a1", "a2", "a3"}; !slices.Equal(got, want) || len(l.waiting) != 0 {
			t.Errorf("order %v, %d lines left", got, len(l.waiting))
		}
	})
}

// TestStopLeavesNoConnection shows that a connection to an element that comes up
// while the registrar stops is closed.
func TestStopLeavesNoConnection(t *testing.T) {
	for range 20 { // whether the loop gets to see it is chance
		closed := 0
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort()
			w.after(time.Second)
			if err := w.r.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}, hook(hooked{late: func(ctx context.Context, c transport.Conn) transport.Conn {
			<-ctx.Done()
			return counting{c, &closed}
		}}))
		if closed == 0 {
			t.Fatal("connection left open")
		}
	}
}

// counting counts how often a connection is closed.
type counting struct {
	transport.Conn
	closed *int
}

func (c counting) Close() error { *c.closed++; return c.Conn.Close() }
func (c counting) Abort() error { *c.closed++; return c.Conn.Abort() }

// A crowd of keep-alives must not fill the send queue of the one connection that
// leads to them all, and so cut it.
func TestManyElementsBehindOneAssociation(t *testing.T) {
	const n = 2000
	inWorld(t, func(w *world) {
		p := w.host()
		p.listen()
		p.connect(asapAddr)
		for i := range n {
			id := param.PEID(i + 1)
			handle := param.PoolHandle(id.String()) // a keep-alive names no element
			p.answerFor(handle, id)
			p.sendOn(p.conn, &asap.Registration{Handle: handle, Element: p.element(id)})
		}
		w.after(time.Second)
		if got := w.r.space.Counts().Elements; got != n {
			t.Fatalf("%d elements", got)
		}
		p.conn.Abort()
		w.after(2 * time.Minute)
		if c := w.r.space.Counts(); c.Elements != n || c.Suspects > 0 {
			t.Errorf("after the association has fallen: %d elements, %d suspects", c.Elements, c.Suspects)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.incoming) != 1 {
			t.Errorf("%d new associations, want 1", len(p.incoming))
		}
	})
}
