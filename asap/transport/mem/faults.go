package mem

import (
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

// Cut holds back everything between machines a and b.
func (n *Network) Cut(a, b string) {
	n.change(func() { n.setCut(a, b, true); n.setCut(b, a, true) })
}

// CutOneWay holds back what a sends to b. An association between them fails as
// after Cut, because no acknowledgement comes; announcements still pass from b
// to a.
func (n *Network) CutOneWay(a, b string) {
	n.change(func() { n.setCut(a, b, true) })
}

// Heal ends Cut and CutOneWay between a and b.
func (n *Network) Heal(a, b string) {
	n.change(func() { n.setCut(a, b, false); n.setCut(b, a, false) })
}

func (n *Network) setCut(a, b string, cut bool) { n.link(n.machine(a), n.machine(b)).cut = cut }

// Unplug silences a machine: nothing comes in or goes out, peers see it only
// when their associations fail after FailureTime.
func (n *Network) Unplug(name string) { n.change(func() { n.machine(name).unplugged = true }) }

// Plug ends Unplug.
func (n *Network) Plug(name string) { n.change(func() { n.machine(name).unplugged = false }) }

// Freeze stops the process on a machine as SIGSTOP does: its calls don't return
// before Thaw (except by the end of their context), and connections that it closes
// end for their peers then; its machine still takes messages and connections until
// their buffers are full.
func (n *Network) Freeze(name string) { n.change(func() { n.setFrozen(name, true) }) }

// Thaw ends Freeze.
func (n *Network) Thaw(name string) { n.change(func() { n.setFrozen(name, false) }) }

func (n *Network) setFrozen(name string, frozen bool) {
	if p := n.machine(name).process; p != nil {
		p.frozen = frozen
		n.tell(p)
	}
}

// tell lets the peers of a process know of the connections that it closed while it was
// frozen.
func (n *Network) tell(p *Host) {
	for _, a := range slices.Clone(n.assocs) {
		for _, c := range a.ends {
			if c.h == p {
				c.tell()
			}
		}
	}
}

// Kill ends the process on a machine as SIGKILL does: the peers of its
// connections see them end at once, its own calls fail for ever. Host starts a
// new process with the same addresses.
func (n *Network) Kill(name string) { n.change(func() { n.machine(name).end() }) }

// Crash ends the process on a machine as a loss of power does: what was on its way is
// lost, and peers see it only when their associations fail after FailureTime. The
// machine is silent until Host starts a new process.
func (n *Network) Crash(name string) {
	n.change(func() {
		m := n.machine(name)
		if m.process == nil {
			return
		}
		m.off = true
		for _, a := range n.assocs {
			if a.ends[0].h == m.process || a.ends[1].h == m.process {
				a.broken = true
			}
		}
		m.end()
	})
}

// end ends the process on a machine.
func (m *machine) end() {
	if m.process == nil {
		return
	}
	n := m.process.n
	m.process.dead = true
	for _, l := range m.listeners {
		l.close()
	}
	for _, a := range slices.Clone(n.assocs) {
		for _, c := range a.ends {
			if c.h == m.process {
				c.end(fin)
			}
		}
	}
	n.tell(m.process)
	for _, a := range slices.Clone(n.announcers) {
		if a.h == m.process {
			a.close()
		}
	}
	m.process = nil
}

// PathDown takes one address of a machine away. Peers of its associations get a
// PathDown event and use the other addresses; without any the associations fail
// after FailureTime.
func (n *Network) PathDown(addr string) { n.setPath(addr, true) }

// PathUp ends PathDown.
func (n *Network) PathUp(addr string) { n.setPath(addr, false) }

func (n *Network) setPath(s string, down bool) {
	addr := netip.MustParseAddr(s)
	n.change(func() {
		m := n.byAddr[addr]
		if m == nil {
			panic("mem: no machine has address " + s)
		}
		if m.downAddrs[addr] == down {
			return
		}
		m.downAddrs[addr] = down
		event := transport.Event{Type: transport.PathUp}
		if down {
			event.Type = transport.PathDown
		}
		for _, a := range n.assocs {
			for _, c := range a.ends {
				for _, remote := range c.remote {
					if remote.Addr() == addr && c.err == nil && !c.closed {
						event.Addr = remote
						c.events.Put(event)
					}
				}
			}
		}
	})
}

// Delay makes messages between machines a and b take from min to max, in both
// directions. Messages of one connection keep their order.
func (n *Network) Delay(a, b string, min, max time.Duration) {
	n.change(func() {
		for _, l := range []*link{n.link(n.machine(a), n.machine(b)), n.link(n.machine(b), n.machine(a))} {
			l.min, l.max = min, max
		}
	})
}

// DropNext makes the next message or announcement that match accepts vanish, as
// if a process had swallowed it. Several calls take several messages. match must
// not call back.
func (n *Network) DropNext(match func(data []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drops = append(n.drops, match)
}

// change makes a fault come or go and lets everything notice.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for _, a := range slices.Clone(n.assocs) {
		n.recheck(a)
	}
	n.changed.fire()
}

// recheck notices whether an association has a working path.
func (n *Network) recheck(a *assoc) {
	working := a.works()
	if working {
		for _, c := range a.ends {
			c.pump()
		}
	}
	if working == a.working {
		return
	}
	a.working = working
	if working {
		a.failing.Stop()
		return
	}
	a.failing = time.AfterFunc(n.FailureTime, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if a.working {
			return
		}
		for _, c := range a.ends {
			c.lost(syscall.ETIMEDOUT)
		}
		n.forget(a)
	})
}
