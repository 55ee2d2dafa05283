package mem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"rserpool/asap/transport"
)

// maxDatagrams is how many datagrams wait for a receiver before more are lost.
const maxDatagrams = 64

type datagram struct {
	data   []byte
	source netip.AddrPort
	at     time.Time // when it arrives
}

type announcer struct {
	n      *Network
	h      *Host
	group  netip.AddrPort
	flight []datagram // by time of arrival
	queue  []datagram
	closed bool
	wake   signal
}

// Announcer joins a multicast group, which needs no more than a name: any address
// and port. Announcements reach all members, those on the sender's machine and
// the sender included; their source is the sender's first working address with
// the group's port.
func (h *Host) Announcer(group netip.AddrPort) (transport.Announcer, error) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.dead {
		return nil, fmt.Errorf("mem: process on %q: %w", h.m.name, net.ErrClosed)
	}
	a := &announcer{n: h.n, h: h, group: group}
	h.n.announcers = append(h.n.announcers, a)
	return a, nil
}

func (a *announcer) Announce(ctx context.Context, data []byte) error {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	if err := a.h.running(ctx, &a.closed); err != nil {
		return err
	}
	up := a.h.m.up(a.h.m.addrs)
	if len(up) == 0 {
		return errors.Join(errors.New("mem: announce"), syscall.ENETUNREACH)
	}
	d := datagram{data: slices.Clone(data), source: netip.AddrPortFrom(up[0], a.group.Port())}
	for _, to := range a.n.announcers {
		if to.group != a.group || !a.n.reaches(a.h.m, to.h.m) || len(to.h.m.up(to.h.m.addrs)) == 0 || a.n.dropped(data) {
			continue
		}
		to.send(d, a.n.link(a.h.m, to.h.m).delay())
	}
	return nil
}

// send lets d arrive at a after delay, unless too many are on their way.
func (a *announcer) send(d datagram, delay time.Duration) {
	if len(a.flight) == maxDatagrams {
		return
	}
	d.at = time.Now().Add(delay)
	i := len(a.flight)
	for i > 0 && a.flight[i-1].at.After(d.at) {
		i--
	}
	a.flight = slices.Insert(a.flight, i, d)
	if delay == 0 {
		a.arrive()
		return
	}
	time.AfterFunc(delay, func() {
		a.n.mu.Lock()
		defer a.n.mu.Unlock()
		a.arrive()
	})
}

// arrive takes what is due. Timers of one instant fire in any order, so each
// takes all of it.
func (a *announcer) arrive() {
	for len(a.flight) > 0 && !a.flight[0].at.After(time.Now()) {
		if len(a.queue) < maxDatagrams && !a.closed {
			a.queue = append(a.queue, a.flight[0])
			a.wake.fire()
		}
		a.flight = a.flight[1:]
	}
}

func (a *announcer) ReceiveAnnouncement(ctx context.Context, buf []byte) (int, netip.AddrPort, error) {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	for {
		if err := a.h.running(ctx, &a.closed); err != nil {
			return 0, netip.AddrPort{}, err
		}
		for len(a.queue) > 0 {
			d := a.queue[0]
			a.queue = a.queue[1:]
			if len(d.data) <= len(buf) {
				return copy(buf, d.data), d.source, nil
			}
		}
		if err := a.n.wait(ctx, &a.wake); err != nil {
			return 0, netip.AddrPort{}, err
		}
	}
}

func (a *announcer) Close() error {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	a.close()
	return nil
}

func (a *announcer) close() {
	if a.closed {
		return
	}
	a.closed, a.queue = true, nil
	a.n.announcers = slices.DeleteFunc(a.n.announcers, func(x *announcer) bool { return x == a })
	a.wake.fire()
	a.n.changed.fire()
}
