package poolelement

import (
	"fmt"
	"net/netip"
	"slices"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// link is the machine's view of an association to a registrar.
type link struct {
	network       string
	local, remote []netip.AddrPort
	// control is the port on which registrars reach the element, 0 for none.
	// On SCTP it is the association's own.
	control uint16
}

// name returns the registrar's primary address.
func (l *link) name() string {
	if len(l.remote) == 0 {
		return l.network + "://"
	}
	return l.network + "://" + l.remote[0].String()
}

// transports returns the user transport and the ASAP transport to register over
// the association l.
//
// Addresses that the configuration leaves open are the association's own (RFC
// 5352, section 2.2.1). Loopback addresses go to registrars on loopback only: to
// others they would name the registrar's or the user's own host.
//
// On SCTP the registrar takes the ASAP transport from the association. On other
// networks, an extension of ours, it is the element's control port.
func (c *Config) transports(l *link) (user, asap param.Transport, err error) {
	own := reachable(addrs(l.local), l.remote)
	user = c.User
	if user.Type != param.TypeOpaqueTransport {
		if len(user.Addrs) == 0 {
			user.Addrs = own
		} else {
			user.Addrs = reachable(user.Addrs, l.remote)
		}
		if len(user.Addrs) == 0 {
			return user, asap, fmt.Errorf("%w: nothing but loopback, and registrar %s is not on this host", ErrNoAddress, l.name())
		}
		if user.Type != param.TypeSCTPTransport {
			user.Addrs = user.Addrs[:1:1]
		}
	}
	if l.network != transport.SCTP && l.control != 0 {
		if len(own) == 0 {
			return user, asap, fmt.Errorf("%w: association to registrar %s has none", ErrNoAddress, l.name())
		}
		asap = param.Transport{Type: param.TypeTCPTransport, Port: l.control, Addrs: own[:1:1]}
	}
	return user, asap, nil
}

// reachable returns the addresses that mean something to the peer. Link-local ones
// mean nothing to most pool users; they stay if there is nothing else.
func reachable(local []netip.Addr, remote []netip.AddrPort) []netip.Addr {
	onHost := len(remote) > 0 && remote[0].Addr().IsLoopback()
	var out []netip.Addr
	for _, a := range local {
		a = a.Unmap().WithZone("")
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() && !onHost || slices.Contains(out, a) {
			continue
		}
		out = append(out, a)
	}
	if slices.ContainsFunc(out, func(a netip.Addr) bool { return !a.IsLinkLocalUnicast() }) {
		out = slices.DeleteFunc(out, netip.Addr.IsLinkLocalUnicast)
	}
	return out
}

func addrs(ports []netip.AddrPort) []netip.Addr {
	out := make([]netip.Addr, len(ports))
	for i, p := range ports {
		out[i] = p.Addr()
	}
	return out
}
