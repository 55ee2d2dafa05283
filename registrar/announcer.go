package registrar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// announcer is the driver of the announce machine: one goroutine that sends to
// all groups when the owner loop says so, and one per group that listens for
// other registrars. Announcements are hints and nobody's identity.
type announcer struct {
	r          *Registrar
	listeners  []listening // all, as Stop forgets the registrar's
	groups     []transport.Announcer
	interfaces func() ([]netip.Addr, error)
	due        chan struct{}
	trouble    string // of the latest message, as logged
}

// newAnnouncer opens the configured groups.
func (r *Registrar) newAnnouncer(ctx context.Context) (*announcer, error) {
	a := &announcer{r: r, listeners: r.listeners, interfaces: interfaceAddrs, due: make(chan struct{}, 1)}
	for _, open := range r.cfg.Announce {
		group, err := open(ctx)
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
		a.groups = append(a.groups, group)
	}
	return a, nil
}

// message is the announcement: the addresses of the ASAP listeners that the
// machine has now, which may be others than when the registrar started.
func (a *announcer) message() ([]byte, error) {
	m := asap.ServerAnnounce{Registrar: a.r.id}
	var errs []error
	for _, l := range a.listeners {
		if l.port == protoASAP {
			transports, err := a.transports(l)
			m.Transports = append(m.Transports, transports...)
			errs = append(errs, err)
		}
	}
	trouble := ""
	if err := errors.Join(errs...); err != nil {
		trouble = err.Error()
	}
	if trouble != a.trouble && trouble != "" {
		a.r.cfg.Log.Warn(trouble)
	}
	a.trouble = trouble
	return m.Append(nil)
}

// transports are those to announce for a listener: one with all addresses for
// SCTP, one per address for TCP, which has one address each. rsplib reads only a
// single SCTP transport.
func (a *announcer) transports(l listening) ([]param.Transport, error) {
	addrs, err := usable(l.Addrs(), a.interfaces)
	if err != nil {
		return nil, fmt.Errorf("%s listener is not announced: %w", l.Network(), err)
	}
	if l.Network() != transport.TCP {
		return []param.Transport{endpointTransport(l.Network(), addrs)}, nil
	}
	if a.r.rsplib() {
		return nil, nil
	}
	var out []param.Transport
	for i := range addrs {
		out = append(out, endpointTransport(transport.TCP, addrs[i:i+1]))
	}
	return out, nil
}

// endpointTransport describes an ASAP or ENRP endpoint; a TCP transport has room
// for one address.
func endpointTransport(network string, addrs []netip.AddrPort) param.Transport {
	t := param.Transport{Type: param.TypeSCTPTransport, Port: addrs[0].Port()}
	if network == transport.TCP {
		t.Type = param.TypeTCPTransport
		addrs = addrs[:1]
	}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, a.Addr())
	}
	return t
}

// start begins to send and to listen; close ends it.
func (a *announcer) start() {
	if len(a.groups) == 0 {
		return
	}
	a.r.group.Go(a.send)
	for _, g := range a.groups {
		a.r.group.Go(func() { a.listen(g) })
	}
}

// wake has an announcement sent.
func (a *announcer) wake() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

func (a *announcer) close() error {
	var errs []error
	for _, g := range a.groups {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}

func (a *announcer) send() {
	for {
		select {
		case <-a.r.ctx.Done():
			return
		case <-a.due:
		}
		message, err := a.message()
		if err != nil {
			a.r.cfg.Log.WithError(err).Error("cannot encode an announcement")
			continue
		}
		for _, g := range a.groups {
			if err := g.Announce(a.r.ctx, message); err != nil && a.r.ctx.Err() == nil {
				a.r.cfg.Log.WithError(err).Debug("announcement not sent")
			}
		}
	}
}

// announceSize is the longest announcement read.
const announceSize = 2048

func (a *announcer) listen(g transport.Announcer) {
	buf := make([]byte, announceSize)
	for {
		n, _, err := g.ReceiveAnnouncement(a.r.ctx, buf)
		if err != nil {
			if a.r.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				a.r.cfg.Log.WithError(err).Warn("announcements of others are not heard any more")
			}
			return
		}
		// Nothing is ever answered to a multicast datagram (AMB-15).
		m, _, err := asap.Decode(buf[:n])
		if err != nil {
			a.r.metrics.decodeErrors.WithLabelValues(string(protoASAP), "announcement").Inc()
			continue
		}
		if m, ok := m.(*asap.ServerAnnounce); ok {
			a.r.post(func(now time.Time) { a.r.owner.announce.hear(m.Registrar, now) })
		}
	}
}

// interfaceAddrs returns the addresses of this machine that others can use:
// loopback ones only if there are no others, and none that need a zone.
func interfaceAddrs() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs, loopback []netip.Addr
	for _, f := range found {
		ipNet, ok := f.(*net.IPNet)
		if !ok {
			continue
		}
		a, ok := netip.AddrFromSlice(ipNet.IP)
		switch a = a.Unmap(); {
		case !ok || a.IsLinkLocalUnicast():
		case a.IsLoopback():
			loopback = append(loopback, a)
		default:
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return loopback, nil
	}
	return addrs, nil
}
